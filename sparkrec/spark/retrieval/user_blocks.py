"""Blocks of users: their rows of a model together with their lists of items."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sparkrec.spark.arrow.blocks import ArrayColumns
from sparkrec.spark.platform.partitions import partition_keys
from sparkrec.spark.retrieval.user_pieces import AssembleBlocks, CutLists, CutRows
from sparkrec.spark.runner import Rows

MOST_PARTITIONS = 4096
"""Into which a frame is cut: pieces of a million pairs stay longer than a few hundred."""


def user_blocks(
    rows: Rows, lists: Mapping[str, Rows], arrays: ArrayColumns, partitions: int, max_rows: int, max_bytes: int
) -> Rows:
    """Blocks, as of `Rows.pack`, of model rows (user, index, value) with the `arrays` of each user.

    lists  (user, item) or (user, item, score) by name: items ascending and once in array `name`, scores in `name_score`
    An array without a list is empty. What lists say of users without a row is left out.
    """
    keys = np.array(partition_keys(min(partitions, MOST_PARTITIONS)))
    pieces = rows.map_rows(CutRows(keys))
    for name, pairs in lists.items():
        pieces = pieces.union(pairs.map_rows(CutLists(name, keys)))
    return pieces.map_groups("partition", AssembleBlocks(arrays, max_rows, max_bytes), len(keys))
