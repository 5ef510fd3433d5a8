"""Rows of a sparse matrix, as DataFrames or blocks, from its entries."""

from __future__ import annotations

import numpy as np

from sparkrec.spark.arrow.entries import CutEntries, GatherBlock, GatherRows
from sparkrec.spark.platform.partitions import partition_keys
from sparkrec.spark.runner import Rows

EVENT = ("user", "item", "value", "confidence")
"""Columns of events that entries are made of."""
_ENTRIES_OF_A_TASK = 1 << 21


def matrix_rows(entries: Rows, partitions: int) -> Rows:
    """(row, index, value): each row of a matrix with entries as of `CutEntries`."""
    return _pieces(entries, partitions).map_groups("partition", GatherRows(), partitions)


def matrix_blocks(entries: Rows, name: str, partitions: int) -> Rows:
    """The rows in at most so many blocks of about equal size: ids ascend, columns are `<name>_id` and so on."""
    return _pieces(entries, partitions).map_groups("partition", GatherBlock(name), partitions)


def partitions_of(entries: Rows) -> int:
    """Into how many entries are cut: a few tasks for each core."""
    return max(4 * entries.slots, entries.count() // _ENTRIES_OF_A_TASK)


def _pieces(entries: Rows, partitions: int) -> Rows:
    return entries.map_rows(CutEntries(np.array(partition_keys(partitions))))
