"""The model of a night: begun with what the champion has learned, or cold, and what that makes of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import takewhile

from pyspark.sql import Row

from sparkrec.config import GateSettings, TrainSettings
from sparkrec.errors import InputError
from sparkrec.spark.platform.lake import Lake, Run
from sparkrec.stages.retraining.gate import Incompatible, judge
from sparkrec.stages.train import train
from sparkrec.stages.warm_start import NoWarmStart

log = logging.getLogger(__name__)


def train_challenger(
    asked: TrainSettings, cold_every: int, lake: Lake, champion: str | None, nights: Sequence[Row]
) -> Run:
    """Train with what the champion has learned where it is the turn for that, and it can be; else cold.

    nights  those before this one that have not failed
    """
    start = asked.warm_start
    if start is None and champion is not None and cold_every > 1:
        warm = None if is_cold_turn(cold_every, asked.dataset, nights) else champion
        start = _start(asked.dataset, lake, champion, warm)
    try:
        return train(asked.model_copy(update={"warm_start": start}), lake)
    except NoWarmStart as error:
        if asked.warm_start is not None:
            raise
        log.warning("the challenger begins cold: %s", error)
        return train(asked, lake)


def told_of(run: Run) -> dict[str, float]:
    """Whether a model began with what an earlier one had learned, and how many epochs or iterations it took."""
    assert run.manifest is not None
    history = run.manifest["facts"].get("history")
    return {"warm": float("warm_start" in run.inputs), **({"iterations": float(len(history))} if history else {})}


def cold_beside_warm(
    asked: TrainSettings, gate: GateSettings, lake: Lake, champion: str, challenger: Run
) -> dict[str, float]:
    """On a cold night, what the challenger is beside the same model begun with what the champion has learned: the
    difference of the gate's metric, cold less warm, and its interval. Nothing where the two cannot be compared."""
    try:
        warm = train(asked.model_copy(update={"warm_start": champion}), lake)
        found = judge(gate, lake, warm, challenger).metrics
    except (NoWarmStart, Incompatible) as error:
        log.warning("nothing is known of cold against warm: %s", error)
        return {}
    told = {f"cold_{end}": found[end] for end in ("difference", "low", "high") if end in found}
    return told | {f"warm_{name}": value for name, value in told_of(warm).items() if name == "iterations"}


def _start(dataset: str, lake: Lake, champion: str, start: str | None) -> str | None:
    """What to begin with. A champion that was fitted to this very dataset began with something else: with that again,
    it is the same model."""
    try:
        trained = lake.finished_run("train", champion)
    except InputError:
        return start
    return trained.inputs.get("warm_start") if trained.inputs["dataset"] == dataset else start


def is_cold_turn(cold_every: int, dataset: str, nights: Sequence[Row]) -> bool:
    """Whether as many datasets in a row as there may be were trained on warm. A night that is run again counts once."""
    warm = {night["dataset"]: (night["metrics"] or {}).get("warm") for night in nights if night["dataset"] != dataset}
    in_a_row = sum(1 for _ in takewhile(lambda each: each == 1.0, reversed(warm.values())))
    return in_a_row >= cold_every - 1
