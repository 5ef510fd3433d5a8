"""Scoring, the best k, neighbours."""
