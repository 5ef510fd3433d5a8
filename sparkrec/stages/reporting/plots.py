"""Plots of a page about evaluations, as SVG: by cutoff, by segment, and of training."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from sparkrec.stages.reporting.rendering import svg
from sparkrec.stages.reporting.runs import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPREAD = ("coverage", "novelty", "popularity", "gini", "entropy", "diversity", "personalisation", "popularity_lift")
"""Metrics of what is shown rather than of what is liked: neither more nor less of it is better."""


def sections(runs: list[Evaluation], names: list[str]) -> list[dict[str, Any]]:
    """Titles and plots; a section without plots has none to show.

    names  of the metrics that any of the runs has
    """
    at_cutoff: dict[str, list[int]] = {}
    for name in names:
        metric, _, k = name.partition("@")
        if k:
            at_cutoff.setdefault(metric, []).append(int(k))
    liked = {metric: ks for metric, ks in at_cutoff.items() if metric not in SPREAD}
    shown = {metric: ks for metric, ks in at_cutoff.items() if metric in SPREAD}
    segments = [each for each in runs[0].about["segments"] if each != "all"]
    largest = [f"{metric}@{max(ks)}" for metric, ks in liked.items() if metric in ("ndcg", "recall")]
    trained = [run for run in runs if run.training]
    measured = [*dict.fromkeys(key for run in trained for row in run.training for key in row if "@" in key)]
    return [
        {"title": "By cutoff", "plots": [_curves(runs, metric, ks) for metric, ks in liked.items() if len(ks) > 1]},
        {"title": "By segment", "plots": [_bars(runs, name, segments) for name in largest] if segments else []},
        {
            "title": "What is shown",
            "plots": [_bars(runs, f"{metric}@{max(ks)}", ["all", *segments]) for metric, ks in shown.items()],
        },
        # Losses of two models are on two scales.
        {
            "title": "Training",
            "plots": [
                *(_training([run], "loss", f"loss of {run.label}") for run in trained),
                *(_training(trained, name, f"{name} on validation") for name in measured),
            ],
        },
    ]


def _curves(runs: list[Evaluation], metric: str, cutoffs: list[int]) -> str:
    def draw(axis: Axes) -> None:
        for run in runs:
            there = [k for k in cutoffs if run.value(f"{metric}@{k}") is not None]
            values = [run.value(f"{metric}@{k}") or 0.0 for k in there]
            axis.plot(there, values, marker=run.marker, color=run.color)
            intervals = [run.interval(f"{metric}@{k}") for k in there]
            if known := [(k, each) for k, each in zip(there, intervals, strict=True) if each is not None]:
                low, high = zip(*(each for _, each in known), strict=True)
                axis.fill_between([k for k, _ in known], low, high, alpha=0.15, color=run.color)
        axis.set_xticks(sorted(set(cutoffs)))
        axis.set(xlabel="k", title=metric)

    return svg(draw)


def _bars(runs: list[Evaluation], name: str, segments: list[str]) -> str:
    segments = [segment for segment in segments if any(run.value(name, segment) is not None for run in runs)]

    def draw(axis: Axes) -> None:
        width = 0.8 / len(runs)
        for at, run in enumerate(runs):
            values = [run.value(name, segment) or 0.0 for segment in segments]
            ends = [run.interval(name, segment) or [value] * 2 for segment, value in zip(segments, values, strict=True)]
            reach = [[max(value - low, 0.0) for value, (low, _) in zip(values, ends, strict=True)],
                     [max(high - value, 0.0) for value, (_, high) in zip(values, ends, strict=True)]]  # fmt: skip
            whiskers = {"ecolor": "#444", "elinewidth": 1}
            axis.barh(np.arange(len(segments)) + at * width, values, width, xerr=reach, color=run.color,
                      error_kw=whiskers)  # fmt: skip
        labels = [textwrap.fill(_segment_title(segment), 16) for segment in segments]
        axis.set_yticks(np.arange(len(segments)) + 0.4 - width / 2, labels)
        axis.invert_yaxis()
        axis.set(title=name)

    return svg(draw, height=1.0 + len(segments) * max(0.5, 0.14 * len(runs)))


def _training(runs: list[Evaluation], key: str, title: str) -> str:
    rows = [row for run in runs for row in run.training if key in row]
    steps = [step for step in ("epoch", "iteration") if any(step in row for row in rows)]

    from matplotlib.ticker import MaxNLocator

    def draw(axis: Axes) -> None:
        for run in runs:
            points = [(row[step], row[key]) for row in run.training for step in steps if step in row and key in row]
            if points:
                axis.plot(*zip(*points, strict=True), marker=run.marker, markersize=4, color=run.color)
        axis.set(xlabel=" or ".join(steps), title=title)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))

    return svg(draw)


def _segment_title(segment: str) -> str:
    """What the users or items of a segment are; its key is `users:1/3`."""
    side, _, place = segment.partition(":")
    group, _, of = place.partition("/")
    if side not in ("users", "items") or not (group.isdigit() and of.isdigit()):
        return segment
    ends = {"1": "the fewest", of: "the most"}
    if group in ends:
        return f"{side} with {ends[group]} events"
    return f"{side} in between" if of == "3" else f"{side} in group {group} of {of} by events"
