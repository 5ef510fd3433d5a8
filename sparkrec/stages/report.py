"""One HTML page about evaluations: figures with intervals, what differs, curves, segments, training, examples.

Needs no Spark, and no network: what it shows is in the page.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from sparkrec import storage
from sparkrec.config.base import Reference
from sparkrec.errors import ConfigError, EnvironmentMismatch, InputError
from sparkrec.kernels.metrics.statistics import holm, mean_test, sign_test
from sparkrec.spark.lake import Run, finished_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SURE = 0.05
"""Corrected p-values below this are called a difference."""
_SPREAD = ("coverage", "novelty", "popularity", "gini", "entropy", "diversity", "personalisation", "popularity_lift")
"""Metrics of what is shown rather than of what is liked."""


@dataclass(frozen=True)
class _Evaluation:
    """A run and its figures."""

    label: str
    run: Run
    about: dict[str, Any]
    training: list[dict[str, Any]]
    """Of a network, what each epoch found."""

    @property
    def users(self) -> int:
        return int(self.about["segments"]["all"]["users"])

    def value(self, name: str, segment: str = "all") -> float | None:
        return self.about["segments"].get(segment, {}).get(name)  # type: ignore[no-any-return]

    def interval(self, name: str, segment: str = "all") -> list[float] | None:
        return self.about["intervals"].get(segment, {}).get(name)  # type: ignore[no-any-return]


def report(lake: str, references: Sequence[str]) -> str:
    """The page about finished evaluations, `name` or `name@id`; all others are compared with the first.

    Raises InputError where there is none of that name, ConfigError for what is no name, EnvironmentMismatch without
    matplotlib and Jinja (`pip install sparkrec[plot]`).
    """
    if not (find_spec("matplotlib") and find_spec("jinja2")):
        raise EnvironmentMismatch(
            "report needs matplotlib and jinja2, which are not installed: sparkrec[plot] has them"
        )
    from jinja2 import Environment

    runs = [_open(lake, reference) for reference in references]
    names = [*dict.fromkeys(name for run in runs for name in run.about["segments"]["all"] if name != "users")]
    differences, comparison = _differences(runs)
    page = Environment(autoescape=True).from_string(resources.files(__package__).joinpath("report.html").read_text())
    return page.render(
        title=" and ".join(run.label for run in runs),
        runs=runs,
        warnings=_warnings(runs),
        rows=[{"name": name, "cells": [_cell(run, name, differences) for run in runs]} for name in names],
        comparison=comparison,
        sections=[section for section in _sections(runs, names) if section["plots"]],
        examples=_examples(runs),
    )


def _open(lake: str, reference: str) -> _Evaluation:
    try:
        TypeAdapter(Reference).validate_python(reference)
    except ValidationError:
        raise ConfigError(f"run: found {reference!r}, expected the name of an evaluation, or name@id") from None
    run = finished_run(lake.rstrip("/"), "evaluate", reference)
    about = storage.read_json(f"{run.path}/metrics.json")
    if about is None or "intervals" not in about:
        raise InputError(f"evaluation {run.reference} was made by an earlier version: run `sparkrec evaluate` again")
    trained = finished_run(lake.rstrip("/"), "train", run.inputs["model"])
    return _Evaluation(run.reference, run, about, (trained.manifest or {}).get("facts", {}).get("history", []))


def _warnings(runs: list[_Evaluation]) -> list[str]:
    found = []
    for what in ("dataset", "split", "protocol"):
        if len({run.about[what] for run in runs}) > 1:
            found.append(f"The runs are of more than one {what}: their figures are not comparable.")
    return found


# --- figures ------------------------------------------------------------------------------------------------------


def _cell(run: _Evaluation, name: str, differences: dict[tuple[str, str], tuple[float, float]]) -> dict[str, str]:
    value, interval = run.value(name), run.interval(name)
    cell = {"value": "" if value is None else f"{value:.4f}", "interval": "", "p": "", "verdict": ""}
    if interval is not None:
        cell["interval"] = f"{interval[0]:.4f} to {interval[1]:.4f}"
    if (run.label, name) in differences:
        difference, p = differences[run.label, name]
        cell["p"] = f"{difference:+.4f}, p = {p:.2g}"
        cell["verdict"] = ("better" if difference > 0 else "worse") if p < _SURE else ""
    return cell


def _differences(runs: list[_Evaluation]) -> tuple[dict[tuple[str, str], tuple[float, float]], str]:
    """Mean difference to the first run and its corrected p-value, by run and metric; and what these are."""
    tables = [_users(run) for run in runs]
    if len(runs) < 2 or any(table is None for table in tables):
        hint = "" if len(runs) < 2 else "Evaluate all runs with keep_users: true to see which differences are sure."
        return {}, hint
    first, found, p_values = tables[0], {}, []
    assert first is not None
    for run, table in zip(runs[1:], tables[1:], strict=True):
        assert table is not None
        both = first.join(table, "user", join_type="inner", right_suffix=" of other")
        for name in first.column_names:
            if name != "user" and name in table.column_names:
                each = both[f"{name} of other"].to_numpy() - both[name].to_numpy()
                each = each[~np.isnan(each)]
                if len(each) > 1:
                    mean, p = mean_test(each)
                    signs = sign_test(int((each > 0).sum()), int((each < 0).sum()))
                    found[run.label, name] = mean
                    p_values.append(max(p, signs))
    adjusted = holm(np.array(p_values))
    text = (
        f"Below are differences to {runs[0].label}, user by user, and the larger p-value of a test of their mean and "
        f"of their signs, corrected for all that is compared (Holm); coloured where it is below {_SURE}."
    )
    return {key: (mean, float(p)) for (key, mean), p in zip(found.items(), adjusted, strict=True)}, text


def _users(run: _Evaluation) -> pa.Table | None:
    """What each user contributes, where that was kept."""
    parts = [*storage.read_parquet(f"{run.run.path}/users")]
    return pa.concat_tables(parts) if parts else None


def _examples(runs: list[_Evaluation]) -> list[dict[str, Any]]:
    """Users that all runs have lists of: those of one dataset and split do."""
    of_runs = [{each["user"]: each for each in run.about.get("examples", [])} for run in runs]
    common = [user for user in of_runs[0] if all(user in each for each in of_runs)]
    return [
        {
            **of_runs[0][user],
            "lists": [
                {"label": run.label, "items_": each[user]["recommended"]}
                for run, each in zip(runs, of_runs, strict=True)
            ],
        }
        for user in common
    ]


# --- plots --------------------------------------------------------------------------------------------------------


def _sections(runs: list[_Evaluation], names: list[str]) -> list[dict[str, Any]]:
    at_cutoff: dict[str, list[int]] = {}
    for name in names:
        metric, _, k = name.partition("@")
        if k:
            at_cutoff.setdefault(metric, []).append(int(k))
    liked = {metric: ks for metric, ks in at_cutoff.items() if metric not in _SPREAD}
    shown = {metric: ks for metric, ks in at_cutoff.items() if metric in _SPREAD}
    segments = [each for each in runs[0].about["segments"] if each != "all"]
    largest = [f"{metric}@{max(ks)}" for metric, ks in liked.items() if metric in ("ndcg", "recall")]
    trained = any(run.training for run in runs)
    measured = [*dict.fromkeys(key for run in runs for each in run.training for key in each if "@" in key)]
    return [
        {"title": "By cutoff", "plots": [_curves(runs, metric, ks) for metric, ks in liked.items() if len(ks) > 1]},
        {"title": "By segment", "plots": [_bars(runs, name, segments) for name in largest] if segments else []},
        {
            "title": "What is shown",
            "plots": [_bars(runs, f"{metric}@{max(ks)}", ["all", *segments]) for metric, ks in shown.items()],
        },
        {"title": "Training", "plots": [_training(runs, key) for key in ("loss", *measured)] if trained else []},
    ]


def _curves(runs: list[_Evaluation], metric: str, cutoffs: list[int]) -> str:
    def draw(axis: Axes) -> None:
        for run in runs:
            there = [k for k in cutoffs if run.value(f"{metric}@{k}") is not None]
            values = [run.value(f"{metric}@{k}") or 0.0 for k in there]
            (line,) = axis.plot(there, values, marker="o", label=run.label)
            intervals = [run.interval(f"{metric}@{k}") for k in there]
            if known := [(k, each) for k, each in zip(there, intervals, strict=True) if each is not None]:
                low, high = zip(*(each for _, each in known), strict=True)
                axis.fill_between([k for k, _ in known], low, high, alpha=0.2, color=line.get_color())
        axis.set(xlabel="k", title=metric)

    return _svg(draw, len(runs) > 1)


def _bars(runs: list[_Evaluation], name: str, segments: list[str]) -> str:
    segments = [segment for segment in segments if any(run.value(name, segment) is not None for run in runs)]

    def draw(axis: Axes) -> None:
        width = 0.8 / len(runs)
        for at, run in enumerate(runs):
            values = [run.value(name, segment) or 0.0 for segment in segments]
            ends = [run.interval(name, segment) or [value] * 2 for segment, value in zip(segments, values, strict=True)]
            reach = [[max(value - low, 0.0) for value, (low, _) in zip(values, ends, strict=True)],
                     [max(high - value, 0.0) for value, (_, high) in zip(values, ends, strict=True)]]  # fmt: skip
            axis.bar(np.arange(len(segments)) + at * width, values, width, yerr=reach, label=run.label)
        axis.set_xticks(np.arange(len(segments)) + 0.4 - width / 2, segments, rotation=30)
        axis.set(title=name)

    return _svg(draw, len(runs) > 1)


def _training(runs: list[_Evaluation], key: str) -> str:
    def draw(axis: Axes) -> None:
        for run in runs:
            if points := [(each["epoch"], each[key]) for each in run.training if key in each]:
                axis.plot(*zip(*points, strict=True), marker=".", label=run.label)
        axis.set(xlabel="epoch", title=key)

    return _svg(draw, len(runs) > 1)


def _svg(draw: Any, legend: bool) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, 3.2), layout="constrained")
    axis = figure.subplots()
    draw(axis)
    if legend:
        figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", fontsize="x-small")
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
