"""databricks.yml: a job whose tasks the command line understands, and runs as Databricks calls them.

The schema of bundles is published under a licence that keeps it out of this repository: what it says of jobs is in
Databricks' SDK as well, whose classes the job is read into here.
"""

import json
import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
import yaml

from sparkrec import cli
from sparkrec.configfile import load
from sparkrec.synthetic import LogShape, write_log

ROOT = Path(__file__).parents[1]
BUNDLE = yaml.safe_load((ROOT / "databricks.yml").read_text())
TARGETS = list(BUNDLE["targets"])
GIVEN = {"workspace.file_path": str(ROOT), "bundle.name": "sparkrec"}


def merged(base, over):
    """As a target goes over what all have in common: tasks by their key."""
    if isinstance(base, dict) and isinstance(over, dict):
        return {key: merged(base[key], over[key]) if key in base and key in over else {**base, **over}[key]
                for key in {**base, **over}}  # fmt: skip
    if isinstance(base, list) and isinstance(over, list) and all("task_key" in each for each in base):
        by_key = {each["task_key"]: each for each in over}
        assert {each["task_key"] for each in base} == set(by_key)
        return [merged(each, by_key[each["task_key"]]) for each in base]
    return over


def filled(value, variables):
    """With values for ${...}; what is nothing else becomes the value itself."""
    if isinstance(value, dict):
        return {key: filled(each, variables) for key, each in value.items()}
    if isinstance(value, list):
        return [filled(each, variables) for each in value]
    if isinstance(value, str):
        if whole := re.fullmatch(r"\$\{([\w.]+)\}", value):
            return variables[whole[1]]
        return re.sub(r"\$\{([\w.]+)\}", lambda found: str(variables[found[1]]), value)
    return value


def job(target, **variables):
    """The job of a target, with the defaults of variables or these values."""
    own = {f"var.{name}": about["default"] for name, about in BUNDLE["variables"].items()}
    own |= {f"var.{name}": value for name, value in variables.items()}
    over = BUNDLE["targets"][target]["resources"]["jobs"]["recommendations"]
    return filled(merged(BUNDLE["resources"]["jobs"]["recommendations"], over), GIVEN | own)


def commands(target="dev", **variables):
    """What each task passes to the entry point, with the day that the job would be given."""
    for task in job(target, **variables)["tasks"]:
        yield [each.replace("{{job.parameters.day}}", "2026-01-31") for each in task["python_wheel_task"]["parameters"]]


def test_every_variable_is_declared_and_used():
    used = set(re.findall(r"\$\{var\.(\w+)\}", (ROOT / "databricks.yml").read_text()))
    assert used == set(BUNDLE["variables"])
    assert all(about["description"] for about in BUNDLE["variables"].values())


@pytest.mark.parametrize("target", TARGETS)
def test_a_job_has_no_key_that_the_jobs_of_databricks_do_not_have(target):
    jobs = pytest.importorskip("databricks.sdk.service.jobs")
    given = job(target, alert_emails=["data@example.com"], alert_webhooks=[{"id": "0481e838"}])
    assert jobs.JobSettings.from_dict(given).as_dict() == given


@pytest.mark.parametrize("target", TARGETS)
def test_tasks_follow_one_another_and_have_somewhere_to_run(target):
    given, before = job(target), []
    keys = {each["environment_key"] for each in given.get("environments", [])}
    keys |= {each["job_cluster_key"] for each in given.get("job_clusters", [])}
    for task in given["tasks"]:
        assert [each["task_key"] for each in task.get("depends_on", [])] == before
        assert task.get("environment_key", task.get("job_cluster_key")) in keys
        assert task["max_retries"] == 2
        before = [task["task_key"]]
    assert [task["task_key"] for task in given["tasks"]] == ["ingest", "prepare", "train", "evaluate", "recommend"]


def test_a_copy_that_somebody_tries_does_not_run_by_itself():
    assert [name for name, each in BUNDLE["targets"].items() if each.get("default")] == ["dev"]
    dev = BUNDLE["targets"]["dev"]
    assert (dev["mode"], dev["presets"]["trigger_pause_status"]) == ("development", "PAUSED")
    assert "pause_status" not in job("prod")["schedule"]


@pytest.mark.parametrize("arguments", [*commands()], ids=lambda arguments: arguments[0])
def test_the_command_line_takes_what_a_task_passes(arguments):
    from sparkrec.stages.catalog import STAGES

    stage, *rest = arguments
    given = cli.sparkrec.commands[stage].make_context(stage, rest).params
    settings = load(STAGES[stage].settings, given["config"], given["overrides"])
    STAGES[stage].check(settings)
    assert settings.lake == BUNDLE["variables"]["lake"]["default"]


def test_what_a_task_calls_is_an_entry_point_of_the_wheel():
    for task in job("prod")["tasks"]:
        wheel = task["python_wheel_task"]
        (entry,) = distribution(wheel["package_name"]).entry_points.select(name=wheel["entry_point"])
        assert entry.load() is cli.main


AS_DATABRICKS_DOES = """
import json, sys, threading
from importlib.metadata import distribution

def call(arguments):
    sys.argv = ["sparkrec", *arguments]
    try:
        (entry,) = distribution("sparkrec").entry_points.select(name="sparkrec")
        ended.append(repr(entry.load()()))
    except SystemExit as error:
        ended.append(f"SystemExit {error.code}")

ended = []
for arguments in json.loads(sys.argv[1]):
    if IN_THREAD:
        thread = threading.Thread(target=call, args=(arguments,))
        thread.start()
        thread.join()
    else:
        call(arguments)
print("ENDED", json.dumps(ended))
"""


def as_databricks_does(calls, in_thread=False):
    """How each call of the entry point ended."""
    ran = subprocess.run(
        [sys.executable, "-c", f"IN_THREAD = {in_thread}\n{AS_DATABRICKS_DOES}", json.dumps(calls)],
        capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip
    lines = [line for line in ran.stdout.splitlines() if line.startswith("ENDED ")]
    assert lines, ran.stderr[-4000:]
    return json.loads(lines[0][6:]), ran.stderr


@pytest.mark.parametrize("in_thread", [False, True])
def test_a_task_that_is_done_returns_and_one_that_fails_does_not(in_thread):
    """A SystemExit, even one of 0, is a failed task to some runtimes; nor need the thread of a task be the main one."""
    calls = [["settings", "popularity"], ["train", "--help"], ["train", "--config", "nothing.yaml"]]
    ended, told = as_databricks_does(calls, in_thread)
    assert ended == ["None", "None", "SystemExit 2"]
    assert "error: cannot read the config nothing.yaml" in told


@pytest.mark.spark
@pytest.mark.slow
def test_the_tasks_of_the_job_run_one_after_the_other(spark, tmp_path):
    events, _ = write_log(tmp_path, LogShape(users=120, items=64, events_per_user=30))
    log = spark.read.csv(str(events), header=True).selectExpr(
        "user AS user_id", "item AS item_id", "timestamp_seconds(try_cast(time AS long)) AS ts", "event"
    )
    log.write.parquet(str(tmp_path / "events" / "2026-01-31"))
    where = {"lake": str(tmp_path / "lake"), "events": str(tmp_path / "events")}
    ended, told = as_databricks_does(list(commands(**where)))
    assert ended == ["None"] * 5, told[-4000:]
    lists = spark.read.format("delta").load(str(tmp_path / "lake" / "recommendations"))
    assert lists.where("rank = 1").count() > 100
