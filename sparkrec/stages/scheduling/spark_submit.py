"""A script for any scheduler, which ships the packed environment to a cluster."""

from __future__ import annotations

import shlex

from sparkrec.errors import CHAMPION_KEPT, MAY_PASS
from sparkrec.stages.scheduling.scheduled import Scheduled


def render(nights: Scheduled) -> str:
    """A script for bash, beside which the driver runs: how one in the cluster ended, spark-submit does not tell."""
    schedule = nights.schedule
    return f"""#!/usr/bin/env bash
{nights.head}
# Ends with 0, too, where the champion was kept; else with the exit code of the run, 124 where it took too long.
# The driver is a process of this machine, since spark-submit does not tell how one in the cluster ended.
set -eu
cd {shlex.quote(nights.directory)}

night=(
    {shlex.join(nights.in_time("spark-submit"))}
    --master {shlex.quote(nights.master)} --deploy-mode client --properties-file conf/spark/cluster.conf
    --archives "${{ARCHIVE:-dist/sparkrec.tar.gz}}#env"
    --conf "spark.pyspark.driver.python=${{DRIVER_PYTHON:-.venv/bin/python}}"
    jobs/retrain.py {shlex.join(nights.arguments)}
)

run() {{ # in the background, so that what ends this script ends the run
    "$@" &
    trap "kill -TERM $!; wait $! || true; exit 143" INT TERM
    wait $!
}}

for ((left = {schedule.retries}; ; left--)); do
    code=0
    run "${{night[@]}}" || code=$?
    case $code in
        {CHAMPION_KEPT}) exit 0 ;;
        {MAY_PASS}) ((left > 0)) || exit $code ;;
        *) exit $code ;;
    esac
    echo "exit code $code, which may pass: again in {schedule.retry_minutes} minutes" >&2
    run sleep {60 * schedule.retry_minutes}
done
"""
