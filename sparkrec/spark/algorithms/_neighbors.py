"""Nearest items or users by cosine with shrinkage (Sarwar et al. 2001; Bell and Koren 2007):

    similarity(a, b) = <x_a, x_b> / (|x_a|^(2 asymmetry) |x_b|^(2 - 2 asymmetry) + shrinkage)

What a neighbour b says is divided by t_b, the sum of |similarity(a, b)| over all a that it is a neighbour of, to the
power of `normalization`.

The matrix of interactions is cut into blocks of rows: the items of itemknn, the users of userknn. Every pair
of blocks is a task, which finds the n neighbours, among the rows of the second, of each row of the first.
What a row finds in all the blocks is then merged. Joining the interactions with themselves in Spark would
instead make n_u^2 rows of a user with n_u items.

A task holds BLOCK_BYTES / 8 interactions at about 50 bytes each, 0.4 GB beside Spark, however long the log
is; up to that size the second block is the whole matrix. Time grows with the sum of n^2 over users (itemknn)
or over items (userknn), so popular items make userknn the dearer of the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.config.model import ModelSettings
from sparkrec.errors import TrainError
from sparkrec.kernels.csr import Csr
from sparkrec.kernels.ragged import Ragged, rows_of, starts_of
from sparkrec.kernels.retrieval.similarity import cosine_topn, row_norms
from sparkrec.spark.arrow.blocks import Block, binary, unpack
from sparkrec.spark.arrow.entries import ARRAYS
from sparkrec.spark.arrow.packed_rows import each_row, one_row, schema_of
from sparkrec.spark.data.fit_inputs import FitInputs
from sparkrec.spark.data.matrix_rows import EVENT, matrix_blocks, matrix_rows, partitions_of
from sparkrec.spark.in_place import carry_out
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.rows import sparse_rows, strengths
from sparkrec.spark.platform.few import narrowed
from sparkrec.spark.runner import Rows

BM25_K1, BM25_B = 1.2, 0.75
"""Saturation and length normalisation as in Robertson and Zaragoza 2009, and in Frederickson's `implicit`."""

BLOCK_BYTES = 64 << 20
"""Size of the larger block of a pair, in memory; 8 bytes an interaction."""

_FOUND = schema_of(block=pa.int64(), ids=pa.binary(), start=pa.binary(), index=pa.binary(), value=pa.binary())
"""What queries found among some candidates, in arrays. The block is the lowest of their ids."""
_NEAREST = schema_of(row=pa.int64(), index=pa.list_(pa.int32()), value=pa.list_(pa.float32()))


class NeighborSettings(ModelSettings):
    """Of models of neighbours."""

    neighbors: int = Field(100, ge=1)
    """The most similar that are kept of each."""
    shrinkage: float = Field(10.0, ge=0)
    """Added to the cosine's denominator: pulls similarities that rest on few interactions toward 0."""
    asymmetry: float = Field(0.5, ge=0, le=1)
    """alpha in the denominator |a|^(2 alpha) |b|^(2 - 2 alpha) of a and its neighbour b (Aiolli 2013). 0.5: the cosine;
    less favours popular items, or neighbours of short histories."""
    normalization: float = Field(0.0, ge=0, le=1)
    """Power of the sum of its similarities by which the vote of a neighbour is divided: 0 leaves it, 1 gives each
    neighbour the same say (Deshpande and Karypis 2004, section 4.1). Between them a neighbour of many loses weight."""
    weighting: Literal["none", "bm25", "tfidf"] = "none"
    """Of the interactions before the cosine."""


def fit_neighbors(key: str, other: str, settings: NeighborSettings, inputs: FitInputs) -> Model:
    """Neighbours among the `key` side; the `other` side's rows are the votes."""
    dataset = inputs.dataset

    def plan(observed: Rows, users: Rows, items: Rows) -> tuple[Any, ...]:
        ids = {"user": users, "item": items}
        size = _size(ids[key], key)
        matrix = observed.select("value", "confidence", row=key, column=other)
        nearest = neighbors(matrix, settings, inputs.scratch)
        votes = observed.select("value", "confidence", row=other, column=key)
        if settings.normalization:
            divided = divided_votes(strengths(observed.frame()), key, nearest.frame(), settings.normalization)
            votes = observed.of(divided).select(row=other, column=key, value="strength")
        rows = {key: nearest, other: matrix_rows(votes, partitions_of(observed))}
        tables = {
            side: sparse_rows(ids[side], side, rows[side].select("index", "value", **{side: "row"})) for side in ids
        }
        return tables["user"].frame(), tables["item"].frame(), size

    users, items, size = carry_out(
        settings.kind,
        plan,
        narrowed(inputs.observed, *EVENT),
        narrowed(dataset.users, "user"),
        narrowed(dataset.items, "item"),
    )
    return Model(users=users, items=items, size=size, user_storage="sparse", item_storage="sparse")


def neighbors(entries: Rows, settings: NeighborSettings, scratch: str | None, queries: Rows | None = None) -> Rows:
    """Neighbours of each row of a matrix with `entries` (row, column, value; confidence or none).

    scratch  folder to keep the result in; None: it is kept by the executors
    queries  entries of other rows, whose neighbours are wanted instead; a row is not its own where it is in both

    Returns (row, index list<int32>: ids of its `neighbors` most similar other rows, ascending, the lower id
    where two are equally similar; value list<float32>: their similarities). Rows that meet no other are left out or
    empty. Raises TrainError where the weighting needs strengths above 0.
    """
    asked = entries if queries is None else queries
    if settings.weighting != "none":
        matrix, wanted = (_strengths(each) for each in (entries, asked))
        asked = entries.of(_weighted(wanted, matrix, settings.weighting))
        entries = entries.of(_weighted(matrix, matrix, settings.weighting))
    n_candidates = 1 + 8 * entries.count() // BLOCK_BYTES
    # Queries come in smaller blocks: tasks for all cores, and little beside the candidates of each.
    n_queries = max(partitions_of(entries), 4 * n_candidates)
    of_queries = matrix_blocks(asked, "query", n_queries).kept()
    candidates = matrix_blocks(entries, "candidate", n_candidates).kept()
    found = of_queries.map_pairs(candidates, SearchBlocks(settings), broadcast="neither")
    best = found.map_groups("block", MergeNearest(settings.neighbors))
    best = best.computed() if scratch is None else best.stored(f"{scratch}/neighbors")
    best.count()  # before the blocks are let go of
    of_queries.release()
    candidates.release()
    return best


def _strengths(entries: Rows) -> DataFrame:
    """(row, column, strength double) of entries."""
    named = entries.select("row", "column", "value", *(["confidence"] if "confidence" in entries.columns else []))
    frame = named.frame()
    strength = F.col("value") * F.col("confidence") if "confidence" in frame.columns else F.col("value")
    return frame.groupBy("row", "column").agg(F.sum(strength).alias("strength"))


def divided_votes(entries: DataFrame, key: str, neighbors: DataFrame, normalization: float) -> DataFrame:
    """`entries` with the strength of each `key` divided by its t; one that is nobody's neighbour stays as it is."""
    if normalization == 0:
        return entries
    cells = neighbors.select(F.explode(F.arrays_zip("index", "value")).alias("cell"))
    totals = cells.groupBy(F.col("cell.index").cast("long").alias(key)).agg(F.sum(F.abs("cell.value")).alias("total"))
    divisor = F.when(F.col("total") > 0, F.pow("total", F.lit(normalization))).otherwise(1.0)
    voted = entries.join(totals, key, "left").withColumn("strength", F.col("strength") / divisor)
    return voted.select("user", "item", "strength")


def _size(ids: Rows, key: str) -> int:
    size = int(ids.described(key)[0].most or 0) + 1
    if size > 2**31 - 1:
        raise TrainError(
            f"knn: {key} {size - 1} is beyond 2^31 - 2, the largest position of a sparse row. Take model.kind als."
        )
    return size


def _weighted(entries: DataFrame, matrix: DataFrame, weighting: str) -> DataFrame:
    """(row, column, value) of entries (row, column, strength): less for a column that many rows of the matrix share,
    and in a long row."""
    totals = matrix.agg(F.countDistinct("row"), F.sum("strength"), F.min("strength"))
    n_rows, total, least = totals.collect()[0]
    if least is not None and least <= 0:
        raise TrainError(
            f"knn: weighting {weighting} is for strengths above 0, but one is {least:g}. Set model.weighting "
            "to none, or prepare with feedback.kind implicit."
        )
    columns = matrix.groupBy("column").agg(F.log((1.0 + (n_rows or 0)) / (1.0 + F.count("*"))).alias("idf"))
    strength = F.col("strength")
    if weighting == "tfidf":
        weighed, part = entries, F.sqrt(strength)
    else:
        relative = F.sum("strength") / ((total or 1.0) / (n_rows or 1))
        lengths = entries.groupBy("row").agg((BM25_K1 * (1 - BM25_B + BM25_B * relative)).alias("k"))
        weighed, part = entries.join(lengths, "row"), strength * (BM25_K1 + 1) / (F.col("k") + strength)
    return weighed.join(columns, "column").select("row", "column", (part * F.col("idf")).alias("value"))


@dataclass(frozen=True)
class SearchBlocks:
    """The task on rows that each hold a block of queries and one of candidates: FOUND of the two."""

    settings: NeighborSettings

    @property
    def schema(self) -> pa.Schema:
        return _FOUND

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for at in range(batch.num_rows):
                queries, candidates = (unpack(batch, at, name, ARRAYS) for name in ("query", "candidate"))
                index, value = _nearest(queries, candidates, self.settings)
                columns = {"ids": queries.ids, "start": index.start, "index": index.values, "value": value.values}
                arrays = {name: binary(array) for name, array in columns.items()}
                yield one_row(_FOUND, block=pa.array([int(queries.ids[0])]), **arrays)


@dataclass(frozen=True)
class MergeNearest:
    """The task on FOUND of a block of queries in all blocks of candidates: the n most similar of each, the lower id
    where two are equally so."""

    n: int

    @property
    def schema(self) -> pa.Schema:
        return _NEAREST

    def __call__(self, group: pa.Table) -> pa.Table:
        parts = [*each_row(group.to_batches())]
        ids = parts[0].array("ids", np.int64)
        row = np.concatenate([rows_of(part.array("start", np.int64)) for part in parts])
        index = np.concatenate([part.array("index", np.int32) for part in parts])
        value = np.concatenate([part.array("value", np.float32) for part in parts])
        order = np.lexsort((index, -value, row))
        lengths = np.bincount(row, minlength=len(ids))
        place = np.arange(len(row)) - np.repeat(starts_of(lengths)[:-1], lengths)
        kept = order[place < self.n]
        kept = kept[np.lexsort((index[kept], row[kept]))]
        lengths = np.minimum(lengths, self.n)
        lists = (Ragged.of_lengths(lengths, values[kept]).arrow() for values in (index, value))
        return pa.Table.from_arrays([pa.array(ids), *lists], schema=_NEAREST)


def _nearest(queries: Block, candidates: Block, settings: NeighborSettings) -> tuple[Ragged, Ragged]:
    """Ids of the nearest candidates of each query, and their similarities."""
    own, others = queries.arrays, candidates.arrays
    n_others = len(candidates)
    indices = np.concatenate([others["index"].values, own["index"].values])
    columns, indices = np.unique(indices, return_inverse=True)
    values = np.concatenate([others["value"].values, own["value"].values])
    indptr = np.concatenate([others["index"].start, others["index"].start[-1] + own["index"].start[1:]])
    rows = Csr(indptr, indices.astype(np.int32), values)
    # The kernel searches among all rows. Queries must not be found: they are 0 in the transpose, where a
    # product of 0 is no neighbour. A query may be a candidate too: one neighbour more, then itself out again.
    sought = values.copy()
    sought[others["value"].start[-1] :] = 0
    places = rows_of(indptr)
    transpose = Csr.from_pairs(indices, places, sought, len(columns))
    norms = row_norms(rows)
    norms[:n_others] **= 2 - 2 * settings.asymmetry
    norms[n_others:] **= 2 * settings.asymmetry
    n = settings.neighbors + 1
    found = cosine_topn(rows, transpose, norms, n_others, rows.n_rows, n, settings.shrinkage)
    ids = candidates.ids[found.indices].astype(np.int32)
    index = Ragged(found.indptr, ids)
    is_other = ids != queries.ids[index.rows]
    return index.keep(is_other, ids), index.keep(is_other, found.values)
