"""Models begin where others have ended."""

from functools import partial

import numpy as np
import pyarrow as pa
import pytest

torch = pytest.importorskip("torch")


from sparkrec import storage
from sparkrec.config import Parent, declaration, kinds_that
from sparkrec.errors import ConfigError, InputError
from sparkrec.fields import SparseFeatures
from sparkrec.models.base.published import LEARNED, SCORER_FILE
from sparkrec.models.deepfm import DeepfmSettings
from sparkrec.models.fm import FmSettings
from sparkrec.models.gmf import GmfSettings
from sparkrec.models.mf import MfSettings
from sparkrec.models.mlp import MlpSettings
from sparkrec.models.neumf import NeumfSettings
from sparkrec.models.nfm import NfmSettings
from sparkrec.models.sasrec import SasrecSettings
from sparkrec.training.collective import Alone
from sparkrec.training.export import Trained
from sparkrec.training.loop import Job, Trainer, train
from sparkrec.training.warm_start import Earlier
from tests.training.examples import in_threads, plain, planted, write_shards
from tests.training.test_features import LAYOUT, network
from tests.training.test_features import examples as of_features

pytestmark = pytest.mark.torch

TRAINING = plain(threads=1, epochs=2, batch=64, learning_rate=0.05, init_scale=0.1)
LAYERS = [8, 8, 4]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Shards, and folders of a gmf and an mlp fitted to them, as a run leaves them."""
    root = tmp_path_factory.mktemp("published")
    users, items, _ = planted()
    shards = write_shards(root / "shards", users, items, 80, of_group=2)
    parents, scores = {}, []
    kinds = GmfSettings(dim=5), MlpSettings(layers=LAYERS), MfSettings(dim=6), FmSettings(dim=6)
    for settings in (each.model_copy(update={"training": TRAINING}) for each in kinds):
        job = Job(settings, shards, None, str(root / f"{settings.kind}-run"), 0)
        trained = Trained.of(settings, job.folder, train(job, Alone()), job.shards)
        folder = str(root / settings.kind)
        parents[settings.kind] = Parent(settings, folder)
        parts = [*trained.users()]
        for at, part in enumerate(parts):
            storage.write(f"{folder}/users/part-{at}.parquet", table("user", *part))
        storage.write(f"{folder}/items/part-0.parquet", table("item", np.arange(80), trained.items()))
        scorer = trained.scorer()
        if scorer is not None:
            storage.write(f"{folder}/{SCORER_FILE}", scorer.to_bytes())
        rows = np.concatenate([rows for _, rows in parts])[np.argsort(np.concatenate([ids for ids, _ in parts]))]
        if scorer is not None and scorer.sees == "fields":
            rows = scorer.queries(np.arange(60), rows, SparseFeatures.none(60))
        scores.append(rows @ trained.items().T if scorer is None else scorer.scores(rows, trained.items()))
    return shards, parents, scores


def table(key, ids, rows):
    return storage.parquet(pa.table({key: pa.array(ids), "value": pa.array([*rows], pa.list_(pa.float32()))}))


def trainer(shards, started_from, kind=NeumfSettings, **sizes):
    sizes = sizes or {"dim": 5}
    layers = {"layers": LAYERS} if kind is NeumfSettings else {}
    settings = kind(**layers, **sizes, training=TRAINING)
    return Trainer(Job(settings, shards, None, "unused", 0, tuple(started_from)), Alone())


def test_the_first_scores_are_the_means_of_theirs(published):
    shards, parents, (gmf, mlp, *_) = published
    started = trainer(shards, [parents["gmf"], parents["mlp"]])
    with torch.no_grad():
        found = started.model.score(torch.arange(60), torch.arange(80)[None]).numpy()
    np.testing.assert_allclose(found[np.argsort(started.users)], (gmf + mlp) / 2, atol=1e-5)


def test_what_does_not_fit_is_refused(published):
    shards, parents, _ = published
    with pytest.raises(InputError, match=r"start_from: found a gmf and an mlp of sizes \[5, .*expected \[7, "):
        trainer(shards, [parents["gmf"], parents["mlp"]], dim=7)
    with pytest.raises(InputError, match=r"start_from: a neumf starts from a gmf and an mlp, found \['gmf'\]"):
        trainer(shards, [parents["gmf"]])
    with pytest.raises(InputError, match=r"start_from: a neumf .*, found \['gmf', 'gmf', 'mlp'\]"):
        trainer(shards, [parents["gmf"], parents["mlp"], parents["gmf"]])


def test_a_factorization_machine_begins_as_the_mf_that_it_generalizes(published):
    shards, parents, scores = published
    started = trainer(shards, [parents["mf"]], FmSettings, dim=6)
    with torch.no_grad():
        found = started.model.score(torch.arange(60), torch.arange(80)[None]).numpy()
    np.testing.assert_allclose(found[np.argsort(started.users)], scores[2], atol=1e-5)


def test_frozen_vectors_stay_and_the_layers_above_them_learn(published, tmp_path):
    shards, parents, _ = published
    settings = NfmSettings(dim=6, layers=[8], training=TRAINING, start_from=["fm"], frozen=True)
    job = Job(settings, shards, None, str(tmp_path), 0, (parents["fm"],))
    before = Trainer(job, Alone())
    history = train(job, Alone())["history"]
    after = Trainer(job, Alone())
    after.resume()
    torch.testing.assert_close(after.model.items.weight, before.model.items.weight, rtol=0, atol=0)
    torch.testing.assert_close(after.model.users.weight, before.model.users.weight, rtol=0, atol=0)
    assert not torch.equal(after.stepper.dense.weights, before.stepper.dense.weights)
    assert history[-1]["loss"] < history[0]["loss"]


def test_vectors_that_are_not_there_or_of_another_size_are_refused(published):
    shards, parents, _ = published
    with pytest.raises(InputError, match="start_from: found mlp, expected mf or a model of features"):
        trainer(shards, [parents["mlp"]], FmSettings, dim=6)
    with pytest.raises(InputError, match="start_from: found a fm of dim 6, expected 7: give both the same dim"):
        trainer(shards, [parents["fm"]], DeepfmSettings, dim=7)


def learned(folder, settings, shards, size=2):
    """Train, and leave what was learned as a run does. Returns the last checkpoint: users in the order of ids."""
    job = Job(settings, shards, None, f"{folder}/run", 0)
    state = in_threads(lambda collective: train(job, collective), size)[0]
    trained = Trained.of(settings, job.folder, state, job.shards)
    for name, make in trained.learned().items():
        storage.write(f"{folder}/{LEARNED}/{name}", make())
    parts = trained.checkpoints.users(trained.epoch)
    order = torch.cat([part["ids"] for part in parts]).argsort()
    users = {name: torch.cat([part[name] for part in parts])[order] for name in ("weight", "optimizer.state0")}
    return f"{folder}/{LEARNED}", trained.checkpoints.shared(trained.epoch), users


def of_log(kind, folder, first, n_users, n_items):
    """Shards of users from `first` on."""
    users, items, _ = planted(n_users, n_items)
    walks = [(first + user, items[users == user].tolist()) for user in range(n_users)]
    ordered = {"sequences": walks, "length": 6} if kind == "sasrec" else None
    return write_shards(folder, users + first, items, n_items, of_group=2, ordered=ordered)


@pytest.mark.parametrize("kind", ["mf", "sasrec"])
def test_known_rows_go_on_new_ones_begin_and_gone_ones_are_dropped(kind, tmp_path):
    settings = {"mf": MfSettings(dim=5, training=TRAINING), "sasrec": SasrecSettings(dim=6, training=TRAINING)}[kind]
    folder, shared, users = learned(tmp_path, settings, of_log(kind, tmp_path / "before", 0, 60, 80))
    shards = of_log(kind, tmp_path / "after", 20, 60, 84)  # 20 users are gone, 20 have come
    rows = np.r_[-1, -1, np.arange(5, 80), np.full(7, -1)]  # of the items 5 are gone and 9 have come
    cold = Trainer(Job(settings, shards, None, str(tmp_path / "cold"), 0), Alone())
    warm = Trainer(Job(settings, shards, None, str(tmp_path / "warm"), 0, earlier=Earlier(folder, rows, True)), Alone())
    equal = partial(torch.testing.assert_close, rtol=0, atol=0)
    known = torch.from_numpy(warm.users < 60)
    came_from = torch.from_numpy(warm.users[warm.users < 60])
    assert int(known.sum()) == 40
    equal(warm.model.users.weight[known], users["weight"][came_from])
    equal(warm.model.users.weight[~known], cold.model.users.weight[~known])
    equal(warm.stepper.user_optimizer.state[0][known], users["optimizer.state0"][came_from])
    equal(warm.model.items.weight[2:77], shared["items.weight"][5:])
    equal(warm.model.items.weight[rows < 0], cold.model.items.weight[rows < 0])
    equal(warm.stepper.item_optimizer.state[0][2:77], shared["items.optimizer.state0"][5:])
    assert not warm.stepper.item_optimizer.state[0][rows < 0].any()
    for name, parameter in warm.model.named_parameters():
        equal(parameter.data, shared[f"dense.{name}"])
    assert warm.stepper.item_optimizer.steps == int(shared["items.optimizer.steps"]) > 0
    other = Trainer(Job(settings, shards, None, "unused", 0, earlier=Earlier(folder, rows, False)), Alone())
    assert not other.stepper.item_optimizer.state[0].any()
    assert warm.run()["history"][0]["loss"] < cold.run()["history"][0]["loss"]


def test_features_go_on_where_their_rows_have_moved(tmp_path):
    settings = network("deepfm")
    shards = of_features(tmp_path / "shards", of_group=2)
    folder, shared, _ = learned(tmp_path, settings, shards)
    features = np.roll(np.arange(LAYOUT.n_rows), 3)
    features[0] = -1
    rows = np.concatenate([np.arange(30), np.where(features < 0, -1, 30 + features)])
    warm = Trainer(Job(settings, shards, None, "unused", 0, earlier=Earlier(folder, rows, True)), Alone())
    cold = Trainer(Job(settings, shards, None, "unused", 0), Alone())
    torch.testing.assert_close(warm.model.items.weight[31:], shared["items.weight"][rows[31:]], rtol=0, atol=0)
    torch.testing.assert_close(warm.model.items.weight[30], cold.model.items.weight[30], rtol=0, atol=0)


@pytest.mark.parametrize("kind", kinds_that(lambda declared: declared.module is not None))
def test_every_network_goes_on_from_one_of_its_shape_alone(kind):
    settings = declaration(kind).settings()
    settings.check_warm_start(settings.model_copy(update={"training": TRAINING}))
    with pytest.raises(ConfigError, match=f"found a als, expected a {kind}"):
        settings.check_warm_start(declaration("als").settings())
    size = "layers" if kind == "mlp" else "dim"
    if kind != "lr":
        changed = {"layers": [4, 2]} if kind == "mlp" else {"dim": 3}
        with pytest.raises(ConfigError, match=f"found a {kind} of another shape: {size} "):
            settings.check_warm_start(settings.model_copy(update=changed))


def test_crosses_of_features_do_not_go_on():
    crossed = declaration("wide_deep").settings(crosses=[["user", "day"]])
    with pytest.raises(ConfigError, match="found crosses, which go by the rows of a dataset's features"):
        crossed.check_warm_start(crossed)
