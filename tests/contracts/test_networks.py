"""What every network must do."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from sparkrec.fields import FieldSchema, SparseFeatures
from sparkrec.models.afm import AfmSettings
from sparkrec.models.base.recommender import FeatureBatch, Features, Sizes
from sparkrec.models.base.scorers import load_scorer, scorer_of
from sparkrec.models.base.settings import FieldNetworkSettings
from sparkrec.models.dcn import DcnSettings
from sparkrec.models.deepfm import DeepfmSettings
from sparkrec.models.fm import FmSettings
from sparkrec.models.fwfm import FwfmSettings
from sparkrec.models.gmf import GmfSettings
from sparkrec.models.lightgcn import LightgcnSettings
from sparkrec.models.linear_autoencoder import LinearAutoencoderSettings
from sparkrec.models.lr import LrSettings
from sparkrec.models.mf import MfSettings
from sparkrec.models.mlp import MlpSettings
from sparkrec.models.neumf import NeumfSettings
from sparkrec.models.nfm import NfmSettings
from sparkrec.models.wide_deep import WideDeepSettings
from sparkrec.training.collective import Alone
from sparkrec.training.export import Trained
from sparkrec.training.loop import Job, train
from tests.contracts import networks
from tests.training.examples import cut_off, in_threads, plain, planted, write_shards

pytestmark = pytest.mark.torch

TRAINING = {"threads": 1, "epochs": 20, "batch": 64, "negatives": 4, "learning_rate": 0.02, "init_scale": 0.1}
SETTINGS = {
    "mf": (MfSettings, {"dim": 8}),
    "gmf": (GmfSettings, {"dim": 8}),
    "mlp": (MlpSettings, {"layers": [16, 16, 8]}),
    "neumf": (NeumfSettings, {"dim": 4, "layers": [16, 16, 8]}),
    "lr": (LrSettings, {}),
    "fm": (FmSettings, {"dim": 8}),
    "fwfm": (FwfmSettings, {"dim": 8}),
    "nfm": (NfmSettings, {"dim": 8, "layers": [16]}),
    "deepfm": (DeepfmSettings, {"dim": 8, "layers": [16, 8]}),
    "wide_deep": (WideDeepSettings, {"dim": 8, "layers": [16, 8], "crosses": [["user", "item"]], "cross_buckets": 97}),
    "dcn": (DcnSettings, {"dim": 8, "layers": [16], "cross_layers": 2}),
    "afm": (AfmSettings, {"dim": 8, "attention": 4}),
    "lightgcn": (LightgcnSettings, {"dim": 8, "layers": 2, "training": {"loss": "bpr"}}),
    "linear_autoencoder": (LinearAutoencoderSettings, {"dim": 8, "dropout": 0.0, "training": {"batch": 16}}),
}


def test_every_model_of_pairs_is_here():
    assert set(SETTINGS) == set(networks(sequences=False))


@pytest.fixture(params=SETTINGS)
def network(request):
    def make(**training):
        settings, given = SETTINGS[request.param]
        training = {**TRAINING, **given.get("training", {}), **training}
        return settings(**{**given, "training": plain(**training)})

    return make


def scores_of(trained, n_users):
    """(n_users, n_items) of what was exported."""
    users, items, scorer = list(trained.users()), trained.items(), trained.scorer()
    ids = np.concatenate([ids for ids, _ in users])
    rows = np.concatenate([rows for _, rows in users])[np.argsort(ids)]
    assert sorted(ids) == list(range(n_users))
    if scorer is not None and scorer.sees == "fields":
        rows = scorer.queries(np.arange(n_users), rows, SparseFeatures.none(n_users))
    return rows @ items.T if scorer is None else scorer.scores(rows, items)


def test_planted_preferences_are_recovered(network, tmp_path):
    users, items, taste = planted()
    settings = network()
    if settings.kind == "lr":
        pytest.skip("users and items do not interact in it: see tests/training/test_features.py")
    job = Job(settings, write_shards(tmp_path / "shards", users, items, 80), None, str(tmp_path / "run"), 0)
    state = train(job, Alone())
    scores = scores_of(Trained.of(settings, job.folder, state, job.shards), 60)
    unseen = np.ones((60, 80), bool)
    unseen[users, items] = False
    right = [
        (scores[user][unseen[user] & liked][:, None] > scores[user][unseen[user] & ~liked]).mean()
        for user, liked in enumerate(taste == (np.arange(60) % 4)[:, None])
    ]
    assert np.mean(right) > 0.85
    losses = [entry["loss"] for entry in state["history"]]
    assert losses[-1] < 0.6 * losses[0]


def fill(model):
    """Random rows. A model of whole rows reads the states of its users, as after its steps."""
    for table in (model.users, model.items):
        table.weight.normal_()
    if model.sees == "rows":
        model.users.computed = torch.randn(len(model.users.weight), model.stranger().shape[1])


def rows_of_users(model):
    return model.users.weight if model.users.computed is None else model.users.computed


def test_gradients_reach_every_parameter_and_row_that_was_read(network):
    settings = network()
    torch.manual_seed(0)
    users, items = torch.tensor([0, 4]), torch.tensor([[1, 6, 2], [3, 3, 0]])
    sizes, features, read_features = Sizes(5, 7), None, []
    if isinstance(settings, FieldNetworkSettings):
        sizes = Sizes(5, 7, FieldSchema(context=(("day", 3),), item=(("genre", 2),)))
        of_items = FeatureBatch(items.flatten(), torch.tensor([3, 4, 3, 3, 3, 4]), None, None)
        features = Features(FeatureBatch(users, torch.tensor([2, 0]), None, None), of_items)
        read_features = [7 + row for row in (3, 4, 3, 3, 3, 4)]
    model = settings.network(sizes)
    fill(model)
    model.score(users, items, features).square().sum().backward()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    for table, read in ((model.users, users.tolist()), (model.items, items.flatten().tolist() + read_features)):
        ids, gradients = table.take()
        assert sorted(set(ids.tolist()) - {9, 7}) == sorted(set(read))  # 9 and 7: the days
        assert (gradients.abs().sum(1) > 0).all()


def score(model, users, items):
    """Of pairs of whom nothing more is known."""
    if model.sees == "rows":
        return model.score(users, items)
    none = torch.zeros(0, dtype=torch.long)
    return model.score(
        users, items, Features(FeatureBatch(users, none, None, None), FeatureBatch(items.flatten(), none, None, None))
    )


def test_a_score_depends_on_its_pair_alone(network):
    settings = network()
    torch.manual_seed(1)
    model = settings.network(Sizes(5, 7)).eval()
    fill(model)
    with torch.no_grad():
        every = score(model, torch.arange(5), torch.arange(7)[None])
        assert every.shape == (5, 7)
        mixed = score(model, torch.tensor([3, 1]), torch.tensor([[6, 0], [2, 2]]))
        torch.testing.assert_close(mixed, torch.stack([every[3, [6, 0]], every[1, [2, 2]]]))
        vectors = model.vectors(rows_of_users(model), model.items.weight)  # with no field but the ids, rows are whole
        if vectors is not None:
            torch.testing.assert_close(vectors[0] @ vectors[1].T, every, rtol=1e-4, atol=1e-5)


def test_ids_out_of_range_are_refused(network):
    model = network().network(Sizes(5, 7))
    fill(model)
    for users, items in (([5], [[0]]), ([0], [[7]]), ([-1], [[0]])):
        with pytest.raises((IndexError, RuntimeError)):
            score(model, torch.tensor(users), torch.tensor(items))


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
        scores_of(Trained.of(settings, str(tmp_path / name), state, shards), 60)
        for name, state in (("one", one), ("two", two))
    ]
    np.testing.assert_allclose(scores[0], scores[1], atol=2e-4)


def test_a_run_that_was_cut_off_ends_as_one_that_was_not(network, tmp_path):
    users, items, _ = planted()
    shards = write_shards(tmp_path / "shards", users, items, 80)
    settings = network(epochs=4)
    whole = train(Job(settings, shards, None, str(tmp_path / "whole"), 0), Alone())

    job = Job(settings, shards, None, str(tmp_path / "cut"), 0)
    cut_off(job)
    resumed = train(job, Alone())
    assert len(resumed["history"]) == 4
    assert [e["loss"] for e in resumed["history"]] == pytest.approx([e["loss"] for e in whole["history"]], rel=1e-6)
    ours, theirs = (
        scores_of(Trained.of(settings, str(tmp_path / name), state, shards), 60)
        for name, state in (("cut", resumed), ("whole", whole))
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_the_scorer_comes_back_from_its_file(network, tmp_path):
    settings = network()
    torch.manual_seed(2)
    model = settings.network(Sizes(3, 4)).eval()
    fill(model)
    scorer = load_scorer(scorer_of(settings, model).to_bytes())
    with torch.no_grad():
        expected = score(model, torch.arange(3), torch.arange(4)[None]).numpy()
    users, items = rows_of_users(model).numpy(), model.items.weight.numpy()
    if scorer.sees == "fields":
        whose, what = np.array([0, 2, 2]), np.array([1, 3, 0])
        events = (whose, users[whose], SparseFeatures.none(3)), (what, items[what], SparseFeatures.none(3))
        np.testing.assert_allclose(scorer.score_events(*events), expected[whose, what], atol=1e-5)
        users = scorer.queries(np.arange(3), users, SparseFeatures.none(3))
        items = scorer.items(np.arange(4), items, SparseFeatures.none(4))
    np.testing.assert_allclose(scorer.scores(users, items), expected, atol=1e-5)
    pairs = np.array([0, 2, 2, 3]), np.array([1, 3, 0], np.int32)
    np.testing.assert_allclose(scorer.score_pairs(users, items, pairs), expected[[0, 0, 2], [1, 3, 0]], atol=1e-5)
