"""Snapshots of an ALS fit, from which it resumes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from sparkrec import storage
from sparkrec.spark.algorithms.als.layout import Side
from sparkrec.spark.algorithms.als.settings import AlsSettings
from sparkrec.spark.runner import Rows


def fingerprint(settings: AlsSettings, seed: int, sides: tuple[Side, Side]) -> str:
    """Names a fit, whatever its blocks: a snapshot of other ratings or settings is not one to go on from."""
    how = {"user_blocks", "item_blocks", "iterations", "tolerance", "snapshot_every", "kernel", "storage_level"}
    same = settings.model_dump(mode="json", exclude=how)
    digest = hashlib.sha256(json.dumps([same, seed], sort_keys=True).encode())
    for side in sides:
        digest.update(side.counts.tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Snapshots:
    """Factors every few iterations: all that the next iteration needs. The manifest comes last."""

    folder: str | None
    """None: nothing is kept."""

    def write(self, iteration: int, factors: dict[str, Rows], history: list[dict[str, float]]) -> None:
        if self.folder is None:
            return
        for side, rows in factors.items():
            rows.write(self._path(iteration, side))
        manifest = {"iteration": iteration, "sides": sorted(factors), "history": history}
        storage.write_json(self._path(iteration, "manifest.json"), manifest)

    def resume(self, where: Rows, iterations: int) -> tuple[int, list[dict[str, float]], dict[str, Rows]]:
        """Iterations done, fewer than `iterations`, their history, and the factors of the sides that were kept, where
        other rows are."""
        last = self._last(iterations)
        if last is None:
            return 0, [], {}
        factors = {side: where.read(self._path(last["iteration"], side)) for side in last["sides"]}
        return last["iteration"], last["history"], factors

    def delete(self) -> None:
        """What has been finished needs them no more."""
        if self.folder is not None:
            storage.delete(self.folder)

    def _last(self, before: int) -> dict[str, Any] | None:
        if self.folder is None:
            return None
        found = [storage.read_json(f"{self.folder}/{name}/manifest.json") for name in storage.folders(self.folder)]
        usable = [each for each in found if each and each["iteration"] < before]
        return max(usable, key=lambda each: each["iteration"], default=None)

    def _path(self, iteration: int, name: str) -> str:
        return f"{self.folder}/iteration-{iteration:05d}/{name}"
