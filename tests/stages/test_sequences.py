"""Models of sequences from a log to recommendations."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch")

from sparkrec import tables
from sparkrec.config import EvaluateSettings, IngestSettings, PrepareSettings, RecommendSettings, TrainSettings
from sparkrec.configfile import validate
from sparkrec.errors import ConfigError, PrepareError
from sparkrec.spark.platform.lake import Lake
from sparkrec.stages.evaluate import evaluate
from sparkrec.stages.ingest import ingest
from sparkrec.stages.prepare import prepare
from sparkrec.stages.recommend import recommend
from sparkrec.stages.train import train

pytestmark = [pytest.mark.spark, pytest.mark.torch]

USERS, ITEMS = 120, 30
TRAINING = {
    "loss": "full_softmax",
    "epochs": 25,
    "batch": 16,
    "learning_rate": 0.02,
    "init_scale": 0.1,
    "user_l2": 0.0,
    "item_l2": 0.0,
    "threads": 1,
    "stopping": {"metric": "hit_rate", "k": 1, "every": 5, "patience": 9},
}


def write(folder, rows, name):
    users, items, times = zip(*rows, strict=True)
    table = pa.table({"user": [f"u{each}" for each in users], "item": items, "at": times})
    pq.write_table(table, folder / f"{name}.parquet")
    return {"path": f"{folder}/{name}.parquet", "format": "parquet"}


def take(lake, source, **more):
    settings = {"lake": lake.root, "source": source, "columns": {"user": "user", "item": "item", "timestamp": "at"}}
    return ingest(validate(IngestSettings, {**settings, **more}, "test"), lake)


def made(lake, name, **settings):
    return prepare(
        validate(PrepareSettings, {"lake": lake.root, "dataset": name, "dedup": "none", **settings}, "t"), lake
    )


def fitted(lake, dataset, kind, **settings):
    own = {"mf": {"dim": 4}, "item2vec": {"dim": 8}, "markov": {}}.get(kind, {"dim": 16, "dropout": 0.0})
    own |= {} if kind in ("markov", "item2vec") else {"training": TRAINING}
    model = {"kind": kind, **own, **settings}
    given = {"lake": lake.root, "dataset": dataset, "model": model}
    return train(validate(TrainSettings, given, "test"), lake)


@pytest.fixture(scope="module")
def walked(spark, tmp_path_factory):
    """A log in which item i is followed by i + 7, of users who begin anywhere; user 0 has one event only."""
    folder = tmp_path_factory.mktemp("walks")
    lake, rng, rows = Lake(spark, f"{folder}/lake"), np.random.default_rng(0), [(0, 3, 1)]
    for user in range(1, USERS):
        first, n = rng.integers(ITEMS), rng.integers(4, 9)
        rows += [(user, int((first + 7 * step) % ITEMS), int(100 * user + step)) for step in range(n)]
    take(lake, write(folder, rows, "walks"))
    made(lake, "walks", sequences={"length": 6})
    made(lake, "windows", sequences={"length": 3, "targets": 2})
    return lake, folder, rows


@pytest.mark.parametrize("kind", ["sasrec", "markov"])
def test_what_comes_next_is_found_by_config_alone(walked, kind):
    lake, _, _ = walked
    run = fitted(lake, "walks", kind)
    settings = {"lake": lake.root, "model": run.reference, "cutoffs": [1], "segments": 1}
    found = evaluate(validate(EvaluateSettings, settings, "test"), lake).manifest["metrics"]
    assert found["hit_rate@1"] > 0.6
    sampled = {**settings, "protocol": {"kind": "sampled", "negatives": 5}}
    assert evaluate(validate(EvaluateSettings, sampled, "test"), lake).manifest["metrics"]["hit_rate@1"] > 0.7


def test_windows_are_for_caser_and_caser_for_windows(walked):
    lake, _, _ = walked
    run = fitted(lake, "windows", "caser", horizontal=4, vertical=2, training={**TRAINING, "epochs": 60})
    settings = {"lake": lake.root, "model": run.reference, "cutoffs": [1], "segments": 1}
    assert evaluate(validate(EvaluateSettings, settings, "test"), lake).manifest["metrics"]["hit_rate@1"] > 0.3
    with pytest.raises(ConfigError, match="caser is trained on windows, .*; dataset walks@.* has whole histories"):
        fitted(lake, "walks", "caser")
    with pytest.raises(ConfigError, match="sasrec is trained on whole histories; .* has windows with 2 targets"):
        fitted(lake, "windows", "sasrec")


def test_a_new_event_changes_what_is_recommended_without_training(walked):
    lake, folder, rows = walked
    run = fitted(lake, "walks", "sasrec")

    def lists(**more):
        settings = {"lake": lake.root, "model": run.reference, "k": 3, **more}
        done = recommend(validate(RecommendSettings, settings, "test"), lake)
        written = lake.table(tables.RECOMMENDATIONS.name).where(f"run = '{done.id}' AND rank = 1").collect()
        return {row.user_id: row.item_id for row in written}

    last = {user: item for user, item, _ in rows}
    before = lists()
    assert np.mean([before[f"u{user}"] == last[user] for user in range(1, USERS)]) > 0.6  # the test split is unseen
    moved = {user: (last[user] + 14) % ITEMS for user in range(1, 30)}
    later = [(user, item, 10**6) for user, item in moved.items()] + [(5, 999, 10**6 + 1)]  # of which 999 is unknown
    take(lake, write(folder, later, "later"))
    after = lists(fresh=True)
    assert np.mean([after[f"u{user}"] == (item + 7) % ITEMS for user, item in moved.items()]) > 0.6
    assert np.mean([after[f"u{user}"] == (last[user] + 7) % ITEMS for user in range(30, USERS)]) > 0.6
    assert lists() == before
    other = fitted(lake, "walks", "mf")
    settings = {"lake": lake.root, "model": other.reference, "fresh": True}
    with pytest.raises(ConfigError, match="is a mf, which knows what it was trained on and no more"):
        recommend(validate(RecommendSettings, settings, "test"), lake)


def test_bags_are_for_item2vec_alone(walked, tmp_path):
    lake, _, _ = walked
    rng = np.random.default_rng(0)
    tastes = [rng.permutation(10)[:6] * 3 + user % 3 for user in range(60)]
    source = write(tmp_path, [(user, int(item), None) for user, own in enumerate(tastes) for item in own], "bags")
    take(lake, source, table="bags", on_null_timestamp="keep")
    split = {"kind": "ratio", "test": 0.2, "validation": 0.2}
    made(lake, "bags", interactions="bags", split=split, sequences={"length": 50, "ordered": False})
    training = {"negatives": 5, "epochs": 20, "batch": 8, "learning_rate": 0.02, "init_scale": 0.01}
    own = {"training": training, "window": 10}
    run = fitted(lake, "bags", "item2vec", shuffle=True, **own)
    settings = {"lake": lake.root, "model": run.reference, "k": 3}
    recommend(validate(RecommendSettings, settings, "test"), lake)
    written = lake.table(tables.RECOMMENDATIONS.name).where(f"model = '{run.reference}'").collect()
    assert np.mean([row.item_id % 3 == int(row.user_id[1:]) % 3 for row in written]) > 0.9
    with pytest.raises(ConfigError, match=r"the sequences of dataset bags@.* have none .*: set model.shuffle to true"):
        fitted(lake, "bags", "item2vec", **own)
    for kind in ("sasrec", "markov"):
        with pytest.raises(ConfigError, match=f"{kind} sees the order of events, and the sequences of dataset bags@"):
            fitted(lake, "bags", kind)


def test_what_a_model_of_sequences_cannot_do_without(walked, tmp_path):
    lake, _, _ = walked
    made(lake, "orderless")
    with pytest.raises(ConfigError, match=r"sees the order of events, and dataset orderless@.* has no sequences"):
        fitted(lake, "orderless", "sasrec")
    source = write(tmp_path, [(1, 1, 5), (1, 2, None), (2, 1, 7), (2, 2, 8)], "untimed")
    take(lake, source, table="untimed", on_null_timestamp="keep")
    split = {"kind": "ratio", "test": 0.5, "validation": 0.0}
    with pytest.raises(PrepareError, match="sequences"):
        made(lake, "untimed", interactions="untimed", split=split, sequences={"length": 3})
