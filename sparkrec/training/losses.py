"""Losses of a batch: summed over its positives, so that parts of a batch add up."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sparkrec.config import TrainingSettings

DRAWN = ("bce", "gbce", "weighted_squared", "bpr", "hinge", "bpr_max", "top1_max", "softmax")
"""Losses for which negatives are drawn."""

ALL_ITEMS = ("full_softmax", "all_squared")
"""Losses over all items."""


@dataclass(frozen=True)
class Scored:
    """A batch and its scores.

    scores           (b, 1 + n): of the positive, then of its negatives; or (b, m) of all items or all positives; or
                     (u, m) of all items, with `of`
    positive         (b,) column of the positive
    values           (b,) observed values
    confidence       (b,) weight of each example
    user_positives   (b,) positives of each one's user
    log_expected     (b, m) log of the number of times that the item of a column is drawn for a row, in the mean; that
                     of the positive, which is there for sure, is not read. None: not softmax
    false_negatives  (b, m) columns that are no negatives of a row; None: all but the positive are
    of               (b,) row of the scores that each positive is of, where a row has several; None: one each
    """

    scores: Tensor
    positive: Tensor
    values: Tensor
    confidence: Tensor
    user_positives: Tensor
    log_expected: Tensor | None = None
    false_negatives: Tensor | None = None
    drawn_share: float = 1.0
    """Negatives of a positive over all items that could be."""
    of: Tensor | None = None

    def each(self, values: Tensor) -> Tensor:
        """(u,) of the rows of the scores -> (b,) of the positives."""
        return values if self.of is None else values[self.of]


def loss_of(settings: TrainingSettings, batch: Scored) -> Tensor:
    """The loss of a batch, a scalar: the sum over its positives, each times its confidence."""
    scores, confidence = batch.scores, batch.confidence
    mine = scores.gather(1, batch.positive[:, None])[:, 0] if batch.of is None else scores[batch.of, batch.positive]
    if settings.loss == "squared":
        return (confidence * (mine - batch.values) ** 2).sum()
    if settings.loss == "log_loss":
        clicked = torch.where(batch.values > 0, mine, -mine)
        return (confidence * F.softplus(-clicked)).sum()
    if settings.loss in ("softmax", "full_softmax"):
        logits = scores
        if batch.log_expected is not None:  # the sum over all items in the mean (Bengio and Senécal 2008)
            logits = (scores - batch.log_expected).scatter(1, batch.positive[:, None], mine[:, None])
        if batch.false_negatives is not None:
            logits = logits.masked_fill(batch.false_negatives.scatter(1, batch.positive[:, None], False), -torch.inf)
        return (confidence * (batch.each(logits.logsumexp(1)) - mine)).sum()
    if settings.loss == "all_squared":  # the sum over all items once a user: a share at each of its positives
        everywhere = batch.each((scores**2).sum(1)) / batch.user_positives
        return (confidence * (mine - 1.0) ** 2).sum() + settings.negative_weight * everywhere.sum()
    others = _others(batch)
    if settings.loss in ("bce", "gbce"):
        each = F.softplus(-mine) * confidence
        if settings.loss == "gbce":  # Petrov and Macdonald 2023, eq. 10 and 21
            each = each * (1.0 - settings.calibration * (1.0 - batch.drawn_share))
        return each.sum() + settings.negative_weight * (F.softplus(scores) * others).sum()
    if settings.loss == "weighted_squared":
        each = (mine - 1.0) ** 2 * confidence
        return each.sum() + settings.negative_weight * (scores**2 * others).sum()
    margin = mine[:, None] - scores
    if settings.loss in ("bpr_max", "top1_max"):  # Hidasi and Karatzoglou 2018, eq. 8, 10 and 11
        # Where every column is taken there is no strongest one: lowest instead of -inf, so that no NaN comes of it.
        strong = others * scores.masked_fill(others == 0, torch.finfo(scores.dtype).min).softmax(1)
        if settings.loss == "top1_max":
            return (confidence[:, None] * strong * ((-margin).sigmoid() + (scores**2).sigmoid())).sum()
        likely = (strong * margin.sigmoid()).sum(1).clamp(min=1e-24)
        there = others.amax(1)
        return (confidence * (settings.score_l2 * (strong * scores**2).sum(1) - there * likely.log())).sum()
    pairs = F.softplus(-margin) if settings.loss == "bpr" else (1.0 - margin).relu()
    share = others / others.sum(1, keepdim=True).clamp(min=1.0)
    return (confidence[:, None] * pairs * share).sum()


def _others(batch: Scored) -> Tensor:
    """(b, m) 1 where a column is a negative of the row."""
    others = (
        torch.ones_like(batch.scores)
        if batch.false_negatives is None
        else (~batch.false_negatives).to(batch.scores.dtype)
    )
    return others.scatter(1, batch.positive[:, None], 0.0)
