"""NeuMF begins where GMF and MLP have ended."""

import numpy as np
import pyarrow as pa
import pytest

torch = pytest.importorskip("torch")

from sparkrec import storage  # noqa: E402
from sparkrec.config import GmfSettings, MlpSettings, NeumfSettings, TrainingSettings  # noqa: E402
from sparkrec.errors import InputError  # noqa: E402
from sparkrec.training.collective import Alone  # noqa: E402
from sparkrec.training.export import Trained  # noqa: E402
from sparkrec.training.head import HEAD_FILE  # noqa: E402
from sparkrec.training.loop import Job, Trainer, train  # noqa: E402
from tests.training.examples import parquet, planted, write_shards  # noqa: E402

pytestmark = pytest.mark.torch

TRAINING = TrainingSettings(threads=1, epochs=2, batch=64, learning_rate=0.05, init_scale=0.1)
LAYERS = [8, 8, 4]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Shards, and folders of a gmf and an mlp fitted to them, as a run leaves them."""
    root = tmp_path_factory.mktemp("published")
    users, items, _ = planted()
    shards = write_shards(root / "shards", users, items, 80, of_group=2)
    folders, scores = {}, []
    for settings in (GmfSettings(dim=5, training=TRAINING), MlpSettings(layers=LAYERS, training=TRAINING)):
        job = Job(settings, shards, None, str(root / f"{settings.kind}-run"), 0)
        trained = Trained.of(settings, job.folder, train(job, Alone()), job.shards)
        folder = folders[settings.kind] = str(root / settings.kind)
        parts = [*trained.users()]
        for at, part in enumerate(parts):
            storage.write(f"{folder}/users/part-{at}.parquet", table("user", *part))
        storage.write(f"{folder}/items/part-0.parquet", table("item", np.arange(80), trained.items()))
        head = trained.head()
        if head is not None:
            storage.write(f"{folder}/{HEAD_FILE}", head.to_bytes())
        rows = np.concatenate([rows for _, rows in parts])[np.argsort(np.concatenate([ids for ids, _ in parts]))]
        scores.append(rows @ trained.items().T if head is None else head.scores(rows, trained.items()))
    return shards, folders, scores


def table(key, ids, rows):
    return parquet(pa.table({key: pa.array(ids), "value": pa.array([*rows], pa.list_(pa.float32()))}))


def trainer(shards, folders, **sizes):
    settings = NeumfSettings(**{"dim": 5, "layers": LAYERS, **sizes}, training=TRAINING)
    return Trainer(Job(settings, shards, None, "unused", 0, folders), Alone())


def test_the_first_scores_are_the_means_of_theirs(published):
    shards, folders, (gmf, mlp) = published
    started = trainer(shards, folders)
    with torch.no_grad():
        found = started.model.score(torch.arange(60), torch.arange(80)[None]).numpy()
    np.testing.assert_allclose(found[np.argsort(started.users)], (gmf + mlp) / 2, atol=1e-5)


def test_what_does_not_fit_is_refused(published):
    shards, folders, _ = published
    with pytest.raises(InputError, match=r"start_from: found a gmf and an mlp of sizes \[5, .*expected \[7, "):
        trainer(shards, folders, dim=7)
    with pytest.raises(InputError, match=r"start_from: a neumf starts from a gmf and an mlp, found \['gmf'\]"):
        trainer(shards, {"gmf": folders["gmf"]})
