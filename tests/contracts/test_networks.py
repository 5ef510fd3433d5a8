"""What every network must do."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from sparkrec.config import GmfSettings, MfSettings, MlpSettings, NeumfSettings, TrainingSettings  # noqa: E402
from sparkrec.models import MODELS  # noqa: E402
from sparkrec.training.collective import Alone  # noqa: E402
from sparkrec.training.export import Trained  # noqa: E402
from sparkrec.training.loop import Job, Trainer, train  # noqa: E402
from tests.training.examples import in_threads, planted, write_shards  # noqa: E402

pytestmark = pytest.mark.torch

TRAINING = {"threads": 1, "epochs": 20, "batch": 64, "negatives": 4, "learning_rate": 0.02, "init_scale": 0.1}
NETWORKS = {
    "mf": lambda **training: MfSettings(dim=8, training=TrainingSettings(**{**TRAINING, **training})),
    "gmf": lambda **training: GmfSettings(dim=8, training=TrainingSettings(**{**TRAINING, **training})),
    "mlp": lambda **training: MlpSettings(layers=[16, 16, 8], training=TrainingSettings(**{**TRAINING, **training})),
    "neumf": lambda **training: NeumfSettings(
        dim=4, layers=[16, 16, 8], training=TrainingSettings(**{**TRAINING, **training})
    ),
}


def test_every_model_is_here():
    assert set(NETWORKS) == set(MODELS)


@pytest.fixture(params=NETWORKS)
def network(request):
    return NETWORKS[request.param]


def scores_of(trained, n_users):
    """(n_users, n_items) of what was exported."""
    users, items, head = list(trained.users()), trained.items(), trained.head()
    ids = np.concatenate([ids for ids, _ in users])
    rows = np.concatenate([rows for _, rows in users])[np.argsort(ids)]
    assert sorted(ids) == list(range(n_users))
    return rows @ items.T if head is None else head.scores(rows, items)


def test_planted_preferences_are_recovered(network, tmp_path):
    users, items, taste = planted()
    settings = network()
    job = Job(settings, write_shards(tmp_path / "shards", users, items, 80), None, str(tmp_path / "run"), 0)
    state = train(job, Alone())
    scores = scores_of(Trained.of(settings, job.folder, state), 60)
    unseen = np.ones((60, 80), bool)
    unseen[users, items] = False
    right = [
        (scores[user][unseen[user] & liked][:, None] > scores[user][unseen[user] & ~liked]).mean()
        for user, liked in enumerate(taste == (np.arange(60) % 4)[:, None])
    ]
    assert np.mean(right) > 0.85
    losses = [entry["loss"] for entry in state["history"]]
    assert losses[-1] < 0.6 * losses[0]


def test_gradients_reach_every_parameter_and_row_that_was_read(network):
    settings = network()
    torch.manual_seed(0)
    model = MODELS[settings.kind](settings, 5, 7)
    for table in (model.users, model.items):
        table.weight.normal_()
    users, items = torch.tensor([0, 4]), torch.tensor([[1, 6, 2], [3, 3, 0]])
    model.score(users, items).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    for table, read in ((model.users, users), (model.items, items)):
        ids, gradients = table.take()
        assert ids.tolist() == read.reshape(-1).tolist()
        assert (gradients.abs().sum(1) > 0).all()


def test_a_score_depends_on_its_pair_alone(network):
    settings = network()
    torch.manual_seed(1)
    model = MODELS[settings.kind](settings, 5, 7).eval()
    for table in (model.users, model.items):
        table.weight.normal_()
    with torch.no_grad():
        every = model.score(torch.arange(5), torch.arange(7)[None])
        assert every.shape == (5, 7)
        mixed = model.score(torch.tensor([3, 1]), torch.tensor([[6, 0], [2, 2]]))
        torch.testing.assert_close(mixed, torch.stack([every[3, [6, 0]], every[1, [2, 2]]]))
        vectors = model.vectors(model.users.weight, model.items.weight)
        if vectors is not None:
            torch.testing.assert_close(vectors[0] @ vectors[1].T, every, rtol=1e-4, atol=1e-5)


def test_ids_out_of_range_are_refused(network):
    model = MODELS[network().kind](network(), 5, 7)
    for users, items in (([5], [[0]]), ([0], [[7]]), ([-1], [[0]])):
        with pytest.raises((IndexError, RuntimeError)):
            model.score(torch.tensor(users), torch.tensor(items))


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_two_processes_take_the_steps_of_one(network, tmp_path, optimizer):
    users, items, _ = planted()
    settings = network(epochs=2, optimizer=optimizer, batch=40)
    shards = write_shards(tmp_path / "shards", users, items, 80, of_group=2)
    one = train(Job(settings, shards, None, str(tmp_path / "one"), 3), Alone())
    two = in_threads(lambda peers: train(Job(settings, shards, None, str(tmp_path / "two"), 3), peers), 2)[0]
    assert [entry["loss"] for entry in two["history"]] == pytest.approx(
        [entry["loss"] for entry in one["history"]], rel=1e-4
    )
    scores = [
        scores_of(Trained.of(settings, str(tmp_path / name), state), 60) for name, state in (("one", one), ("two", two))
    ]
    np.testing.assert_allclose(scores[0], scores[1], atol=2e-4)


def test_a_run_that_was_cut_off_ends_as_one_that_was_not(network, tmp_path):
    users, items, _ = planted()
    shards = write_shards(tmp_path / "shards", users, items, 80)
    settings = network(epochs=4)
    whole = train(Job(settings, shards, None, str(tmp_path / "whole"), 0), Alone())

    class Cut(Exception):
        pass

    epoch = Trainer._epoch

    def cut(self, number, steps):
        if number == 2:
            self._step(next(self.batches.epoch(number)), 0.1)  # in the middle of an epoch
            raise Cut
        return epoch(self, number, steps)

    job = Job(settings, shards, None, str(tmp_path / "cut"), 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_epoch", cut)
        with pytest.raises(Cut):
            train(job, Alone())
    resumed = train(job, Alone())
    assert len(resumed["history"]) == 4
    assert [e["loss"] for e in resumed["history"]] == pytest.approx([e["loss"] for e in whole["history"]], rel=1e-6)
    ours, theirs = (
        scores_of(Trained.of(settings, str(tmp_path / name), state), 60)
        for name, state in (("cut", resumed), ("whole", whole))
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_the_head_comes_back_from_its_file(network, tmp_path):
    from sparkrec.training.head import Head

    settings = network()
    torch.manual_seed(2)
    model = MODELS[settings.kind](settings, 3, 4)
    for table in (model.users, model.items):
        table.weight.normal_()
    head = Head.from_bytes(Head.of(settings, model).to_bytes())
    with torch.no_grad():
        expected = model.score(torch.arange(3), torch.arange(4)[None]).numpy()
    users, items = model.users.weight.numpy(), model.items.weight.numpy()
    np.testing.assert_allclose(head.scores(users, items), expected, atol=1e-5)
    pairs = np.array([0, 2, 2, 3]), np.array([1, 3, 0], np.int32)
    np.testing.assert_allclose(head.score_pairs(users, items, pairs), expected[[0, 0, 2], [1, 3, 0]], atol=1e-5)
