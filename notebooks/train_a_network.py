# Databricks notebook source
# MAGIC %md
# MAGIC # Training a network
# MAGIC `sparkrec[train]` brings torch. One process trains in the driver; more of them run in tasks of the cluster,
# MAGIC started by pyspark's TorchDistributor, and take the same steps as one would. A cluster whose only machine is
# MAGIC the driver starts them there.

# COMMAND ----------

from pyspark.sql import Window
from pyspark.sql import functions as F

from sparkrec import evaluate, fit, session
from sparkrec.synthetic import LogShape, draw_events

spark = session()  # the session that is there, or a local one

# COMMAND ----------

# MAGIC %md
# MAGIC Listeners of eight genres, each of whom mostly hears two. What each heard last is kept to measure on.

# COMMAND ----------

users, items, _, seconds = draw_events(LogShape(users=200, items=64, events_per_user=20))
rows = [tuple(map(int, row)) for row in zip(users, items, seconds, strict=True)]
events = (
    spark.createDataFrame(rows, "user long, item long, time long")
    .groupBy("user", "item")
    .agg(F.min("time").alias("time"))
)
newest = F.row_number().over(Window.partitionBy("user").orderBy(F.desc("time"), "item")) == 1
events = events.withColumn("newest", newest)
plays, last = events.where("NOT newest").drop("newest"), events.where("newest").drop("newest")

# COMMAND ----------

# MAGIC %md
# MAGIC `launcher: torch` is what is taken where Horovod is not installed. `device: gpu` gives each process a GPU, on
# MAGIC a cluster whose tasks have one (`spark.task.resource.gpu.amount 1`).

# COMMAND ----------

model = fit(plays, kind="mf", dim=16, training={"processes": 2, "launcher": "torch", "device": "cpu"})
print(model.model.facts["chosen"])  # what was left out, and what it became
display(
    spark.createDataFrame(
        [(entry["epoch"], entry["loss"]) for entry in model.model.facts["history"]], "epoch long, loss double"
    )
)

# COMMAND ----------

# MAGIC %md
# MAGIC Whether it learned anything: the same lists are measured as of the simplest model there is.

# COMMAND ----------

measured = {}
for name, fitted in {"mf": model, "popularity": fit(plays, kind="popularity")}.items():
    measured[name] = evaluate(fitted.recommend(k=10), last, ["ndcg", "recall"], k=[10])
    display(measured[name])
