"""The loop: losses as written, and what ends it."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from sparkrec import storage
from sparkrec.config import StoppingSettings
from sparkrec.errors import TrainError
from sparkrec.kernels.gradients.losses import PAIR_LOSSES, Goal, pair_loss
from sparkrec.models.base.recommender import Sizes
from sparkrec.models.base.tables import EmbeddingTable
from sparkrec.models.gmf import GmfSettings
from sparkrec.models.mf import MfSettings
from sparkrec.models.mlp import MlpSettings
from sparkrec.models.neumf import NeumfSettings
from sparkrec.training import step as steps_module
from sparkrec.training.collective import Alone
from sparkrec.training.export import Trained
from sparkrec.training.gradients import by_autograd, by_kernel, kernel_fits
from sparkrec.training.loop import Job, Trainer, train
from sparkrec.training.losses import Scored, loss_of
from sparkrec.training.optimizers import Optimizer, rate_at
from sparkrec.training.step import Stepper
from tests.training.examples import in_threads, plain, planted, write_shards

pytestmark = pytest.mark.torch

BASE = {"threads": 1, "epochs": 3, "batch": 64, "learning_rate": 0.05, "init_scale": 0.1}


def settings(**training):
    return MfSettings(dim=6, training=plain(**{**BASE, **training}))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    users, items, _ = planted()
    return write_shards(tmp_path_factory.mktemp("shards"), users, items, 80, of_group=2)


SCORES = np.array([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]], np.float32)
CONFIDENCE, VALUES, DEGREE = np.array([1.0, 2.0]), np.array([4.0, 1.0]), np.array([2, 5])
LOG_EXPECTED = np.array([[7.0, -1.0, -3.0], [8.0, -2.0, -0.5]])


def scored(scores, log_expected, taken=None):
    confidence, values, log_expected = (
        None if a is None else torch.tensor(a).float() for a in (CONFIDENCE, VALUES, log_expected)
    )
    return Scored(
        torch.tensor(scores),
        torch.tensor([0, 0]),
        values,
        confidence,
        torch.tensor(DEGREE),
        log_expected=log_expected,
        false_negatives=taken,
        drawn_share=0.25,
    )


def log1pexp(x):
    return np.log1p(np.exp(x))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


STRONG = np.exp(SCORES[:, 1:]) / np.exp(SCORES[:, 1:]).sum(1, keepdims=True)
MARGIN = SCORES[:, :1] - SCORES[:, 1:]
EXPECTED = {
    "squared": (CONFIDENCE * (SCORES[:, 0] - VALUES) ** 2).sum(),
    "weighted_squared": (CONFIDENCE * (SCORES[:, 0] - 1) ** 2).sum() + 0.3 * (SCORES[:, 1:] ** 2).sum(),
    "all_squared": (CONFIDENCE * (SCORES[:, 0] - 1) ** 2).sum() + 0.3 * ((SCORES**2).sum(1) / DEGREE).sum(),
    "bce": (CONFIDENCE * log1pexp(-SCORES[:, 0])).sum() + 0.3 * log1pexp(SCORES[:, 1:]).sum(),
    "gbce": ((1 - 0.75 * 0.75) * CONFIDENCE * log1pexp(-SCORES[:, 0])).sum() + 0.3 * log1pexp(SCORES[:, 1:]).sum(),
    "bpr_max": (
        CONFIDENCE * (2.0 * (STRONG * SCORES[:, 1:] ** 2).sum(1) - np.log((STRONG * sigmoid(MARGIN)).sum(1)))
    ).sum(),
    "top1_max": (CONFIDENCE * (STRONG * (sigmoid(-MARGIN) + sigmoid(SCORES[:, 1:] ** 2))).sum(1)).sum(),
    "bpr": (CONFIDENCE * log1pexp(SCORES[:, 1:] - SCORES[:, :1]).mean(1)).sum(),
    "hinge": (CONFIDENCE * np.maximum(1 - SCORES[:, :1] + SCORES[:, 1:], 0).mean(1)).sum(),
    "full_softmax": (CONFIDENCE * (np.log(np.exp(SCORES).sum(1)) - SCORES[:, 0])).sum(),
    "softmax": (
        CONFIDENCE * (np.log(np.exp(SCORES[:, 0]) + np.exp((SCORES - LOG_EXPECTED)[:, 1:]).sum(1)) - SCORES[:, 0])
    ).sum(),
}


@pytest.mark.parametrize("loss", EXPECTED)
def test_a_loss_is_its_formula(loss):
    batch = scored(SCORES, LOG_EXPECTED if loss == "softmax" else None)
    found = loss_of(plain(loss=loss, negative_weight=0.3, score_l2=2.0), batch)
    assert float(found) == pytest.approx(EXPECTED[loss], rel=1e-5)


@pytest.mark.parametrize("loss", PAIR_LOSSES)
def test_a_loss_by_kernel_is_that_of_torch(loss):
    chosen = plain(loss=loss, negative_weight=0.3)
    for given in (SCORES, SCORES * 100):  # no overflow, either
        leaf = torch.tensor(given, requires_grad=True)
        batch = Scored(leaf, torch.tensor([0, 0]), *(torch.tensor(a).float() for a in (VALUES, CONFIDENCE, DEGREE)))
        expected = 0.5 * loss_of(chosen, batch)
        expected.backward()
        by_score = np.full_like(given, np.nan)
        goal = Goal(PAIR_LOSSES[loss], 0.3, 0.0, 0.0)
        found = sum(
            pair_loss(goal, given[e], np.float32(VALUES[e]), np.float32(CONFIDENCE[e]), 0.5, by_score[e])
            for e in range(2)
        )
        assert found == pytest.approx(expected.item(), rel=1e-5)
        np.testing.assert_allclose(by_score, leaf.grad.numpy(), rtol=1e-5, atol=1e-7)


def test_a_column_that_is_taken_is_no_negative():
    taken = torch.tensor([[True, False, True], [True, False, False]])
    given = SCORES.copy()
    given[0, 2] = 1e6  # would be felt
    for loss in ("bpr", "hinge", "bpr_max", "top1_max", "softmax"):
        batch = scored(given, LOG_EXPECTED if loss == "softmax" else None, taken)
        assert float(loss_of(plain(loss=loss, negative_sampling="batch"), batch)) < 1e3


@pytest.mark.parametrize("loss", ["bce", "bpr", "hinge", "bpr_max", "top1_max", "softmax"])
def test_a_row_whose_columns_are_all_taken_is_worth_what_it_is_alone(loss):
    taken, scores = torch.tensor([[True, True, True], [True, False, False]]), torch.tensor(SCORES, requires_grad=True)
    log_expected = torch.tensor(LOG_EXPECTED).float() if loss == "softmax" else None
    about = {"values": torch.ones(2), "confidence": torch.ones(2), "user_positives": torch.ones(2)}
    chosen = plain(loss=loss)
    both = loss_of(
        chosen, Scored(scores, torch.tensor([0, 0]), **about, log_expected=log_expected, false_negatives=taken)
    )
    both.backward()
    assert torch.isfinite(scores.grad).all()
    assert (scores.grad[0, 1:] == 0).all()
    about = {name: each[1:] for name, each in about.items()}
    log_expected = None if log_expected is None else log_expected[1:]
    other = Scored(
        scores.detach()[1:], torch.tensor([0]), **about, log_expected=log_expected, false_negatives=taken[1:]
    )
    alone = np.log1p(np.exp(-SCORES[0, 0])) if loss == "bce" else 0.0
    assert both.item() == pytest.approx(float(loss_of(chosen, other)) + alone, rel=1e-5)


@pytest.mark.parametrize(
    "training",
    [
        {"loss": "bpr"},
        {"loss": "hinge", "optimizer": "adagrad"},
        {"loss": "gbce"},
        {"loss": "bpr_max", "negatives": 8},
        {"loss": "top1_max", "negatives": 8},
        {"loss": "softmax", "popularity_power": 0.75},
        {"loss": "softmax", "negative_sampling": "batch"},
        {"loss": "bpr", "negative_sampling": "batch"},
        {"loss": "full_softmax"},
        {"loss": "weighted_squared", "optimizer": "rmsprop", "learning_rate": 0.01},
        {"loss": "all_squared", "negative_weight": 0.1, "learning_rate": 0.02},
        {"loss": "bce", "optimizer": "sgd", "momentum": 0.9, "learning_rate": 1.0},
        {"loss": "bce", "schedule": "cosine", "warmup_steps": 5, "user_l2": 1e-4, "item_l2": 1e-4},
    ],
    ids=lambda training: "-".join(map(str, training.values())),
)
def test_every_loss_falls_and_ranks_what_was_liked_first(shards, tmp_path, training):
    chosen = settings(**{"epochs": 15, **training})
    job = Job(chosen, shards, None, str(tmp_path), 0)
    state = train(job, Alone())
    losses = [entry["loss"] for entry in state["history"]]
    assert losses[-1] < losses[0]
    trained = Trained.of(chosen, job.folder, state, job.shards)
    users, items, _ = planted()
    rows = {int(u): row for ids, values in trained.users() for u, row in zip(ids, values, strict=True)}
    scores = np.stack([rows[user] for user in range(60)]) @ trained.items().T
    seen = np.zeros((60, 80), bool)
    seen[users, items] = True
    assert np.mean([(scores[u][seen[u]][:, None] > scores[u][~seen[u]]).mean() for u in range(60)]) > 0.9


BY_KERNEL = {
    "mf": MfSettings(dim=6),
    "gmf": GmfSettings(dim=5),
    "mlp": MlpSettings(layers=[8, 6, 3]),
    "neumf": NeumfSettings(dim=4, layers=[6, 5, 4, 2]),
    "one layer": NeumfSettings(dim=4, layers=[6, 5]),
}


@pytest.mark.parametrize("loss", PAIR_LOSSES)
@pytest.mark.parametrize("name", BY_KERNEL)
def test_gradients_by_kernel_are_those_of_torch(shards, tmp_path, name, loss):
    training = plain(**{**BASE, "loss": loss, "user_l2": 0.02, "item_l2": 0.01, "init_scale": 0.5})
    chosen = BY_KERNEL[name].model_copy(update={"training": training})
    trainer = Trainer(Job(chosen, shards, None, str(tmp_path), 0), Alone())
    model, batch = trainer.model, next(trainer.batches.epoch(0))
    trainer.stepper.dense.weights += 0.1  # biases, too
    found = by_kernel(model, trainer.stepper.dense, batch, trainer.reader, training, trainer.stepper.scratch)
    dense = trainer.stepper.dense.gradients.clone()
    trainer.stepper.dense.gradients.zero_()
    expected = by_autograd(model, batch, trainer.stepper.loss, training)
    torch.testing.assert_close(found.loss.float(), expected.loss)
    torch.testing.assert_close(dense, trainer.stepper.dense.gradients, atol=1e-5, rtol=1e-3)
    for mine, theirs in ((found.users, expected.users), (found.items, expected.items)):
        torch.testing.assert_close(mine.rows, theirs.rows)
        torch.testing.assert_close(mine.gradients, theirs.gradients, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize(
    "training",
    [
        {"loss": "bpr"},
        {"loss": "bce", "optimizer": "adagrad", "user_l2": 0.02, "item_l2": 0.01},
        {"loss": "squared", "optimizer": "sgd", "momentum": 0.5, "clip_norm": 0.01},
        {"loss": "weighted_squared", "optimizer": "rmsprop", "weight_decay": 0.1, "schedule": "cosine"},
        {"loss": "hinge", "optimizer": "adamw", "weight_decay": 0.1},
    ],
    ids=lambda training: "-".join(map(str, training.values())),
)
def test_a_run_in_one_call_is_its_steps(shards, tmp_path, training):
    job = Job(settings(**training), shards, None, str(tmp_path), 0)
    at_once, one_by_one = Trainer(job, Alone()), Trainer(job, Alone())
    assert at_once.stepper.groups_at_once
    one_by_one.stepper.groups_at_once = False
    for epoch in range(2):
        losses = []
        for trainer in (at_once, one_by_one):
            first = epoch * trainer.batches.steps()
            losses.append([loss for loss, _ in trainer.stepper.steps(trainer.batches.step_groups(epoch), first)])
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for mine, theirs in (
        (at_once.model.users.weight, one_by_one.model.users.weight),
        (at_once.model.items.weight, one_by_one.model.items.weight),
        (at_once.stepper.dense.weights, one_by_one.stepper.dense.weights),
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)
    assert (
        at_once.stepper.item_optimizer.steps == one_by_one.stepper.item_optimizer.steps == 2 * at_once.batches.steps()
    )


def test_l2_of_a_batch_in_parts_is_that_of_the_batch(shards, tmp_path):
    found = []
    for parts in (1, 3):
        chosen = settings(loss="bce", user_l2=0.02, item_l2=0.01, accumulate=parts, precision="bfloat16")
        trainer = Trainer(Job(chosen, shards, None, str(tmp_path), 0), Alone())
        assert not trainer.stepper.by_kernel
        found.append(trainer.stepper.gradients(next(trainer.batches.epoch(0))))
    torch.testing.assert_close(found[0].loss, found[1].loss)
    for mine, theirs in zip(found[0][1:], found[1][1:], strict=True):
        torch.testing.assert_close(mine.gradients, theirs.gradients)


@pytest.mark.parametrize(
    "training", [{"loss": "softmax"}, {"loss": "bpr", "negative_sampling": "batch"}, {"precision": "bfloat16"}]
)
def test_what_no_kernel_computes_torch_does(training):
    def fits(settings):
        return kernel_fits(settings.network(Sizes()), settings.training)

    assert fits(MfSettings(training=plain()))
    assert not fits(MfSettings(training=plain(**training)))
    assert not fits(NeumfSettings(dropout=0.1, training=plain()))


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "rmsprop", "adam", "adamw"])
def test_rows_move_alike_by_kernels_and_by_torch(optimizer):
    rng = np.random.default_rng(0)
    given = plain(optimizer=optimizer, momentum=0.9, weight_decay=0.1)
    start = torch.from_numpy(rng.normal(size=(9, 5)).astype(np.float32))
    tables = [EmbeddingTable(9, 5), EmbeddingTable(9, 5)]
    by_kernel, by_torch = (Optimizer(given, table.weight) for table in tables)
    by_torch.step = lambda *args: (setattr(by_torch, "steps", by_torch.steps + 1), by_torch._by_torch(*args))
    for table in tables:
        table.weight.copy_(start)
    for rows in ([0, 3, 8], [3, 4], [0, 1, 2, 3]):
        gradients = torch.from_numpy(rng.normal(size=(len(rows), 5)).astype(np.float32))
        for each in (by_kernel, by_torch):
            each.step(torch.tensor(rows), gradients, 0.1)
    torch.testing.assert_close(tables[0].weight, tables[1].weight, atol=1e-5, rtol=1e-5)
    assert (tables[0].weight[5:8] == start[5:8]).all()


@pytest.mark.parametrize("loss", ["full_softmax", "all_squared"])
def test_l2_of_all_items_is_that_of_one_process_and_one_part(shards, tmp_path, loss):
    def item_rows(peers, parts=1):
        chosen = settings(loss=loss, item_l2=0.05, accumulate=parts, optimizer="sgd", init_scale=0.3)
        made = Trainer(Job(chosen, shards, None, str(tmp_path), 0), peers)
        made.stepper.step(next(iter(made.batches.epoch(0))), 0.5)
        return made.model.items.weight

    one = item_rows(Alone())
    torch.testing.assert_close(item_rows(Alone(), 3), one, rtol=1e-4, atol=1e-6)
    for of_process in in_threads(item_rows, 2):
        torch.testing.assert_close(of_process, one, rtol=1e-4, atol=1e-6)


def test_l2_on_a_table_reaches_a_row_when_it_is_read():
    settings = plain(optimizer="sgd")
    first, second = (Optimizer(settings, torch.ones(3, 2), l2=0.1) for _ in range(2))
    none = torch.zeros(1, 2)
    for _ in range(2):
        first.step(torch.tensor([0]), none, 0.5)
    second.weight.copy_(first.weight)
    second.load(first.state_dict())
    for each in (first, second):
        each.step(torch.tensor([1]), torch.full((1, 2), 0.4), 0.5)
        expected = [(1 - 0.5 * 2 * 0.1) ** 2, 1 - 0.5 * (0.4 + 3 * 2 * 0.1), 1.0]
        torch.testing.assert_close(each.weight[:, 0], torch.tensor(expected))


def test_half_the_bits_learn_nearly_the_same(shards, tmp_path):
    networks = [
        NeumfSettings(dim=4, layers=[16, 16, 8], training=plain(**BASE, precision=precision))
        for precision in ("float32", "bfloat16")
    ]
    jobs = [Job(each, shards, None, str(tmp_path / each.training.precision), 0) for each in networks]
    whole, half = (train(job, Alone())["history"] for job in jobs)
    assert [e["loss"] for e in half] == pytest.approx([e["loss"] for e in whole], rel=0.03)
    assert half[-1]["loss"] != whole[-1]["loss"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said(shards, tmp_path):
    with pytest.raises(TrainError, match="training.device is gpu, and torch finds none here: set it to cpu"):
        train(Job(settings(device="gpu"), shards, None, str(tmp_path), 0), Alone())


def test_a_batch_in_parts_is_the_batch(shards, tmp_path):
    given = [settings(loss="softmax", accumulate=n) for n in (1, 3)]
    jobs = [Job(each, shards, None, str(tmp_path / str(each.training.accumulate)), 0) for each in given]
    whole, parts = (train(job, Alone())["history"] for job in jobs)
    assert [e["loss"] for e in parts] == pytest.approx([e["loss"] for e in whole], rel=1e-5)


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_checkpoint(shards, tmp_path):
    job = Job(settings(epochs=4), shards, None, str(tmp_path), 0)
    steps = Stepper.steps

    def breaks(self, runs, number):
        for at, (loss, positives) in enumerate(steps(self, runs, number), number):
            yield (float("nan") if at == self.batches.steps() + 2 else loss), positives

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stepper, "steps", breaks)
        with pytest.raises(TrainError, match=r"the loss is nan in epoch 2, step 3 of \d+. The last checkpoint is kept"):
            train(job, Alone())
    assert storage.folders(str(tmp_path)) == ["epoch-00001"]
    assert len(train(job, Alone())["history"]) == 4


def test_training_stops_when_it_no_longer_gets_better_and_the_best_is_kept(tmp_path):
    users, items, _ = planted()
    held = np.arange(len(users)) % 6 == 0
    known = write_shards(tmp_path / "known", users[~held], items[~held], 80, of_group=2)
    wanted = write_shards(tmp_path / "wanted", users[held], items[held], 80, of_group=2)
    chosen = settings(epochs=60, stopping=StoppingSettings(patience=2, k=5))
    state = train(Job(chosen, known, wanted, str(tmp_path / "run"), 0), Alone())
    values = [entry["ndcg@5"] for entry in state["history"]]
    assert state["epoch"] == len(values) < 60
    assert state["best_epoch"] == int(np.argmax(values)) + 1 == state["epoch"] - 2
    assert sorted(storage.folders(str(tmp_path / "run"))) == [
        f"epoch-{state[key]:05}" for key in ("best_epoch", "epoch")
    ]
    assert values[state["best_epoch"] - 1] > 0.2
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == state["history"]
    as_long = settings(epochs=state["best_epoch"])
    ends_there = train(Job(as_long, known, None, str(tmp_path / "ends there"), 0), Alone())
    best, last = (
        Trained.of(chosen, str(tmp_path / folder), each, known)
        for folder, each in (("run", state), ("ends there", ends_there))
    )
    np.testing.assert_allclose(best.items(), last.items(), atol=1e-6)
    for (ids, rows), (others, expected) in zip(best.users(), last.users(), strict=True):
        np.testing.assert_array_equal(ids, others)
        np.testing.assert_allclose(rows, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("metric", "best", "end"), [("log_loss", 3, 5), ("rmse", 3, 5), ("auc", 6, 6), ("ndcg", 6, 6), ("hit_rate", 6, 6)]
)
def test_the_best_epoch_has_the_least_loss_or_the_most_of_what_is_wanted(
    shards, tmp_path, monkeypatch, metric, best, end
):
    values = iter([0.6, 0.5, 0.4, 0.45, 0.61, 0.7])
    monkeypatch.setattr(Trainer, "_validate", lambda *_, by_popularity=False: 0.1 if by_popularity else next(values))
    stopping = StoppingSettings(metric=metric, patience=2 if end < 6 else 6)
    loss = "squared" if metric == "rmse" else "log_loss" if metric in ("log_loss", "auc") else "bce"
    state = train(Job(settings(epochs=6, loss=loss, stopping=stopping), shards, shards, str(tmp_path), 0), Alone())
    assert (state["best_epoch"], state["epoch"]) == (best, end)


@pytest.mark.parametrize("network", [MfSettings(dim=6), GmfSettings(dim=6)], ids=["in one call", "step by step"])
def test_the_schedule_goes_on_from_epoch_to_epoch(shards, tmp_path, monkeypatch, network):
    """Down to nothing over all steps of all epochs, whether a run is cut off or not."""
    given = plain(**{**BASE, "schedule": "linear", "warmup_steps": 4})
    rates, step, run_of = [], Stepper.step, steps_module.train_group

    def one(self, batch, rate):
        rates.append(rate)
        return step(self, batch, rate)

    def many(model, dense, users, items, group, given, scratch):
        rates.extend(given)
        return run_of(model, dense, users, items, group, given, scratch)

    monkeypatch.setattr(Stepper, "step", one)
    monkeypatch.setattr(steps_module, "train_group", many)
    job = Job(network.model_copy(update={"training": given}), shards, None, str(tmp_path), 0)
    train(job, Alone())
    n = len(rates)
    assert n == 3 * Trainer(job, Alone()).batches.steps() > 30
    expected = [*(0.05 * (at + 1) / 4 for at in range(4)), *np.linspace(0.05, 0, n - 4, endpoint=False)]
    assert rates == pytest.approx(expected)


def test_what_people_come_back_to_counts_where_it_may_be_ranked(shards, tmp_path):
    def measured(exclude_seen):
        chosen = settings(epochs=10, stopping=StoppingSettings(patience=9, k=5, exclude_seen=exclude_seen))
        job = Job(chosen, shards, shards, f"{tmp_path}/{exclude_seen}", 0)  # held out is what is trained on
        return [entry["ndcg@5"] for entry in train(job, Alone())["history"]]

    assert set(measured(True)) == {0.0}
    assert max(measured(False)) > 0.2


def test_the_learning_rate_warms_up_and_falls_to_nothing():
    given = plain(learning_rate=2.0, schedule="linear", warmup_steps=4)
    rates = [rate_at(given, step, 12) for step in range(13)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[4] == 2.0
    assert rates[8] == 1.0
    assert rates[12] == 0.0
    cosine = plain(learning_rate=2.0, schedule="cosine")
    assert rate_at(cosine, 6, 12) == pytest.approx(1.0)


def test_what_was_left_of_an_epoch_that_was_cut_off_is_not_read(shards, tmp_path):
    """Half a file, and a whole one of one of two processes where there is one now."""
    train(Job(settings(epochs=1), shards, None, str(tmp_path / "run"), 0), Alone())
    first = tmp_path / "run" / "epoch-00001" / "users-00000-of-00001.safetensors"
    left = tmp_path / "run" / "epoch-00002"
    storage.write(f"{left}/users-00001-of-00002.safetensors", first.read_bytes())
    storage.write(f"{left}/users-00000-of-00001.safetensors.tmp", first.read_bytes()[:100])
    ends = []
    for folder in ("run", "whole"):
        job = Job(settings(epochs=2), shards, None, str(tmp_path / folder), 0)
        trained = Trained.of(job.settings, job.folder, train(job, Alone()), shards)
        ids, rows = zip(*trained.users(), strict=True)
        assert sorted(np.concatenate(ids)) == list(range(60))
        ends.append(np.concatenate(rows))
    np.testing.assert_array_equal(*ends)


def test_a_disk_that_is_full_is_said_and_leaves_nothing_that_looks_whole(shards, tmp_path, monkeypatch):
    write = storage.write

    def full(path, data):
        if "shared" in path:
            raise OSError(28, "No space left on device")
        write(path, data)

    monkeypatch.setattr(storage, "write", full)
    job = Job(settings(), shards, None, str(tmp_path), 0)
    with pytest.raises(TrainError, match="cannot write the checkpoint .*No space left on device"):
        train(job, Alone())
    monkeypatch.setattr(storage, "write", write)
    assert len(train(job, Alone())["history"]) == 3
