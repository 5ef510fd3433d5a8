"""Pure functions on arrays: the arithmetic of sparkrec. No Spark, no torch, no I/O.

Every kernel takes plain numpy arrays (read-only, misaligned or sliced ones too, as Arrow hands them over),
runs on one thread, and releases the GIL. Where a kernel has a fast numba version, a readable numpy one with
the same signature stands above it in the same file and a test holds the two together.
"""
