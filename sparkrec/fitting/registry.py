"""Which function fits which kind of model. A new kind is a settings class and a line here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sparkrec.config import NetworkSettings, chosen
from sparkrec.errors import ConfigError, TrainError
from sparkrec.fitting.networks import fit_network
from sparkrec.spark.algorithms.als.fit import fit_als
from sparkrec.spark.algorithms.bias import fit_bias
from sparkrec.spark.algorithms.ease import fit_ease
from sparkrec.spark.algorithms.linear import fit_linear
from sparkrec.spark.algorithms.markov import fit_markov
from sparkrec.spark.algorithms.neighbors import fit_itemknn, fit_userknn
from sparkrec.spark.algorithms.popularity import fit_popularity
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.data.naming import looked_up, named, title
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.platform.failures import mendable

log = logging.getLogger(__name__)

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


def suited(settings: Any, dataset: Dataset, include_validation: bool = False) -> tuple[Any, dict[str, Any]]:
    """Settings (a ModelSettings) with a value for each that is left to the data, and these values by dotted key.

    Raises ConfigError where the settings cannot be meant for the dataset, TrainError where it has no rows to fit.
    """
    facts = dataset.facts(include_validation)
    if not facts.rows:
        raise TrainError(f"dataset {dataset.reference} has no train rows to fit a model to. Prepare it again.")
    try:
        complete = settings.suited(facts)
    except ValueError as error:
        raise ConfigError(f"model {settings.kind} on dataset {dataset.reference}: {error}.") from None
    return complete, chosen(settings, complete)


def fit(
    settings: Any, dataset: Dataset, include_validation: bool = False, *, seed: int, scratch: str, **more: Any
) -> Model:
    """Fit the model that `settings` (a ModelSettings) describes to the train rows of a dataset.

    What the settings leave to the data is chosen, logged, and one of the model's facts, `chosen`. The model has a row
    for every user and item of the dataset. `scratch` is a folder for what the fit keeps on the way: called again with
    the same folder, a fit resumes from there. `more` is what only some kinds know. Errors as of `suited`; they name
    users and items by the ids of the dataset.
    """
    if getattr(settings, "start_from", []) and "parents" not in more:
        raise ConfigError(
            "model.start_from names models of a lake, which `sparkrec train` reads; tune and fit do not. Leave it out."
        )
    complete, of_data = suited(settings, dataset, include_validation)
    if of_data:
        log.info("%s: chosen by the data: %s", settings.kind, ", ".join(f"{k} {v}" for k, v in of_data.items()))
    fitter = fit_network if isinstance(complete, NetworkSettings) else FITTERS[complete.kind]
    observed = dataset.observed(include_validation)
    users, items = looked_up(dataset.users, "user", "user_id"), looked_up(dataset.items, "item", "item_id")
    with mendable(), named(title("user", None, users), title("item", None, items)):
        model = fitter(complete, dataset, observed, seed=seed, scratch=scratch, **more)
    return replace(model, settings=complete, facts=model.facts | {"chosen": of_data})
