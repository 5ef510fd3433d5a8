"""Fitting a model of any kind to a dataset: by what its kind declares."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from sparkrec.config import ModelSettings, Parent, chosen
from sparkrec.errors import ConfigError, TrainError
from sparkrec.fitting.networks import fit_network
from sparkrec.models.base.published import WarmStart
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.data.fit_inputs import FitInputs
from sparkrec.spark.data.naming import looked_up, named, title
from sparkrec.spark.in_place import noted
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.platform.failures import mendable

log = logging.getLogger(__name__)

S = TypeVar("S", bound=ModelSettings)


def suited(settings: S, dataset: Dataset, include_validation: bool = False) -> tuple[S, dict[str, Any]]:
    """Settings with a value for each that is left out, and these values by dotted key.

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
    settings: ModelSettings,
    dataset: Dataset,
    include_validation: bool = False,
    *,
    seed: int,
    scratch: str,
    parents: tuple[Parent, ...] = (),
    warm_start: WarmStart | None = None,
) -> Model:
    """Fit the model that `settings` describe to the train rows of a dataset.

    What the settings leave out is chosen, logged, and one of the model's facts, `chosen`;
    `carried_out` is where its plan was carried out, in place or on Spark. The model has a row
    for every user and item of the dataset. `scratch` is a folder for what the fit keeps on the way: called again with
    the same folder, a fit resumes from there. `parents` are the models that `settings.parents` refer to, `warm_start`
    is one whose settings `check_warm_start` has passed. Errors as of `suited`; they name users and items by the ids of
    the dataset.
    """
    if len(parents) != len(settings.parents):
        raise ConfigError(
            "model.start_from names models of a lake, which `sparkrec train` reads; tune and fit do not. Leave it out."
        )
    complete, of_data = suited(settings, dataset, include_validation)
    if of_data:
        log.info("%s: chosen, as it was left out: %s", settings.kind, ", ".join(f"{k} {v}" for k, v in of_data.items()))
    observed = dataset.observed(include_validation)
    prepared = None if include_validation else dataset.sequences
    inputs = FitInputs(dataset, observed, seed, scratch, parents, prepared, warm_start)
    fitter: Callable[[Any, FitInputs], Model] = settings.declaration.fit or fit_network
    users, items = looked_up(dataset.users, "user", "user_id"), looked_up(dataset.items, "item", "item_id")
    with mendable(), named(title("user", None, users), title("item", None, items)), noted() as where:
        model = fitter(complete, inputs)
    facts = model.facts | {"chosen": of_data}
    if settings.kind in where:
        facts["carried_out"] = where[settings.kind]
        log.info("%s: fitted %s", settings.kind, where[settings.kind])
    return replace(model, settings=complete, facts=facts)
