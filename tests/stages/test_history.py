"""What is kept of a training run besides its model."""

import json
from importlib.util import find_spec

import pytest

from sparkrec.fitting import history

HISTORY = [
    {
        "epoch": epoch,
        "loss": 1 / epoch,
        "examples_per_second": 1000,
        "waiting_for_data": 0.1,
        "waiting_for_others": 0.0,
        **({"ndcg@10": 0.1 * epoch} if epoch % 2 == 0 else {}),
    }
    for epoch in range(1, 5)
]


def test_the_log_is_a_line_an_epoch_and_the_plot_an_image():
    kept = history.files(HISTORY)
    assert [json.loads(line) for line in kept["log.jsonl"]().splitlines()] == HISTORY
    if find_spec("matplotlib"):
        assert kept["history.png"]().startswith(b"\x89PNG")


def test_mlflow_is_told_where_it_has_somewhere_to_write(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    history.to_mlflow("shop-neumf", {"dim": 8, "training": {"loss": "bce"}}, HISTORY)
    assert list(tmp_path.iterdir()) == []

    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    history.to_mlflow("shop-neumf", {"dim": 8, "training": {"loss": "bce"}}, HISTORY)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs(["0"])
    assert run.info.run_name == "shop-neumf"
    assert run.data.params == {"dim": "8", "training.loss": "bce"}
    assert run.data.metrics["loss"] == 0.25
    assert [each.step for each in client.get_metric_history(run.info.run_id, "ndcg_at_10")] == [2, 4]
