"""Steps of one process: gradients of a batch, what the processes exchange of them, and the move of the weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sparkrec.config import TrainingSettings
from sparkrec.kernels.arrays import Scratch
from sparkrec.models.base.recommender import Recommender
from sparkrec.training.batch_loss import BatchLoss
from sparkrec.training.batches.batch import Batch, StepGroup
from sparkrec.training.batches.pairs import Batches
from sparkrec.training.collective import Collective
from sparkrec.training.computed import ComputedTables
from sparkrec.training.dense import Dense
from sparkrec.training.exchange import exchange
from sparkrec.training.gradients import Gradients, by_autograd, by_kernel, through_tables
from sparkrec.training.inputs.ids import InputReader
from sparkrec.training.losses import ALL_ITEMS
from sparkrec.training.optimizers import Optimizer, rate_at
from sparkrec.training.step_groups import train_group


class Stepper:
    """A model, its optimisers, and how they take a step."""

    def __init__(
        self,
        model: Recommender,
        batches: Batches,
        reader: InputReader,
        tables: ComputedTables,
        settings: TrainingSettings,
        collective: Collective,
        by_kernel: bool,
    ) -> None:
        self.model, self.batches, self.reader, self.tables = model, batches, reader, tables
        self.through_tables = model.computes_tables == "in steps"
        self.settings, self.collective, self.by_kernel = settings, collective, by_kernel
        self.loss = BatchLoss(model, reader, settings, batches)
        self.dense = Dense(model, settings, reader.device)
        self.dense.weights.copy_(collective.broadcast(self.dense.weights))
        self.user_optimizer = Optimizer(settings, model.users.weight, settings.table_l2)
        self.item_optimizer = Optimizer(settings, model.items.weight, settings.table_l2)
        self.scratch = Scratch()
        kernel = by_kernel and model.group_kernel is not None
        self.groups_at_once = kernel and collective.size == 1 and not settings.table_l2
        """Whether the steps of a group are one call of the model's kernel."""

    def steps(self, groups: Iterable[StepGroup], number: int) -> Iterator[tuple[float, int]]:
        """Take the steps of the groups, the first of them number `number`: the mean loss of each, and its positives."""
        steps = self.settings.epochs * self.batches.steps()
        for group in groups:
            rates = [rate_at(self.settings, number + at, steps) for at in range(len(group.totals))]
            if self.groups_at_once:
                tables = self.user_optimizer, self.item_optimizer
                losses: Iterable[float] = train_group(self.model, self.dense, *tables, group, rates, self.scratch)
            else:
                losses = map(self.step, group.batches(), rates)
            yield from zip(losses, group.totals, strict=True)
            number += len(rates)

    def step(self, batch: Batch, rate: float) -> float:
        """Take one step; the mean loss of the batch of all processes."""
        mine = self.gradients(batch)
        most = (
            None
            if self.settings.loss in ALL_ITEMS or self.through_tables
            else batch.total * self.reader.rows_of_positive(self.batches.negatives)
        )
        n_items = len(self.model.items.weight)
        message, items = exchange(self.collective, self.dense.message(mine.loss), mine.items, n_items, most)
        if not self.model.frozen_tables:
            self.user_optimizer.step(*mine.users, rate)
            self.item_optimizer.step(*items, rate)
        return self.dense.step(message, rate)

    def gradients(self, batch: Batch) -> Gradients:
        """Of this process's part of a step."""
        if self.by_kernel:
            return by_kernel(self.model, self.dense, batch, self.reader, self.settings, self.scratch)
        if self.through_tables:
            return through_tables(self.tables, batch, self.loss, self.settings, self.collective.size)
        return by_autograd(self.model, batch, self.loss, self.settings, self.collective.size)
