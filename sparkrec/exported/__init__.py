"""A fitted model as a folder that answers without Spark: memory-mapped arrays, and a manifest that is written last.

files      the folder: what is in it, how it is written and opened
ids        ids of users and items, and their places
histories  what makes the row of somebody of whom a history is all that is known
model      answers
pyfunc     the same as a python_function model of MLflow

`sparkrec.spark.model.export` writes it. Only networks whose scores are no inner products, or that encode histories,
need torch.
"""
