"""Which function fits which kind of model. A new kind is a settings class and a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pyspark.sql import DataFrame

from sparkrec.config import NetworkSettings
from sparkrec.spark.als.fit import fit_als
from sparkrec.spark.bias import fit_bias
from sparkrec.spark.dataset import Dataset
from sparkrec.spark.ease import fit_ease
from sparkrec.spark.linear import fit_linear
from sparkrec.spark.markov import fit_markov
from sparkrec.spark.model import Model
from sparkrec.spark.neighbors import fit_itemknn, fit_userknn
from sparkrec.spark.popularity import fit_popularity
from sparkrec.stages.networks import fit_network

FITTERS: dict[str, Callable[..., Model]] = {
    "popularity": fit_popularity,
    "bias": fit_bias,
    "linear": fit_linear,
    "itemknn": fit_itemknn,
    "userknn": fit_userknn,
    "ease": fit_ease,
    "als": fit_als,
    "markov": fit_markov,
}
"""kind -> fit(settings, dataset, observed, *, seed, scratch), of models that are no networks."""


def fit(settings: Any, dataset: Dataset, observed: DataFrame, *, seed: int, scratch: str, **more: Any) -> Model:
    """Fit the model that `settings` (a ModelSettings) describes to the `observed` rows of a dataset.

    The model has a row for every user and item of the dataset. `scratch` is a folder for what the fit keeps on the way:
    called again with the same folder, a fit resumes from there. `more` is what only some kinds know.
    """
    fitter = fit_network if isinstance(settings, NetworkSettings) else FITTERS[settings.kind]
    return replace(fitter(settings, dataset, observed, seed=seed, scratch=scratch, **more), settings=settings)
