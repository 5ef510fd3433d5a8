# Databricks notebook source
# MAGIC %md
# MAGIC # First steps
# MAGIC A DataFrame of interactions goes in, a DataFrame of recommendations comes out. The whole pipeline, with a
# MAGIC lake, splits and metrics, is the notebook `pipeline`.
# MAGIC
# MAGIC On Databricks, install the wheel first, each of these in a cell of its own:
# MAGIC
# MAGIC     %pip install /Volumes/main/recsys/wheels/sparkrec-0.1.0-py3-none-any.whl
# MAGIC     dbutils.library.restartPython()
# MAGIC
# MAGIC Serverless compute keeps no rows. Name a folder for those that are read more than once, if there are many:
# MAGIC `os.environ["SPARKREC_SCRATCH"] = "/Volumes/main/recsys/scratch"`.

# COMMAND ----------

from sparkrec import fit, session

spark = session()  # the session that is there, or a local one

# COMMAND ----------

# MAGIC %md
# MAGIC Two groups of listeners, each with its own taste. Each of them has heard all albums of the group but one. Ids
# MAGIC may be texts or numbers, and other columns stay out of it.

# COMMAND ----------

plays = spark.createDataFrame(
    [
        (f"{genre} fan {user}", f"{genre} {item}")
        for genre in ("jazz", "folk")
        for user in range(6)
        for item in range(6)
    ],
    "user string, item string",
).where("right(user, 1) != right(item, 1)")

# COMMAND ----------

# MAGIC %md
# MAGIC What is left out suits the data: `fit(plays)` would do. `kind` may be any in the table of models in the
# MAGIC README.

# COMMAND ----------

model = fit(plays, user="user", item="item", kind="als", rank=4, unobserved_weight=0.1)
best = model.recommend(k=1)
display(best)

# COMMAND ----------

# MAGIC %md
# MAGIC Everyone is recommended the one item of their own group that they have not heard.

# COMMAND ----------

for row in best.collect():
    assert row.item == f"{row.user.split()[0]} {row.user.split()[-1]}", row

# COMMAND ----------

# MAGIC %md
# MAGIC A model also scores pairs, finds what is alike, says what a score is made of, and serves people who were not
# MAGIC there when it was fitted, by what they have heard.

# COMMAND ----------

display(model.predict(plays.limit(3)))
display(model.similar_items(["jazz 0"], k=2))
display(model.explain("jazz fan 0", "jazz 0"))
display(model.recommend(k=2, history=spark.createDataFrame([("newcomer", "folk 1")], "user string, item string")))

# COMMAND ----------

# MAGIC %md
# MAGIC `model.save("/Volumes/.../model")` keeps it, and `Recommender.load` has it back.
