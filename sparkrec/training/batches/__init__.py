"""The batches of an epoch, by what their unit is: pairs, sequences, contexts."""
