"""The training loop of one process: epochs, measurements, and when to stop."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import scipy.linalg.cython_blas  # noqa: F401  so that its BLAS is there to be limited
import torch
from threadpoolctl import threadpool_limits

from sparkrec import storage
from sparkrec.config import Parent, StoppingSettings
from sparkrec.errors import TrainError
from sparkrec.kernels.metrics.directions import sign
from sparkrec.models.base.settings import NetworkSettings
from sparkrec.progress import track
from sparkrec.shards import Shards
from sparkrec.training.batches import batches_of
from sparkrec.training.batches.pairs import users_of
from sparkrec.training.batches.prefetch import Prefetched
from sparkrec.training.beginning import begin
from sparkrec.training.checkpoints import Checkpoints
from sparkrec.training.collective import Collective
from sparkrec.training.computed import ComputedTables
from sparkrec.training.gradients import kernel_fits
from sparkrec.training.inputs import READERS
from sparkrec.training.state import State, resume, save
from sparkrec.training.step import Stepper
from sparkrec.training.validation import VALUE_METRICS, validate_ranking, validate_values
from sparkrec.training.warm_start import Earlier, go_on

log = logging.getLogger(__name__)

_HOPE = 5
"""Times the patience with a network that ranks no better than popularity yet: before they learn who likes what, most
learn nothing for a while."""


@dataclass(frozen=True)
class Job:
    """What all processes of a run are told."""

    settings: NetworkSettings
    shards: Shards
    validation: Shards | None
    """To measure on, cut as the others."""
    folder: str
    """Of checkpoints and the log."""
    seed: int
    parents: tuple[Parent, ...] = ()
    """Published models to start from."""
    earlier: Earlier | None = None
    """Model of the same kind and shape to go on from."""
    stores: dict[str, str] | None = field(default=None, repr=False)
    """How processes that have no session reach object stores: what `object_stores.told` says to those that have."""


def train(job: Job, collective: Collective) -> State:
    """Train to the end or resume; the state of the best epoch, as in its state.json. Raises TrainError."""
    settings = job.settings.training
    if settings.threads:
        torch.set_num_threads(settings.threads)
    # The BLAS of the kernels, numba's, which is scipy's: its products are small, and its threads would only get in the
    # way of torch's.
    with threadpool_limits(1, "blas"):
        return Trainer(job, collective).run()


class Trainer:
    """The epochs of one process."""

    def __init__(self, job: Job, collective: Collective) -> None:
        self.job, self.collective = job, collective
        self.settings = settings = job.settings.training
        self.shards = shards = job.shards
        self.users = users_of(shards, collective.process_rank, collective.size)
        self.model = begin(job.settings, shards, self.users, job.seed, job.parents, collective)
        by_kernel = kernel_fits(self.model, settings)
        how = settings, job.seed, collective, by_kernel
        self.batches, self.without_negatives = batches_of(self.model, shards, *how)
        if self.without_negatives and not self.batches.steps():
            raise TrainError(
                f"all {self.without_negatives} users have every one of {self.batches.alias.drawable} items: there is "
                "no negative to draw, and nothing to learn from. Use a loss without negatives, such as full_softmax."
            )
        device = self.model.items.weight.device
        self.reader = READERS[self.model.sees](shards, self.users, device)
        self.tables = ComputedTables(self.model, shards, self.batches.mine, collective)
        self.stepper = Stepper(self.model, self.batches, self.reader, self.tables, settings, collective, by_kernel)
        if job.earlier is not None:
            go_on(self.stepper, self.users, job.earlier)
        self.checkpoints = Checkpoints(job.folder, collective.process_rank, collective.size)

    def run(self) -> State:
        state, epochs = self.resume(), self.settings.epochs
        # One thread for all epochs: it begins the next one while the last batches of this one are worked on.
        groups = (group for epoch in range(state["epoch"], epochs) for group in self.batches.step_groups(epoch))
        with closing(Prefetched(lambda: groups)) as prefetched:
            for epoch in range(state["epoch"], epochs):
                if self._stops(state):
                    break
                self._keep(state, self._epoch(epoch, prefetched))
        if _only_popular(state) and self.collective.process_rank == 0:
            log.warning(
                "%s ranks no better than popularity on the validation split: %.4f, popularity %.4f. Take another kind "
                "of model, or look at the data.",
                self.job.settings.kind,
                state["best"],
                state["popularity"],
            )
        return state

    def resume(self) -> State:
        """Go back to the last checkpoint, if there is one."""
        return resume(self.stepper, self.users, self.checkpoints, self.collective, self.without_negatives)

    def _keep(self, state: State, entry: dict[str, Any]) -> None:
        """Validate, log and save what an epoch has come to."""
        epoch, stopping = entry["epoch"], self.settings.stopping
        state["epoch"] = epoch
        if stopping and epoch % stopping.every == 0:
            value = self._validate(stopping)
            entry[stopping.title] = value
            if state["popularity"] is None and stopping.metric not in VALUE_METRICS:
                state["popularity"] = self._validate(stopping, by_popularity=True)
            self.collective.beat()
            better = sign(stopping.metric) * value
            if not state["best_epoch"] or better > state["best"]:
                state["best"], state["best_epoch"] = better, epoch
        state["history"].append(entry)
        if self.collective.process_rank == 0:
            log.info("%s", ", ".join(f"{name} {value}" for name, value in entry.items()))
            lines = "".join(json.dumps(each) + "\n" for each in state["history"])
            storage.write(f"{self.job.folder}/log.jsonl", lines.encode())
        last = epoch == self.settings.epochs or self._stops(state)
        if last or epoch % self.settings.checkpoint_every == 0 or state["best_epoch"] == epoch:
            save(state, self.stepper, self.users, self.checkpoints, self.collective)

    def _validate(self, stopping: StoppingSettings, by_popularity: bool = False) -> float:
        held_out = self.job.validation
        if held_out is None:
            raise TrainError(
                "training.stopping needs a validation split, and the dataset has none: prepare it with one"
            )
        given = held_out, self.batches, self.reader, stopping, self.collective
        if by_popularity:
            return validate_ranking(None, self.shards, *given)
        with self.tables.reading_latest():
            validate = validate_values if stopping.metric in VALUE_METRICS else validate_ranking
            return validate(self.model, self.shards, *given)

    def _stops(self, state: State) -> bool:
        stopping = self.settings.stopping
        if stopping is None or not state["best_epoch"]:
            return False
        patience = stopping.patience * stopping.every
        if _only_popular(state):
            patience *= _HOPE
        return bool(state["epoch"] - state["best_epoch"] >= patience)

    def _epoch(self, epoch: int, prefetched: Prefetched) -> dict[str, Any]:
        """One pass over the examples, and what it was like."""
        self.model.train()
        torch.manual_seed(hash((self.job.seed, epoch, self.collective.process_rank)))  # of dropout
        started, sent, spoken = time.perf_counter(), self.collective.sent, self.collective.seconds
        waited, steps = prefetched.waited, self.batches.steps()
        total, examples = 0.0, 0

        def note() -> str:
            seconds = time.perf_counter() - started
            speed = examples * (1 + self.batches.negatives) / seconds
            others = (self.collective.seconds - spoken) / seconds
            waits = f"waiting {(prefetched.waited - waited) / seconds:.0%} for data, {others:.0%} for others"
            return f"loss {total / examples:.4f}, {speed:,.0f} examples/s, {waits}"

        shown: Iterable[tuple[float, int]] = islice(self.stepper.steps(prefetched, epoch * steps), steps)
        if self.collective.process_rank == 0:
            shown = track(shown, f"epoch {epoch + 1} of {self.settings.epochs}", 0, steps, note)
        for step, (loss, positives) in enumerate(shown):
            if not np.isfinite(loss):
                raise TrainError(
                    f"the loss is {loss} in epoch {epoch + 1}, step {step + 1} of {steps}. The last checkpoint is "
                    "kept. Lower training.learning_rate, or set training.clip_norm, and run again."
                )
            total += loss * positives
            examples += positives
            self.collective.beat()
        seconds = time.perf_counter() - started
        return {
            "epoch": epoch + 1,
            "loss": total / max(examples, 1),
            "seconds": round(seconds, 3),
            "examples_per_second": round(examples * (1 + self.batches.negatives) / seconds),
            "waiting_for_data": round((prefetched.waited - waited) / seconds, 4),
            "waiting_for_others": round((self.collective.seconds - spoken) / seconds, 4),
            "bytes_per_step": (self.collective.sent - sent) // max(steps, 1),
        }


def _only_popular(state: State) -> bool:
    return state["popularity"] is not None and state["best"] <= state["popularity"]
