"""Top k and scores of pairs, block against block."""
