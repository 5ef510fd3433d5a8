"""A registered model of MLflow whose aliases say what our history says: a mirror, never what anything is decided by.

A version has its model as `sparkrec export` writes it, which `mlflow models serve` serves, beside settings, metrics and
plots in a run. What MLflow lacks is made up for when it is looked at next, so that a server that is down costs a night
nothing but a warning.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sparkrec import storage, tables
from sparkrec.config import MlflowSettings
from sparkrec.errors import ConfigError
from sparkrec.fitting.history import flat, metric_name
from sparkrec.secrets import masked
from sparkrec.spark.platform.lake import Lake
from sparkrec.stages.export import export
from sparkrec.stages.ledger import Ledger

log = logging.getLogger(__name__)

CHAMPION, CHALLENGER = "champion", "challenger"
"""Aliases: what is served, and what the last night trained and kept back."""
MODEL_TAG = "sparkrec.model"
"""Of a version: the model that it is, as `name@id`."""
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
"""Of MLflow's client, where nothing else is said: with its own it goes on for the best part of an hour."""
_AT_ONCE = 100
"""Parameters that a server takes at a time."""


def check(settings: MlflowSettings | None) -> None:
    """Raise ConfigError where MLflow is wanted and not installed."""
    if settings is not None and not find_spec("mlflow"):
        raise ConfigError("mlflow: MLflow is not installed. Install sparkrec[mlflow], or leave the setting out.")


def remember(lake: Lake, name: str, settings: MlflowSettings | None) -> None:
    """Keep beside the lake's files which registered model follows a name: `sparkrec promote` and `rollback`, which have
    no config, look there. None: no one does any more."""
    path = _path(lake, name)
    if settings is not None:
        storage.write_json(path, settings.model_dump(mode="json"))
    else:
        storage.delete(path)


def follow(lake: Lake, name: str) -> None:
    """Bring the registered model that follows a name, if one does, to where the history is. Whatever goes wrong is a
    warning."""
    told = storage.read_json(_path(lake, name))
    if told is None:
        return
    settings = MlflowSettings.model_validate(told)
    try:
        with _patient():
            _Mirror(lake, name, settings).update()
    except Exception as error:
        log.warning(
            "MLflow's model %s does not show what is served under %s: %s: %s. The next night, promotion or rollback "
            "makes up for it.",
            settings.registered_model,
            name,
            type(error).__name__,
            masked(str(error).strip().split("\n")[0][:500]),
        )


class _Mirror:
    def __init__(self, lake: Lake, name: str, settings: MlflowSettings) -> None:
        from mlflow import MlflowClient

        self._lake, self._name, self._settings = lake, name, settings
        self._client = MlflowClient(settings.tracking_uri)

    def update(self) -> None:
        """Register what is not there yet, then set the aliases."""
        champion = Ledger(self._lake, tables.CHAMPIONS, self._name).latest()
        night = Ledger(self._lake, tables.RETRAININGS, self._name).latest()
        wanted = {}
        if champion is not None:
            wanted[CHAMPION] = (champion["model"], champion["metrics"])
        if night is not None and night["challenger"] and night["outcome"] == "kept":
            wanted[CHALLENGER] = (night["challenger"], night["metrics"])
        if CHAMPION in wanted and wanted.get(CHALLENGER, [None])[0] == wanted[CHAMPION][0]:
            del wanted[CHALLENGER]  # promoted by name since
        registered = self._settings.registered_model
        now = self._registered().aliases
        found = self._client.search_model_versions(f"name = '{registered}'")
        versions = {each.tags.get(MODEL_TAG): each.version for each in found}
        for alias in (CHAMPION, CHALLENGER):
            if alias not in wanted:
                if alias in now:
                    self._client.delete_registered_model_alias(registered, alias)
                continue
            model, metrics = wanted[alias]
            if model not in versions:
                versions[model] = self._register(model, metrics or {})
            if str(now.get(alias)) != str(versions[model]):
                self._client.set_registered_model_alias(registered, alias, versions[model])
                log.info("MLflow: %s version %s is the %s", registered, versions[model], alias)

    def _registered(self) -> Any:
        from mlflow.exceptions import MlflowException

        name = self._settings.registered_model
        try:
            return self._client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        return self._client.create_registered_model(name, description=f"What sparkrec serves under {self._name}")

    def _register(self, model: str, metrics: dict[str, float]) -> str:
        """Number of a new version, which is there once all of it is."""
        run = self._client.create_run(self._experiment(), run_name=model, tags={MODEL_TAG: model})
        run_id = run.info.run_id
        try:
            self._fill(run_id, model, metrics)
        except BaseException:
            with suppress(Exception):  # what went wrong may be the server
                self._client.set_terminated(run_id, "FAILED")
            raise
        self._client.set_terminated(run_id)
        made = self._client.create_model_version(
            self._settings.registered_model, f"{run.info.artifact_uri}/model", run_id, tags={MODEL_TAG: model}
        )
        return str(made.version)

    def _fill(self, run_id: str, model: str, metrics: dict[str, float]) -> None:
        trained = self._lake.finished_run("train", model)
        manifest = trained.manifest or {}
        complete = {**trained.settings, "model": manifest["model"]["settings"]}  # what was left to the data, too
        self._log(run_id, complete, manifest["facts"], metrics)
        for name in storage.files(trained.path):
            if name.endswith((".png", ".jsonl")):
                self._upload(run_id, name, storage.read(f"{trained.path}/{name}"))
        with tempfile.TemporaryDirectory() as folder:
            export(self._lake, model, f"{folder}/model")
            self._client.log_artifacts(run_id, f"{folder}/model", "model")

    def _experiment(self) -> str:
        found = self._client.get_experiment_by_name(self._settings.experiment)
        return str(found.experiment_id if found else self._client.create_experiment(self._settings.experiment))

    def _log(self, run_id: str, settings: dict[str, Any], facts: dict[str, Any], metrics: dict[str, float]) -> None:
        from mlflow.entities import Metric, Param

        params = [Param(key, str(value)[:500]) for key, value in flat(masked(settings)).items()]
        now = int(1000 * time.time())
        steps = [Metric(metric_name(key), value, now, 0) for key, value in metrics.items()]
        for at, entry in enumerate(facts.get("history") or [], 1):
            told = {key: value for key, value in entry.items() if isinstance(value, int | float)}
            steps += [Metric(metric_name(key), float(value), now, at) for key, value in told.items()]
        for first in range(0, max(len(params), len(steps)), _AT_ONCE):
            some = slice(first, first + _AT_ONCE)
            self._client.log_batch(run_id, metrics=steps[some], params=params[some])

    def _upload(self, run_id: str, name: str, data: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(data)
            self._client.log_artifact(run_id, str(path))


def _path(lake: Lake, name: str) -> str:
    return lake.path("mlflow", f"{name}.json")


@contextmanager
def _patient() -> Iterator[None]:
    """MLflow's client with `_PATIENCE`, in the environment, where it looks for it."""
    added = {name: value for name, value in _PATIENCE.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
