"""Models of features in the loop: what they see of an example, and the kernel of factorization machines."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

torch = pytest.importorskip("torch")

from sparkrec.config import StoppingSettings
from sparkrec.errors import TrainError
from sparkrec.fields import FieldSchema, SparseFeatures
from sparkrec.kernels.gradients.losses import PAIR_LOSSES
from sparkrec.models.afm import AfmSettings
from sparkrec.models.dcn import DcnSettings
from sparkrec.models.deepfm import DeepfmSettings
from sparkrec.models.fm import FmSettings, pair_sums
from sparkrec.models.fwfm import FwfmSettings
from sparkrec.models.lr import LrSettings
from sparkrec.models.nfm import NfmSettings
from sparkrec.models.wide_deep import WideDeepSettings
from sparkrec.shards import ALWAYS, ITEM_FEATURES
from sparkrec.training.collective import Alone
from sparkrec.training.export import Trained
from sparkrec.training.gradients import by_autograd
from sparkrec.training.loop import Job, Trainer, train
from tests.training.examples import in_threads, plain, write_shards

pytestmark = pytest.mark.torch

BASE = {"threads": 1, "epochs": 3, "batch": 64, "negatives": 3, "learning_rate": 0.02, "init_scale": 0.1}
FIELDS = {
    "lr": (LrSettings, {}),
    "fm": (FmSettings, {"dim": 4}),
    "fwfm": (FwfmSettings, {"dim": 4}),
    "nfm": (NfmSettings, {"dim": 4, "layers": [8]}),
    "deepfm": (DeepfmSettings, {"dim": 4, "layers": [8], "batch_norm": True}),
    "wide_deep": (WideDeepSettings, {"dim": 4, "layers": [8], "crosses": [["user", "day"], ["day", "item"]]}),
    "dcn": (DcnSettings, {"dim": 4, "layers": [8], "cross_layers": 1}),
    "afm": (AfmSettings, {"dim": 4, "attention": 3}),
}
USERS, ITEMS, DAYS = 40, 30, 3
LAYOUT = FieldSchema(user=(("age", 2),), context=(("day", 2 + DAYS),), item=(("genres", 5), ("price", 2)))


def network(kind, **training):
    settings, given = FIELDS[kind]
    return settings(**given, training=plain(**{**BASE, **training}))


def lists(rows, weights):
    start = np.concatenate(([0], np.cumsum([len(each) for each in rows])))
    return SparseFeatures(start, np.concatenate(rows).astype(np.int32), np.concatenate(weights).astype(np.float32))


def examples(folder, *, moving=False, **how):
    """Interactions in which the day decides: an item is taken on day item % DAYS, and by all users alike. Items have
    one or two genres and a price, users an age; `moving`: the genres of items change at time 100."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(USERS), 12)
    days = rng.integers(0, DAYS, len(users))
    items = rng.integers(0, ITEMS // DAYS, len(users)) * DAYS + days
    age = rng.normal(size=USERS)
    query = lists([[1, 2 + 2 + day] for day in days], [[age[user], 1.0] for user in users])
    price = rng.normal(size=ITEMS)

    def known(item, turn):
        genres = [7 + 2 + (item + turn) % 3] if item % 2 else [7 + 2, 7 + 3 + turn]
        return [*genres, 7 + 5 + 1], [1.0 / len(genres)] * len(genres) + [price[item]]

    versions = [(item, since, *known(item, turn)) for item in range(ITEMS) for turn, since in enumerate((ALWAYS, 100))]
    versions = versions if moving else versions[::2]
    items_of, since, rows, weights = zip(*versions, strict=True)
    columns = [pa.array(items_of, pa.int32()), pa.array(since, pa.int64()), *lists(rows, weights).arrow()]
    table = pa.table(columns, schema=ITEM_FEATURES)
    times = rng.integers(0, 200, len(users))
    about = {"layout": LAYOUT, "entries": query, "items": table, "times": times}
    return write_shards(folder, users, items, ITEMS, known=about, **how)


@pytest.mark.parametrize("loss", PAIR_LOSSES)
@pytest.mark.parametrize("kind", ["lr", "fm", "deepfm"])
def test_the_kernel_has_the_gradients_of_torch(kind, loss, tmp_path):
    settings = network(kind, loss=loss, user_l2=0.02, item_l2=0.01, init_scale=0.5)
    deep = {"layers": [8, 7], "batch_norm": False} if kind == "deepfm" else {}
    settings = settings.model_copy(update={"weight_l2": 0.3, **deep})
    trainer = Trainer(Job(settings, examples(tmp_path / "shards", moving=True), None, str(tmp_path), 0), Alone())
    trainer.stepper.dense.weights += 0.1  # the constant too, where it is learned
    batch = next(trainer.batches.epoch(0))
    assert batch.pairs is not None
    found = trainer.stepper.gradients(batch)
    dense = trainer.stepper.dense.gradients.clone()
    trainer.stepper.dense.gradients.zero_()
    expected = by_autograd(trainer.model, batch, trainer.stepper.loss, settings.training)
    torch.testing.assert_close(found.loss.float(), expected.loss)
    torch.testing.assert_close(dense, trainer.stepper.dense.gradients, atol=1e-5, rtol=1e-3)
    for mine, theirs in ((found.users, expected.users), (found.items, expected.items)):
        torch.testing.assert_close(mine.rows, theirs.rows)
        torch.testing.assert_close(mine.gradients, theirs.gradients, atol=1e-6, rtol=1e-3)


def test_the_identity_of_pairs_is_the_sum_over_pairs():
    vectors = torch.randn(5, 7, 3, dtype=torch.float64)
    expected = sum(vectors[:, f] * vectors[:, g] for f in range(7) for g in range(f))
    torch.testing.assert_close(pair_sums(vectors), expected)


@pytest.mark.parametrize("kind", FIELDS)
def test_what_the_context_decides_is_learned(kind, tmp_path):
    """Every example is a negative's as well as its own on another day, so that only pairs of day and item tell."""
    settings = network(kind, epochs=25, stopping=StoppingSettings(metric="hit_rate", k=10, patience=30))
    job = Job(settings, examples(tmp_path / "shards"), examples(tmp_path / "held_out"), str(tmp_path / "run"), 0)
    history = train(job, Alone())["history"]
    losses = [entry["loss"] for entry in history]
    if kind == "lr":
        assert losses[-1] > 0.8 * losses[2]  # nothing but popularity to learn
    else:
        assert losses[-1] < 0.8 * losses[2]


@pytest.mark.parametrize("kind", FIELDS)
def test_two_processes_take_the_steps_of_one(kind, tmp_path):
    settings = network(kind, batch=40, table_l2=1e-4)
    shards = examples(tmp_path / "shards", of_group=2)
    one = train(Job(settings, shards, None, str(tmp_path / "one"), 3), Alone())
    two = in_threads(lambda peers: train(Job(settings, shards, None, str(tmp_path / "two"), 3), peers), 2)[0]
    assert [e["loss"] for e in two["history"]] == pytest.approx([e["loss"] for e in one["history"]], rel=1e-4)
    ours, theirs = (
        Trained.of(settings, str(tmp_path / name), state, shards) for name, state in (("one", one), ("two", two))
    )
    np.testing.assert_allclose(ours.items(), theirs.items(), atol=2e-4)
    np.testing.assert_allclose(ours.scorer().weights["features"], theirs.scorer().weights["features"], atol=2e-4)


def test_an_example_sees_items_as_they_were(tmp_path):
    trainer = Trainer(Job(network("fm"), examples(tmp_path / "shards", moving=True), None, str(tmp_path), 0), Alone())
    batch = next(trainer.batches.epoch(0))
    of_items = trainer.reader.entries_of(batch.items, batch.timestamps)
    k = batch.items.shape[1]
    for at, (row, time) in enumerate(zip(batch.items, batch.timestamps, strict=True)):
        for j, item in enumerate(row):
            begin = of_items.start[at * k + j]
            turn = int(time >= 100)
            assert of_items.row[begin] == (9 + (item + turn) % 3 if item % 2 else 9)
    job = Job(network("fm", loss="full_softmax"), examples(tmp_path / "other", moving=True), None, str(tmp_path), 0)
    with pytest.raises(TrainError, match="each example sees other values. Choose a loss with drawn negatives"):
        train(job, Alone())


@pytest.mark.parametrize(("metric", "better"), [("auc", 1), ("log_loss", -1), ("rmse", -1)])
def test_training_stops_on_values_of_held_out_examples(metric, better, tmp_path):
    rng = np.random.default_rng(2)
    users, items = np.repeat(np.arange(30), 20), rng.integers(0, 20, 600)
    values = np.where((users + items) % 2, 1.0, -1.0)
    shards = write_shards(tmp_path / "shards", users, items, 20, values=values)
    held_out = write_shards(tmp_path / "held_out", users, items, 20, values=values)
    loss = "squared" if metric == "rmse" else "log_loss"
    settings = network("fm", epochs=20, loss=loss, negatives=0, stopping=StoppingSettings(metric=metric, patience=20))
    history = train(Job(settings, shards, held_out, str(tmp_path / "run"), 0), Alone())["history"]
    assert better * (history[-1][metric] - history[0][metric]) > 0.1


def test_popularity_is_measured_beside_models_of_features(tmp_path):
    stopping, shards = StoppingSettings(k=5, exclude_seen=False), examples(tmp_path / "shards")
    trainer = Trainer(Job(network("fm", stopping=stopping), shards, shards, str(tmp_path), 0), Alone())
    best = torch.from_numpy(trainer.shards.item_counts.astype(np.float32)).topk(5).indices.tolist()
    start, items = trainer.shards.read(0).positives.indptr, trainer.shards.read(0).positives.ids
    gains, found = 1 / np.log2(np.arange(5) + 2), []
    for first, stop in pairwise(start.tolist()):
        hits = np.isin(best, items[first:stop])
        found.append(gains[hits].sum() / gains[: stop - first].sum())
    assert trainer._validate(stopping, by_popularity=True) == pytest.approx(np.mean(found), rel=1e-6)


def test_held_out_values_are_predicted_from_what_was_known(tmp_path):
    shards = examples(tmp_path / "shards", moving=True, of_group=2)
    given = {"loss": "squared", "negatives": 0, "init_scale": 0.5, "stopping": StoppingSettings(metric="rmse")}
    trainer = Trainer(Job(network("fm", **given), shards, shards, str(tmp_path), 0), Alone())
    with torch.no_grad():
        errors = [trainer.stepper.loss.scores(batch)[:, 0].numpy() - batch.values for batch in trainer.batches.epoch(0)]
    expected = np.sqrt(np.mean(np.concatenate(errors) ** 2))
    assert trainer._validate(given["stopping"]) == pytest.approx(expected, rel=1e-5)
