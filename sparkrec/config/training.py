"""How networks are trained."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field

from sparkrec.config.base import Settings


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
    users: int = Field(10_000, ge=1)
    """Measure on at most this many users."""

    @property
    def title(self) -> str:
        """What the log calls it."""
        return self.metric if self.metric in ("auc", "log_loss", "rmse") else f"{self.metric}@{self.k}"


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

    loss: Loss = "bce"
    """squared: observed values. log_loss: binary cross-entropy of observed clicks, values above 0, and views, values
    of 0 or less; nothing is drawn. weighted_squared: 1 of positives, 0 of negatives, which have `negative_weight`. bce:
    binary cross-entropy of the same; gbce: with less weight on positives, so that scores are not too sure (Petrov and
    Macdonald 2023). bpr, hinge: a positive over its negatives (Rendle et al. 2009); bpr_max, top1_max: over the
    strongest of them (Hidasi and Karatzoglou 2018). softmax: a
    positive among its negatives, corrected for how they are drawn; full_softmax among all items. all_squared:
    weighted_squared with every item as a negative of every user."""
    negatives: int = Field(4, ge=0)
    """Drawn for each positive in each epoch, of items that its user has not (of all others by softmax). Users who have
    every item are left out, and counted."""
    negative_sampling: Literal["items", "batch"] = "items"
    """items: drawn for each positive. batch: the positives of the batch, for bpr, hinge and softmax."""
    popularity_power: float = Field(0.0, ge=0, le=1)
    """a of sampling by popularity^a. 0: uniform."""
    unseen_negatives: bool = True
    """Whether items without a train interaction are drawn. False where they are new, not unwanted."""
    negative_weight: float = Field(1.0, gt=0)
    calibration: float = Field(0.75, ge=0, le=1)
    """t of gbce: 0 is bce, 1 as if all items were drawn."""
    score_l2: float = Field(1.0, ge=0)
    """L2 on the scores of negatives in bpr_max."""
    epochs: int = Field(20, ge=1)
    batch: int = Field(2048, ge=1)
    """Positives in a step, all processes together."""
    accumulate: int = Field(1, ge=1)
    """Parts in which a process computes its batch, one after the other, to save memory."""
    optimizer: Literal["sgd", "adagrad", "rmsprop", "adam", "adamw"] = "adam"
    learning_rate: float = Field(1e-3, gt=0)
    momentum: float = Field(0.0, ge=0, lt=1)
    """Of sgd."""
    weight_decay: float = Field(0.0, ge=0)
    """Of adamw, on all; of the others, L2 on the dense layers."""
    user_l2: float = Field(0.0, ge=0)
    """L2 on the rows of users that a batch reads: once for each of their positives."""
    item_l2: float = Field(0.0, ge=0)
    """L2 on the rows of items that a batch reads: each as often as it is a positive or a negative."""
    table_l2: float = Field(0.0, ge=0)
    """L2 on all rows of users, items and features in every step, however seldom a batch reads them: what is rare stays
    small."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Of the learning rate, down to 0 at the last step."""
    warmup_steps: int = Field(0, ge=0)
    clip_norm: float | None = Field(None, gt=0)
    """Of the gradient of the dense layers."""
    init_scale: float = Field(0.01, gt=0)
    """Deviation of the embeddings at the start."""
    processes: int = Field(1, ge=1)
    threads: int | None = Field(None, ge=1)
    """Of each process. None: the cores of the machine, shared among its processes."""
    launcher: Literal["local", "horovod", "torch"] | None = None
    """None: local for one process, horovod for more."""
    device: Literal["cpu", "gpu"] = "cpu"
    """gpu: each process uses one of its machine's, by its number there."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: products of the dense layers in half as many bits; weights, gradients and losses stay float32."""
    checkpoint_every: int = Field(1, ge=1)
    """Epochs between checkpoints, from which a killed run resumes."""
    stall_seconds: int = Field(300, ge=1)
    """A run in which a process makes no step for so long is ended."""
    shards: ShardSettings = ShardSettings()
    stopping: StoppingSettings | None = None

    @property
    def compares(self) -> bool:
        """Whether the loss depends on differences of scores alone, so that a constant in all of them is nothing."""
        return self.loss in ("bpr", "hinge", "softmax", "full_softmax")
