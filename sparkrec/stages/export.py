"""A trained model as a folder that answers without Spark."""

from __future__ import annotations

import logging
from typing import Any

from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.model.export import export as export_model
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.platform.failures import mendable
from sparkrec.spark.platform.lake import Lake

log = logging.getLogger(__name__)


def export(lake: Lake, reference: str, folder: str, overwrite: bool = False) -> dict[str, Any]:
    """Export a model, `name@id` or the latest of a name, into a folder of this machine. Returns what its manifest says.

    Raises InputError where there is no such model, and what `spark.model.export` raises.
    """
    trained = lake.finished_run("train", reference)
    with mendable():
        told = export_model(
            Model.load(lake, trained),
            Dataset.open(lake, trained.inputs["dataset"]),
            folder,
            reference=trained.reference,
            include_validation=bool(trained.settings["include_validation"]),
            overwrite=overwrite,
        )
    log.info("%s: model %s, which answers without Spark", folder, trained.reference)
    return told
