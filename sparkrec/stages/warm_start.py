"""What an earlier model hands on to one of a later dataset: whether it can, and which of its features are whose."""

from __future__ import annotations

from sparkrec import storage
from sparkrec.config import ModelSettings, model_settings
from sparkrec.errors import ConfigError, InputError
from sparkrec.fields import FieldSchema
from sparkrec.models.base.published import LEARNED, WarmStart
from sparkrec.spark.data import features
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.platform.lake import Lake


class NoWarmStart(InputError):
    """A model cannot begin with what an earlier one has learned."""


def read_warm_start(model: ModelSettings, dataset: Dataset, reference: str, lake: Lake) -> WarmStart:
    """What a fit of a model to a dataset begins with. Raises NoWarmStart where the earlier model is of another kind or
    shape, goes by other ids, or is gone."""
    try:
        earlier = lake.finished_run("train", reference)
        before = lake.finished_run("prepare", earlier.inputs["dataset"])
        assert earlier.manifest is not None
        settings = model_settings(earlier.manifest["model"]["settings"])
        model.check_warm_start(settings)
    except (ConfigError, InputError) as error:
        raise NoWarmStart(f"warm_start: {reference}: {error}") from None
    now, then = dataset.manifest, before.manifest or {}
    if any(now["ids"][side]["id"] != then["ids"][side]["id"] for side in ("users", "items")):
        raise NoWarmStart(f"warm_start: {reference} goes by the ids of another table of interactions")
    kind = model.declaration
    if kind.module is not None and not storage.exists(f"{earlier.path}/{LEARNED}/shared.safetensors"):
        raise NoWarmStart(f"warm_start: {reference} has not kept what it had learned: train it again")
    if model.sequence_needs is not None:
        lengths = [each["settings"]["sequences"]["length"] for each in (then, now)]
        if lengths[0] != lengths[1]:
            raise NoWarmStart(f"warm_start: {reference} sees {lengths[0]} events, expected {lengths[1]}")
    if not kind.sees_fields:
        return WarmStart(earlier.path, settings)
    names = [FieldSchema.from_json((each.get("fields") or {}).get("layout")).names for each in (then, now)]
    if names[0] != names[1]:
        raise NoWarmStart(f"warm_start: {reference} knows the fields {names[0]}, expected {names[1]}")
    if dataset.layout is None:
        return WarmStart(earlier.path, settings)
    return WarmStart(earlier.path, settings, features.load(dataset.folder).rows_in(features.load(before.path)))
