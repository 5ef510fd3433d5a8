"""What a manifest tells of the rows of a dataset."""

import numpy as np
import pytest
from pyspark.sql import functions as F

from sparkrec.spark.data.part_counts import QUANTILES, facts, rows_by_part
from sparkrec.spark.in_place import carry_out

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("everywhere")]


def test_counts_are_those_of_a_query(spark):
    rng = np.random.default_rng(0)
    parts = ["train", "validation", "test", "candidates"]
    rows = [(int(rng.zipf(1.6)) % 90, int(rng.integers(9)), parts[rng.integers(4)]) for _ in range(700)]
    frame = spark.createDataFrame(rows, "user long, item long, part string").repartition(3)

    def count(side):
        return carry_out("count", lambda rows: rows_by_part(rows, side).frame(), frame.select(side, "part"))

    of_part = [F.count_if(F.col("part") == part).alias(f"{part}_count") for part in parts[:3]]
    for side in ("user", "item"):
        assert sorted(count(side).collect()) == sorted(frame.groupBy(side).agg(*of_part).collect())
    told = carry_out("facts", facts, count("user"), count("item"))
    each = F.col("train_count") + F.col("validation_count") + F.col("test_count")
    expected = count("user").agg(F.percentile(each, F.lit([*QUANTILES.values()]))).collect()[0][0]
    assert list(told["interactions_per_user"].values()) == pytest.approx(expected)
    rows = [row for row in rows if row[2] != "candidates"]
    for part in parts[:3]:
        users, items = ({row[at] for row in rows if row[2] == part} for at in (0, 1))
        n = sum(row[2] == part for row in rows)
        assert told["counts"][part] == {"rows": n, "users": len(users), "items": len(items)}
    assert told["counts"]["rows"] == len(rows)


def test_an_id_whose_rows_come_in_two_batches_is_one():
    import pyarrow as pa

    from sparkrec.spark.data.part_counts import CountParts

    rows = [(1, "train", 2), (1, "test", 1), (2, "train", 5), (2, "validation", 1), (3, "test", 4)]
    table = pa.table(
        {name: list(values) for name, values in zip(("user", "part", "n"), zip(*rows, strict=True), strict=True)}
    )
    for size in range(1, 6):
        found = pa.Table.from_batches([*CountParts("user")(table.to_batches(max_chunksize=size))])
        assert [tuple(row.values()) for row in found.to_pylist()] == [(1, 2, 0, 1), (2, 5, 1, 0), (3, 0, 0, 4)]
