# Databricks notebook source
# MAGIC %md
# MAGIC # Reading a report
# MAGIC `sparkrec report RUN RUN` writes one page about finished evaluations that fetches nothing from anywhere, so
# MAGIC that a notebook can show it. It needs `sparkrec[plot]`.

# COMMAND ----------

from pathlib import Path

import yaml

from sparkrec import Lake, session
from sparkrec.config import PipelineSettings
from sparkrec.configfile import validate
from sparkrec.stages.pipeline import run
from sparkrec.stages.reporting.page import report
from sparkrec.synthetic import LogShape, write_log

spark = session()  # the session that is there, or a local one
dbutils.widgets.text("folder", "/Volumes/main/recsys/report")
folder = dbutils.widgets.get("folder")

# COMMAND ----------

# MAGIC %md
# MAGIC Two models on a small log, measured on what each user did last. Where a lake has evaluations already, go on to
# MAGIC the next cell with their names; `keep_users` lets the page say which differences are sure.

# COMMAND ----------

events, items = write_log(Path(folder), LogShape(users=100, items=64, events_per_user=20))
settings = yaml.safe_load(f"""
lake: {folder}/lake
ingest:
  - source: {{path: {events}, format: csv}}
    columns: {{user: user, item: item, rating: weight, timestamp: time}}
    timestamp_format: seconds
prepare: {{dataset: plays, dedup: sum, min_user_interactions: 3}}
train:
  - model: {{kind: als}}
  - model: {{kind: popularity}}
evaluate:
  - {{cutoffs: [5, 10], keep_users: true}}
""")
pipeline = validate(PipelineSettings, settings, "this notebook")
evaluations = run(pipeline, Lake(spark, pipeline.lake)).evaluations

# COMMAND ----------

# MAGIC %md
# MAGIC The page begins with which model is best and how sure that is. An interval holds the metric's true value in 95
# MAGIC of 100 samples of users; a difference whose interval does not hold 0 is sure at that level. Then come curves
# MAGIC over the cutoffs, segments of users, and what each model cost.

# COMMAND ----------

displayHTML(report(pipeline.lake, [evaluation.name for evaluation in evaluations]))
