# Databricks notebook source
# MAGIC %md
# MAGIC # From MLlib's ALS
# MAGIC One import changes. Parameters, methods and schemas are those of `pyspark.ml.recommendation.ALS`; it runs on
# MAGIC serverless and shared compute as well. What differs is in `docs/decisions.md`, number 17, and what it costs in
# MAGIC `docs/als.md`.

# COMMAND ----------

from pyspark.sql import functions as F

from sparkrec import ALS  # instead of: from pyspark.ml.recommendation import ALS

# COMMAND ----------

ratings = spark.range(40 * 30).selectExpr("int(id % 40) AS user", "int(id / 40) AS item")
ratings = ratings.where("(user + item) % 3 != 0").selectExpr("*", "float(1 + user * item % 5) AS rating")

# COMMAND ----------

als = ALS(rank=6, maxIter=5, regParam=0.1, ratingCol="rating", coldStartStrategy="drop", seed=1)
model = als.fit(ratings)
display(model.transform(ratings).limit(5))
display(model.recommendForAllUsers(3))
display(model.recommendForUserSubset(ratings.where("user < 3"), 3))

# COMMAND ----------

# MAGIC %md
# MAGIC What MLlib has not: ids of any type, lists without what the user has already, what a score is made of, people
# MAGIC who came after the fit, and the history of the loss.

# COMMAND ----------

named = ratings.selectExpr("concat('user ', user) AS user", "concat('album ', item) AS item", "rating")
fitted = ALS(rank=6, maxIter=5, implicitPrefs=True, alpha=2.0, seed=1).fit(named)
lists = fitted.recommendForAllUsers(3, exclude=named)
display(lists)
display(fitted.explain("user 1", "album 2"))
display(fitted.history)

# COMMAND ----------

# MAGIC %md
# MAGIC Nobody is recommended what they have.

# COMMAND ----------

listed = lists.select("user", F.explode("recommendations.item").alias("item"))
assert listed.count() == 40 * 3
assert listed.join(named, ["user", "item"]).count() == 0
