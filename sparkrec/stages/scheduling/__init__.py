"""One config, written down for whoever runs it on time: cron, Airflow, Databricks, or what can run a script."""

from collections.abc import Callable

from sparkrec.stages.scheduling import airflow, crontab, databricks, spark_submit
from sparkrec.stages.scheduling.scheduled import Scheduled

TARGETS: dict[str, Callable[[Scheduled], str]] = {
    "crontab": crontab.render,
    "airflow": airflow.render,
    "databricks": databricks.render,
    "spark-submit": spark_submit.render,
}
"""From what is scheduled to the text of a file."""
