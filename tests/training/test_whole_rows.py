"""Batches whose unit is a user, and losses with many targets a row."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from sparkrec.models.base.graph import Rows
from sparkrec.models.base.recommender import Sizes
from sparkrec.models.base.scorers.rows import RowEncoder
from sparkrec.models.linear_autoencoder import LinearAutoencoderSettings
from sparkrec.training import streamed
from sparkrec.training.collective import Alone
from sparkrec.training.export import Trained
from sparkrec.training.loop import Job, Trainer, train
from tests.contracts.own_kinds import NonlinearSettings
from tests.training.examples import in_threads, liked_of_first, plain, planted, write_shards

pytestmark = pytest.mark.torch

BASE = {"threads": 1, "epochs": 2, "batch": 7, "negatives": 3, "learning_rate": 0.02, "init_scale": 0.3}
N_USERS, N_ITEMS = 25, 12


def settings(dropout=0.0, **training):
    return LinearAutoencoderSettings(dim=4, dropout=dropout, training=plain(**{**BASE, **training}))


def log():
    """From one to all but one of the items; number 11 is nobody's, and user 3 has all that are somebody's."""
    rng = np.random.default_rng(0)
    sizes = [N_ITEMS - 1 if user == 3 else rng.integers(1, 8) for user in range(N_USERS)]
    rows = [np.sort(rng.permutation(N_ITEMS - 1)[:size]) for size in sizes]
    return np.repeat(np.arange(N_USERS), sizes), np.concatenate(rows)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("rows"), *log(), N_ITEMS, of_group=3)


def trainer(shards, folder, collective=None, **more):
    return Trainer(Job(settings(**more), shards, None, str(folder), 0), collective or Alone())


def whole_rows(made, number=0):
    """(user, items, negatives) of each user of an epoch, in the order of its batches."""
    for batch in made.batches.epoch(number):
        for first, stop in zip(batch.start[:-1], batch.start[1:], strict=True):
            (user,) = set(batch.users[first:stop].tolist())
            yield int(made.users[user]), batch.items[first:stop, 0].tolist(), batch.items[first:stop, 1:]


def test_an_epoch_has_every_user_once_with_the_whole_row(shards, tmp_path):
    made, (users, items) = trainer(shards, tmp_path), log()
    epochs = [list(whole_rows(made, number)) for number in range(2)]
    for epoch in epochs:
        assert sorted(user for user, _, _ in epoch) == list(range(N_USERS))
        for user, row, negatives in epoch:
            assert sorted(row) == items[users == user].tolist()
            assert not np.isin(negatives, row).any()
    assert [user for user, _, _ in epochs[0]] != [user for user, _, _ in epochs[1]]
    assert made.batches.steps() == -(-N_USERS // 7)


def test_a_step_is_the_same_whoever_makes_it_and_whenever(shards, tmp_path):
    one = sorted((user, row, drawn.tolist()) for user, row, drawn in whole_rows(trainer(shards, tmp_path), 1))
    parts = in_threads(lambda peers: list(whole_rows(trainer(shards, tmp_path, peers), 1)), 3)
    assert sorted((user, row, drawn.tolist()) for part in parts for user, row, drawn in part) == one
    batches = trainer(shards, tmp_path).batches
    whole = [batch.items.tolist() for batch in batches.epoch(1)]
    assert [batch.items.tolist() for batch in batches.epoch(1, first=2)] == whole[2:]


def test_who_has_every_item_that_can_be_drawn_is_left_out_where_negatives_are_drawn(shards, tmp_path):
    drawn = trainer(shards, tmp_path, unseen_negatives=False)
    assert drawn.without_negatives == 1
    assert {user for user, _, _ in whole_rows(drawn)} == set(range(N_USERS)) - {3}
    assert len(list(whole_rows(trainer(shards, tmp_path, loss="full_softmax")))) == N_USERS


def scores_of(made, batch):
    """(u, m) by numpy: the rows of the batch over their lengths, times the vectors."""
    w, d = made.model.items.weight.numpy().astype(np.float64), 4
    row = np.zeros((len(batch.start) - 1, N_ITEMS))
    of = np.repeat(np.arange(len(row)), np.diff(batch.start))
    row[of, batch.items[:, 0]] = 1.0
    hidden = row / np.sqrt(row.sum(1, keepdims=True)) @ w[:, :d]
    return hidden @ w[:, d : 2 * d].T + w[:, 2 * d], of


@pytest.mark.parametrize("cells", [1 << 22, 30])
@pytest.mark.parametrize("loss", ["full_softmax", "all_squared", "bce", "squared", "softmax"])
def test_the_loss_of_whole_rows_is_its_formula(shards, tmp_path, loss, cells, monkeypatch):
    monkeypatch.setattr(streamed, "CELLS", cells)
    monkeypatch.setattr(streamed, "ROWS", 2)
    made = trainer(shards, tmp_path, loss=loss, negative_weight=0.3)
    batch = next(made.batches.epoch(0))
    scores, of = scores_of(made, batch)
    target = batch.items[:, 0]
    mine = scores[of, target]
    drawn = np.take_along_axis(scores[of], batch.items[:, 1:].astype(np.int64), 1)
    expected = {
        "full_softmax": lambda: np.log(np.exp(scores).sum(1))[of] - mine,
        "all_squared": lambda: np.append((mine - 1) ** 2, 0.3 * (scores**2).sum(1)),
        "bce": lambda: np.append(np.log1p(np.exp(-mine)), 0.3 * np.log1p(np.exp(drawn))),
        "squared": lambda: (mine - 1) ** 2,
        "softmax": lambda: np.log(np.exp(mine) + np.exp(drawn - batch.log_expected[:, 1:]).sum(1)) - mine,
    }[loss]().sum()
    assert made.stepper.loss(batch).item() == pytest.approx(expected, rel=1e-5)


def test_a_softmax_with_many_targets_a_row_is_that_of_torch(monkeypatch):
    monkeypatch.setattr(streamed, "CELLS", 80)
    monkeypatch.setattr(streamed, "ROWS", 1)
    torch.manual_seed(0)
    x, w = torch.randn(7, 5, requires_grad=True), torch.randn(33, 5, requires_grad=True)
    of = torch.tensor([0, 0, 0, 2, 3, 3, 4, 6])  # rows 1 and 5 have no target
    target, weight = torch.randint(33, (8,)), torch.rand(8)
    found = streamed.streamed_softmax(x, w, target, weight, of)
    expected = (weight * torch.nn.functional.cross_entropy((x @ w.T)[of], target, reduction="none")).sum()
    torch.testing.assert_close(found, expected)
    mine, others = (torch.autograd.grad(3.0 * loss, (x, w)) for loss in (found, expected))
    for each, other in zip(mine, others, strict=True):
        torch.testing.assert_close(each, other)


@pytest.mark.parametrize("loss", ["full_softmax", "bce", "softmax"])
def test_a_batch_in_parts_is_the_batch(shards, tmp_path, loss):
    found = [
        train(Job(settings(loss=loss, accumulate=parts), shards, None, str(tmp_path / str(parts)), 0), Alone())
        for parts in (1, 3)
    ]
    losses = [[entry["loss"] for entry in state["history"]] for state in found]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_of_the_batch_no_item_of_the_own_row_is_a_negative(shards, tmp_path):
    for loss in ("bpr", "softmax"):
        batch = next(trainer(shards, tmp_path, loss=loss, negative_sampling="batch").batches.epoch(0))
        of = np.repeat(np.arange(len(batch.start) - 1), np.diff(batch.start))
        rows = [set(batch.items[of == user, 0].tolist()) for user in range(len(batch.start) - 1)]
        taken = np.array([[item in rows[user] for item in batch.items[:, 0]] for user in of])
        if loss == "softmax":  # other positives of others are among those with whom it is compared
            taken = (of[:, None] == of) | (batch.items[:, :1] == batch.items[:, 0])
        np.testing.assert_array_equal(batch.false_negatives, taken)


def test_what_is_published_is_the_whole_row_without_dropout(shards, tmp_path):
    """Row u of the published users says what a user with that row is worth, whether or not a step has left out a part
    of it, and an empty row says the biases alone."""
    chosen = settings(dropout=0.5, loss="full_softmax")
    job = Job(chosen, shards, None, str(tmp_path), 0)
    trained = Trained.of(chosen, job.folder, train(job, Alone()), shards)
    made = Trainer(job, Alone())
    made.resume()
    users, items = log()
    row = np.zeros((N_USERS, N_ITEMS))
    row[users, items] = 1.0
    w = made.model.items.weight.numpy()
    expected = row / np.sqrt(row.sum(1, keepdims=True)) @ w[:, :4]
    for ids, rows in trained.users():
        np.testing.assert_allclose(rows[:, :4], expected[ids], atol=1e-5)
        assert (rows[:, 4] == 1.0).all()
    assert trained.stranger() == [0.0] * 4 + [1.0]
    np.testing.assert_array_equal(trained.items(), w[:, 4:])


def test_a_step_leaves_out_a_part_of_what_it_reads_and_asks_for_all(shards, tmp_path):
    made = trainer(shards, tmp_path, dropout=0.5, loss="full_softmax")
    made.model.items.weight[:, -1] = 0.0
    batch = next(made.batches.epoch(0))
    made.model.train()
    torch.manual_seed(0)
    losses = {made.stepper.loss(batch).item() for _ in range(5)}
    assert len(losses) == 5
    gradients = made.stepper.gradients(batch)
    asked = gradients.items.gradients[:, -1] < 0  # more of the item is wanted: by each row that has it
    assert set(batch.items[:, 0].tolist()) >= set(gradients.items.rows[asked].tolist())
    read = gradients.items.gradients[:, :4].abs().sum(1) > 0
    assert set(gradients.items.rows[read].tolist()) <= set(batch.items[:, 0].tolist())


def test_confidence_counts_in_what_is_read_and_asked_for():
    model = settings().network(Sizes(2, 3))
    model.items.weight.normal_()
    three = torch.tensor([0, 1, 2]), torch.ones(3), torch.tensor([3.0, 4.0, 2.0]), torch.tensor([0, 2, 3])
    with torch.no_grad():
        states = model.eval().states(torch.zeros(2, 0), Rows(*three))
    v = model.items.weight[:, :4]
    torch.testing.assert_close(states, torch.stack((0.6 * v[0] + 0.8 * v[1], v[2])))


@pytest.mark.parametrize("loss", ["full_softmax", "bce"])
def test_an_encoder_that_is_not_linear_trains_alike_on_any_number_of_processes(shards, tmp_path, loss):
    chosen = NonlinearSettings(dim=4, training=plain(**{**BASE, "loss": loss, "batch": 9}))
    one = train(Job(chosen, shards, None, str(tmp_path / "one"), 0), Alone())
    three = in_threads(lambda peers: train(Job(chosen, shards, None, str(tmp_path / "three"), 0), peers), 3)[0]
    losses = [[entry["loss"] for entry in state["history"]] for state in (one, three)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    trained = [Trained.of(chosen, str(tmp_path / name), one, shards) for name in ("one", "three")]
    rows = [
        dict(pair for ids, rows in each.users() for pair in zip(ids.tolist(), rows, strict=True)) for each in trained
    ]
    for user in range(N_USERS):
        np.testing.assert_allclose(rows[0][user], rows[1][user], atol=1e-4)
    scorer, encoder = trained[0].scorer(), trained[0].encoder()
    assert scorer.scores(rows[0][0][None], trained[0].items()).shape == (1, N_ITEMS)
    bias = trained[0].checkpoints.shared(trained[0].epoch)["dense.hidden.bias"].numpy()
    stranger = np.concatenate((np.tanh(bias), np.zeros(5)))  # as long as the row of an item
    np.testing.assert_allclose(trained[0].stranger(), stranger, atol=1e-6)
    nobody = encoder.encode(np.array([0, 0]), np.zeros(0, np.int64), *[np.zeros(0, np.float32)] * 2)
    np.testing.assert_allclose(nobody[0], stranger, atol=1e-6)


def test_who_is_encoded_has_the_row_that_was_published(shards, tmp_path):
    chosen = settings(dropout=0.5, loss="full_softmax")
    job = Job(chosen, shards, None, str(tmp_path), 0)
    trained = Trained.of(chosen, job.folder, train(job, Alone()), shards)
    encoder = RowEncoder.from_bytes(trained.encoder().to_bytes())
    users, items = log()
    start = np.searchsorted(users, np.arange(N_USERS + 1))
    found = encoder.encode(start, items, *[np.ones(len(items), np.float32)] * 2)
    for ids, rows in trained.users():
        np.testing.assert_allclose(found[ids], rows, atol=1e-5)


def test_planted_tastes_are_found_with_dropout(tmp_path):
    users, items, taste = planted()
    chosen = settings(dropout=0.5, loss="full_softmax", epochs=30, batch=16)
    shards = write_shards(tmp_path / "s", users, items, 80, of_group=2)
    job = Job(chosen, shards, None, str(tmp_path / "run"), 0)
    trained = Trained.of(chosen, job.folder, train(job, Alone()), shards)
    parts = list(trained.users())
    order = np.argsort(np.concatenate([ids for ids, _ in parts]))
    scores = np.concatenate([rows for _, rows in parts])[order] @ trained.items().T
    popular = np.bincount(items, minlength=80).astype(float)
    liked = liked_of_first(users, items, taste)
    assert liked(scores) > 0.9 > 0.5 > liked(np.broadcast_to(popular, (60, 80)))


def test_shards_without_rows_are_passed_over(tmp_path):
    users, items = log()
    some = users % 3 != 1
    shards = write_shards(tmp_path / "s", users[some], items[some], N_ITEMS, of_group=3)
    assert shards.rows(1) == 0
    one = train(Job(settings(), shards, None, str(tmp_path / "one"), 0), Alone())
    three = in_threads(lambda peers: train(Job(settings(), shards, None, str(tmp_path / "three"), 0), peers), 3)[0]
    losses = [[entry["loss"] for entry in state["history"]] for state in (one, three)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
