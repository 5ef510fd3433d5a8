"""A table of Iceberg as a source, beside Delta, with the Sparks that have a runtime of it."""

import json
import subprocess
import sys

import pyspark
import pytest

from tests.conftest import QUICK_JVM

SPARK = ".".join(pyspark.__version__.split(".")[:2])
RUNTIMES = {
    "3.5": "org.apache.iceberg:iceberg-spark-runtime-3.5_2.12:1.10.2",
    "4.0": "org.apache.iceberg:iceberg-spark-runtime-4.0_2.13:1.10.2",
    "4.1": "org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:1.12.0",
}
pytestmark = [
    pytest.mark.spark,
    pytest.mark.slow,
    pytest.mark.sparks,
    pytest.mark.skipif(SPARK not in RUNTIMES, reason=f"Iceberg has no runtime for Spark {SPARK}"),
]

SCRIPT = """
import json, sys
from sparkrec.config import IngestSettings, SparkSettings
from sparkrec.configfile import validate
from sparkrec.errors import InputError
from sparkrec.spark.platform.lake import Lake
from sparkrec.spark.platform.session import open_session
from sparkrec.stages.ingest import ingest

folder, conf = sys.argv[1], json.loads(sys.argv[2])
spark = open_session(SparkSettings(master="local[2]", memory="2g", shuffle_partitions=2, conf=conf))
spark.sql("CREATE NAMESPACE ice.shop")
events = spark.range(2000).selectExpr(
    "concat('u', id % 50) AS user", "concat('i', id % 37) AS item", "timestamp_seconds(1700000000 + id) AS time"
)
events.writeTo("ice.shop.events").using("iceberg").create()
lake = Lake(spark, folder + "/lake")

def read(table):
    source = {"source": {"table": table}, "columns": {"user": "user", "item": "item", "timestamp": "time"}}
    return ingest(validate(IngestSettings, {"lake": lake.root, **source}, "it"), lake)

said = [read("ice.shop.events").rows]
for wrong in (lambda: read("ice.shop.nothing"), lambda: Lake(spark, folder + "/files", "ice.nowhere")):
    try:
        wrong()
    except InputError as error:
        said.append(str(error))
print("SAID " + json.dumps(said))
"""


def test_a_table_of_iceberg_is_a_source(tmp_path):
    conf = {
        **QUICK_JVM,
        "spark.jars.packages": RUNTIMES[SPARK],  # that of Delta stays beside it
        "spark.sql.catalog.ice": "org.apache.iceberg.spark.SparkCatalog",
        "spark.sql.catalog.ice.type": "hadoop",
        "spark.sql.catalog.ice.warehouse": str(tmp_path / "warehouse"),
    }
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), json.dumps(conf)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    lines = [line for line in ended.stdout.splitlines() if line.startswith("SAID ")]
    assert lines, ended.stderr[-4000:]
    assert json.loads(lines[0].removeprefix("SAID ")) == [
        2000,
        "cannot read ice.shop.nothing: the catalog has no such table or view. Correct source.table "
        "(catalog.schema.table) or source.options.",
        "there is no schema 'ice.nowhere' in the catalog. Make it by CREATE SCHEMA ice.nowhere, or correct "
        "lake.schema.",
    ]
