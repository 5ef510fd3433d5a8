"""Every stage runs in one way."""

from types import SimpleNamespace

import pytest
from pyspark.errors import PySparkException

from sparkrec.errors import InputError
from sparkrec.stages import running
from sparkrec.stages.catalog import STAGES


@pytest.mark.parametrize("bar", ["prepare", None])
def test_a_stage_tells_failures_of_spark_in_a_sentence_and_keeps_its_name(bar):
    @running.stage(bar)
    def prepare(settings, lake):
        if settings == "broken":
            raise PySparkException(
                "[FAILED_READ_FILE.NO_HINT] Encountered error while reading file a.csv.  SQLSTATE: KD001"
            )
        return settings

    lake = SimpleNamespace(spark=object())
    assert prepare("fine", lake) == "fine"
    assert prepare.__name__ == "prepare"
    with pytest.raises(InputError, match="cannot read a.csv: "):
        prepare("broken", lake)


@pytest.mark.parametrize("name", ["ingest", "prepare", "train", "tune", "evaluate", "recommend"])
def test_the_stages_are_run_so(name):
    assert hasattr(STAGES[name].run, "__wrapped__")
