"""Fetch the jars of Delta Lake into Ivy's cache and show that they work: write a tiny table, read it back."""

import tempfile

from sparkrec.spark.platform.session import open_session

spark = open_session()
with tempfile.TemporaryDirectory() as folder:
    spark.range(3).coalesce(1).write.format("delta").save(f"{folder}/table")
    assert spark.read.format("delta").load(f"{folder}/table").count() == 3
spark.stop()
