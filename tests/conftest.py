"""Fixtures that all tests share: one Spark session, a fresh lake for each test."""

import os
from pathlib import Path

import pytest

from sparkrec.config import SparkSettings


@pytest.fixture(scope="session")
def spark():
    from sparkrec.spark.session import open_session

    session = open_session(SparkSettings(master="local[2]", memory="3g", shuffle_partitions=2))
    yield session
    session.stop()


@pytest.fixture
def lake(spark, tmp_path):
    from sparkrec.spark.lake import Lake

    return Lake(spark, str(tmp_path / "lake"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the public data sets, for tests marked `data`."""
    root = os.environ.get("SPARKREC_DATA")
    if not root:
        pytest.skip("SPARKREC_DATA is not set: it names the folder of the public data sets")
    return Path(root)
