"""Softmax over drawn items is the softmax over all of them, in the mean."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from sparkrec.models.gru4rec import Gru4recSettings
from sparkrec.models.mf import MfSettings
from sparkrec.models.sasrec import SasrecSettings
from sparkrec.training.collective import Alone
from sparkrec.training.loop import Job, Trainer
from tests.training.examples import plain, write_shards

pytestmark = pytest.mark.torch

N_USERS, N_ITEMS = 30, 12
HOW = {
    "uniform": {"negatives": 2},
    "by popularity": {"negatives": 3, "popularity_power": 1.0},
    "of the batch": {"negative_sampling": "batch", "batch": 7},
}


def log():
    """A few items of each user, the low ones more often; every item is somebody's."""
    rng = np.random.default_rng(0)
    weights = 1.0 / (1 + np.arange(N_ITEMS))
    chosen = [rng.choice(N_ITEMS, rng.integers(1, 9), replace=False, p=weights / weights.sum()) for _ in range(N_USERS)]
    users = np.repeat(np.arange(N_USERS), [len(each) for each in chosen])
    pairs = np.stack((np.append(users, np.arange(N_ITEMS)), np.append(np.concatenate(chosen), np.arange(N_ITEMS))))
    return np.unique(pairs, axis=1)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    users, items = log()
    return write_shards(tmp_path_factory.mktemp("softmax"), users, items, N_ITEMS, of_group=2)


def trainer(shards, folder, **training):
    """Of factors that tell items apart."""
    given = {"threads": 1, "batch": 50, "loss": "softmax", "init_scale": 0.6, **training}
    return Trainer(Job(MfSettings(dim=4, training=plain(**given)), shards, None, str(folder), 0), Alone())


def exponentials(made):
    """(users, items) of the scores."""
    users, everything = torch.arange(len(made.users)), torch.arange(N_ITEMS)[None]
    with torch.no_grad():
        scores = made.model.score(users, everything).numpy()
    return dict(zip(made.users.tolist(), np.exp(scores), strict=True))


@pytest.mark.parametrize("name", HOW)
def test_what_a_positive_is_compared_with_is_the_sum_over_all_items_in_the_mean(shards, tmp_path, name):
    made = trainer(shards, tmp_path, **HOW[name])
    expected, sums, n = exponentials(made), {}, 600
    for epoch in range(n):
        for batch in made.batches.epoch(epoch):
            users, positive = made.users[batch.users], batch.items[:, 0]
            items = (
                np.broadcast_to(positive, (len(users), len(users))) if name == "of the batch" else batch.items[:, 1:]
            )
            weights = np.exp(-(batch.log_expected if name == "of the batch" else batch.log_expected[:, 1:]))
            counted = items != positive[:, None] if name == "of the batch" else np.ones(items.shape, bool)
            if name == "of the batch":
                np.testing.assert_array_equal(batch.false_negatives, ~counted)
            assert not (items == positive[:, None])[counted].any()
            own = np.stack([expected[user] for user in users.tolist()])
            total = own[np.arange(len(users)), positive]
            total = total + (np.take_along_axis(own, items, 1) * weights * counted).sum(1)
            for user, item, each in zip(users.tolist(), positive.tolist(), total, strict=True):
                sums[user, item] = sums.get((user, item), 0.0) + each / n
    assert set(sums) == set(map(tuple, log().T.tolist()))
    ratios = np.array([found / expected[user].sum() for (user, _), found in sums.items()])
    assert ratios.mean() == pytest.approx(1.0, abs=0.01)
    assert np.abs(ratios - 1.0).max() < 0.15


@pytest.mark.parametrize(
    "training",
    [
        {"negatives": 8000},
        {"negatives": 8000, "popularity_power": 0.75},
        {"negative_sampling": "batch", "batch": 10_000},
    ],
    ids=HOW,
)
def test_the_loss_and_gradients_of_many_drawn_items_are_those_of_all(shards, tmp_path, training):
    """Of the batch: all examples are in one, so that every item counts for exactly one."""
    batch = training.get("batch", 50)
    full = trainer(shards, tmp_path, loss="full_softmax", batch=batch)
    drawn = trainer(shards, tmp_path, **training)
    found = []
    for each in (full, drawn):
        gradients = each.stepper.gradients(next(each.batches.epoch(0)))
        users = torch.zeros(len(each.users), 5)
        users[gradients.users.rows] = gradients.users.gradients[:, :5]
        found.append((float(gradients.loss), users))
    tolerance = 1e-4 if "batch" in training else 0.02
    assert found[1][0] == pytest.approx(found[0][0], rel=tolerance)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=0.0, atol=tolerance * float(found[0][1].abs().max()))


@pytest.mark.parametrize("name", HOW)
def test_the_loss_of_a_model_that_knows_nothing_is_the_logarithm_of_the_number_of_items(shards, tmp_path, name):
    made = trainer(shards, tmp_path, **{**HOW[name], "init_scale": 1e-6})
    losses = [float(made.stepper.gradients(batch).loss) for epoch in range(100) for batch in made.batches.epoch(epoch)]
    tolerance = 1e-4 if name == "uniform" else 0.3
    assert np.mean(losses) == pytest.approx(np.log(N_ITEMS), abs=tolerance)


@pytest.mark.parametrize("kind", [SasrecSettings, Gru4recSettings])
@pytest.mark.parametrize("name", HOW)
def test_so_it_is_of_sequences(tmp_path, kind, name):
    rng, n = np.random.default_rng(0), 400
    walks = [rng.choice(N_ITEMS, rng.integers(2, 7), p=np.arange(1, N_ITEMS + 1) / 78) for _ in range(n)]
    users = np.repeat(np.arange(n), [len(walk) for walk in walks])
    ordered = {"sequences": list(enumerate(walks)), "length": 6}
    shards = write_shards(tmp_path / "s", users, np.concatenate(walks), N_ITEMS, ordered=ordered, of_group=2)
    given = {"loss": "softmax", "init_scale": 1e-6, "threads": 1, **HOW[name], "batch": n}
    settings = kind(dim=4, training=plain(**given))
    made = Trainer(Job(settings, shards, None, str(tmp_path), 0), Alone())
    batch = next(made.batches.epoch(0))
    loss = made.stepper.loss(batch).item() / len(batch.users)
    assert loss == pytest.approx(
        np.log(N_ITEMS), abs={"uniform": 1e-4, "by popularity": 0.3, "of the batch": 0.02}[name]
    )
    if name == "of the batch":  # what comes with a row is not drawn
        rows = np.repeat(np.arange(len(batch.shown.start) - 1), np.diff(batch.shown.start))[batch.shown.at]
        same = batch.items[:, :1] == batch.items[:, 0]
        np.testing.assert_array_equal(batch.false_negatives, (rows[:, None] == rows) | same)
