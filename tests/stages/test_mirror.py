"""MLflow's registered model follows what is served, and its absence harms nobody."""

import logging
from importlib.util import find_spec

import pandas as pd
import pytest

from sparkrec.config import RetrainSettings
from sparkrec.configfile import validate
from sparkrec.errors import ConfigError
from sparkrec.spark.platform.lake import Lake
from sparkrec.stages.retraining import mirror
from sparkrec.stages.retraining.champions import rollback_by_name
from sparkrec.stages.retraining.retrain import check, retrain
from tests.stages.test_retrain import of_night, write_days

mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed: pip install sparkrec[mlflow]")

pytestmark = [pytest.mark.spark, pytest.mark.slow]


@pytest.fixture
def store(tmp_path, monkeypatch):
    """URI of a store on this disk: SQLite where MLflow has what it needs for that, else files."""
    monkeypatch.chdir(tmp_path)  # where SQLite's runs have their artifacts
    sqlite = find_spec("sqlalchemy") and find_spec("alembic")
    uri = f"sqlite:///{tmp_path}/mlflow.db" if sqlite else (tmp_path / "mlflow").as_uri()
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def test_aliases_are_what_the_history_says(spark, store, tmp_path, caplog):
    lake = Lake(spark, str(tmp_path / "lake"))
    days = [write_days(tmp_path, *span) for span in ((0, 5), (5, 7))]
    follows = {"registered_model": "shop", "tracking_uri": store}
    client = mlflow.MlflowClient()

    def aliases():
        found = client.get_registered_model("shop").aliases
        return {
            alias: client.get_model_version("shop", version).tags[mirror.MODEL_TAG] for alias, version in found.items()
        }

    first = retrain(of_night(lake, days[:1], "popularity", mlflow=follows), lake)
    assert aliases() == {"champion": first.challenger}
    run = client.get_run(client.get_model_version_by_alias("shop", "champion").run_id)
    assert run.data.params["model.kind"] == "popularity"
    assert run.data.metrics["lists_users"] == 120

    no_server = {**follows, "tracking_uri": "http://127.0.0.1:9"}
    keeps = {"metric": "ndcg@5"}
    with caplog.at_level(logging.WARNING, "sparkrec"):
        down = retrain(of_night(lake, days, gate=keeps, mlflow=no_server), lake)
    assert down.outcome == "kept"
    assert "MLflow's model shop does not show what is served under shop: " in caplog.text
    assert aliases() == {"champion": first.challenger}

    retrain(of_night(lake, days, gate=keeps, mlflow=follows), lake)
    assert aliases() == {"champion": first.challenger, "challenger": down.challenger}
    gate = client.get_run(client.get_model_version_by_alias("shop", "challenger").run_id).data.metrics
    assert gate["champion_ndcg_at_5"] < gate["challenger_ndcg_at_5"]

    promoted = retrain(of_night(lake, days, mlflow=follows), lake)
    assert promoted.outcome == "promoted"
    assert aliases() == {"champion": down.challenger}
    assert len(client.search_model_versions("name = 'shop'")) == 2

    scored = mlflow.pyfunc.load_model("models:/shop@champion")
    served = {}
    for row in lake.table("served").orderBy("user_id", "rank").collect():
        served.setdefault(row.user_id, []).append(row.item_id)
    found = scored.predict(pd.DataFrame({"user": [*served]}), params={"k": 4})
    assert dict(zip(served, found["items"], strict=True)) == served

    rollback_by_name(lake, "shop", None, "complaints")
    assert aliases() == {"champion": first.challenger}


def test_a_password_is_no_part_of_the_address_and_mlflow_has_to_be_there(tmp_path, monkeypatch):
    raw = {"lake": str(tmp_path), "name": "shop", "prepare": {}, "train": {}}
    address = {"registered_model": "shop", "tracking_uri": "https://me:secret@mlflow.example"}
    with pytest.raises(ConfigError, match="found a password in it: set MLFLOW_TRACKING_USERNAME") as raised:
        validate(RetrainSettings, {**raw, "mlflow": address}, "test")
    assert "secret@" not in str(raised.value)
    settings = validate(RetrainSettings, {**raw, "mlflow": {"registered_model": "shop"}}, "test")
    monkeypatch.setattr(mirror, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"MLflow is not installed. Install sparkrec\[mlflow\]"):
        check(settings)
