"""Whether a challenger may replace the champion: both rank for the same later users, which neither was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.config import GateSettings
from sparkrec.errors import InputError
from sparkrec.kernels.metrics.directions import sign
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.evaluation.evaluate import compare, evaluate
from sparkrec.spark.evaluation.segments import grouped
from sparkrec.spark.in_place import carry_out, count, holding
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.serving import bind
from sparkrec.spark.platform.few import narrowed
from sparkrec.spark.platform.lake import Lake, Run
from sparkrec.spark.retrieval.topk import topk
from sparkrec.stages.retraining.distributions import overlap

CHAMPION, CHALLENGER = "champion", "challenger"


class Incompatible(InputError):
    """The champion cannot be compared with any more."""


@dataclass(frozen=True)
class Verdict:
    """What came of a comparison."""

    promote: bool
    reason: str
    metrics: dict[str, float] = field(default_factory=dict)
    """What it went by."""


def judge(settings: GateSettings, lake: Lake, champion: Run, challenger: Run) -> Verdict:
    """Compare two trained models on the test split of the challenger's dataset.

    The challenger is promoted where, for the metric over all users and over each segment that is named, the interval of
    95 % of the difference, user by user, lies above a share of the champion's value, which is the margin (a test of
    non-inferiority), and what else is demanded holds. Raises Incompatible.
    """
    name, _, cutoff = settings.metric.partition("@")
    k = int(cutoff)
    new, old = Dataset.open(lake, challenger.inputs["dataset"]), _dataset_of(lake, champion)
    _check_unseen(old, champion, new)
    segments = int(next(iter(settings.segments)).partition("/")[2]) if settings.segments else 1
    with holding() as hold:
        truth = hold(grouped(new.test, new, segments))
        seen = new.observed(True)
        ranked = {
            CHAMPION: _lists(lake, champion, old, truth, seen, k),
            CHALLENGER: _lists(lake, challenger, new, truth, seen, k),
        }
        lists = {run: hold(found) for run, (found, _) in ranked.items()}
        marked = [frame.withColumn("run", F.lit(run)) for run, frame in lists.items()]
        both = marked[0].unionByName(marked[1])
        relevant = truth.select("user", "item").distinct()
        of_groups = truth.select(
            "user", F.concat(F.lit("users:"), F.col("user_group"), F.lit(f"/{segments}")).alias("segment")
        ).distinct()
        named = of_groups if settings.segments else None
        catalogue = new.items.select("item")
        values = evaluate(both, relevant, [name, "coverage"], [k], named, "run", items=catalogue).collect()
        differences = compare(both, relevant, "run", CHAMPION, [name], [k], named).collect()
        shares = partial(overlap, user="user", item="item")
        shared = carry_out("overlap", shares, lists[CHAMPION], lists[CHALLENGER])
    value = {(row["run"], row["metric"], row["segment"]): row["value"] for row in values}
    metrics = {f"{run}_{settings.metric}": value.get((run, name, "all"), 0.0) for run in lists}
    metrics |= {f"{run}_coverage@{k}": value.get((run, "coverage", "all"), 0.0) for run in lists}
    metrics |= {f"{run}_served": served for run, (_, served) in ranked.items()}
    metrics["overlap"] = shared
    of_champion = {row["segment"]: row["value"] for row in values if (row["run"], row["metric"]) == (CHAMPION, name)}
    found, failed = margins_kept(settings, [row.asDict() for row in differences], of_champion)
    metrics |= found
    failed += guards(settings, metrics, k)
    if "difference" not in metrics:
        return Verdict(False, "the test split has no user to compare by", metrics)
    if failed:
        return Verdict(False, "; ".join(failed), metrics)
    main = _told(settings.metric, metrics, "")
    if settings.margin is None:
        return Verdict(False, f"{main}, but no gate.margin says what is enough", metrics)
    return Verdict(True, f"{main}, not worse by {settings.margin:.1%} or more", metrics)


def margins_kept(
    settings: GateSettings, differences: Sequence[Mapping[str, Any]], champion: Mapping[str, float]
) -> tuple[dict[str, float], list[str]]:
    """What the comparison is of all users and of the segments that have margins, and where it is not good enough.

    differences  challenger less champion, with their intervals, by segment
    champion     its value by segment
    """
    margins = {"all": settings.margin, **settings.segments}
    metrics: dict[str, float] = {}
    failed = []
    for row in differences:
        if row["segment"] not in margins:
            continue
        where = "" if row["segment"] == "all" else f" {row['segment']}"
        metrics |= {f"{end}{where}": float(row[end]) for end in ("difference", "low", "high", "users")}
        if row["users"] < settings.min_users:
            failed.append(f"{row['users']} users{where} tell too little (gate.min_users: {settings.min_users})")
        if (margin := margins[row["segment"]]) is None:
            continue
        metrics[f"margin{where}"] = margin
        low = row["low"] if sign(settings.metric) > 0 else -row["high"]
        least = -margin * champion[row["segment"]]
        if row["users"] >= settings.min_users and low < least:
            failed.append(f"{_told(settings.metric, metrics, where)} may be worse than {least:+.4f}")
    return metrics, failed


def _told(metric: str, metrics: Mapping[str, float], where: str) -> str:
    difference, low, high = (metrics[f"{end}{where}"] for end in ("difference", "low", "high"))
    return f"{metric}{where} {difference:+.4f} ({low:+.4f} to {high:+.4f})"


def compared_by(metrics: Mapping[str, float]) -> list[str]:
    """The metrics of a gate, such as ndcg@10, among all that it went by."""
    names = [key.removeprefix(f"{CHALLENGER}_") for key in metrics if key.startswith(f"{CHALLENGER}_")]
    return [name for name in names if "@" in name and not name.startswith("coverage@")]


def compared(metrics: Mapping[str, float]) -> str | None:
    """What two models were compared by, for people; None where they were not."""
    names = compared_by(metrics)
    if not names:
        return None
    name = names[0]
    return f"{name} {metrics[f'{CHALLENGER}_{name}']:.4f}, of the champion {metrics[f'{CHAMPION}_{name}']:.4f}"


def guards(settings: GateSettings, metrics: dict[str, float], k: int) -> list[str]:
    failed = []
    coverage, before = (metrics[f"{run}_coverage@{k}"] for run in (CHALLENGER, CHAMPION))
    if settings.min_coverage is not None and coverage < settings.min_coverage * before:
        failed.append(f"coverage {coverage:.3f} after {before:.3f} (gate.min_coverage: {settings.min_coverage:.1%})")
    if settings.min_overlap is not None and metrics["overlap"] < settings.min_overlap:
        failed.append(f"lists share {metrics['overlap']:.1%} (gate.min_overlap: {settings.min_overlap:.1%})")
    served = metrics[f"{CHALLENGER}_served"]
    if settings.min_served is not None and served < settings.min_served:
        failed.append(f"{served:.1%} of users are answered (gate.min_served: {settings.min_served:.1%})")
    return failed


def _dataset_of(lake: Lake, champion: Run) -> Dataset:
    try:
        return Dataset.open(lake, champion.inputs["dataset"])
    except InputError as error:
        raise Incompatible(f"the dataset of champion {champion.reference} cannot be read: {error}") from None


def _check_unseen(old: Dataset, champion: Run, new: Dataset) -> None:
    """Whether the champion was fitted to nothing that happened since the new test split began, by the same ids."""
    if any(old.manifest["ids"][side]["id"] != new.manifest["ids"][side]["id"] for side in ("users", "items")):
        raise Incompatible(f"champion {champion.reference} goes by the ids of another table of interactions")
    fitted = old.times("train", *(["validation"] if champion.settings["include_validation"] else []))
    held_out = new.times("test")
    if fitted is None or held_out is None:
        raise Incompatible("the interactions have no timestamps, so that nobody knows what the champion has seen")
    if fitted[1] >= held_out[0]:
        raise Incompatible(
            f"champion {champion.reference} was fitted to events of after the start of the test split of "
            f"{new.reference}. Use a split by time that moves with the log, such as prepare.split: {{kind: recent}}"
        )


def _lists(lake: Lake, run: Run, own: Dataset, truth: DataFrame, seen: DataFrame, k: int) -> tuple[DataFrame, float]:
    """(user, item, rank): what a model recommends to the users of the test split, by all that they had done before; and
    the share of them that it answers.

    own  the dataset that it was fitted to
    """
    try:
        model = Model.load(lake, run)
    except (InputError, FileNotFoundError) as error:
        raise Incompatible(f"the files of champion {run.reference} cannot be read: {error}") from None
    known = seen.join(own.items.select("item"), "item", "left_semi")
    include_validation = bool(run.settings["include_validation"])
    users = truth.select("user").distinct()
    bound = bind(model, own, users, known, include_validation=include_validation)
    lists = topk(bound.model, k, bound.users.select("user"), exclude=narrowed(seen, "user", "item"))
    return lists.select("user", "item", "rank"), count("gate", bound.users) / max(count("gate", users), 1)
