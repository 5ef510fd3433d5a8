"""One night: take in what has come, train again, and replace what is served where that is better."""

from __future__ import annotations

import datetime as dt
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pyspark.sql import Row

from sparkrec import tables
from sparkrec.config import NotifySettings, Outcome, PipelineSettings, RetentionSettings, RetrainSettings
from sparkrec.errors import CHAMPION_KEPT, InputError, Refused, exit_code
from sparkrec.secrets import masked
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.platform.failures import mendable
from sparkrec.spark.platform.lake import Lake, Run
from sparkrec.stages.ingest import ingest
from sparkrec.stages.ledger import Ledger
from sparkrec.stages.pipeline import Plan, PlannedPipeline
from sparkrec.stages.pipeline import plan as plan_pipeline
from sparkrec.stages.prepare import prepare
from sparkrec.stages.recommend import recommend
from sparkrec.stages.retraining import mirror
from sparkrec.stages.retraining.challenger import cold_beside_warm, told_of, train_challenger
from sparkrec.stages.retraining.champions import blocked, history, promote, serve_again
from sparkrec.stages.retraining.data_checks import check_data
from sparkrec.stages.retraining.drift import check_drift, measure_served
from sparkrec.stages.retraining.gate import CHALLENGER, CHAMPION, Incompatible, Verdict, compared, judge
from sparkrec.stages.retraining.lease import Lease, held
from sparkrec.stages.retraining.notifying import notify
from sparkrec.stages.retraining.serve import Lists, check_lists
from sparkrec.stages.upkeep.clean import clean

log = logging.getLogger(__name__)

PROMOTED: Outcome = "promoted"
KEPT: Outcome = "kept"
UNCHANGED: Outcome = "unchanged"
REFUSED: Outcome = "refused"
FAILED: Outcome = "failed"
_EXIT_CODES = {PROMOTED: 0, UNCHANGED: 0, KEPT: CHAMPION_KEPT}


@dataclass
class Retraining:
    """What came of a night."""

    name: str
    outcome: Outcome = FAILED
    reason: str = ""
    champion: str | None = None
    challenger: str | None = None
    dataset: str | None = None
    rows: int = 0
    """Interactions that have come since the night before."""
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    exit_code: int | None = None
    """For schedulers; None: it has not ended by itself."""

    def fail(self, error: Exception) -> None:
        """End by an error."""
        self.outcome = REFUSED if isinstance(error, Refused) else FAILED
        self.reason = masked(f"{type(error).__name__}: {error}"[:1000])
        self.exit_code = exit_code(error)

    def line(self) -> str:
        """All that matters, in one line for people."""
        parts = [f"{self.name}: {self.outcome}" + (f" ({' '.join(self.reason.split())})" if self.reason else "")]
        if (values := compared(self.metrics)) is not None:
            parts.append(values)
        models = {CHAMPION: self.champion, CHALLENGER: self.challenger}
        parts += [f"{role} {model}" for role, model in models.items() if model is not None]
        return "; ".join([*parts, f"{sum(self.seconds.values()):.0f} s"])

    def summary(self) -> dict[str, Any]:
        """For programs: what there is to tell at its end, with a `text` for people."""
        told = {key: value for key, value in vars(self).items() if key != "metrics"}
        metrics = {key: value if math.isfinite(value) else None for key, value in self.metrics.items()}
        now = dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")
        return {"text": self.line(), **told, "metrics": metrics, "at": now}

    def conclude(self, targets: Sequence[NotifySettings]) -> None:
        """Say what came of it: in a line of the log, and to whom the settings name."""
        log.info("%s", self.line())
        notify(targets, self.summary())

    def report(self) -> dict[str, Any]:
        """For people."""
        return {key: value for key, value in vars(self).items() if value not in (None, {}, "")}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Take the time of a step."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(time.monotonic() - start, 1)


def pipeline_of(settings: RetrainSettings) -> PipelineSettings:
    """The stages of a night."""
    return PipelineSettings(
        lake=settings.lake,
        spark=settings.spark,
        ingest=settings.ingest,
        prepare=settings.prepare,
        train=[settings.train],
        recommend=settings.recommend,
    )


def check(settings: RetrainSettings) -> None:
    """What the settings alone tell, of all stages and of how they fit together."""
    mirror.check(settings.mlflow)
    Plan(pipeline_of(settings))


def plan(settings: RetrainSettings, lake: Lake) -> PlannedPipeline:
    """What the stages would do; whether the challenger is promoted is known when it has been measured."""
    return plan_pipeline(pipeline_of(settings), lake)


def retrain(settings: RetrainSettings, lake: Lake) -> Retraining:
    """Run the stages, compare the new model with the champion, and serve its lists if it may replace that.

    Every step finds what an earlier run has finished, so that a run that was killed is run again. A row of the table
    `retrainings` tells what came of it, of a failure or a refusal, too, as do a line of the log and whom
    `settings.notify` names. Raises Refused where another run holds the name, the lists are unfit to be served, or the
    champion was changed meanwhile; what the stages raise. MLflow, where it is to follow, is told last.
    """
    night = Retraining(settings.name)
    try:
        with mendable(), held(lake, settings.name, settings.deadline_hours) as lease:
            mirror.remember(lake, settings.name, settings.mlflow)
            _run(settings, lake, lease, night)
            night.exit_code = _EXIT_CODES[night.outcome]
            _record(lake, night)
            mirror.follow(lake, settings.name)
            if settings.retention is not None:
                _clean(settings.retention, lake)
    except KeyboardInterrupt:
        night.outcome, night.reason = FAILED, "interrupted"
        raise
    except Exception as error:
        night.fail(error)
        try:
            _record(lake, night)
        except Exception:  # of the same cause, as a rule, which is what is to be told
            log.warning("cannot add to the table %s what came of the night", tables.RETRAININGS.name, exc_info=True)
        raise
    finally:
        night.conclude(settings.notify)
    return night


def not_begun(settings: RetrainSettings, error: Exception) -> None:
    """Say of a night that it failed before there was a lake: no row tells of it."""
    night = Retraining(settings.name)
    night.fail(error)
    night.conclude(settings.notify)


def _run(settings: RetrainSettings, lake: Lake, lease: Lease, night: Retraining) -> None:
    plan = Plan(pipeline_of(settings))
    changes = history(lake, settings.name)
    champion = changes[-1] if changes else None
    if champion is not None:
        night.champion = champion["model"]
        with night.step("serve"):  # whoever promoted it may have been killed before
            serve_again(lake, champion)
    with night.step("ingest"):
        batches = [ingest(each, lake) for each in plan.ingest]
    with night.step("prepare"):
        dataset = prepare(plan.prepare, lake)
        night.dataset = dataset.reference
    with night.step("checks"):
        before = [row for row in Ledger(lake, tables.RETRAININGS, night.name).rows() if row["outcome"] in _EXIT_CODES]
        new = Dataset.open(lake, dataset.reference)
        night.rows = new.manifest["found"] - _rows_of(lake, before[-1]["dataset"] if before else None)
        volumes = [*(row["rows"] for row in before), night.rows]
        known = _known(lake, champion)
        night.metrics |= check_data(settings.checks, lake, night.name, batches, volumes, new, known)
    with night.step("drift"):
        night.metrics |= measure_served(settings.drift, settings.gate, lake, night.name, changes, new)
    with night.step("train"):
        asked = plan.train[0].model_copy(update={"dataset": dataset.reference})
        challenger = train_challenger(asked, settings.cold_every, lake, night.champion, before)
        night.challenger = challenger.reference
        night.metrics |= told_of(challenger)
    if champion is not None and champion["model"] == challenger.reference:
        night.outcome, night.reason = UNCHANGED, "nothing has come that would make another model"
        return
    if challenger.reference in blocked(changes):
        night.outcome, night.reason = KEPT, "the challenger was rolled back before: `sparkrec promote` serves it again"
        return
    if champion is not None and settings.cold_every > 1 and not night.metrics["warm"]:
        with night.step("warm"):
            night.metrics |= cold_beside_warm(asked, settings.gate, lake, champion["model"], challenger)
    with night.step("gate"):
        verdict = _judged(settings, lake, champion, challenger)
        night.reason, night.metrics = verdict.reason, night.metrics | verdict.metrics
    if not verdict.promote:
        night.outcome = KEPT
        return
    with night.step("recommend"):
        wanted = plan.recommendation([(challenger.name, challenger.reference)])
        assert wanted is not None
        made = recommend(wanted, lake)
    with night.step("publish"):
        lists = Lists.of(lake, made, settings.serve)
        night.metrics |= check_lists(settings.lists, lists)
        night.metrics |= check_drift(settings.drift, lake, night.name, champion, lists)
        promote(lake, lease, champion, made, settings.serve, verdict.reason, night.metrics)
    night.outcome, night.champion = PROMOTED, challenger.reference


def _judged(settings: RetrainSettings, lake: Lake, champion: Row | None, challenger: Run) -> Verdict:
    """The verdict of the gate, or of the policy where there is nothing to compare with."""
    gate = settings.gate
    if champion is None:
        return Verdict(gate.first == "promote", f"there was no champion (gate.first: {gate.first})")
    try:
        try:
            trained = lake.finished_run("train", champion["model"])
        except InputError as error:
            raise Incompatible(f"champion {champion['model']} is gone: {error}") from None
        return judge(gate, lake, trained, challenger)
    except Incompatible as error:
        if gate.incompatible == "refuse":
            raise Refused(f"{error} (gate.incompatible: refuse)") from None
        return Verdict(gate.incompatible == "promote", f"{error} (gate.incompatible: {gate.incompatible})")


def _rows_of(lake: Lake, dataset: str | None) -> int:
    """Rows of the table of interactions that a dataset was made of; 0 where there is none, or it is gone."""
    try:
        return int((lake.finished_run("prepare", dataset).manifest or {})["found"]) if dataset else 0
    except InputError:
        return 0


def _known(lake: Lake, champion: Row | None) -> Dataset | None:
    """The dataset of the champion, where it can still be read."""
    if champion is None:
        return None
    try:
        return Dataset.open(lake, lake.finished_run("train", champion["model"]).inputs["dataset"])
    except InputError as error:
        log.warning("cannot compare with the data of champion %s: %s", champion["model"], error)
        return None


def _clean(settings: RetentionSettings, lake: Lake) -> None:
    """What is served does not depend on it: a failure is told, and the next night removes what stayed."""
    try:
        clean(settings, lake)
    except Exception:
        log.warning("cannot remove former runs", exc_info=True)


def _record(lake: Lake, night: Retraining) -> None:
    ledger = Ledger(lake, tables.RETRAININGS, night.name)
    values = {key: value for key, value in vars(night).items() if key not in ("name", "exit_code")}
    while ledger.add_after(ledger.latest(), **values) is None:
        pass  # one that was refused meanwhile, which holds no name, was faster
