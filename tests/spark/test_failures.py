"""Failures of Spark are told in a sentence: what a worker lacks, which file, which value."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pyspark.errors import PySparkException

from sparkrec.config.ingest import SourceSettings
from sparkrec.errors import EnvironmentMismatch, InputError, NoSpace, exit_code
from sparkrec.spark.platform.failures import mendable, mended
from sparkrec.spark.platform.sources import read_source


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "ModuleNotFoundError: No module named 'numpy.linalg'\n\tat org",
            "which has no module 'numpy.linalg', but the",
        ),
        (
            "ModuleNotFoundError: No module named 'sparkrec'",
            "which has no module 'sparkrec', but the driver runs Python",
        ),
        (
            "[PYTHON_VERSION_MISMATCH] Python in worker has different version: 3.9 than that in driver: 3.11, PySpark",
            "the workers run Python 3.9, but the driver runs Python 3",
        ),
        ('java.io.IOException: Cannot run program "python9": error=2', "were to run python9, which cannot be started"),
    ],
)
def test_workers_of_another_python_are_told_what_to_set(text, message):
    error = mended(PySparkException(text))
    assert isinstance(error, EnvironmentMismatch)
    assert message in str(error)
    assert f"{sys.executable}. Set PYSPARK_PYTHON to it" in str(error)


def test_a_delta_that_was_built_for_another_spark_is_told():
    text = "java.lang.NoSuchMethodError: 'void org.apache.spark.X'\n\tat org.apache.spark.sql.delta.Snapshot.load"
    error = mended(PySparkException(text))
    assert isinstance(error, EnvironmentMismatch)
    assert "Delta is built for another Spark than" in str(error)
    assert "ALS, fit and evaluate on DataFrames need no Delta" in str(error)
    assert mended(PySparkException("java.lang.NoSuchMethodError: 'void org.example.X'\n\tat org.example")) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[INSUFFICIENT_PERMISSIONS] Insufficient privileges:\nUser does not have SELECT on Table 'a.b.c'. "
            "SQLSTATE: 42501",
            "Insufficient privileges: User does not have SELECT on Table 'a.b.c'",
        ),
        (
            "An error occurred while calling o5.table.\n: java.io.IOException: x\n\tat y\nCaused by: "
            "org.apache.hadoop.security.AccessControlException: Permission denied: user=ann, access=READ\n\tat z",
            "Permission denied: user=ann, access=READ",
        ),
    ],
)
def test_a_table_without_the_right_to_it_says_which_right_it_takes(text, said):
    error = mended(PySparkException(text))
    assert isinstance(error, InputError)
    assert str(error).startswith(f"{said}. Whoever runs this needs the right to it: of a table SELECT")


@pytest.mark.spark
def test_a_catalog_without_its_jar_is_told(spark):
    spark.conf.set("spark.sql.catalog.lakehouse", "org.example.Catalog")
    with pytest.raises(EnvironmentMismatch, match="no class org.example.Catalog, which is to be the catalog"):
        read_source(spark, SourceSettings(table="lakehouse.shop.events"))


def test_what_may_be_anything_is_left_as_it_is():
    assert mended(PySparkException("ModuleNotFoundError: No module named 'of_a_user_elsewhere'")) is None
    error = PySparkException("Job aborted.")
    with pytest.raises(PySparkException) as raised, mendable():
        raise error
    assert raised.value is error


@pytest.mark.spark
def test_a_text_that_is_no_number_is_told_with_the_text(spark):
    texts = spark.createDataFrame([("4,5",)], "r string")
    with pytest.raises(InputError, match=r"^The value '4,5' of the type .STRING. cannot be cast to"), mendable():
        texts.selectExpr("cast(r AS float)").collect()


@pytest.mark.spark
@pytest.mark.slow
def test_a_plain_session_whose_workers_have_no_numpy_says_what_to_set(tmp_path):
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {os.path.realpath(sys.executable)} -S "$@"\n')  # without site-packages
    bare.chmod(0o755)
    program = """
from pyspark.sql import SparkSession
from sparkrec import ALS
from sparkrec.errors import EnvironmentMismatch

spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
spark.conf.set("spark.sparkrec.inPlace.maxBytes", "never")  # in place there is no worker to miss anything
try:
    ALS(rank=2, maxIter=1).fit(spark.createDataFrame([(0, 0, 1.0)], "user int, item int, rating double"))
except EnvironmentMismatch as error:
    print(error)
"""
    checkout = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYSPARK_PYTHON": str(bare), "PYSPARK_DRIVER_PYTHON": sys.executable}
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=checkout, env=environment, timeout=240
    )
    assert f"the workers run {bare}, which has no module" in ended.stdout, ended.stderr[-3000:]


@pytest.mark.parametrize(
    ("error", "where"),
    [
        (
            PySparkException(
                "[TASK_WRITE_FAILED] Task failed while writing rows to file:/lake/shop/served. SQLSTATE: 58030\n"
                "Caused by: java.io.IOException: No space left on device"
            ),
            "there is no space left to write /lake/shop/served. Free some: `sparkrec clean`",
        ),
        (OSError(28, "No space left on device"), "there is no space left. Free some"),
        (OSError(122, "Disk quota exceeded"), "there is no space left. Free some"),
    ],
)
def test_a_full_disk_is_told_and_may_pass(error, where):
    with pytest.raises(NoSpace) as raised, mendable():
        raise error
    assert where in str(raised.value)
    assert exit_code(raised.value) == 75


def test_other_errors_of_files_are_as_they_were():
    with pytest.raises(FileNotFoundError, match="gone"), mendable():
        raise FileNotFoundError("gone")
