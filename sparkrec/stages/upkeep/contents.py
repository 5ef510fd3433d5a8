"""What a lake holds: runs, finished or not, and tables that are its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from sparkrec import storage, tables
from sparkrec.config import RecommendSettings
from sparkrec.spark.platform.lake import FOLDERS, Lake, Run
from sparkrec.stages.retraining.lease import held

_HOURS = 4.0
"""For which upkeep holds all names at most."""


class Unfinished(NamedTuple):
    """Folder of a run that has no manifest: it is under way, or was given up."""

    stage: str
    reference: str
    path: str


def runs_of(lake: Lake) -> tuple[list[Run], list[Unfinished]]:
    """All runs of all stages: the finished ones, and the others."""
    finished, unfinished = [], []
    for stage, folder in FOLDERS.items():
        for name in storage.folders(lake.path(folder)):
            for run_id in storage.folders(lake.path(folder, name)):
                path = lake.path(folder, name, run_id)
                manifest = storage.read_json(f"{path}/manifest.json")
                if manifest is None:
                    unfinished.append(Unfinished(stage, f"{name}@{run_id}", path))
                else:
                    finished.append(Run(stage, name, run_id, path, manifest["settings"], manifest["inputs"], manifest))
    return finished, unfinished


def interaction_tables(lake: Lake) -> list[str]:
    """Tables of interactions: those with batches."""
    names = set(lake.table_names())
    return sorted(name for name in names if tables.named(tables.BATCHES, name) in names)


def list_tables(lake: Lake, finished: list[Run]) -> list[str]:
    """Tables of lists: where runs of `recommend` wrote them, and where they are served."""
    names = {RecommendSettings.model_fields["table"].default}
    names |= {run.settings["table"] for run in finished if run.stage == "recommend"}
    if lake.has_table(tables.CHAMPIONS.name):
        names |= {row["served"] for row in lake.table(tables.CHAMPIONS.name).select("served").distinct().collect()}
    return sorted(name for name in names if name and lake.has_table(name))


def names_of(lake: Lake) -> list[str]:
    """Names under which something is served, or was to be."""
    found: set[str] = set()
    for table in (tables.CHAMPIONS.name, tables.LEASES.name):
        if lake.has_table(table):
            found |= {row["name"] for row in lake.table(table).select("name").distinct().collect()}
    return sorted(found)


@contextmanager
def nobody_else(lake: Lake) -> Iterator[None]:
    """Hold all names while the body runs, so that no night does. Raises Refused where one does."""
    with ExitStack() as stack:
        for name in names_of(lake):
            stack.enter_context(held(lake, name, _HOURS))
        yield
