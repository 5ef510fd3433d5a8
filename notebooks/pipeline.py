# Databricks notebook source
# MAGIC %md
# MAGIC # The pipeline on tables, stage by stage
# MAGIC Each stage takes settings and a lake, and returns a run that says where its output is. A stage whose output is
# MAGIC there already finds it: run the notebook twice, and the second time does nothing. A job does the same from one
# MAGIC YAML file, as `databricks.yml` shows.

# COMMAND ----------

from pathlib import Path

from sparkrec import Lake, session
from sparkrec.config import (
    ColumnSettings,
    EvaluateSettings,
    IngestSettings,
    PrepareSettings,
    RecommendSettings,
    SourceSettings,
    TrainSettings,
)
from sparkrec.stages.evaluate import evaluate
from sparkrec.stages.ingest import ingest
from sparkrec.stages.prepare import prepare
from sparkrec.stages.recommend import recommend
from sparkrec.stages.train import train
from sparkrec.synthetic import LogShape, write_log

spark = session()  # the session that is there, or a local one

# COMMAND ----------

# MAGIC %md
# MAGIC The lake is a schema of the catalog for its tables, and a folder that driver and executors both reach for
# MAGIC datasets and models: on Databricks that of a volume. `lake="/some/folder"` would have both in a folder.

# COMMAND ----------

dbutils.widgets.text("folder", "/Volumes/main/recsys/first")
dbutils.widgets.text("schema", "main.recsys")
folder, schema = dbutils.widgets.get("folder"), dbutils.widgets.get("schema")
where = {"schema": schema, "files": f"{folder}/runs"}
spark.sql(f"CREATE SCHEMA IF NOT EXISTS {schema}")
lake = Lake(spark, where["files"], schema)

# COMMAND ----------

# MAGIC %md
# MAGIC A log of its own, as a table, with rows that cannot be read, as every log has. Put your own table and the names
# MAGIC of its columns here. What cannot be read goes to the table `interactions_rejected`, with the reason.

# COMMAND ----------

events, _ = write_log(Path(folder), LogShape(users=100, items=64, events_per_user=20))
spark.read.option("header", "true").csv(str(events)).write.mode("overwrite").saveAsTable(f"{schema}.events")
batch = ingest(
    IngestSettings(
        lake=where,
        source=SourceSettings(table=f"{schema}.events"),
        columns=ColumnSettings(user="user", item="item", rating="weight", timestamp="time", event="event"),
        timestamp_format="seconds",
    ),
    lake,
)
print(batch.rows, "rows in,", batch.rejected)
display(lake.table("interactions_rejected"))

# COMMAND ----------

# MAGIC %md
# MAGIC A dataset has integer ids, values and splits: the last event of each user is kept for the test, the one before
# MAGIC for validation. It is made of one version of the table, and never changes.

# COMMAND ----------

dataset = prepare(PrepareSettings(lake=where, dataset="plays", min_user_interactions=3), lake)

# COMMAND ----------

model = train(
    TrainSettings(lake=where, dataset=dataset.reference, model={"kind": "als", "rank": 8, "iterations": 3}), lake
)
print(model.reference, model.manifest["facts"]["chosen"])  # what was left out, and what it became

# COMMAND ----------

evaluation = evaluate(EvaluateSettings(lake=where, model=model.reference), lake)
display(lake.table("metrics").where("segment = 'all'").select("metric", "k", "value"))

# COMMAND ----------

recommend(RecommendSettings(lake=where, model=model.reference, k=5), lake)
display(lake.table("recommendations"))
