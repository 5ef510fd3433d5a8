"""Tables of a catalog: as a source, as those of a lake, and as the target of recommendations."""

import subprocess
import sys

import pytest
from pyspark.sql import functions as F

from sparkrec import tables
from sparkrec.config import IngestSettings, PipelineSettings
from sparkrec.config.ingest import SourceSettings
from sparkrec.configfile import validate
from sparkrec.errors import ConfigError, InputError
from sparkrec.spark.platform.lake import Lake
from sparkrec.spark.platform.sources import read_source
from sparkrec.stages import pipeline
from sparkrec.stages.ingest import ingest

pytestmark = [pytest.mark.spark, pytest.mark.slow]


@pytest.fixture(scope="module")
def schema(spark, tmp_path_factory):
    """A schema of the catalog of the session."""
    name = "shop_of_2026"
    spark.sql(f"CREATE SCHEMA `{name}` LOCATION '{tmp_path_factory.mktemp('schema')}'")
    yield name
    spark.sql(f"DROP SCHEMA `{name}` CASCADE")


@pytest.fixture(scope="module")
def events(spark, schema, log_files):
    """The log as a table of the schema."""
    log = spark.read.option("header", "true").csv(str(log_files[0]))
    log.write.format("delta").saveAsTable(f"`{schema}`.events")
    return f"{schema}.events"


@pytest.fixture(scope="module")
def second(spark):
    """Another Delta catalog beside that of the session, whose tables it has by a name of its own.

    Delta's asks a catalog that it extends where tables are: Spark gives one to that of the session alone.
    """
    spark.conf.set("spark.sql.catalog.second", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
    catalogs = spark._jsparkSession.sessionState().catalogManager()
    catalogs.catalog("second").setDelegateCatalog(catalogs.v2SessionCatalog())
    return "second"


@pytest.fixture(scope="module")
def of_catalog(spark, second, schema, events, pipeline_settings, tmp_path_factory):
    """Settings of a pipeline that reads from and writes to the second catalog, and what it returned."""
    (log,) = pipeline_settings["ingest"]
    raw = {
        **pipeline_settings,
        "lake": {"schema": f"{second}.{schema}", "files": str(tmp_path_factory.mktemp("files"))},
        "ingest": [{**log, "source": {"table": f"{second}.{events}"}}],
        "recommend": {"k": 5, "table": f"spark_catalog.{schema}.lists"},
    }
    settings = validate(PipelineSettings, raw, "test")
    return settings, pipeline.run(settings, Lake.of(settings, spark))


def test_a_pipeline_on_tables_of_a_catalog_is_that_on_folders(spark, schema, of_catalog, pipeline_settings, tmp_path):
    settings, result = of_catalog
    lake = Lake.of(settings, spark)
    there = {row.tableName for row in spark.sql(f"SHOW TABLES IN `{schema}`").collect()}
    assert there == {
        "events",
        "interactions",
        "interactions_batches",
        "interactions_items",
        "interactions_rejected",
        "interactions_users",
        "lists",
        "metrics",
    }
    assert result.recommendations.manifest["table"] == f"spark_catalog.{schema}.lists"
    assert spark.table(f"`{schema}`.lists").count() == result.recommendations.manifest["rows"] > 0

    raw = {**pipeline_settings, "lake": str(tmp_path / "lake")}
    in_folders = validate(PipelineSettings, raw, "test")
    other = pipeline.run(in_folders, Lake.of(in_folders, spark))
    for mine, others in zip(result.evaluations, other.evaluations, strict=True):
        assert mine.manifest["metrics"] == others.manifest["metrics"]
    assert lake.table("interactions").count() == result.batches[0].rows == other.batches[0].rows

    # By its name in the catalog of the session the schema is the same, and so is all that is done.
    by_another_name = {**settings.model_dump(by_alias=True), "lake": {"schema": schema, "files": lake.root}}
    settings = validate(PipelineSettings, by_another_name, "test")
    again = pipeline.run(settings, Lake.of(settings, spark))
    assert again.batches[0].repeated
    assert again.recommendations.id == result.recommendations.id
    assert spark.table(f"`{schema}`.lists").count() == result.recommendations.manifest["rows"]


def test_tables_of_a_catalog_say_what_they_are_and_refuse_what_they_cannot_be(spark, schema, of_catalog):
    for table, name in ((tables.INTERACTIONS, "interactions"), (tables.RECOMMENDATIONS, "lists")):
        described = spark.sql(f"DESCRIBE DETAIL `{schema}`.`{name}`").head()
        assert described.description == table.about
        assert described.clusteringColumns == [*table.read_by]
        columns = {row.col_name: row.comment for row in spark.sql(f"DESCRIBE `{schema}`.`{name}`").collect()}
        assert table.comments.items() <= columns.items()
    with pytest.raises(Exception, match="CHECK constraint"):
        spark.sql(f"INSERT INTO `{schema}`.lists VALUES ('u1', 0, 'i1', 1.0, false, 'r', 'm')")
    with pytest.raises(Exception, match="NOT NULL|NOT_NULL"):
        spark.sql(f"INSERT INTO `{schema}`.lists VALUES (null, 1, 'i1', 1.0, false, 'r', 'm')")


def test_a_version_of_a_table_in_a_catalog_can_be_read(spark, schema, of_catalog):
    lake = Lake.of(of_catalog[0], spark)
    latest, identity = lake.table_version("interactions"), lake.table_id("interactions")
    spark.sql(f"DELETE FROM `{schema}`.interactions WHERE event = 'buy'")
    assert lake.table_version("interactions") == latest + 1
    assert lake.table_id("interactions") == identity
    assert lake.table("interactions", latest).count() > lake.table("interactions").count()
    with pytest.raises(InputError, match=f"table 'interactions' has no version 99 to read: the latest is {latest + 1}"):
        lake.table("interactions", 99)


def test_what_is_no_schema_is_told(spark, tmp_path):
    with pytest.raises(InputError, match=r"there is no schema 'nowhere' in the catalog. Make it by CREATE SCHEMA"):
        Lake(spark, str(tmp_path), "nowhere")
    with pytest.raises(InputError, match="there is no schema .nowhere.at_all."):
        Lake(spark, str(tmp_path), "nowhere.at_all")


def test_recommendations_are_not_written_to_other_tables(spark, schema, of_catalog):
    settings, _ = of_catalog
    raw = {**settings.model_dump(by_alias=True), "recommend": {"k": 5, "table": f"{schema}.events"}}
    wrong = validate(PipelineSettings, raw, "test")
    with pytest.raises(InputError, match=r"events has no column 'user_id': it is not one of recommendations"):
        pipeline.run(wrong, Lake.of(wrong, spark))


def test_a_source_is_files_or_a_table():
    for wrong, message in (
        ({}, "expected either path, of files, or table, of a catalog"),
        ({"path": "a", "table": "b", "format": "csv"}, "expected either path, of files, or table, of a catalog"),
        ({"path": "a"}, "path needs format: csv, json, parquet or delta"),
        ({"table": "a", "format": "delta"}, "a table has a format of its own: leave format out"),
        ({"table": "a.b.c.d"}, "table"),
        ({"table": "a`b"}, "table"),
    ):
        with pytest.raises(ConfigError, match=message):
            validate(SourceSettings, wrong, "source")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no_such", "the catalog has no such table or view"),
        ("no_such.events", "the catalog has no such table or view"),
        ("no_such.shop.events", "there is no such catalog|the catalog has no such table or view"),
    ],
)
def test_a_table_that_is_not_there_is_told(spark, name, why):
    with pytest.raises(InputError, match=rf"cannot read {name}: ({why}). Correct source.table"):
        read_source(spark, SourceSettings(table=name))


def _odd_tables(spark, schema):
    """The log in tables of many ways, by name."""
    spark.sql(f"USE `{schema}`")
    numbers = (F.col(name).try_cast("double").alias(name) for name in ("weight", "time"))
    log = spark.table("events").select("user", "item", *numbers).dropna().withColumn("time", F.col("time").cast("long"))
    log.createOrReplaceTempView("log")
    spark.sql("CREATE TABLE as_parquet USING parquet AS SELECT * FROM log")
    spark.sql("CREATE VIEW as_view AS SELECT user, item, weight, time FROM as_parquet")
    spark.sql(
        "CREATE TABLE mapped USING delta TBLPROPERTIES ('delta.columnMapping.mode' = 'name', "
        "'delta.enableDeletionVectors' = 'true') AS SELECT user AS `the user`, item, weight, time FROM log"
    )
    spark.sql("ALTER TABLE mapped RENAME COLUMN `the user` TO user")
    spark.sql("INSERT INTO mapped SELECT 'nobody', item, weight, time FROM log LIMIT 7")
    spark.sql("DELETE FROM mapped WHERE user = 'nobody'")
    spark.sql(
        "CREATE TABLE generated (user STRING, item STRING, weight DOUBLE, time BIGINT, "
        "hour BIGINT GENERATED ALWAYS AS (CAST(time / 3600 AS BIGINT))) USING delta"
    )
    spark.sql("INSERT INTO generated (user, item, weight, time) SELECT user, item, weight, time FROM log")
    spark.sql(
        "CREATE TABLE without_zone USING delta AS "
        "SELECT user, item, weight, CAST(timestamp_seconds(time) AS TIMESTAMP_NTZ) AS time FROM log"
    )
    return ["as_parquet", "as_view", "mapped", "generated", "without_zone", "log"]


def test_tables_of_any_kind_are_the_same_log(spark, schema, events, lake):
    """Parquet, views, columns that were renamed, rows that were deleted, generated columns, times without a zone."""
    rows = {}
    try:
        for name in _odd_tables(spark, schema):
            raw = {
                "lake": lake.root,
                "source": {"table": name if name == "log" else f"{schema}.{name}"},
                "columns": {"user": "user", "item": "item", "rating": "weight", "timestamp": "time"},
                "timestamp_format": "auto" if name == "without_zone" else "seconds",
                "table": f"of_{name}",
            }
            found = ingest(validate(IngestSettings, raw, name), lake)
            kept = lake.table(f"of_{name}").agg(
                F.count("*"), F.sum("rating"), F.max("timestamp").cast("string"), F.sum(F.hash("user_id", "item_id"))
            )
            rows[name] = found.rows, *kept.head()
    finally:
        spark.sql("USE default")
        spark.catalog.dropTempView("log")
    assert len(set(rows.values())) == 1, rows


def test_the_command_takes_a_catalog(schema, of_catalog, config_file):
    """A catalog of a session of its own knows no schema of this one."""
    settings, _ = of_catalog
    path = config_file(settings.model_dump(mode="json", by_alias=True))
    command = [sys.executable, "-c", "from sparkrec.cli import main; main()", "run", "--config", path, "--dry-run"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert f"there is no schema 'second.{schema}' in the catalog" in ended.stderr
    assert "Traceback" not in ended.stderr
