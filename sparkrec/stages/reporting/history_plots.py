"""Plots of a page about many nights, as SVG: what the gate compared, what came in, what drifted, what took time."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparkrec.kernels.metrics.directions import sign
from sparkrec.stages.reporting.past import Past, Row, not_training
from sparkrec.stages.reporting.rendering import Line, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CHAMPION, _CHALLENGER = Line.numbered(0, "champion"), Line.numbered(1, "challenger")
_PROMOTED, _KEPT = Line("promoted", "#2a8a3c", "^"), Line("kept", "#6b6b6b", "s")
_ROLLED_BACK, _MARGIN = Line("rolled back", "#c43c39", "v"), Line("margin", "#c43c39", "D")
_MEASURED, _EXPECTED = Line.numbered(0, "served"), Line.numbered(1, "promised by the gate")
_STEPS = ("serve", "ingest", "prepare", "checks", "drift", "train", "gate", "recommend", "publish")
"""In their order; a map of Spark has none."""
_DAY = dt.timedelta(days=1)
_ROWS, _LIMIT = Line.numbered(0, "rows"), Line("limit of checks.volume", "#c43c39", "D")


def sections(past: Past) -> list[dict[str, Any]]:
    """Titles, legends and plots; a section without plots has none to show."""
    taken = {step for night in past.nights for step in night["seconds"] or {}}
    steps = [*(step for step in _STEPS if step in taken), *sorted(taken - {*_STEPS})]
    lines = {step: Line.numbered(at, step) for at, step in enumerate(steps)}
    served, of_lists = ([row for row in past.drift if row["seen"] == seen] for seen in (True, False))
    scores = [row for row in of_lists if row["measure"].startswith("score_")]
    like = [*dict.fromkeys(row["measure"] for row in of_lists if row not in scores)]
    return [
        {
            "title": "Champion and challenger",
            "legend": [_CHAMPION, _CHALLENGER, _PROMOTED, _ROLLED_BACK],
            "plots": [_values(past, name) for name in past.metrics],
        },
        {
            "title": "What the gate saw",
            "note": "Challenger less champion, user by user, with intervals of 95 %. A challenger is promoted where "
            "its interval lies on the better side of the margin.",
            "legend": [_PROMOTED, _KEPT, _MARGIN],
            "plots": [plot for name in past.metrics if (plot := _differences(past, name))],
        },
        {
            "title": "What came in",
            "legend": [_ROWS, _LIMIT],
            "plots": [_volumes(past)] if any(night["rows"] for night in past.nights) else [],
        },
        {
            "title": "What became of what was served",
            "note": "Lists measured on what their users did afterwards, with intervals of 95 %. People click on what "
            "they are shown: this tends to be more than the gate had promised, and less is a bad sign.",
            "legend": [_MEASURED, _EXPECTED],
            "plots": [_kept_promises(past, served, name) for name in dict.fromkeys(row["measure"] for row in served)],
        },
        {
            "title": "Lists when they were published",
            "note": "Divergence is from the lists before, in bits. Scores have the median and 80 % of all between the "
            "lines; those of two kinds of model are on two scales.",
            "plots": [
                *(_measures(past, of_lists, measure) for measure in like),
                *([_scores(past, scores)] if scores else []),
            ],
        },
        {
            "title": "What took time",
            "legend": [*lines.values()],
            "plots": [_seconds(past, lines), _not_training(past)] if steps else [],
        },
    ]


def _values(past: Past, name: str) -> str:
    def draw(axis: Axes) -> None:
        for line in (_CHAMPION, _CHALLENGER):
            _line(axis, [_point(night, f"{line.label}_{name}") for night in past.nights], line)
        for row in past.champions:
            back = row["action"] == "rollback"
            mark = _ROLLED_BACK if back else _PROMOTED
            top = axis.get_xaxis_transform()
            axis.plot(past.place(row["at"]), 0.97, marker=mark.marker, color=mark.color, transform=top, clip_on=False)
        _nights(axis, past, name)

    return svg(draw)


def _differences(past: Past, name: str) -> str | None:
    compared = [
        night
        for night in past.nights
        if night["metrics"] and f"challenger_{name}" in night["metrics"] and "difference" in night["metrics"]
    ]
    if not compared:
        return None

    def draw(axis: Axes) -> None:
        axis.axhline(0, color="#bbb", linewidth=1)
        for night in compared:
            metrics, line = night["metrics"], _PROMOTED if night["outcome"] == "promoted" else _KEPT
            _whisker(axis, night["number"], metrics["difference"], metrics["low"], metrics["high"], line)
            if "margin" in metrics:
                limit = -sign(name) * metrics["margin"] * metrics[f"champion_{name}"]
                axis.plot(night["number"], limit, marker=_MARGIN.marker, markersize=4, color=_MARGIN.color)
        _nights(axis, past, f"difference of {name}")

    return svg(draw)


def _volumes(past: Past) -> str:
    def draw(axis: Axes) -> None:
        for night in past.nights:
            _column(axis, past, night["number"], 0, night["rows"] or 0, _ROWS.color)
            check = past.checked(night).get("volume")
            if check and check["value"]:  # a share of the median of the nights before
                limit = check["limit"] * (night["rows"] or 0) / check["value"]
                axis.plot(night["number"], limit, marker=_LIMIT.marker, markersize=4, color=_LIMIT.color)
        _nights(axis, past, "rows that have come")
        axis.set_ylim(bottom=0)

    return svg(draw)


def _kept_promises(past: Past, rows: Sequence[Row], measure: str) -> str:
    def draw(axis: Axes) -> None:
        for row in rows:
            if row["measure"] == measure:
                at = past.place(row["at"])
                _whisker(axis, at, row["value"], row["low"], row["high"], _MEASURED)
                if row["expected"] is not None:
                    axis.plot(at, row["expected"], marker=_EXPECTED.marker, color=_EXPECTED.color)
        _nights(axis, past, measure)

    return svg(draw)


def _measures(past: Past, rows: Sequence[Row], measure: str) -> str:
    def draw(axis: Axes) -> None:
        points = [(past.place(row["at"]), row["value"]) for row in rows if row["measure"] == measure]
        _line(axis, points, _CHAMPION)
        _nights(axis, past, measure)
        axis.set_ylim(0, 1.1 * max(value for _, value in points) or 1.0)

    return svg(draw, height=2.4)


def _scores(past: Past, rows: Sequence[Row]) -> str:
    def draw(axis: Axes) -> None:
        for measure in sorted({row["measure"] for row in rows}):
            points = [(past.place(row["at"]), row["value"]) for row in rows if row["measure"] == measure]
            axis.plot(*zip(*points, strict=True), marker="o", markersize=3, color=_CHAMPION.color,
                      linewidth=1.5 if measure == "score_p50" else 0.7)  # fmt: skip
        _nights(axis, past, "score")

    return svg(draw, height=2.4)


def _seconds(past: Past, lines: dict[str, Line]) -> str:
    def draw(axis: Axes) -> None:
        for night in past.nights:
            bottom = 0.0
            for step, line in lines.items():
                top = bottom + (night["seconds"] or {}).get(step, 0.0) / 60
                _column(axis, past, night["number"], bottom, top, line.color)
                bottom = top
        _nights(axis, past, "minutes")
        axis.set_ylim(bottom=0)

    return svg(draw)


def _not_training(past: Past) -> str:
    def draw(axis: Axes) -> None:
        points = [(night["number"], not_training(night["seconds"])) for night in past.nights]
        _line(axis, [(at, share) for at, share in points if share is not None], _KEPT)
        _nights(axis, past, "share that is not training")
        axis.set_ylim(0, 1.05)

    return svg(draw)


def _point(night: Row, key: str) -> tuple[float, float]:
    """With a hole where a night has no value: the line ends there."""
    return night["number"], (night["metrics"] or {}).get(key, np.nan)


def _line(axis: Axes, points: Sequence[tuple[float, float]], line: Line) -> None:
    if points:
        axis.plot(*zip(*points, strict=True), marker=line.marker, markersize=4, color=line.color)


def _whisker(axis: Axes, at: float, value: float, low: float | None, high: float | None, line: Line) -> None:
    reach = [[0.0 if end is None else max(way * (end - value), 0.0)] for way, end in ((-1, low), (1, high))]
    axis.errorbar([at], [value], yerr=reach, marker=line.marker, markersize=5, color=line.color, elinewidth=1)


def _column(axis: Axes, past: Past, at: float, bottom: float, top: float, color: str) -> None:
    axis.vlines(at, bottom, top, color=color, linewidth=min(12.0, 180 / len(past.nights)))


def _nights(axis: Axes, past: Past, title: str) -> None:
    """The title, and an axis of nights with their dates, or with their hours where they are of one day."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    at = {night["number"]: night["at"] for night in past.nights}
    if not at:
        return
    short = max(at.values()) - min(at.values()) < _DAY
    axis.set_xlim(min(at) - 0.7, max(at) + 0.7)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axis.xaxis.set_major_formatter(
        FuncFormatter(lambda x, _: f"{at[round(x)]:{'%H:%M' if short else '%d %b'}}" if round(x) in at else "")
    )
    axis.set(title=title)
