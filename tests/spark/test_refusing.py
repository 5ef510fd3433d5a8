"""Sessions that keep no rows and refuse most settings: the same results, and nothing left behind."""

import json

import pytest

from sparkrec.spark.platform.delta import CATALOG, EXTENSION
from sparkrec.spark.platform.quick_start import known_jars
from sparkrec.spark.platform.session import delta_coordinate
from tests.connecting import on_connect

pytestmark = [pytest.mark.spark, pytest.mark.slow]

FIT = """
from sparkrec import ALS, evaluate, fit
from sparkrec.spark.platform.few import SETTING

def listed(rows):
    return sorted([row.user, row.item, round(row.score, 4)] for row in rows.collect())

plays = spark.createDataFrame(
    [(f"u{u}", i, float(1 + u * i % 5)) for u in range(20) for i in range(15) if (u + i) % 3],
    "user string, item long, rating double",
)
found = {}
spark.conf.set(SETTING, "never")
for kind, settings in KINDS.items():
    lists = fit(plays, kind=kind, **settings).recommend(k=3)
    found[kind] = listed(lists)
als = ALS(rank=3, maxIter=2, implicitPrefs=True, seed=1).fit(plays)
best = als.recommendForAllUsers(3, exclude=plays).collect()
found["estimator"] = sorted([row.user, *(cell.item for cell in row.recommendations)] for row in best)
measured = evaluate(lists, plays.where("item < 3"), ["ndcg", "recall"], k=[2])
found["metrics"] = sorted([row.metric, round(row.value, 6)] for row in measured.collect())
spark.conf.unset(SETTING)
"""
KINDS = {"itemknn": {}, "mf": {"training": {"epochs": 2}}}

STAGES = """
from sparkrec import Lake
from sparkrec.config import PipelineSettings
from sparkrec.configfile import validate
from sparkrec.stages.pipeline import run

lake = Lake(spark, folder + "/lake")
result = run(validate(PipelineSettings, {**PIPELINE, "lake": lake.root}, "refusing"), lake)
found["pipeline"] = [run.manifest["metrics"] for run in result.evaluations]
found["written"] = lake.table("recommendations").count()
"""

ON_CONNECT = """
import logging
from tests import refusing

logging.basicConfig(level=logging.INFO)
logging.getLogger("py4j").setLevel(logging.ERROR)
folder, KINDS, PIPELINE = given
refusing.ALLOWED.add("spark.sparkrec.inPlace.maxBytes")  # so that plans are carried out on Spark, too
refusing.refuse()
{body}
say(found)
"""


def test_a_session_that_keeps_nothing_gives_the_same_results(spark, pipeline_settings, tmp_path):
    pipeline = {key: value for key, value in pipeline_settings.items() if key != "spark"}
    conf = {
        "spark.jars": ",".join(known_jars(delta_coordinate())),
        "spark.sql.extensions": EXTENSION,
        "spark.sql.catalog.spark_catalog": CATALOG,
        "spark.databricks.delta.snapshotPartitions": "2",
    }
    given = [str(tmp_path / "connect"), KINDS, pipeline]
    (found,), log = on_connect(ON_CONNECT.format(body=FIT + STAGES), given, tmp_path, conf, timeout=540)
    assert log.count("this session keeps no rows (") == 1, log[-4000:]
    assert "what was to stay in its partitions goes over the network each time" in log
    assert not [*(tmp_path / "scratch").iterdir()]
    names = {"spark": spark, "folder": str(tmp_path / "classic"), "KINDS": KINDS, "PIPELINE": pipeline}
    exec(FIT + STAGES, names)
    assert found == json.loads(json.dumps(names["found"]))
