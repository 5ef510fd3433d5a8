"""The public data sets, which are not part of the project."""

from __future__ import annotations

import os
from pathlib import Path

from sparkrec.errors import ConfigError

FRAPPE_CONTEXT = ["daytime", "weekday", "isweekend", "homework", "cost", "weather", "country", "city"]
"""Columns of a use of an app that say in which context it took place."""


def public(name: str, bench: str) -> str:
    """Path of a table, as `games/interactions`. Raises ConfigError where it is not below SPARKREC_DATA."""
    data = os.environ.get("SPARKREC_DATA")
    path = Path(data or "", f"{name}.parquet")
    if not data or not path.exists():
        raise ConfigError(f"bench {bench} needs {name}: set SPARKREC_DATA to the folder of the public data sets")
    return str(path)
