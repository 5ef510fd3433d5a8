# Databricks notebook source
# MAGIC %md
# MAGIC # The pipeline, stage by stage
# MAGIC Each stage takes settings and a lake, and returns a run that says where its output is.

# COMMAND ----------

import tempfile
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

spark = session()
folder = Path(tempfile.mkdtemp())  # on Databricks: a folder of a volume
lake = Lake(spark, f"{folder}/lake")

# COMMAND ----------

events, items = write_log(folder, LogShape(users=100, items=64, events_per_user=20))
batch = ingest(
    IngestSettings(
        lake=lake.root,
        source=SourceSettings(path=str(events), format="csv"),
        columns=ColumnSettings(user="user", item="item", rating="weight", timestamp="time", event="event"),
        timestamp_format="seconds",
    ),
    lake,
)
print(batch.rows, "rows in,", batch.rejected)

# COMMAND ----------

dataset = prepare(PrepareSettings(lake=lake.root, dataset="plays", min_user_interactions=3), lake)
model = train(
    TrainSettings(
        lake=lake.root,
        dataset=dataset.reference,
        model={"kind": "als", "rank": 8, "iterations": 3, "unobserved_weight": 0.1},
    ),
    lake,
)

# COMMAND ----------

evaluation = evaluate(EvaluateSettings(lake=lake.root, model=model.reference), lake)
recommend(RecommendSettings(lake=lake.root, model=model.reference, k=5), lake)
lake.table("metrics").where("segment = 'all'").select("metric", "k", "value").show()
lake.table("recommendations").show(5)
