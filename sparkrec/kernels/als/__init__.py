"""Half-steps of alternating least squares."""
