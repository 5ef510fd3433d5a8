"""What processes exchange in a step: gradients of item rows and of dense layers."""

from __future__ import annotations

import torch
from torch import Tensor

from sparkrec.training.collective import Collective
from sparkrec.training.gradients import RowGradients, summed


def exchange(
    collective: Collective, message: Tensor, items: RowGradients, n_items: int, most_rows: int | None
) -> tuple[Tensor, RowGradients]:
    """The sums over all processes of a message, and of the gradients of the item rows that any of them has read.

    Rows are exchanged as pairs, or where that is less as the whole table, in one message with the other.

    n_items    rows of the table of items
    most_rows  that all processes together can have read; None: they read all
    """
    if collective.size == 1:
        return message, items
    n, d = n_items, items.gradients.shape[1]
    if most_rows is None or most_rows * (d + 2) > 2 * n * d:
        whole = torch.zeros(n * (d + 1) + len(message), device=message.device)
        whole[-len(message) :] = message
        table = whole[: n * (d + 1)].view(n, d + 1)
        table[items.rows, :d], table[items.rows, d] = items.gradients, 1.0
        whole = collective.sum(whole)
        table = whole[: n * (d + 1)].view(n, d + 1)
        read = table[:, d].nonzero()[:, 0]
        return whole[-len(message) :], RowGradients(read, table[read, :d].contiguous())
    ids = items.rows[:, None].int().view(torch.float32)  # in one message with what they name
    packed = torch.cat(collective.gather(torch.cat((ids, items.gradients), 1)))
    every = packed[:, 0].contiguous().view(torch.int32).long()
    return collective.sum(message), summed(every, packed[:, 1:].contiguous(), n)
