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

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec.config.model import ModelSettings
from sparkrec.errors import TrainError
from sparkrec.kernels.csr import Csr
from sparkrec.kernels.ragged import Ragged, rows_of
from sparkrec.kernels.retrieval.similarity import cosine_topn, row_norms
from sparkrec.spark.arrow.blocks import Block, unpack
from sparkrec.spark.arrow.packed_rows import schema_of
from sparkrec.spark.data.fit_inputs import FitInputs
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.rows import lists, sparse, strengths
from sparkrec.spark.runner import RowFunction, map_pairs, pack

BM25_K1, BM25_B = 1.2, 0.75
"""Saturation and length normalisation as in Robertson and Zaragoza 2009, and in Frederickson's `implicit`."""

BLOCK_BYTES = 64 << 20
"""Size of the larger block of a pair, in memory; 8 bytes an interaction."""

_ARRAYS = {"index": np.int32, "value": np.float32}
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
    ids = {"user": dataset.users, "item": dataset.items}
    size = _size(ids[key], key)
    entries = strengths(inputs.observed)
    matrix = entries.select(F.col(key).alias("row"), F.col(other).alias("column"), "strength")
    nearest = neighbors(matrix, settings, inputs.scratch)
    votes = divided_votes(entries, key, nearest, settings.normalization)
    rows = {key: nearest.withColumnRenamed("row", key), other: lists(votes, other, key, "strength")}
    return Model(
        users=sparse(dataset.users, "user", rows["user"]),
        items=sparse(dataset.items, "item", rows["item"]),
        size=size,
        user_storage="sparse",
        item_storage="sparse",
    )


def neighbors(
    entries: DataFrame, settings: NeighborSettings, scratch: str | None, queries: DataFrame | None = None
) -> DataFrame:
    """Neighbours of each row of a matrix with `entries` (row long, column long, strength double).

    scratch  folder to keep the result in; None: it is kept by the executors
    queries  entries of other rows, whose neighbours are wanted instead; a row is not its own where it is in both

    Returns (row, index array<int>: ids of its `neighbors` most similar other rows, ascending, the lower id
    where two are equally similar; value array<float>: their similarities). Rows that meet no other are left out or
    empty. Raises TrainError where the weighting needs strengths above 0.
    """
    spark = entries.sparkSession
    rows = lists(_weighted(entries, entries, settings.weighting), "row", "column", "weight").persist()
    asked = rows
    if queries is not None:
        asked = lists(_weighted(queries, entries, settings.weighting), "row", "column", "weight")
    try:
        bytes_needed = 8 * (rows.agg(F.sum(F.size("index"))).collect()[0][0] or 0)
        n_candidates = 1 + bytes_needed // BLOCK_BYTES
        # Queries come in smaller blocks: tasks for all cores, and little beside the candidates of each.
        n_queries = max(int(spark.conf.get("spark.sql.shuffle.partitions") or 1), 4 * n_candidates)
        of_queries = _blocks(asked, "query", n_queries).persist()
        candidates = _blocks(rows, "candidate", n_candidates).persist()
        search = RowFunction(_NEAREST, _searcher(settings))
        best = _merge(map_pairs(of_queries, candidates, search, broadcast="neither"), settings.neighbors)
        if scratch is None:
            best = best.localCheckpoint()
        else:
            best.write.mode("overwrite").parquet(f"{scratch}/neighbors")
            best = spark.read.parquet(f"{scratch}/neighbors")
        of_queries.unpersist()
        candidates.unpersist()
    finally:
        rows.unpersist()
    return best


def divided_votes(entries: DataFrame, key: str, neighbors: DataFrame, normalization: float) -> DataFrame:
    """`entries` with the strength of each `key` divided by its t; one that is nobody's neighbour stays as it is."""
    if normalization == 0:
        return entries
    cells = neighbors.select(F.explode(F.arrays_zip("index", "value")).alias("cell"))
    totals = cells.groupBy(F.col("cell.index").cast("long").alias(key)).agg(F.sum(F.abs("cell.value")).alias("total"))
    divisor = F.when(F.col("total") > 0, F.pow("total", F.lit(normalization))).otherwise(1.0)
    voted = entries.join(totals, key, "left").withColumn("strength", F.col("strength") / divisor)
    return voted.select("user", "item", "strength")


def _size(ids: DataFrame, key: str) -> int:
    size = int(ids.agg(F.max(key)).collect()[0][0]) + 1
    if size > 2**31 - 1:
        raise TrainError(
            f"knn: {key} {size - 1} is beyond 2^31 - 2, the largest position of a sparse row. Take model.kind als."
        )
    return size


def _weighted(entries: DataFrame, matrix: DataFrame, weighting: str) -> DataFrame:
    """(row, column, weight) of entries: less for a column that many rows of the matrix share, and in a long row."""
    if weighting == "none":
        return entries.withColumnRenamed("strength", "weight")
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
    return weighed.join(columns, "column").select("row", "column", (part * F.col("idf")).alias("weight"))


def _blocks(rows: DataFrame, name: str, n: int) -> DataFrame:
    """The matrix in about n blocks, each a row of binary columns."""
    laid_out = rows.repartition(n, "row").toDF(name, "index", "value")
    return pack(laid_out, name, _ARRAYS, max_rows=2**31 - 1, max_bytes=2 * BLOCK_BYTES)


def _searcher(settings: NeighborSettings) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def search(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for at in range(batch.num_rows):
                queries, candidates = (unpack(batch, at, name, _ARRAYS) for name in ("query", "candidate"))
                index, value = _nearest(queries, candidates, settings)
                yield pa.RecordBatch.from_arrays(
                    [pa.array(queries.ids), index.arrow(), value.arrow()], names=["row", "index", "value"]
                )

    return search


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


def _merge(found: DataFrame, n: int) -> DataFrame:
    """The n most similar of the finds of each row in all blocks; the lower id where two are equally so."""

    def nearest_first(each: Column) -> Column:
        return F.struct((-each["value"]).alias("distance"), each["index"].alias("index"))

    def by_id(each: Column) -> Column:
        return F.struct(each["index"].alias("index"), (-each["distance"]).alias("value"))

    finds = F.flatten(F.collect_list(F.transform(F.arrays_zip("index", "value"), nearest_first)))
    gathered = found.groupBy("row").agg(F.slice(F.sort_array(finds), 1, n).alias("best"))
    rows = gathered.select("row", F.sort_array(F.transform("best", by_id)).alias("best"))
    return rows.select("row", F.col("best.index").alias("index"), F.col("best.value").alias("value"))
