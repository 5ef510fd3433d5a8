"""Sources that change are followed: what has come is added to the interactions, and what has gone is taken away."""
