"""Fetch Delta's jars, show that they work, and archive the classes of the JVM, so that later sessions start quickly.

A session that has to ask Ivy writes down what jars it found; the next one has them on its class path, and only of such
a session can the JVM archive the classes. A JVM that cannot is no reason to stop: sessions start slower, that is all.
"""

import subprocess
import sys
import tempfile

from pyspark import SparkContext
from pyspark.sql import functions as F

from sparkrec import evaluate, fit
from sparkrec.config import SparkSettings
from sparkrec.spark.platform.quick_start import class_archive, known_jars
from sparkrec.spark.platform.session import delta_coordinate, open_session


def use(conf: dict[str, str]) -> None:
    """Do in small what most sessions do, and wait for the end of the JVM."""
    spark = open_session(SparkSettings(master="local[2]", memory="2g", shuffle_partitions=2, conf=conf))
    plays = spark.range(400).select((F.col("id") % 40).alias("user"), (F.col("id") * 7 % 23).alias("item")).distinct()
    with tempfile.TemporaryDirectory() as folder:
        plays.write.format("delta").save(f"{folder}/plays")
        plays = spark.read.format("delta").load(f"{folder}/plays")
        lists = fit(plays, user="user", item="item").recommend(k=5)
        lists.write.format("delta").save(f"{folder}/lists")
        assert evaluate(lists, plays, k=[5]).count()
    gateway = SparkContext._gateway
    spark.stop()
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait()


def main() -> None:
    jars = known_jars(delta_coordinate())
    if jars is None:  # a JVM has the class path that it was started with: ask Ivy in one, archive in the next
        use({})
        subprocess.run([sys.executable, __file__], check=True)
        return
    archive = class_archive(jars)
    if not archive.exists():
        beside = archive.with_suffix(".new")
        use({"spark.driver.extraJavaOptions": f"-XX:ArchiveClassesAtExit={beside}"})
        if beside.exists():
            beside.replace(archive)


if __name__ == "__main__":
    main()
