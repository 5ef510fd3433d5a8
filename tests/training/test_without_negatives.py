"""Users who have every item: they are in no batch, are counted, and measure nothing."""

import numpy as np
import pytest

pytest.importorskip("torch")

from sparkrec.config import StoppingSettings
from sparkrec.errors import TrainError
from sparkrec.models.gru4rec import Gru4recSettings
from sparkrec.models.item2vec import Item2vecSettings
from sparkrec.models.mf import MfSettings
from sparkrec.models.sasrec import SasrecSettings
from sparkrec.training.collective import Alone
from sparkrec.training.loop import Job, Trainer, train
from tests.training.examples import in_threads, plain, write_shards

pytestmark = pytest.mark.torch

N_ITEMS, N_USERS = 20, 31


def world(folder):
    """The last user has every item."""
    rng = np.random.default_rng(0)
    walks = [rng.permutation(N_ITEMS)[: rng.integers(3, 8)] for _ in range(N_USERS - 1)] + [rng.permutation(N_ITEMS)]
    users = np.repeat(np.arange(N_USERS), [len(walk) for walk in walks])
    ordered = {"sequences": list(enumerate(walks)), "length": 6}
    shards = write_shards(folder / "s", users, np.concatenate(walks), N_ITEMS, of_group=2, ordered=ordered)
    others = rng.integers(0, N_ITEMS, N_USERS)
    return shards, write_shards(folder / "v", np.arange(N_USERS), others, N_ITEMS, of_group=2, ordered=ordered)


@pytest.mark.parametrize(
    ("kind", "loss", "left_out"),
    [
        (MfSettings, "bce", 1),
        (MfSettings, "softmax", 0),
        (MfSettings, "all_squared", 0),
        (Gru4recSettings, "top1_max", 1),
        (SasrecSettings, "bce", 1),
        (Item2vecSettings, "bce", 1),
    ],
)
def test_training_goes_on_without_them_on_one_process_and_on_two(tmp_path, kind, loss, left_out):
    shards, held_out = world(tmp_path)
    training = plain(loss=loss, epochs=2, batch=8, threads=1, stopping=StoppingSettings())
    still = {"dropout": 0.0} if "dropout" in kind.model_fields else {}
    settings = kind(dim=4, **still, training=training)
    one = train(Job(settings, shards, held_out, str(tmp_path / "one"), 0), Alone())
    two = in_threads(lambda peers: train(Job(settings, shards, held_out, str(tmp_path / "two"), 0), peers), 2)[0]
    assert one["users_without_negatives"] == two["users_without_negatives"] == left_out
    for name in ("loss", "ndcg@10"):
        values = [[entry[name] for entry in state["history"]] for state in (one, two)]
        assert values[0] == pytest.approx(values[1], rel=1e-3)
        assert np.isfinite(values).all()
    batches = Trainer(Job(settings, shards, None, str(tmp_path / "batches"), 0), Alone()).batches
    seen = {int(user) for batch in batches.epoch(0) for user in batches.users[batch.users]}
    assert seen == set(range(N_USERS - left_out))


def test_where_all_users_have_every_item_there_is_nothing_to_learn(tmp_path):
    shards = write_shards(tmp_path / "s", np.array([7, 7, 7]), np.array([0, 1, 2]), 3)
    with pytest.raises(TrainError, match="all 1 users have every one of 3 items: there is no negative to draw"):
        Trainer(Job(MfSettings(training=plain()), shards, None, str(tmp_path), 0), Alone())
