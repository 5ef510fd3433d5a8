"""From a log to a dataset: cleaning, integer ids, splits, features, sequences, shards for training."""
