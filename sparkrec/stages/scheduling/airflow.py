"""A DAG of one task for Airflow 2 and 3, which needs nothing of sparkrec but its command line."""

from __future__ import annotations

import shlex

from sparkrec.errors import CHAMPION_KEPT, MAY_PASS
from sparkrec.stages.scheduling.scheduled import Scheduled


def render(nights: Scheduled) -> str:
    """A file for the folder of DAGs."""
    schedule = nights.schedule
    constants = {
        "DAG_ID": f"retrain-{nights.name}",
        "CRON": schedule.cron,
        "TIMEZONE": schedule.timezone,
        "DIRECTORY": nights.directory,
        "COMMAND": f"exec {shlex.join(nights.in_time(nights.program, 'retrain', *nights.arguments))}",
        "RETRIES": schedule.retries,
        "RETRY_MINUTES": schedule.retry_minutes,
        "KEPT": CHAMPION_KEPT,
        "MAY_PASS": MAY_PASS,
    }
    return nights.head + _IMPORTS + "\n".join(f"{name} = {value!r}" for name, value in constants.items()) + _DAG


_IMPORTS = """

from datetime import timedelta

import pendulum

try:
    from airflow.sdk import DAG
    from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
except ImportError:  # Airflow 2, or a 3 that has them elsewhere
    from airflow import DAG
    from airflow.exceptions import AirflowException, AirflowFailException, AirflowSkipException
try:
    from airflow.providers.standard.operators.bash import BashOperator
except ImportError:  # Airflow 2 without this provider
    from airflow.operators.bash import BashOperator

"""

_DAG = '''


class Night(BashOperator):
    """Done, skipped where the champion was kept, tried again after what may pass, and else failed at once."""

    template_fields = ()

    def execute(self, context):
        command = ["bash", "-c", self.bash_command]
        code = self.subprocess_hook.run_command(command, env=self.get_env(context), cwd=self.cwd).exit_code
        if code == KEPT:
            raise AirflowSkipException("the champion was kept")
        if code == MAY_PASS:
            raise AirflowException(f"exit code {code}: this may pass")
        if code:
            raise AirflowFailException(f"exit code {code}: another try would not help")


with DAG(
    DAG_ID,
    schedule=CRON,
    start_date=pendulum.datetime(2026, 1, 1, tz=TIMEZONE),
    catchup=False,
    max_active_runs=1,
    tags=["sparkrec"],
):
    Night(
        task_id="retrain",
        bash_command=COMMAND,
        cwd=DIRECTORY,
        retries=RETRIES,
        retry_delay=timedelta(minutes=RETRY_MINUTES),
    )
'''
