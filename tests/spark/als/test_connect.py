"""The same code on Spark Connect, in a process of its own: a process is one or the other."""

import pyspark
import pytest

from tests.connecting import on_connect

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.sparks]

FIT = """
import numpy as np

from sparkrec import ALS, ALSModel, evaluate, fit

rng = np.random.default_rng(0)
rows = [(f"u{u}", int(i), float(1 + u * i % 5)) for u in range(20) for i in rng.choice(15, 6, replace=False)]
ratings = spark.createDataFrame(rows, "user string, item long, rating double")
als = ALS(rank=3, maxIter=2, implicitPrefs=True, seed=1, checkpointDir=folder + "/snapshots", checkpointInterval=1)
model = als.fit(ratings)
model.save(folder + "/model")
loaded = ALSModel.load(folder + "/model")
best = loaded.recommendForAllUsers(3, exclude=ratings).orderBy("user").collect()
scores = loaded.foldIn(ratings.where("user = 'u3'")).transform(ratings).orderBy("user", "item").collect()
found = {
    "loss": [row.loss for row in loaded.history.collect()],
    "best": [[row.user, [cell.item for cell in row.recommendations]] for row in best],
    "scores": [row.prediction for row in scores],
    "similar": loaded.similarItems(2).count(),
    "explained": model.explain("u3", 4).count(),
}
lists = fit(ratings, kind="itemknn").recommend(k=3)
measured = evaluate(lists, ratings.where("item < 5"), ["ndcg", "recall"], k=[3]).orderBy("metric").collect()
found["metrics"] = [row.value for row in measured]
"""

ON_CONNECT = """
folder = given
assert type(spark).__module__ == "pyspark.sql.connect.session"
{fit}
say(found)
spark.stop()
"""


@pytest.mark.skipif(pyspark.__version__ < "4", reason="over Connect it takes Spark 4")
def test_als_on_a_connect_server_is_als(spark, tmp_path):
    (remote,), _ = on_connect(ON_CONNECT.format(fit=FIT), str(tmp_path / "connect"), tmp_path, {}, timeout=240)
    names = {"spark": spark, "folder": str(tmp_path / "classic")}
    exec(FIT, names)
    classic = names["found"]
    assert remote["loss"] == pytest.approx(classic["loss"], rel=1e-5)
    assert remote["scores"] == pytest.approx(classic["scores"], abs=1e-4)
    assert remote["best"] == classic["best"]
    assert remote["metrics"] == pytest.approx(classic["metrics"], rel=1e-9)
    assert remote["similar"] == classic["similar"] == 15
    assert remote["explained"] == classic["explained"] == 6
