"""Blockwise weighted alternating least squares on Spark.

estimator, model, params   the Spark ML interface
fit                        iterations, and what happens when one fails
layout, plan, pack         ratings into blocks: on Spark, by which rule, in a task
solve, block               a half-step: on Spark, in a task
snapshots                  what a killed fit goes on from
fold                       new users and items; explanations
"""
