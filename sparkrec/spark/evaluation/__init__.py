"""Metrics of recommendations and of models, in one pass."""
