"""The training loop of one process: batches, loss, gradients, what the processes exchange, checkpoints."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import scipy.linalg.cython_blas  # noqa: F401  so that its BLAS is there to be limited
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from sparkrec import storage
from sparkrec.config import Parent, StoppingSettings, TrainingSettings
from sparkrec.errors import TrainError
from sparkrec.fields import Layout
from sparkrec.kernels.arrays import Scratch
from sparkrec.kernels.gradients.negatives import popularity
from sparkrec.kernels.metrics.directions import sign
from sparkrec.kernels.random import normal_rows
from sparkrec.models.base.field_model import FieldModel
from sparkrec.models.base.layers import BatchNorm
from sparkrec.models.base.recommender import Features, Sizes
from sparkrec.models.base.sequence_model import History, SequenceModel
from sparkrec.models.item2vec import Item2Vec
from sparkrec.progress import track
from sparkrec.shards import Shards
from sparkrec.training.batches.contexts import ContextBatch, ContextBatches
from sparkrec.training.batches.pairs import Batch, Batches, Prefetched, StepGroup
from sparkrec.training.batches.sequences import SequenceBatch, SequenceBatches
from sparkrec.training.checkpoints import Checkpoints
from sparkrec.training.collective import Collective, summed_with_gradients
from sparkrec.training.dense import Dense
from sparkrec.training.features import FeatureReader
from sparkrec.training.gradients import (
    Gradients,
    RowGradients,
    by_autograd,
    by_context_kernel,
    by_field_kernel,
    by_kernel,
    has_kernel,
    summed,
)
from sparkrec.training.losses import DRAWN, Scored, loss_of
from sparkrec.training.optimizers import Optimizer, rate_at
from sparkrec.training.streamed import streamed_softmax
from sparkrec.training.validation import VALUE_METRICS, validate_ranking, validate_values
from sparkrec.training.warm_start import start_from
from sparkrec.training.whole_runs import train_run

log = logging.getLogger(__name__)

_HOPE = 5
"""Times the patience with a network that ranks no better than popularity yet: before they learn who likes what, most
learn nothing for a while."""


@dataclass(frozen=True)
class Job:
    """What all processes of a run are told."""

    settings: Any
    """A NetworkSettings."""
    shards: str
    """Folder of the examples."""
    validation: str | None
    """Folder of the examples to measure on, cut as the others."""
    folder: str
    """Of checkpoints and the log."""
    seed: int
    parents: tuple[Parent, ...] = ()
    """Published models to start from."""


def train(job: Job, collective: Collective) -> dict[str, Any]:
    """Train to the end or resume; the state of the best epoch, as in its state.json. Raises TrainError."""
    settings = job.settings.training
    if settings.threads:
        torch.set_num_threads(settings.threads)
    # The BLAS of the kernels, numba's, which is scipy's: its products are small, and its threads would only get in the
    # way of torch's.
    with threadpool_limits(1, "blas"):
        return Trainer(job, collective).run()


class Trainer:
    """Model, optimisers and batches of one process."""

    def __init__(self, job: Job, collective: Collective) -> None:
        self.job, self.collective = job, collective
        self.settings = settings = job.settings.training
        self.shards = Shards.open(job.shards)
        self.alias = popularity(self.shards.item_counts, settings.popularity_power, settings.unseen_negatives)
        draws = settings.negatives if settings.loss in DRAWN else 0
        in_batch = settings.negative_sampling == "batch" and draws > 0
        kind = job.settings.module
        batches = Batches(
            self.shards,
            collective.process_rank,
            collective.size,
            settings.batch,
            0 if in_batch else draws,
            self.alias,
            job.seed,
            in_batch,
            softmax=settings.loss == "softmax",
            paired=has_kernel(job.settings),
        )
        self.batches = batches
        if issubclass(kind, SequenceModel):
            about = ContextBatches if issubclass(kind, Item2Vec) else SequenceBatches
            self.batches = about.of(batches, kind, job.settings)
        left_out = collective.sum(torch.from_numpy(self.batches.without_negatives()).double()).long().numpy()
        self.batches = replace(self.batches, left_out=left_out[:, 1])
        self.without_negatives = int(left_out[:, 0].sum())
        if self.without_negatives and not self.batches.steps():
            raise TrainError(
                f"all {self.without_negatives} users have every one of {self.alias.drawable} items: there is no "
                "negative to draw, and nothing to learn from. Use a loss without negatives, such as full_softmax."
            )
        self.all_items = settings.loss in ("full_softmax", "all_squared")
        self.users = self.batches.users
        self.model = kind(job.settings, self._sizes())
        self.model.initialize(torch.Generator().manual_seed(job.seed))
        for table, ids, stream in (
            (self.model.users, self.users, 2 * job.seed),
            (self.model.items, np.arange(len(self.model.items.weight)), 2 * job.seed + 1),
        ):
            start = settings.init_scale * normal_rows(stream, ids, table.weight.shape[1])
            table.weight.copy_(torch.from_numpy(start.astype(np.float32)))
        if job.parents:
            start_from(self.model, job.parents, self.users)
        self.device = _device(settings, collective)
        self.model.to(self.device)
        for module in self.model.modules():
            if isinstance(module, BatchNorm):
                module.sum_over_processes = lambda values: summed_with_gradients(values, collective)
        self.features = self._features()
        self.dense = Dense(self.model, settings, self.device)
        self.dense.weights.copy_(collective.broadcast(self.dense.weights))
        self.user_optimizer = Optimizer(settings, self.model.users.weight, settings.table_l2)
        self.item_optimizer = Optimizer(settings, self.model.items.weight, settings.table_l2)
        self.scratch = Scratch()
        self.frozen = getattr(job.settings, "frozen", False)
        plain = has_kernel(job.settings) and job.settings.kind == "mf" and not settings.table_l2
        self.whole_runs = plain and collective.size == 1
        self.checkpoints = Checkpoints(job.folder, collective.process_rank, collective.size)

    def run(self) -> dict[str, Any]:
        state, epochs = self._resume(), self.settings.epochs
        # One thread for all epochs: it begins the next one while the last batches of this one are worked on.
        runs = (run for epoch in range(state["epoch"], epochs) for run in self.batches.step_groups(epoch))
        with closing(Prefetched(lambda: runs)) as prefetched:
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

    def _keep(self, state: dict[str, Any], entry: dict[str, Any]) -> None:
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
                state.update(best=better, best_epoch=epoch)
        state["history"].append(entry)
        if self.collective.process_rank == 0:
            log.info("%s", ", ".join(f"{name} {value}" for name, value in entry.items()))
            lines = "".join(json.dumps(each) + "\n" for each in state["history"])
            storage.write(f"{self.job.folder}/log.jsonl", lines.encode())
        last = epoch == self.settings.epochs or self._stops(state)
        if last or epoch % self.settings.checkpoint_every == 0 or state["best_epoch"] == epoch:
            self._save(state)

    def _validate(self, stopping: StoppingSettings, by_popularity: bool = False) -> float:
        folder = self.job.validation
        if folder is None:
            raise TrainError(
                "training.stopping needs a validation split, and the dataset has none: prepare it with one"
            )
        given = Shards.open(folder), self.batches, self.features, stopping, self.collective
        if stopping.metric in VALUE_METRICS:
            return validate_values(self.model, self.shards, *given)
        return validate_ranking(None if by_popularity else self.model, self.shards, *given)

    def _stops(self, state: dict[str, Any]) -> bool:
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

        shown: Iterable[tuple[float, int]] = islice(self._steps(prefetched, epoch * steps), steps)
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

    def _steps(self, runs: Iterable[StepGroup], number: int) -> Iterator[tuple[float, int]]:
        """Take the steps of the runs, the first of them number `number`: the mean loss of each, and its positives."""
        steps = self.settings.epochs * self.batches.steps()
        for run in runs:
            rates = [rate_at(self.settings, number + at, steps) for at in range(len(run.totals))]
            if self.whole_runs:
                tables = self.user_optimizer, self.item_optimizer
                losses: Iterable[float] = train_run(self.dense, *tables, run, rates, self.scratch)
            else:
                losses = map(self._step, run.batches(), rates)
            yield from zip(losses, run.totals, strict=True)
            number += len(rates)

    def _step(self, batch: Batch, rate: float) -> float:
        """Take one step; the mean loss of the batch of all processes."""
        found = self._gradients(batch)
        message, items = self._of_all(self.dense.message(found.loss), found.items, batch)
        if not self.frozen:
            self.user_optimizer.step(*found.users, rate)
            self.item_optimizer.step(*items, rate)
        return self.dense.step(message, rate)

    def _gradients(self, batch: Batch) -> Gradients:
        if batch.pairs and self.features:
            assert isinstance(self.model, FieldModel)
            users = self.users[batch.users]
            return by_field_kernel(self.model, self.dense, batch, users, self.features, self.settings, self.scratch)
        if isinstance(batch, ContextBatch):
            assert isinstance(self.model, Item2Vec)
            return by_context_kernel(self.model, batch, self.scratch)
        if batch.pairs:
            return by_kernel(self.model, self.dense, batch, self.settings, self.scratch)
        return by_autograd(self.model, batch, self._loss, self.settings)

    def _sizes(self) -> Sizes:
        return Sizes(len(self.users), self.shards.n_items, self.shards.layout or Layout(), self.shards.length)

    @property
    def _rows_of_positive(self) -> int:
        """Rows of `model.items` that a positive and its negatives read, if a field has one entry."""
        items = 1 + self.batches.negatives + isinstance(self.model, SequenceModel)
        layout = self.shards.layout or Layout()
        return items + len(layout.query) + items * len(layout.item)

    def _features(self) -> FeatureReader | None:
        return FeatureReader.of(self.shards, self.device) if isinstance(self.model, FieldModel) else None

    def _loss(self, batch: Batch) -> Tensor:
        """The sum over its positives."""
        half = self.settings.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            if self.settings.loss == "full_softmax" and (vectors := self._vectors(batch)):
                target = torch.from_numpy(batch.items[:, 0]).long().to(self.device)
                confidence = torch.from_numpy(batch.confidence).to(self.device)
                return streamed_softmax(vectors[0].float(), vectors[1].float(), target, confidence)
            scores = self._scores(batch)
        return self._loss_of(batch, scores.float())

    def _vectors(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """Of the queries of a batch and of all items, where scores are their inner products."""
        nobody, nothing = self.model.users.weight[:0], self.model.items.weight[:0]
        if isinstance(self.model, FieldModel) or self.model.vectors(nobody, nothing) is None:
            return None
        items = torch.arange(self.shards.n_items, device=self.device)
        users, known = self._query(batch)
        found: tuple[Tensor, Tensor] | None
        found = self.model.vectors(self.model.query(users, known), self.model.item(items, None))
        return found

    def _scores(self, batch: Batch) -> Tensor:
        items = self._scored_items(batch)
        users, known = self._query(batch)
        features = None if known is None else Features(known, None)
        if self.features:
            features = self.features.read(self.users[batch.users], batch.entries, batch.timestamps, items.numpy())
        scores: Tensor = self.model.score(users, items.to(self.device), features)
        return scores

    def _query(self, batch: Batch) -> tuple[Tensor, History | None]:
        """Who asks: rows of users, and what they did, for models that see it."""
        shown = batch.shown.tensors(self.device) if isinstance(batch, SequenceBatch) and batch.shown else None
        return torch.from_numpy(batch.users).to(self.device), shown

    def _scored_items(self, batch: Batch) -> Tensor:
        """(b, k) or (1, k) items whose scores the loss wants."""
        if self.all_items:
            return torch.arange(self.shards.n_items)[None]
        items = torch.from_numpy(batch.items).long()
        return items[:, 0][None] if self.batches.in_batch else items

    def _loss_of(self, batch: Batch, scores: Tensor) -> Tensor:
        n = len(batch.users)
        positive = torch.zeros(n, dtype=torch.long)
        if self.all_items:
            positive = torch.from_numpy(batch.items[:, 0]).long()
        elif self.batches.in_batch:
            positive = torch.arange(n)

        def there(values: NDArray[Any] | Tensor) -> Tensor:
            return torch.as_tensor(values).to(scores.device)

        scored = Scored(
            scores=scores,
            positive=there(positive),
            values=there(batch.values),
            confidence=there(batch.confidence),
            user_positives=there(batch.user_positives),
            log_expected=None if batch.log_expected is None else there(batch.log_expected).float(),
            false_negatives=None if batch.false_negatives is None else there(batch.false_negatives),
            drawn_share=self.batches.negatives / max(self.shards.n_items - 1, 1),
        )
        return loss_of(self.settings, scored)

    def _of_all(self, message: Tensor, items: RowGradients, batch: Batch) -> tuple[Tensor, RowGradients]:
        """The message of the dense layers, summed, and the item rows that any process has read with their gradients:
        exchanged as pairs, or where that is less as the whole table, in one message with the others."""
        if self.collective.size == 1:
            return message, items
        n, d = self.model.items.weight.shape
        most = batch.total * self._rows_of_positive
        if self.all_items or most * (d + 2) > 2 * n * d:
            whole = torch.zeros(n * (d + 1) + len(message), device=self.device)
            whole[-len(message) :] = message
            table = whole[: n * (d + 1)].view(n, d + 1)
            table[items.rows, :d], table[items.rows, d] = items.gradients, 1.0
            whole = self.collective.sum(whole)
            table = whole[: n * (d + 1)].view(n, d + 1)
            read = table[:, d].nonzero()[:, 0]
            return whole[-len(message) :], RowGradients(read, table[read, :d].contiguous())
        ids = items.rows[:, None].int().view(torch.float32)  # in one message with what they name
        packed = torch.cat(self.collective.gather(torch.cat((ids, items.gradients), 1)))
        every = packed[:, 0].contiguous().view(torch.int32).long()
        return self.collective.sum(message), summed(every, packed[:, 1:].contiguous(), n)

    def _save(self, state: dict[str, Any]) -> None:
        epoch = state["epoch"]
        users = {"ids": torch.from_numpy(self.users), "weight": self.model.users.weight}
        users |= {f"optimizer.{name}": each for name, each in self.user_optimizer.state_dict().items()}
        self.checkpoints.write_users(epoch, users)
        self.collective.barrier()
        if self.collective.process_rank == 0:
            shared = {f"dense.{name}": each.data.clone() for name, each in self.model.named_parameters()}
            shared["items.weight"] = self.model.items.weight
            shared |= {f"items.optimizer.{name}": each for name, each in self.item_optimizer.state_dict().items()}
            shared |= {f"optimizer.{name}": each for name, each in self.dense.optimizer.state_dict().items()}
            self.checkpoints.write_shared(epoch, shared, state, state["best_epoch"])
        self.collective.barrier()

    def _resume(self) -> dict[str, Any]:
        if self.collective.process_rank == 0:
            self.checkpoints.clear()
        self.collective.barrier()
        last = self.checkpoints.last()
        if last is None:
            left_out = {"users_without_negatives": self.without_negatives}
            return {"epoch": 0, "best": -1.0, "best_epoch": 0, "popularity": None, "history": [], **left_out}
        log.info("resuming after epoch %s", last["epoch"])
        shared = self.checkpoints.shared(last["epoch"])
        users = _gathered(self.checkpoints.users(last["epoch"]), self.users)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(shared[f"dense.{name}"])
            self.model.items.weight.copy_(shared["items.weight"])
            self.model.users.weight.copy_(users["weight"])
        self.item_optimizer.load(_under("items.optimizer.", shared))
        self.user_optimizer.load(_under("optimizer.", users))
        self.dense.optimizer.load(_under("optimizer.", shared))
        return last


def _only_popular(state: dict[str, Any]) -> bool:
    return state["popularity"] is not None and state["best"] <= state["popularity"]


def _device(settings: TrainingSettings, collective: Collective) -> torch.device:
    """Raises TrainError for a GPU that is not there."""
    if settings.device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise TrainError("training.device is gpu, and torch finds none here: set it to cpu, or use workers with GPUs")
    return torch.device("cuda", collective.local_rank % torch.cuda.device_count())


def _gathered(parts: list[dict[str, Tensor]], users: np.ndarray) -> dict[str, Tensor]:
    """The rows of `users` from the files of all processes, which may have been others."""
    ids = torch.cat([part["ids"] for part in parts]).numpy()
    order = np.argsort(ids)
    at = torch.from_numpy(order[np.searchsorted(ids[order], users)])
    return {
        name: parts[0][name] if parts[0][name].dim() == 0 else torch.cat([part[name] for part in parts])[at]
        for name in parts[0]
    }


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}
