"""From settings and a dataset to a fitted model."""
