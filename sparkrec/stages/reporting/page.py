"""One HTML page about evaluations: which model is best and how sure that is, then figures with intervals, curves,
segments, training, examples.

Needs no Spark, and no network: what it shows is in the page.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from sparkrec import storage
from sparkrec.kernels.metrics.directions import sign
from sparkrec.kernels.metrics.statistics import holm, mean_test, sign_test
from sparkrec.stages.reporting.plots import SPREAD, sections
from sparkrec.stages.reporting.rendering import render, require_drawing
from sparkrec.stages.reporting.runs import Evaluation, open_runs

_SURE = 0.05
"""Corrected p-values below this are called a difference."""
_MAIN = ("ndcg", "recall", "hit_rate", "mrr", "map", "precision", "grouped_auc", "auc", "log_loss", "rmse", "mae")
"""The main metric of a page is the first of these that all its runs have, at the largest cutoff."""
_A_TABLE = 5
"""Runs side by side in a table of metrics: as many as fit on a sheet of paper."""


def report(lake: str, references: Sequence[str]) -> str:
    """The page about finished evaluations, `name` or `name@id`, best first; the table of metrics has the differences of
    all others to the first of `references`.

    Raises InputError where there is none of that name, ConfigError for what is no name, EnvironmentMismatch without
    matplotlib and Jinja (`pip install sparkrec[plot]`).
    """
    require_drawing()
    runs = open_runs(lake.rstrip("/"), references)
    names = [*dict.fromkeys(name for run in runs for name in run.about["segments"]["all"] if name != "users")]
    warnings = _warnings(runs)
    users = {run.label: table for run in runs if (table := _users(run)) is not None} if not warnings else {}
    differences = _differences(runs, users)
    return render(
        "evaluations.html",
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
        sections=[{**section, "legend": runs} for section in sections(runs, names) if section["plots"]],
        examples=_examples(runs),
        titles={item: title for run in runs for item, title in run.about.get("titles", {}).items()},
    )


def _warnings(runs: list[Evaluation]) -> list[str]:
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


# --- which is best ------------------------------------------------------------------------------------------------


def _main(runs: list[Evaluation], names: list[str]) -> str:
    """The metric by which the runs are ordered."""
    common = [name for name in names if all(run.value(name) is not None for run in runs)] or names

    def rank(name: str) -> tuple[int, int]:
        metric, _, k = name.partition("@")
        return _MAIN.index(metric) if metric in _MAIN else len(_MAIN), -int(k or 0)

    return min(common, key=rank)


def _ranking(runs: list[Evaluation], names: list[str], users: dict[str, pa.Table]) -> dict[str, Any]:
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


def _cell(run: Evaluation, name: str, differences: dict[tuple[str, str], tuple[float, float]]) -> dict[str, str]:
    value, interval = run.value(name), run.interval(name)
    cell = {"value": "" if value is None else f"{value:.4f}", "interval": "", "p": "", "verdict": ""}
    if interval is not None:
        cell["interval"] = f"{interval[0]:.4f} to {interval[1]:.4f}"
    if (run.label, name) in differences:
        difference, p = differences[run.label, name]
        cell["p"] = f"{difference:+.4f}, {_chance(p)}"
        if p < _SURE and name.partition("@")[0] not in SPREAD:
            cell["verdict"] = "better" if difference * sign(name) > 0 else "worse"
    return cell


def _differences(runs: list[Evaluation], users: dict[str, pa.Table]) -> dict[tuple[str, str], tuple[float, float]]:
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
    runs: list[Evaluation], differences: dict[tuple[str, str], tuple[float, float]], warnings: list[str]
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


def _users(run: Evaluation) -> pa.Table | None:
    """What each user contributes, where that was kept."""
    parts = [*storage.read_parquet(f"{run.run.path}/users")]
    return pa.concat_tables(parts) if parts else None


def _examples(runs: list[Evaluation]) -> list[dict[str, Any]]:
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
