"""Models begin where others have ended."""

import numpy as np
import pyarrow as pa
import pytest

torch = pytest.importorskip("torch")


from sparkrec import storage
from sparkrec.config import Parent
from sparkrec.errors import InputError
from sparkrec.fields import SparseFeatures
from sparkrec.models.base.published import SCORER_FILE
from sparkrec.models.deepfm import DeepfmSettings
from sparkrec.models.fm import FmSettings
from sparkrec.models.gmf import GmfSettings
from sparkrec.models.mf import MfSettings
from sparkrec.models.mlp import MlpSettings
from sparkrec.models.neumf import NeumfSettings
from sparkrec.models.nfm import NfmSettings
from sparkrec.training.collective import Alone
from sparkrec.training.export import Trained
from sparkrec.training.loop import Job, Trainer, train
from tests.training.examples import plain, planted, write_shards

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
