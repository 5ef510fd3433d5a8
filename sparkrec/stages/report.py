"""One HTML page about evaluations: which model is best and how sure that is, then figures with intervals, curves,
segments, training, examples.

Needs no Spark, and no network: what it shows is in the page.
"""

from __future__ import annotations

import io
import itertools
import textwrap
from collections import Counter
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
from sparkrec.kernels.metrics.directions import sign
from sparkrec.kernels.metrics.statistics import holm, mean_test, sign_test
from sparkrec.spark.platform.lake import Run, finished_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SURE = 0.05
"""Corrected p-values below this are called a difference."""
_SPREAD = ("coverage", "novelty", "popularity", "gini", "entropy", "diversity", "personalisation", "popularity_lift")
"""Metrics of what is shown rather than of what is liked: neither more nor less of it is better."""
_MAIN = ("ndcg", "recall", "hit_rate", "mrr", "map", "precision", "grouped_auc", "auc", "log_loss", "rmse", "mae")
"""The main metric of a page is the first of these that all its runs have, at the largest cutoff."""
_A_TABLE = 5
"""Runs side by side in a table of metrics: as many as fit on a sheet of paper."""
_COLORS = ("#1f77b4", "#d95f02", "#2a8a3c", "#c43c39", "#7b55b0", "#8c564b", "#c9529d", "#6b6b6b", "#8f8f00", "#118a9c")
_MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "*": "★"}
"""Of lines in the plots and of names in the legends, which thus differ on paper without colours, too."""


@dataclass(frozen=True)
class _Evaluation:
    """A run and its figures."""

    label: str
    """What the page calls it: its name, or `name@id` where two runs have one name."""
    color: str
    marker: str
    run: Run
    about: dict[str, Any]
    training: list[dict[str, Any]]
    """A row for each epoch or iteration of the model's training."""
    seconds: float | None
    """What the fit of the model took."""
    size: int
    """Bytes of the model."""

    @property
    def glyph(self) -> str:
        return _MARKERS[self.marker]

    @property
    def users(self) -> int:
        return int(self.about["segments"]["all"]["users"])

    def value(self, name: str, segment: str = "all") -> float | None:
        return self.about["segments"].get(segment, {}).get(name)  # type: ignore[no-any-return]

    def interval(self, name: str, segment: str = "all") -> list[float] | None:
        return self.about["intervals"].get(segment, {}).get(name)  # type: ignore[no-any-return]


def report(lake: str, references: Sequence[str]) -> str:
    """The page about finished evaluations, `name` or `name@id`, best first; the table of metrics has the differences of
    all others to the first of `references`.

    Raises InputError where there is none of that name, ConfigError for what is no name, EnvironmentMismatch without
    matplotlib and Jinja (`pip install sparkrec[plot]`).
    """
    if not (find_spec("matplotlib") and find_spec("jinja2")):
        raise EnvironmentMismatch(
            "report needs matplotlib and jinja2, which are not installed: sparkrec[plot] has them"
        )
    from jinja2 import Environment

    runs = _open(lake.rstrip("/"), references)
    names = [*dict.fromkeys(name for run in runs for name in run.about["segments"]["all"] if name != "users")]
    warnings = _warnings(runs)
    users = {run.label: table for run in runs if (table := _users(run)) is not None} if not warnings else {}
    differences = _differences(runs, users)
    environment = Environment(autoescape=True)
    environment.filters |= {"duration": _duration, "bytes": _bytes}
    page = environment.from_string(resources.files(__package__).joinpath("report.html").read_text())
    return page.render(
        title=runs[0].label if len(runs) == 1 else f"{len(runs)} models on {_plain(runs[0].about['dataset'])}",
        runs=runs,
        warnings=warnings,
        ranking=_ranking(runs, names, users),
        tables=[
            {
                "runs": [*some],
                "rows": [{"name": n, "cells": [_cell(run, n, differences) for run in some]} for n in names],
            }
            for some in np.array_split(np.array(runs, dtype=object), -(-len(runs) // _A_TABLE))
        ],
        comparison=_comparison(runs, differences, warnings),
        sections=[section for section in _sections(runs, names) if section["plots"]],
        examples=_examples(runs),
        titles={item: title for run in runs for item, title in run.about.get("titles", {}).items()},
    )


def _open(lake: str, references: Sequence[str]) -> list[_Evaluation]:
    found = [_finished(lake, reference) for reference in references]
    alike = Counter(run.name for run in found)
    evaluations = []
    for at, run in enumerate(found):
        about = storage.read_json(f"{run.path}/metrics.json")
        if about is None or "intervals" not in about:
            raise InputError(
                f"evaluation {run.reference} was made by an earlier version: run `sparkrec evaluate` again"
            )
        trained = finished_run(lake, "train", run.inputs["model"])
        manifest = trained.manifest or {}
        evaluations.append(
            _Evaluation(
                label=run.name if alike[run.name] == 1 else run.reference,
                color=_COLORS[at % len(_COLORS)],
                marker=[*_MARKERS][at % len(_MARKERS)],
                run=run,
                about=about,
                training=manifest.get("facts", {}).get("history", []),
                seconds=manifest.get("seconds"),
                size=storage.size(trained.path),
            )
        )
    return evaluations


def _finished(lake: str, reference: str) -> Run:
    try:
        TypeAdapter(Reference).validate_python(reference)
    except ValidationError:
        raise ConfigError(f"run: found {reference!r}, expected the name of an evaluation, or name@id") from None
    return finished_run(lake, "evaluate", reference)


def _warnings(runs: list[_Evaluation]) -> list[str]:
    return [
        f"The runs are of more than one {what}: their figures are not comparable."
        for what in ("dataset", "split", "protocol")
        if len({run.about[what] for run in runs}) > 1
    ]


# --- words --------------------------------------------------------------------------------------------------------


def _plain(reference: str) -> str:
    """A reference without its id."""
    return reference.partition("@")[0]


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _chance(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _bytes(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


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


# --- which is best ------------------------------------------------------------------------------------------------


def _main(runs: list[_Evaluation], names: list[str]) -> str:
    """The metric by which the runs are ordered."""
    common = [name for name in names if all(run.value(name) is not None for run in runs)] or names

    def rank(name: str) -> tuple[int, int]:
        metric, _, k = name.partition("@")
        return _MAIN.index(metric) if metric in _MAIN else len(_MAIN), -int(k or 0)

    return min(common, key=rank)


def _ranking(runs: list[_Evaluation], names: list[str], users: dict[str, pa.Table]) -> dict[str, Any]:
    """The runs by their main metric, best first, and whether the first is surely better than each other one.

    The p-values are corrected for all pairs of runs, since which of them is the first was seen in the same data.
    """
    name = _main(runs, names)
    order = sorted(runs, key=lambda run: (run.value(name) is None, -sign(name) * (run.value(name) or 0.0)))
    pairs = [*itertools.combinations([run.label for run in order], 2)]
    tested = {
        (one, other): found
        for one, other in pairs
        if one in users and other in users and (found := _compared(users[one], users[other], name)) is not None
    }
    p_values = dict(zip(tested, holm(np.array([p for _, p in tested.values()])), strict=True))
    best = order[0]
    rows: list[dict[str, Any]] = []
    surely: list[str] = []
    perhaps: list[str] = []
    values = [end for run in runs for end in (run.value(name), *(run.interval(name) or ())) if end is not None]
    low, high = min(values), max(values)
    for run in order:
        value, interval, p = run.value(name), run.interval(name), p_values.get((best.label, run.label))
        verdict = ""
        if p is not None:
            sure = p < _SURE
            (surely if sure else perhaps).append(run.label)
            verdict = f"{'surely' if sure else 'not surely'} worse than {best.label} ({_chance(p)})"
        elif run is best and len(runs) > 1:
            verdict = "best"

        def place(at: float) -> float:
            """From 4 to 196, of the width of 200 that a row's drawing has."""
            return round(4 + 192 * (at - low) / (high - low), 1) if high > low else 100.0

        drawn = {"dot": place(value), "ends": [place(end) for end in interval or ()]} if value is not None else None
        rows.append({"run": run, **_cell(run, name, {}), "verdict": verdict, "drawn": drawn})
    return {
        "metric": name,
        "lower": sign(name) < 0,
        "low": f"{low:.4f}",
        "high": f"{high:.4f}",
        "rows": rows,
        "words": _words(best.label, surely, perhaps, len(runs)),
    }


def _words(best: str, surely: list[str], perhaps: list[str], n: int) -> str:
    if n == 1:
        return ""
    if len(surely) + len(perhaps) < n - 1:
        return (
            f"{best} has the best figure; whether it is surely better than the others cannot be told from these runs."
        )
    if not perhaps:
        return f"{best} is surely better than {'each of the others' if n > 2 else surely[0]}."
    if not surely:
        return f"{best} has the best figure, but it is not surely better than {_listed(perhaps)}."
    return f"{best} is surely better than {_listed(surely)}, but not surely better than {_listed(perhaps)}."


def _compared(first: pa.Table, second: pa.Table, name: str) -> tuple[float, float] | None:
    """Mean of what users have in `second` more than in `first`, and the larger p-value of tests of the mean and of the
    signs; None where fewer than two users have both."""
    if name not in first.column_names or name not in second.column_names:
        return None
    both = first.select(["user", name]).join(
        second.select(["user", name]), "user", join_type="inner", right_suffix=" of second"
    )
    more = both[f"{name} of second"].to_numpy() - both[name].to_numpy()
    more = more[~np.isnan(more)]
    if len(more) < 2:
        return None
    mean, p = mean_test(more)
    return mean, max(p, sign_test(int((more > 0).sum()), int((more < 0).sum())))


# --- figures ------------------------------------------------------------------------------------------------------


def _cell(run: _Evaluation, name: str, differences: dict[tuple[str, str], tuple[float, float]]) -> dict[str, str]:
    value, interval = run.value(name), run.interval(name)
    cell = {"value": "" if value is None else f"{value:.4f}", "interval": "", "p": "", "verdict": ""}
    if interval is not None:
        cell["interval"] = f"{interval[0]:.4f} to {interval[1]:.4f}"
    if (run.label, name) in differences:
        difference, p = differences[run.label, name]
        cell["p"] = f"{difference:+.4f}, {_chance(p)}"
        if p < _SURE and name.partition("@")[0] not in _SPREAD:
            cell["verdict"] = "better" if difference * sign(name) > 0 else "worse"
    return cell


def _differences(runs: list[_Evaluation], users: dict[str, pa.Table]) -> dict[tuple[str, str], tuple[float, float]]:
    """Mean difference to the first run and its corrected p-value, by run and metric."""
    if any(run.label not in users for run in runs):
        return {}
    first = users[runs[0].label]
    found = {
        (run.label, name): compared
        for run in runs[1:]
        for name in first.column_names
        if name != "user" and (compared := _compared(first, users[run.label], name)) is not None
    }
    adjusted = holm(np.array([p for _, p in found.values()]))
    return {key: (mean, float(p)) for (key, (mean, _)), p in zip(found.items(), adjusted, strict=True)}


def _comparison(
    runs: list[_Evaluation], differences: dict[tuple[str, str], tuple[float, float]], warnings: list[str]
) -> str:
    """What the differences are, or why there are none."""
    if len(runs) < 2 or warnings:
        return ""
    if not differences:
        return "Evaluate all runs with keep_users: true to see which differences are sure."
    return (
        f"Below are differences to {runs[0].label}, user by user, and the larger p-value of a test of their mean and "
        f"of their signs, corrected for all that is compared (Holm); coloured where it is below {_SURE}."
    )


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
                {"run": run, "items_": each[user]["recommended"]} for run, each in zip(runs, of_runs, strict=True)
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


def _curves(runs: list[_Evaluation], metric: str, cutoffs: list[int]) -> str:
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

    return _svg(draw)


def _bars(runs: list[_Evaluation], name: str, segments: list[str]) -> str:
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

    return _svg(draw, height=1.0 + len(segments) * max(0.5, 0.14 * len(runs)))


def _training(runs: list[_Evaluation], key: str, title: str) -> str:
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

    return _svg(draw)


def _svg(draw: Any, height: float = 3.2) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # Text stays text: it can be searched and read aloud, and is as sharp on paper as the rest.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "sparkrec", "font.family": "sans-serif"}):
        figure = Figure(figsize=(4.4, height), layout="constrained")
        axis = figure.subplots()
        axis.spines[["top", "right"]].set_visible(False)
        draw(axis)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
