"""The distributed half: DataFrames in, DataFrames out."""
