"""One process's view of training: its batches, losses and updates, what it sends to the others, its checkpoints."""
