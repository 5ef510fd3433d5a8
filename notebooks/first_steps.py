# Databricks notebook source
# MAGIC %md
# MAGIC # First steps
# MAGIC A DataFrame of interactions goes in, a DataFrame of recommendations comes out. The whole pipeline, with a lake,
# MAGIC splits and metrics, is `notebooks/pipeline.py`.

# COMMAND ----------

from sparkrec import fit, session

spark = session()  # on Databricks: the session that is there

# COMMAND ----------

# MAGIC %md
# MAGIC Two groups of listeners, each with its own taste.

# COMMAND ----------

plays = spark.createDataFrame(
    [(f"jazz fan {user}", f"jazz {item}") for user in range(6) for item in range(6) if user != item]
    + [(f"folk fan {user}", f"folk {item}") for user in range(6) for item in range(6) if user != item],
    "user string, item string",
)

# COMMAND ----------

model = fit(plays, kind="als", rank=4, unobserved_weight=0.1, user_blocks=2, item_blocks=2)
best = model.recommend(k=1)
best.show(truncate=False)

# COMMAND ----------

# MAGIC %md
# MAGIC Everyone is recommended the one item of their own group that they have not heard.

# COMMAND ----------

for row in best.collect():
    assert row.item == f"{row.user.split()[0]} {row.user.split()[-1]}", row
