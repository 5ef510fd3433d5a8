"""From one night to the next: what may be trained on, what may be served, since when, and how to go back."""
