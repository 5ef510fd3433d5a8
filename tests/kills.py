"""Whether a night survives: `python -m tests.kills` ends the process and the JVM of a night by SIGKILL at moments drawn
at random, runs it again, and looks whether that comes to the champion and the tables of a night that nobody disturbed.

Each moment takes most of a minute, so that CI has the moments that matter (tests/stages/test_retrain.py) and not these.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

import click
import numpy as np
import yaml

from sparkrec import storage
from sparkrec.config import RetrainSettings, SparkSettings
from sparkrec.spark.platform.lake import FOLDERS, Lake
from sparkrec.spark.platform.session import open_session
from sparkrec.stages.retraining import lease
from sparkrec.stages.retraining.champions import history
from sparkrec.stages.retraining.retrain import retrain
from tests.conftest import QUICK_JVM
from tests.pipeline.processes import command
from tests.stages.test_retrain import of_night, write_days

TABLES = ("interactions", "interactions_users", "interactions_items", "recommendations", "served")
SPARK = {"master": "local[2]", "memory": "1g", "shuffle_partitions": 2, "conf": QUICK_JVM}


@click.command()
@click.option("--moments", default=20, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the moments.")
@click.option("--kind", default="als", show_default=True, help="Of model.")
def main(moments: int, seed: int, kind: str) -> None:
    """Kill a night at so many moments."""
    folder = Path(tempfile.mkdtemp(prefix="sparkrec-kills-"))
    spark = open_session(SparkSettings(**SPARK | {"memory": "3g"}))
    days = [write_days(folder, *span) for span in ((0, 5), (5, 7))]
    before = Lake(spark, str(folder / "before"))
    retrain(of_night(before, days[:1], "popularity"), before)

    def night(lake: Lake) -> tuple[RetrainSettings, str]:
        """A copy of the lake before the night, and a file of settings for it."""
        shutil.copytree(before.root, lake.root)
        file = folder / f"{Path(lake.root).name}.yaml"
        settings = of_night(lake, days, kind, spark=SPARK)
        file.write_text(yaml.safe_dump(settings.model_dump(mode="json", by_alias=True, exclude_unset=True)))
        return settings, str(file)

    calm = Lake(spark, str(folder / "calm"))
    _, file = night(calm)
    start = time.monotonic()
    subprocess.run(command("retrain", "--config", file), check=True, capture_output=True)
    lasts = time.monotonic() - start
    wanted = contents(calm)
    print(f"a night takes {lasts:.0f} s and serves {wanted['champions'][-1]}", flush=True)

    lease.PATIENCE = 0.0
    outcomes: Counter[str] = Counter()
    for at, moment in enumerate(np.random.default_rng(seed).uniform(0.1, 1.0, moments) * lasts):
        lake = Lake(spark, str(folder / f"killed-{at}"))
        settings, file = night(lake)
        ended = killed(command("retrain", "--config", file), moment)
        again = retrain(settings, lake)
        differs = [name for name, found in contents(lake).items() if found != wanted[name]]
        outcomes["differs" if differs else "same"] += 1
        print(f"{moment:5.1f} s: {ended}; again: {again.outcome}; {differs or 'the same'}", flush=True)
        if not differs:
            shutil.rmtree(lake.root)
    print(dict(outcomes))
    if outcomes["differs"]:
        raise SystemExit(f"look at {folder}")
    shutil.rmtree(folder)


def killed(arguments: list[str], seconds: float) -> str:
    """Start a command, and end it and its JVM after so long."""
    process = subprocess.Popen(arguments, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return f"had ended with exit code {process.wait(timeout=seconds)}"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return "killed"


def contents(lake: Lake) -> dict[str, list[str]]:
    """What a lake has come to: rows of its tables, who was champion, which runs are finished."""
    found = {name: sorted(str(row) for row in lake.table(name).collect()) for name in TABLES}
    found["champions"] = [row["model"] for row in history(lake, "shop")]
    names = [(stage, name) for stage, folder in FOLDERS.items() for name in storage.folders(lake.path(folder))]
    found["runs"] = sorted(f"{stage} {name}@{run}" for stage, name in names for run in lake.finished_ids(stage, name))
    return found


if __name__ == "__main__":
    main()
