"""How networks are trained."""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias

from pydantic import Field, model_validator

from sparkrec.config.base import Settings
from sparkrec.config.data import LEFT, DataFacts, FromData

EPOCHS, EPOCHS_UNWATCHED = 100, 15
"""At most, where training stops early; and without."""
PATIENCE, PATIENCE_STEPS = 4, 250
"""Epochs, and steps, whichever is more: a few steps of a small log say nothing yet."""
CELLS = 50_000_000
"""Users times items of a measurement."""
FEWEST_STEPS = 500
"""Of a training that is not stopped early."""


class ShardSettings(Settings):
    """How the examples are cut for the processes that train."""

    of_group: int | None = Field(None, ge=1)
    """None: one for each process. The steps are the same for any number of processes up to this."""
    groups: int = Field(1, ge=1)
    """An epoch goes over this many groups of shards, one after the other. More take less memory, and mix less."""


class StoppingSettings(Settings):
    """When to stop early: after `patience` measurements without a better one. The best is kept."""

    metric: Literal["ndcg", "hit_rate", "recall", "auc", "log_loss", "rmse"] = "ndcg"
    """Of ranked items, or of the values of held-out examples: auc and log_loss of those above 0 being clicks, rmse."""
    k: int = Field(10, ge=1)
    """Of ranked items."""
    every: int = Field(1, ge=1)
    """Epochs between measurements on the validation split."""
    patience: int = Field(3, ge=1)
    """Measurements without a better one before the training stops."""
    users: int = Field(10_000, ge=1)
    """Measure on at most this many users."""
    exclude_seen: bool = True
    """Whether the items of training are left out of the ranking. False: for logs where people repeat."""

    @property
    def title(self) -> str:
        """What the log calls it."""
        return self.metric if self.metric in ("auc", "log_loss", "rmse") else f"{self.metric}@{self.k}"


_RATES = {"sgd": 0.05, "adagrad": 0.08, "rmsprop": 1e-3, "adam": 1e-3, "adamw": 1e-3}

Loss: TypeAlias = Literal[
    "squared",
    "log_loss",
    "weighted_squared",
    "bce",
    "gbce",
    "bpr",
    "hinge",
    "bpr_max",
    "top1_max",
    "softmax",
    "full_softmax",
    "all_squared",
]


class TrainingSettings(Settings):
    """How a network is trained, whatever it is."""

    loss: FromData[Loss] = LEFT
    """None: squared for ratings, log_loss for clicks and views, else what suits the kind.

    squared: observed values. log_loss: binary cross-entropy of observed clicks, values above 0, and views, values of 0
    or less; nothing is drawn. weighted_squared: 1 of positives, 0 of negatives, which have `negative_weight`. bce:
    binary cross-entropy of the same; gbce: with less weight on positives, so that scores are not too sure (Petrov and
    Macdonald 2023). bpr, hinge: a positive over its negatives (Rendle et al. 2009); bpr_max, top1_max: over the
    strongest of them (Hidasi and Karatzoglou 2018). softmax: a positive among its negatives, corrected for how they are
    drawn; full_softmax among all items. all_squared: weighted_squared with every item as a negative of every user."""
    negatives: FromData[int] = Field(LEFT, ge=0)
    """Drawn for each positive in each epoch, of items that its user has not (of all others by softmax). Users who have
    every item are left out, and counted. None: as suits the kind and the loss."""
    negative_sampling: Literal["items", "batch"] = "items"
    """items: drawn for each positive. batch: the positives of the batch, for bpr, hinge and softmax."""
    popularity_power: float = Field(0.0, ge=0, le=1)
    """a of sampling by popularity^a. 0: uniform."""
    unseen_negatives: bool = True
    """Whether items without a train interaction are drawn. False where they are new, not unwanted."""
    negative_weight: float = Field(1.0, gt=0)
    """Weight of each negative beside a positive."""
    calibration: float = Field(0.75, ge=0, le=1)
    """t of gbce: 0 is bce, 1 as if all items were drawn."""
    score_l2: float = Field(1.0, ge=0)
    """L2 on the scores of negatives in bpr_max."""
    epochs: FromData[int] = Field(LEFT, ge=1)
    """Passes over the train examples; the most, with `stopping`. None: until it stops early, at most 100; 15 where
    nothing is held out to measure on, more for a log so small that they are less than 500 steps."""
    batch: FromData[int] = Field(LEFT, ge=1)
    """Positives in a step, or sequences of a model that sees them, or users of one that sees whole rows, all processes
    together. None: as suits the kind; else from 256 to 8,192, a 512th of the rows; from 32 to 256, a 64th of the
    sequences or users."""
    accumulate: int = Field(1, ge=1)
    """Parts in which a process computes its batch, one after the other, to save memory."""
    optimizer: FromData[Literal["sgd", "adagrad", "rmsprop", "adam", "adamw"]] = LEFT
    """How a gradient becomes a step. None: as suits the kind, or adam where a learning_rate is set."""
    learning_rate: FromData[float] = Field(LEFT, gt=0)
    """Size of a step, before the schedule. None: as suits the kind, or the optimizer."""
    momentum: float = Field(0.0, ge=0, lt=1)
    """Of sgd."""
    weight_decay: float = Field(0.0, ge=0)
    """Of adamw, on all; of the others, L2 on the dense layers."""
    user_l2: FromData[float] = Field(LEFT, ge=0)
    """L2 on the rows of users that a batch reads: once for each of their positives. None: as suits the kind."""
    item_l2: FromData[float] = Field(LEFT, ge=0)
    """L2 on the rows of items that a batch reads: each as often as it is a positive or a negative. None: as suits the
    kind."""
    table_l2: float = Field(0.0, ge=0)
    """L2 on all rows of users, items and features in every step, however seldom a batch reads them: what is rare stays
    small."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Of the learning rate, down to 0 at the last step."""
    warmup_steps: int = Field(0, ge=0)
    """Steps in which the learning rate grows from 0."""
    clip_norm: float | None = Field(None, gt=0)
    """Of the gradient of the dense layers."""
    init_scale: FromData[float] = Field(LEFT, gt=0)
    """Deviation of the embeddings at the start. None: as suits the kind."""
    processes: int = Field(1, ge=1)
    """Number of processes that train together."""
    threads: int | None = Field(None, ge=1)
    """Of each process. None: the cores of the machine, shared among its processes."""
    launcher: Literal["local", "horovod", "torch"] | None = None
    """What starts the processes and connects them. None: local for one process; for more horovod where it is installed,
    else torch."""
    device: Literal["cpu", "gpu"] = "cpu"
    """gpu: each process uses one of its machine's, by its number there; launcher torch needs one for each and exchanges
    between them by NCCL."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: products of the dense layers in half as many bits; weights, gradients and losses stay float32."""
    checkpoint_every: int = Field(1, ge=1)
    """Epochs between checkpoints, from which a killed run resumes."""
    stall_seconds: int = Field(300, ge=1)
    """A run in which a process makes no step for so long is ended."""
    shards: ShardSettings = ShardSettings()
    """How the examples are cut."""
    stopping: StoppingSettings | None = None
    """When to stop early. None: where `epochs` is None too and the dataset has a validation split, by ndcg@10, or rmse
    for ratings, or auc for clicks; else training goes on to the last epoch."""

    @model_validator(mode="after")
    def _launcher_can(self) -> TrainingSettings:
        if self.launcher == "local" and self.processes != 1:
            raise ValueError(f"launcher local runs 1 process, found {self.processes}: use horovod or torch")
        return self

    @property
    def starter(self) -> Literal["local", "horovod", "torch"]:
        """The launcher, with what stands for None here."""
        if self.launcher is not None:
            return self.launcher
        if self.processes == 1:
            return "local"
        return "horovod" if find_spec("horovod") else "torch"

    def suited(self, data: DataFacts, usual: dict[str, Any], by_user: bool = False) -> TrainingSettings:
        """These settings with a value for each that was left to the data, or to what is installed.

        usual    what suits the kind of model, by name of the setting
        by_user  whether a batch is of users: sequences, one for each, or whole rows
        Raises ValueError for a loss of other values than the data have.
        """
        if self.loss in ("squared", "log_loss") and not data.explicit:
            raise ValueError(
                f"training.loss is {self.loss}, which learns values, and the feedback is implicit: all values are 1. "
                "Leave it out, take bce, bpr or softmax, or prepare with feedback.kind explicit"
            )
        left = {name: getattr(self, name) is None for name in type(self).model_fields}
        usual = dict(usual)
        if left["optimizer"] and not left["learning_rate"]:
            usual["optimizer"] = "adam"
        elif not left["optimizer"] and self.optimizer != usual["optimizer"]:
            usual["learning_rate"] = _RATES[self.optimizer]
        per_step, least, most = (64, 32, 256) if by_user else (512, 256, 8192)
        units = data.users if by_user else data.rows
        usual.setdefault("batch", min(max(1 << round(math.log2(max(units / per_step, 1))), least), most))
        steps = math.ceil(units / (self.batch or usual["batch"]))
        stopping = self.stopping
        if stopping is None and left["epochs"] and data.held_out is not None:
            metric = {"ratings": "rmse", "clicks": "auc"}.get(data.held_out, "ndcg")
            stopping = StoppingSettings.model_validate(
                {
                    "metric": metric,
                    "patience": max(PATIENCE, math.ceil(PATIENCE_STEPS / steps)),
                    "users": min(max(CELLS // max(data.items, 1), 1000), 10_000),
                }
            )
        if self.processes > 1:
            usual["launcher"] = self.starter
        usual["epochs"] = EPOCHS if stopping else max(EPOCHS_UNWATCHED, math.ceil(FEWEST_STEPS / steps))
        return self.filled(**usual, stopping=stopping)

    @property
    def compares(self) -> bool:
        """Whether the loss depends on differences of scores alone, so that a constant in all of them is nothing."""
        return self.loss in ("bpr", "hinge", "softmax", "full_softmax")
