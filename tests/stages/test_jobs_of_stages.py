"""How many jobs of Spark a stage takes where the log is small: each costs a tenth of a second, whatever it does."""

import logging

import pytest

from sparkrec.configfile import validate
from sparkrec.spark.platform.lake import Lake
from sparkrec.stages.catalog import STAGES

pytestmark = pytest.mark.spark

MOST = {"ingest": 12, "prepare": 25, "train": 0, "evaluate": 4, "recommend": 13, "tune": 4}


def test_a_stage_takes_no_more_jobs_than_it_did(spark, tmp_path, pipeline_settings, caplog):
    lake = Lake(spark, str(tmp_path / "lake"))
    als = pipeline_settings["train"][0]
    raw = {
        "ingest": pipeline_settings["ingest"][0],
        "prepare": pipeline_settings["prepare"],
        "train": {"dataset": "small", "name": "als", **als},
        "evaluate": {"model": "als", **pipeline_settings["evaluate"][0]},
        "recommend": {"model": "als", **pipeline_settings["recommend"]},
        "tune": {"dataset": "small", **als, "space": {"rank": [2, 4]}},
    }
    found = {}
    with caplog.at_level(logging.DEBUG, logger="sparkrec"):
        for name, settings in raw.items():
            stage = STAGES[name]
            stage.run(validate(stage.settings, {"lake": lake.root, **settings}, "test"), lake)
            (said,) = [
                each for each in caplog.messages if each.startswith(f"{name}: ") and each.endswith("jobs of Spark")
            ]
            found[name] = int(said.split()[1])
    assert not {name: n for name, n in found.items() if n > MOST[name]}, str(found)
