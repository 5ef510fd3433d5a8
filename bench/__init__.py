"""Side by side with other implementations, in turn, on this machine: `python -m bench als`."""
