"""Blocks of users: their rows of a model together with their lists of items."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import numpy as np
from pyspark.sql import DataFrame

from sparkrec.spark.arrow.blocks import ArrayColumns
from sparkrec.spark.platform.partitions import partition_keys
from sparkrec.spark.retrieval.user_pieces import AssembleBlocks, CutLists, CutRows
from sparkrec.spark.runner import map_groups, map_rows

MOST_PARTITIONS = 4096
"""Into which a frame is cut: pieces of a million pairs stay longer than a few hundred."""


def user_blocks(
    rows: DataFrame,
    users: DataFrame | None,
    lists: Mapping[str, DataFrame],
    arrays: ArrayColumns,
    partitions: int,
    max_rows: int,
    max_bytes: int,
) -> DataFrame:
    """Blocks, as of `runner.pack`, of model rows (user, index, value) with the `arrays` of each user.

    users  (user) whose rows to take; None: all
    lists  (user, item) or (user, item, score) by name: items ascending and once in array `name`, scores in `name_score`
    An array without a list is empty. What lists say of users without a row is left out.
    """
    keys = np.array(partition_keys(min(partitions, MOST_PARTITIONS)))
    chosen = rows if users is None else rows.join(users, "user", "left_semi")
    frames = [map_rows(chosen.select("user", "index", "value"), CutRows(keys))]
    frames += [map_rows(pairs, CutLists(name, keys)) for name, pairs in lists.items()]
    pieces = reduce(DataFrame.union, frames)
    return map_groups(pieces, "partition", AssembleBlocks(arrays, max_rows, max_bytes), len(keys))
