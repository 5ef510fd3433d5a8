"""What is kept of a training run besides its model: its log, a plot of it, and a run in MLflow."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

from sparkrec.secrets import masked


def files(history: list[dict[str, Any]]) -> dict[str, Callable[[], bytes]]:
    """The log as JSON lines; with matplotlib (`pip install sparkrec[plot]`) a plot of it, too. Each is made when it is
    called for: a plot takes longer than a small fit."""
    kept: dict[str, Callable[[], bytes]] = {"log.jsonl": partial(_lines, history)}
    if find_spec("matplotlib"):
        kept["history.png"] = partial(_plot, history)
    return kept


def to_mlflow(name: str, settings: dict[str, Any], history: list[dict[str, Any]]) -> None:
    """A run in MLflow, or in the run that is active, where MLflow is installed and told where to write."""
    if not find_spec("mlflow"):
        return
    import mlflow

    told = os.environ.get("MLFLOW_TRACKING_URI") or os.environ.get("DATABRICKS_RUNTIME_VERSION")
    if not told and mlflow.active_run() is None:
        return
    with mlflow.start_run(run_name=name, nested=mlflow.active_run() is not None):
        mlflow.log_params(flat(masked(settings)))
        for entry in history:
            metrics = {metric_name(key): float(value) for key, value in entry.items() if key != "epoch"}
            mlflow.log_metrics(metrics, step=entry["epoch"])


def metric_name(name: str) -> str:
    """A metric as MLflow may call it."""
    return name.replace("@", "_at_")


def _lines(history: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(entry) + "\n" for entry in history).encode()


def _plot(history: list[dict[str, Any]]) -> bytes:
    from matplotlib.figure import Figure

    measured = [key for key in history[-1] if "@" in key]
    panels = ["loss", *measured, "examples_per_second", "waiting"]
    figure = Figure(figsize=(3.2 * len(panels), 3), layout="constrained")
    for axis, panel in zip(figure.subplots(1, len(panels)), panels, strict=True):
        shown = ["waiting_for_data", "waiting_for_others"] if panel == "waiting" else [panel]
        for key in shown:
            points = [(entry["epoch"], entry[key]) for entry in history if key in entry]
            axis.plot(*zip(*points, strict=True), marker=".", label=key)
        axis.set_xlabel("epoch")
        axis.set_title("share of time waiting" if panel == "waiting" else panel.replace("_", " "))
        if len(shown) > 1:
            axis.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
