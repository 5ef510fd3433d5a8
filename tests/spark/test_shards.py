"""Examples and sequences cut into shards: what is in them, and that files and memory hold the same."""

import numpy as np
import pytest

from sparkrec import storage
from sparkrec.shards import Shards
from sparkrec.spark.data.shards import SequenceShards, write_shards
from sparkrec.spark.platform.few import SETTING

pytestmark = pytest.mark.spark

ITEMS = np.array([10, 20, 30, 40])
EXAMPLES = [
    (7, 20, 1.0, 1.0),
    (7, 20, 3.0, 2.0),  # the same pair once more
    (7, 10, 1.0, 1.0),
    (8, 40, 1.0, 1.0),
    (9, 99, 1.0, 1.0),  # no such item
    (12, 30, 1.0, 4.0),
]
SEQUENCES = [(7, 1, [10, 20]), (7, 0, [20, 99, 40]), (8, 0, [40]), (12, 0, [99])]


@pytest.fixture
def written(spark, tmp_path):
    def write(folder, **how):
        examples = spark.createDataFrame(EXAMPLES, "user long, item long, value float, confidence float")
        sequences = spark.createDataFrame(SEQUENCES, "user long, place long, items array<long>")
        given = {"items": ITEMS, "groups": 1, "of_group": 3, "seed": 5, "ordered": SequenceShards(sequences, 4)}
        return write_shards(examples, str(tmp_path / folder), **given, **how)

    return write


def rows_of(shards):
    """By user: (item, value, confidence) of the examples, and the sequences."""
    rows = {}
    for shard in map(shards.read, range(shards.of_group)):
        for at, user in enumerate(shard.users.tolist()):
            own = slice(shard.indptr[at], shard.indptr[at + 1])
            columns = (shard.items[own], shard.values[own], shard.confidence[own])
            places = np.flatnonzero(shard.sequences.rows == at)
            some = shard.sequences.take(places)
            parts = np.split(some.items, some.start[1:-1]) if len(places) else []
            rows[user] = ([*zip(*(each.tolist() for each in columns), strict=True)], [each.tolist() for each in parts])
    return rows


@pytest.mark.parametrize("where", ["never", "always"])
def test_a_pair_is_one_example_and_items_become_their_places(spark, written, where):
    spark.conf.set(SETTING, where)
    shards = written("shards")
    spark.conf.unset(SETTING)
    assert rows_of(shards) == {
        7: ([(0, 1.0, 1.0), (1, 2.0, 3.0)], [[1, 3], [0, 1]]),
        8: ([(3, 1.0, 1.0)], [[3]]),
        12: ([(2, 1.0, 4.0)], []),
    }
    assert shards.item_counts.tolist() == [1, 1, 1, 1]
    assert (shards.n_items, shards.groups, shards.of_group, shards.length) == (4, 1, 3, 4)
    assert sum(map(shards.rows, range(3))) == 4
    assert Shards.open(shards.folder).manifest == shards.manifest


def test_what_this_process_alone_reads_needs_no_file(spark, written):
    files, memory = written("files"), written("memory", in_memory=True)
    assert rows_of(memory) == rows_of(files)
    assert memory.item_counts.tolist() == files.item_counts.tolist()
    assert not storage.exists(memory.folder)


def test_what_was_made_on_spark_is_in_files_whoever_reads_it(spark, written):
    spark.conf.set(SETTING, "never")
    shards = written("shards", in_memory=True)
    spark.conf.unset(SETTING)
    assert not shards.tables
    assert rows_of(shards) == rows_of(Shards.open(shards.folder))


def test_shards_that_are_there_are_not_written_again(written):
    shards = written("shards")
    storage.delete(f"{shards.folder}/shard-00000.parquet")
    assert written("shards", in_memory=True).manifest == shards.manifest
    assert not storage.exists(f"{shards.folder}/shard-00000.parquet")
