"""A fitted model: two tables of rows and what scores them; who asks, and why it answers as it does."""
