"""A bundle of Databricks with one job, in the manner of the databricks.yml of this project."""

from __future__ import annotations

import os.path
import re
from typing import Any

import yaml

from sparkrec.config import cron_values
from sparkrec.errors import ConfigError
from sparkrec.stages.scheduling.scheduled import Scheduled

_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_OF_THE_WORKSPACE = ("/Volumes/", "/Workspace/")
_TORCH = ["torch>=2.6", "safetensors>=0.5"]


def render(nights: Scheduled) -> str:
    """A databricks.yml beside the sources. Databricks knows no exit codes: what kept the champion ends with 0, and what
    failed is tried again, whatever the cause."""
    schedule = nights.schedule
    paths = [nights.config, *nights.files.values()]
    parameters = ["retrain", "--kept-is-done", "--config", _there(nights.config), *map(_plain, nights.overrides)]
    task = {
        "task_key": "retrain",
        "max_retries": schedule.retries,
        "min_retry_interval_millis": 60_000 * schedule.retry_minutes,
        "retry_on_timeout": False,
        "timeout_seconds": nights.seconds,
        "environment_key": "sparkrec",
        "python_wheel_task": {
            "package_name": "sparkrec",
            "entry_point": "sparkrec",
            "parameters": [*parameters, *(f"{key}={_there(path)}" for key, path in nights.files.items())],
        },
    }
    wheel = ["./dist/*.whl", *(_TORCH if nights.trained_by_torch else [])]
    job = {
        "name": f"retrain {nights.name}",
        "max_concurrent_runs": 1,
        "schedule": {"quartz_cron_expression": quartz(schedule.cron), "timezone_id": schedule.timezone},
        "tasks": [task],
        "environments": [
            {"environment_key": "sparkrec", "spec": {"environment_version": "4", "dependencies": wheel}},
        ],
    }
    bundle: dict[str, Any] = {
        "bundle": {"name": f"sparkrec-retrain-{nights.name}"},
        "artifacts": {"wheel": {"type": "whl", "build": "python3 -m pip wheel --no-deps --wheel-dir dist ."}},
        "sync": {"paths": sorted({_folder(each) for each in paths if _is_taken_along(each)})},
        "resources": {"jobs": {re.sub(r"\W", "_", f"retrain_{nights.name}"): job}},
        "targets": {
            "dev": {"mode": "development", "default": True, "presets": {"trigger_pause_status": "PAUSED"}},
            "prod": {
                "mode": "production",
                "workspace": {
                    "root_path": "/Workspace/Users/${workspace.current_user.userName}/.bundle/${bundle.name}/"
                    "${bundle.target}"
                },
            },
        },
    }
    return f"{nights.head}\n{yaml.safe_dump(bundle, sort_keys=False, width=120)}"


def quartz(cron: str) -> str:
    """The same times in Quartz's words: seconds first, days by name, and one of both kinds of days a question mark."""
    minute, hour, day, month, weekday = cron_values(cron)
    if weekday is not None:
        days = f"? {_listed(month)} {','.join(_DAYS[each] for each in weekday)}"
    else:
        days = f"{_listed(day)} {_listed(month)} ?"
    return f"0 {_listed(minute)} {_listed(hour)} {days}"


def _listed(values: list[int] | None) -> str:
    return "*" if values is None else ",".join(map(str, values))


def _folder(path: str) -> str:
    return os.path.join(".", os.path.dirname(os.path.normpath(path)))


def _is_taken_along(path: str) -> bool:
    return not path.startswith(_OF_THE_WORKSPACE)


def _there(path: str) -> str:
    """Where a file of this folder is, once it was deployed."""
    if not _is_taken_along(path):
        return _plain(path)
    inside = os.path.normpath(path)
    if os.path.isabs(inside) or inside.startswith(".."):
        raise ConfigError(
            f"{path} is not in the folder of the bundle, which is this one, nor in /Volumes or /Workspace. Render it "
            "where the file is below."
        )
    return "${workspace.file_path}/" + _plain(inside)


def _plain(text: str) -> str:
    if "${" in text:
        raise ConfigError(
            f"{text}: Databricks takes ${{...}} for a variable of the bundle, not of the environment. Write the value, "
            "or put it into the config."
        )
    return text
