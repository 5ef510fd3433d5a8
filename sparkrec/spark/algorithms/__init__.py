"""Models that Spark fits in closed form."""
