"""Retention: runs go by number and age, but for what is served and what anything that stays was made of."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sparkrec import storage, tables
from sparkrec.config import RetentionSettings
from sparkrec.spark.platform.delta_tables import text
from sparkrec.spark.platform.lake import FOLDERS, Lake, Run
from sparkrec.stages.retraining.champions import history
from sparkrec.stages.upkeep.contents import interaction_tables, list_tables, names_of, nobody_else, runs_of

log = logging.getLogger(__name__)

_DAY = 86400.0
_DEPENDENTS_FIRST = ("recommend", "evaluate", "tune", "train", "prepare")
assert set(_DEPENDENTS_FIRST) == set(FOLDERS)


@dataclass
class Cleaning:
    """What went, or would go."""

    removed: dict[str, int] = field(default_factory=dict)
    """Bytes of each run, by stage and reference."""
    unfinished: dict[str, int] = field(default_factory=dict)
    """The same of folders of runs that were given up."""
    kept: int = 0
    """Finished runs that stay."""
    vacuumed: list[str] = field(default_factory=list)
    """Tables."""

    def report(self) -> dict[str, Any]:
        """For people."""
        total = sum(self.removed.values()) + sum(self.unfinished.values())
        return {"removed": self.removed, "unfinished": self.unfinished, "bytes": total, "kept": self.kept} | (
            {"vacuumed": self.vacuumed} if self.vacuumed else {}
        )


def outdated(runs: Iterable[Run], settings: RetentionSettings, served: Iterable[str], now: float) -> list[Run]:
    """Finished runs that nothing needs: neither among the newest of their stage and name, nor young, nor served, nor
    referenced by one that stays.

    served  references of models and lists
    now     seconds since 1970
    """
    of_names: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        of_names[run.stage, run.name].append(run)
    everything = {run.reference: run for own in of_names.values() for run in own}
    kept = set(served) & everything.keys()
    for own in of_names.values():
        own.sort(key=_finished, reverse=True)
        kept |= {run.reference for run in own[: settings.runs]}
        kept |= {run.reference for run in own if _finished(run) > now - settings.days * _DAY}
    look_at = list(kept)
    while look_at:
        run = everything[look_at.pop()]
        new = _references(run) & everything.keys() - kept
        kept |= new
        look_at += new
    return [run for reference, run in everything.items() if reference not in kept]


def clean(settings: RetentionSettings, lake: Lake, dry_run: bool = False) -> Cleaning:
    """Remove what `outdated` says, lists in tables, too, and what runs that were given up left behind.

    A run loses its manifest first, after which it does not exist; those that are made of others go before them. So a
    cleaning that was killed is completed by the next one.
    """
    now = time.time()
    finished, unfinished = runs_of(lake)
    old = outdated(finished, settings, _served(lake), now)
    left = [each for each in unfinished if (storage.newest(each.path) or 0.0) < now - max(settings.days, 1.0) * _DAY]
    done = Cleaning(
        {f"{run.stage} {run.reference}": storage.size(run.path) for run in old},
        {f"{each.stage} {each.reference}": storage.size(each.path) for each in left},
        kept=len(finished) - len(old),
    )
    if dry_run:
        return done
    of_tables: dict[str, list[str]] = defaultdict(list)
    for run in sorted(old, key=lambda run: _DEPENDENTS_FIRST.index(run.stage)):
        storage.delete(f"{run.path}/manifest.json")
        if run.stage == "recommend":
            of_tables[run.settings["table"]].append(run.id)
    for table, ids in of_tables.items():
        if lake.has_table(table):
            lake.delete_rows(table, f"run IN ({', '.join(map(text, ids))})")
    for path in [*(run.path for run in old), *(each.path for each in left)]:
        storage.delete(path)
    if settings.vacuum:
        done.vacuumed = _own_tables(lake, finished)
        for table in done.vacuumed:
            lake.vacuum(table)
    log.info("%d runs went, %d stay", len(old) + len(left), done.kept)
    return done


def clean_alone(settings: RetentionSettings, lake: Lake, dry_run: bool) -> dict[str, Any]:
    """As `clean`, while no night runs; what was done, for people."""
    if dry_run:
        return clean(settings, lake, dry_run).report()
    with nobody_else(lake):
        return clean(settings, lake).report()


def _finished(run: Run) -> float:
    return float((run.manifest or {})["finished"])


def _references(run: Run) -> set[str]:
    """All texts in what a run was made of: those of other runs among them. What it began with it does not need any
    more: by that each night would keep the one before it."""
    found: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, str):
            found.add(value)
        elif isinstance(value, dict):
            walk([each for key, each in value.items() if key != "warm_start"])
        elif isinstance(value, list):
            for each in value:
                walk(each)

    walk([run.inputs, run.settings])
    return found


def _served(lake: Lake) -> set[str]:
    """Models and lists of each champion and of the one before it."""
    found: set[str] = set()
    for name in names_of(lake):
        rows = history(lake, name)
        models = list(dict.fromkeys(row["model"] for row in reversed(rows)))[:2]
        found |= {row[of] for row in rows if row["model"] in models for of in ("model", "recommendations")}
    return found


def _own_tables(lake: Lake, finished: list[Run]) -> list[str]:
    """Tables that the lake writes, and not others of its schema."""
    names = {tables.named(table, name) for name in interaction_tables(lake) for table in tables.OF_INTERACTIONS}
    names |= {table.name for table in tables.HISTORIES} | set(list_tables(lake, finished))
    return sorted(name for name in names if lake.has_table(name))
