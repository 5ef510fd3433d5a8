"""Gradients of models, row by row, without torch; and the negatives they are taken at."""
