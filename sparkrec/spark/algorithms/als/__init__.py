"""Blockwise weighted alternating least squares on Spark.

estimator, model, params   the Spark ML interface
fit                        iterations, and what happens when one fails
layout, plan, pack         ratings into blocks: on Spark, by which rule, in a task
residuals                  what mean and biases leave of ratings
solve, block               a half-step: on Spark, in a task
snapshots                  what a killed fit goes on from
fold                       new users and items; explanations
"""

from sparkrec.config.model import Declaration, Likeness, UserRows
from sparkrec.spark.algorithms.als.fit import fit_als, fold_users
from sparkrec.spark.algorithms.als.fold import explain_item, exported
from sparkrec.spark.algorithms.als.settings import AlsSettings

MODEL = Declaration(
    settings=AlsSettings,
    feedback=("implicit", "explicit"),
    fit=fit_als,
    user_rows=UserRows(fold_users, "folded in"),
    exported=exported,
    likeness=Likeness(lambda settings: (1, settings.rank)),
    explain=explain_item,
)
