"""Models that compute the rows by which they score from the graph of users and items."""

from typing import ClassVar

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn

from sparkrec.config import StoppingSettings
from sparkrec.models.base.recommender import ComputesTables, Recommender, Sizes
from sparkrec.models.lightgcn import LightGCN, LightgcnSettings
from sparkrec.models.mf import MF, MfSettings
from sparkrec.training import loop
from sparkrec.training.collective import Alone
from sparkrec.training.export import Trained
from sparkrec.training.gradients import kernel_fits
from sparkrec.training.loop import Job, Trainer, train
from tests.training.examples import in_threads, liked_of_first, plain, planted, write_shards

pytestmark = pytest.mark.torch

BASE = {"threads": 1, "epochs": 2, "batch": 40, "negatives": 2, "learning_rate": 0.05, "init_scale": 0.3}
N_USERS, N_ITEMS = 20, 15


def settings(layers=2, **training):
    return LightgcnSettings(dim=4, layers=layers, training=plain(**{**BASE, "loss": "bpr", **training}))


def log():
    """Items 13 and 14 are nobody's."""
    rng = np.random.default_rng(0)
    rows = [rng.permutation(N_ITEMS - 2)[: rng.integers(1, 7)] for _ in range(N_USERS)]
    return np.repeat(np.arange(N_USERS), [len(row) for row in rows]), np.concatenate(rows)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("graph"), *log(), N_ITEMS, of_group=3)


def reference(x, w, users, layers):
    """Layers by dense products with D^-1/2 A D^-1/2, eq. 8 of the paper; `users` of the rows of x."""
    n, m = x.shape[0], w.shape[0]
    whose, what = log()
    at = np.argsort(users)[whose]
    adjacency = torch.zeros(n + m, n + m, dtype=x.dtype)
    adjacency[at, n + what] = 1.0
    adjacency[n + what, at] = 1.0
    degrees = adjacency.sum(1)
    scale = torch.where(degrees > 0, degrees, torch.ones_like(degrees)).rsqrt()
    propagation = scale[:, None] * adjacency * scale
    both = [torch.cat((x, w))]
    for _ in range(layers):
        both.append(propagation @ both[-1])
    return sum(both[1:], both[0]).div(layers + 1).split((n, m))


def expected_gradients(made, batch, layers, l2):
    """Loss and gradients of all rows of a step by torch alone."""
    x, w = (table.weight.double().requires_grad_() for table in (made.model.users, made.model.items))
    users, items = reference(x, w, made.users, layers)
    of, what = torch.from_numpy(batch.users), torch.from_numpy(batch.items).long()
    scores = (users[of][:, None] * items[what]).sum(-1)
    loss = torch.nn.functional.softplus(scores[:, 1:] - scores[:, :1]).mean(1).sum()
    loss = loss + l2 * (x[of].square().sum() + w[what].square().sum())
    loss = loss / batch.total
    return loss.item(), *torch.autograd.grad(loss, (x, w))


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("layers", [1, 3])
def test_gradients_of_all_rows_are_those_of_torch(shards, tmp_path, layers, accumulate):
    job = Job(settings(layers, user_l2=0.02, item_l2=0.02, accumulate=accumulate), shards, None, str(tmp_path), 0)
    made = Trainer(job, Alone())
    batch = next(made.batches.epoch(0))
    loss, *slopes = expected_gradients(made, batch, layers, 0.02)
    found = made.stepper.gradients(batch)
    assert found.loss.item() == pytest.approx(loss, rel=1e-5)
    for rows, slope in zip((found.users, found.items), slopes, strict=True):
        assert rows.rows.tolist() == list(range(len(slope)))
        torch.testing.assert_close(rows.gradients.double(), slope, rtol=1e-4, atol=1e-6)
    assert slopes[1][13].any() or 13 not in batch.items  # isolated, and learned where it is drawn
    assert not made.model.items.weight.requires_grad
    again = made.stepper.gradients(batch)
    torch.testing.assert_close(again.items.gradients, found.items.gradients, rtol=0, atol=0)


@pytest.mark.parametrize("loss", ["bpr", "full_softmax"])
def test_a_step_of_three_processes_is_that_of_one(shards, tmp_path, loss):
    job = Job(settings(3, loss=loss, optimizer="sgd"), shards, None, str(tmp_path), 0)

    def rows(peers):
        made = Trainer(job, peers)
        for batch, _ in zip(made.batches.epoch(0), range(2), strict=False):
            made.stepper.step(batch, 0.5)
        return made.users, made.model.users.weight, made.model.items.weight

    users, x, w = rows(Alone())
    for mine, of_mine, items in in_threads(rows, 3):
        torch.testing.assert_close(items, w, rtol=1e-4, atol=1e-6)
        at = [users.tolist().index(user) for user in mine]
        torch.testing.assert_close(of_mine, x[at], rtol=1e-4, atol=1e-6)


def test_what_is_measured_and_published_are_the_computed_rows(shards, tmp_path, monkeypatch):
    measured = []
    monkeypatch.setattr(
        loop,
        "validate_ranking",
        lambda model, *_: (
            measured.append(model and model.score(torch.arange(N_USERS), torch.arange(N_ITEMS)[None]).detach()) or 0.5
        ),
    )
    chosen = settings(epochs=1, stopping=StoppingSettings())
    job = Job(chosen, shards, shards, str(tmp_path), 0)
    trained = Trained.of(chosen, job.folder, train(job, Alone()), shards)
    made = Trainer(job, Alone())
    made.resume()
    users, items = reference(made.model.users.weight, made.model.items.weight, made.users, 2)
    torch.testing.assert_close(measured[0], users @ items.T)
    assert measured[1] is None  # popularity
    (ids, rows), *_ = trained.users()
    assert ids.tolist() == made.users.tolist()
    np.testing.assert_allclose(rows, users.numpy(), atol=1e-6)
    np.testing.assert_allclose(trained.items(), items.numpy(), atol=1e-6)
    assert made.model.users.computed is made.model.items.computed is None
    assert trained.stranger() == [0.0] * 4


def test_an_isolated_item_has_its_own_vector_alone(shards, tmp_path):
    made = Trainer(Job(settings(1), shards, None, str(tmp_path), 0), Alone())
    x, w = made.tables.latest()
    torch.testing.assert_close(w[13:], made.model.items.weight[13:] / 2)
    assert torch.isfinite(x).all()
    assert torch.isfinite(w).all()


def test_planted_tastes_are_found(tmp_path):
    users, items, taste = planted()
    chosen = settings(1, epochs=20)
    shards = write_shards(tmp_path / "s", users, items, 80, of_group=2)
    job = Job(chosen, shards, None, str(tmp_path / "run"), 0)
    trained = Trained.of(chosen, job.folder, train(job, Alone()), shards)
    (ids, rows), *_ = trained.users()
    scores = rows[np.argsort(ids)] @ trained.items().T
    popular = np.broadcast_to(np.bincount(items, minlength=80).astype(float), (60, 80))
    liked = liked_of_first(users, items, taste)
    assert liked(scores) > 0.9 > 0.5 > liked(popular)


class Weighed(LightGCN):
    """Layers with a matrix each, as NGCF has them, on either side of the sum over processes."""

    def __init__(self, settings, sizes):
        super().__init__(settings, sizes)
        self.before, self.after = (nn.Linear(settings.dim, settings.dim, bias=False) for _ in range(2))

    def tables(self, x, w, graph):
        return x + self.after(graph.to_users(w)), w + self.after(graph.to_items(self.before(x)))


@pytest.mark.parametrize("size", [1, 3])
def test_dense_layers_in_the_graph_learn_on_any_number_of_processes(shards, tmp_path, monkeypatch, size):
    monkeypatch.setattr(LightgcnSettings, "module", Weighed)
    job = Job(settings(clip_norm=None, optimizer="sgd"), shards, None, str(tmp_path), 0)

    def moved(peers):
        made = Trainer(job, peers)
        before = made.stepper.dense.weights.clone()
        made.stepper.step(next(made.batches.epoch(0)), 1.0)
        return before - made.stepper.dense.weights

    alone = Trainer(job, Alone())
    batch = next(alone.batches.epoch(0))
    model = alone.model
    x, w = alone.tables.compute(alone.tables.graph)
    scores = (x[torch.from_numpy(batch.users)][:, None] * w[torch.from_numpy(batch.items).long()]).sum(-1)
    loss = torch.nn.functional.softplus(scores[:, 1:] - scores[:, :1]).mean(1).sum() / batch.total
    expected = torch.cat([each.flatten() for each in torch.autograd.grad(loss, tuple(model.parameters()))])
    assert expected.abs().min() > 0
    for found in in_threads(moved, size):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


class Own(MF):
    """A model with a kernel, whose batches read what no kernel knows of."""

    computes_tables: ClassVar[ComputesTables] = "in steps"


@pytest.mark.parametrize("kind", ["own", "mf"])
def test_a_kernel_is_for_rows_that_are_learned(shards, tmp_path, monkeypatch, kind):
    if kind == "own":
        monkeypatch.setattr(MfSettings, "module", Own)
    chosen = MfSettings(dim=4, training=plain(**BASE))
    made = Trainer(Job(chosen, shards, None, str(tmp_path), 0), Alone())
    assert kernel_fits(made.model, chosen.training) == made.stepper.by_kernel == (kind == "mf")
    assert (made.tables.graph is None) == (made.tables.latest() is None) == (kind == "mf")
    before = made.model.items.weight.clone()
    made.stepper.step(next(made.batches.epoch(0)), 0.1)
    assert not torch.equal(made.model.items.weight, before)


def test_tables_are_those_that_are_learned_where_nothing_is_said():
    model: Recommender = MfSettings(training=plain()).network(Sizes(3, 4))
    x, w = model.tables(model.users.weight, model.items.weight, None)
    assert x is model.users.weight
    assert w is model.items.weight
