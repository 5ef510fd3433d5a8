"""What a stage would do, for `--dry-run`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sparkrec.spark.platform.lake import FOLDERS, Lake, Run

_LATER = "not known yet: what it reads is still to be made or read"


@dataclass(frozen=True)
class Planned:
    """What would be read and written; nothing, where `finished`."""

    inputs: Mapping[str, Any]
    run: str
    """`name@id`, or why the id is not known yet."""
    writes: Sequence[str]
    """Tables, folders and files, by their whole paths."""
    finished: bool | None
    """None: it is not known yet."""
    chosen: Mapping[str, Any] = field(default_factory=dict)
    """Settings that were left to the data, and what they became."""

    @classmethod
    def of(cls, run: Run, lake: Lake, files: Sequence[str], tables: Sequence[str] = (), **more: Any) -> Planned:
        """A run that is known; `files` are in its folder, `tables` are Delta tables of the lake."""
        writes = [f"{run.path}/{name}" for name in (*files, "manifest.json")]
        return cls(run.inputs, run.reference, [*writes, *map(lake.place, tables)], run.finished, **more)

    @classmethod
    def later(cls, stage: str, name: str, lake: Lake, tables: Sequence[str] = ()) -> Planned:
        """A run whose inputs another stage makes first."""
        writes = [lake.path(FOLDERS[stage], name, "<id>"), *map(lake.place, tables)]
        return cls({}, f"{name}@<id>", writes, None)

    def report(self) -> dict[str, Any]:
        """For people."""
        done = {True: "yes: nothing would be done", False: "no", None: _LATER}
        return {
            "inputs": dict(self.inputs),
            **({"chosen": dict(self.chosen)} if self.chosen else {}),
            "run": self.run,
            "finished": done[self.finished],
            "writes": list(self.writes),
        }
