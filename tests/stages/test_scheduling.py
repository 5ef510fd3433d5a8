"""One config, four schedulers: when a night runs, what its exit codes mean there, and that nothing is read as code."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from importlib.metadata import distribution
from pathlib import Path

import pytest
import yaml

from sparkrec import cli
from sparkrec.config import RetrainSettings, ScheduleSettings, cron_values
from sparkrec.configfile import load, read_yaml, validate
from sparkrec.errors import ConfigError
from sparkrec.stages.scheduling import TARGETS
from sparkrec.stages.scheduling.databricks import quartz
from sparkrec.stages.scheduling.scheduled import scheduled

ROOT = Path(__file__).parents[2]
DEMO = "conf/retrain/demo.yaml"
ODD = 'lake=it\'s 100% `rm` $HOME "ä" {{ ds }}.sh'
"""An override with all that shells, cron, Python, YAML and Jinja take for their own."""
AIRFLOW = os.environ.get("SPARKREC_AIRFLOW")
"""The command line of an Airflow, which has an environment of its own: `make test-airflow`."""


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def rendered(target, *overrides, directory="/srv/it's here", program="/opt/sparkrec"):
    return TARGETS[target](scheduled(DEMO, overrides, directory, program))


@pytest.fixture
def stand_ins(tmp_path):
    """A folder of programs for the PATH: `sparkrec` and `spark-submit`, which note their arguments and end with the
    next code that they are told, and `sleep`, which notes how long."""
    noting = f'#!/bin/bash\nprintf "%s\\n" "${{0##*/}}" "$@" "" >>{tmp_path}/calls\n'
    ending = f'code=$(head -1 {tmp_path}/codes)\nsed -i 1d {tmp_path}/codes\necho "ends with $code"\nexit "$code"\n'
    for name, rest in {"sparkrec": ending, "spark-submit": ending, "sleep": ""}.items():
        (tmp_path / name).write_text(noting + rest)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def run(stand_ins, command, *codes):
    """How a command ends where the nights in it end with these codes; and what was called, with which arguments."""
    (stand_ins / "codes").write_text("".join(f"{code}\n" for code in codes))
    (stand_ins / "calls").write_text("")
    path = f"{stand_ins}:{os.environ['PATH']}"
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": path}, timeout=60)
    calls = [call.split("\n") for call in (stand_ins / "calls").read_text().removesuffix("\n\n").split("\n\n")]
    return ended, calls


# Of codes that nights end with, one after the other: how often a night is run, and how that ends for a scheduler.
ENDS = {
    (0,): (1, 0),
    (3,): (1, 0),
    (75, 75, 0): (3, 0),
    (75, 75, 75, 0): (3, 75),
    (75, 3): (2, 0),
    (1, 0): (1, 1),
    (5, 0): (1, 5),
    (124, 0): (1, 124),
}


def of_crontab(text):
    """The time zone, the five fields and the command of a crontab, as cron takes them apart."""
    zone, line = [each for each in text.splitlines() if not each.startswith("#")]
    *fields, command = line.split(" ", 5)
    assert not re.search(r"(?<!\\)%", command)
    return zone, fields, command.replace(r"\%", "%")


@pytest.mark.parametrize(("codes", "expected"), ENDS.items(), ids=str)
def test_a_crontab_runs_a_night_logs_it_and_has_a_failure_mailed(stand_ins, codes, expected):
    text = rendered("crontab", ODD, directory=str(stand_ins), program=str(stand_ins / "sparkrec"))
    zone, fields, command = of_crontab(text)
    assert (zone, fields) == ("CRON_TZ=Europe/Berlin", ["0", "3", "*", "*", "*"])
    ended, calls = run(stand_ins, ["/bin/sh", "-c", command], *codes)
    times, code = expected
    nights = [call for call in calls if call[0] == "sparkrec"]
    assert nights == [["sparkrec", "retrain", "--config", DEMO, ODD]] * times
    assert [call for call in calls if call[0] == "sleep"] == [["sleep", "300"]] * (times - 1)
    mailed = f"demo: exit code {code}, see {stand_ins}/retrain-demo.log\n" if code else ""
    assert (ended.stdout, ended.stderr) == (mailed, "")
    assert (stand_ins / "retrain-demo.log").read_text() == "".join(f"ends with {each}\n" for each in codes[:times])


def test_a_command_that_cron_would_cut_off_is_refused():
    with pytest.raises(ConfigError, match=r"the command has 1,\d\d\d characters, and cron takes 998"):
        rendered("crontab", "lake=" + "x" * 800)


@pytest.mark.parametrize(("codes", "expected"), ENDS.items(), ids=str)
def test_a_script_ends_as_its_last_night_does_but_where_the_champion_was_kept(stand_ins, codes, expected):
    script = stand_ins / "night.sh"
    script.write_text(rendered("spark-submit", ODD, "spark.master=yarn", directory=str(stand_ins)))
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    ended, calls = run(stand_ins, ["bash", script], *codes)
    nights = [call for call in calls if call[0] == "spark-submit"]
    assert (len(nights), ended.returncode) == expected
    assert calls.count(["sleep", "300"]) == len(nights) - 1
    assert nights[0] == [
        *("spark-submit", "--master", "yarn", "--deploy-mode", "client"),
        *("--properties-file", "conf/spark/cluster.conf", "--archives", "dist/sparkrec.tar.gz#env"),
        *("--conf", "spark.pyspark.driver.python=.venv/bin/python"),
        *("jobs/retrain.py", "--config", DEMO, ODD, "spark.master=yarn"),
    ]


def test_a_script_that_is_terminated_ends_its_run(stand_ins):
    (stand_ins / "spark-submit").write_text(
        f"#!/bin/bash\ntrap 'echo ended >{stand_ins}/ended; exit 143' TERM\necho $$ >{stand_ins}/began\n"
        "for _ in {1..200}; do /bin/sleep 0.05; done\n"
    )
    script = stand_ins / "night.sh"
    script.write_text(rendered("spark-submit", directory=str(stand_ins)))
    path = {**os.environ, "PATH": f"{stand_ins}:{os.environ['PATH']}"}
    running = subprocess.Popen(["bash", script], env=path)
    while not (stand_ins / "began").exists():
        assert running.poll() is None
        time.sleep(0.02)
    running.send_signal(signal.SIGTERM)
    assert running.wait(20) == 143
    assert (stand_ins / "ended").exists()


def of_bundle(text):
    bundle = yaml.safe_load(text)
    (job,) = bundle["resources"]["jobs"].values()
    return bundle, job


def test_a_bundle_is_one_of_databricks_and_its_task_one_of_the_command_line():
    bundle, job = of_bundle(rendered("databricks", "schedule.cron=30 3 * * 1-5", "lake=/Volumes/main/recsys/lake"))
    jobs = pytest.importorskip("databricks.sdk.service.jobs")
    assert jobs.JobSettings.from_dict(job).as_dict() == job
    assert job["schedule"] == {
        "quartz_cron_expression": "0 30 3 ? * MON,TUE,WED,THU,FRI",
        "timezone_id": "Europe/Berlin",
    }
    (task,) = job["tasks"]
    assert (task["timeout_seconds"], task["max_retries"], task["retry_on_timeout"]) == (12 * 3600, 2, False)
    assert task["environment_key"] == job["environments"][0]["environment_key"]
    assert bundle["sync"]["paths"] == ["./conf/retrain"]
    ours = yaml.safe_load((ROOT / "databricks.yml").read_text())
    assert bundle["artifacts"] == ours["artifacts"]
    assert bundle["targets"]["prod"]["workspace"] == ours["targets"]["prod"]["workspace"]
    assert [name for name, each in bundle["targets"].items() if each.get("default")] == ["dev"]

    wheel = task["python_wheel_task"]
    (entry,) = distribution(wheel["package_name"]).entry_points.select(name=wheel["entry_point"])
    assert entry.load() is cli.main
    stage, *rest = [each.replace("${workspace.file_path}", str(ROOT)) for each in wheel["parameters"]]
    given = cli.sparkrec.commands[stage].make_context(stage, rest).params
    assert given["kept_is_done"]
    assert load(RetrainSettings, given["config"], given["overrides"]).lake == "/Volumes/main/recsys/lake"


@pytest.mark.torch
def test_a_bundle_takes_along_the_files_that_the_config_names(tmp_path, monkeypatch, config_file):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "gmf.yaml").write_text("model: {kind: gmf}")
    raw = {**read_yaml(ROOT / DEMO), "train": "./conf/gmf.yaml", "recommend": {}}
    config_file(raw, "night")
    bundle, job = of_bundle(TARGETS["databricks"](scheduled("night.yaml", (), ".", "sparkrec")))
    assert bundle["sync"]["paths"] == ["./", "./conf"]
    assert job["tasks"][0]["python_wheel_task"]["parameters"][-1] == "train=${workspace.file_path}/conf/gmf.yaml"
    assert "torch>=2.6" in job["environments"][0]["spec"]["dependencies"]

    for path in ("../night.yaml", str(tmp_path / "night.yaml")):
        (tmp_path / "below").mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / "below")
        config_file({**raw, "train": {"model": {"kind": "als"}}}, "night")
        with pytest.raises(ConfigError, match="night.yaml is not in the folder of the bundle"):
            TARGETS["databricks"](scheduled(path, (), ".", "sparkrec"))


def test_a_variable_of_the_environment_is_none_of_a_bundle(monkeypatch):
    monkeypatch.setenv("LAKE", "lake")
    assert "'lake=${LAKE}'" in rendered("crontab", "lake=${LAKE}")
    with pytest.raises(ConfigError, match=r"lake=\$\{LAKE\}: Databricks takes \$\{...\} for a variable of the bundle"):
        rendered("databricks", "lake=${LAKE}")


def test_a_dag_is_python_that_has_the_command_as_a_text(tmp_path):
    path = tmp_path / "night.py"
    path.write_text(rendered("airflow", ODD))
    compiled = subprocess.run([sys.executable, "-m", "py_compile", path], capture_output=True, check=False)
    assert compiled.returncode == 0, compiled.stderr
    names: dict = {}
    exec("\n".join(re.findall(r"^[A-Z_]+ = .*$", path.read_text(), re.MULTILINE)), names)  # our own file
    assert (names["DAG_ID"], names["CRON"], names["TIMEZONE"]) == ("retrain-demo", "0 3 * * *", "Europe/Berlin")
    assert (names["RETRIES"], names["RETRY_MINUTES"], names["DIRECTORY"]) == (2, 5, "/srv/it's here")
    called = ["exec", "timeout", "-k", "60", "43200", "/opt/sparkrec", "retrain", "--config", DEMO, ODD]
    assert shlex.split(names["COMMAND"]) == called


@pytest.mark.skipif(AIRFLOW is None, reason="SPARKREC_AIRFLOW names no Airflow: make test-airflow has one")
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_airflow_runs_the_night_skips_what_was_kept_and_tries_again_what_may_pass(stand_ins):
    """By `airflow dags test`, which waits for the next try as a scheduler does."""
    home = stand_ins / "airflow"
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    own |= {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    own |= {"AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags")}
    (home / "dags").mkdir(parents=True)
    text = rendered(
        *("airflow", ODD, "schedule.retries=1", "schedule.retry_minutes=1", "schedule.cron=30 3 * * 5-7"),
        directory=str(stand_ins),
        program=str(stand_ins / "sparkrec"),
    )
    (home / "dags" / "night.py").write_text(text)
    subprocess.run([AIRFLOW, "db", "migrate"], env=own, capture_output=True, timeout=300, check=True)
    state = r"DagRun Finished: .*\bstate=(\w+)"
    for codes, ended, said in (
        ((0,), "success", "ends with 0"),
        ((3,), "success", "the champion was kept"),
        ((75, 0), "success", "exit code 75: this may pass"),
        ((75, 75), "failed", "exit code 75: this may pass"),
        ((1, 0), "failed", "exit code 1: another try would not help"),
    ):
        (stand_ins / "codes").write_text("".join(f"{code}\n" for code in codes))
        (stand_ins / "calls").write_text("")
        tested = subprocess.run(
            [AIRFLOW, "dags", "test", "retrain-demo"], env=own, capture_output=True, text=True, timeout=400, check=False
        )
        told = tested.stdout + tested.stderr
        assert re.findall(state, told) == [ended], told[-4000:]
        assert said in told
        calls = (stand_ins / "calls").read_text().split("\n\n")[:-1]
        assert [call.split("\n") for call in calls] == [["sparkrec", "retrain", "--config", DEMO, ODD]] * (
            1 if codes[0] == 1 else len(codes)
        )


@pytest.mark.parametrize(
    ("cron", "same"),
    [
        ("0 3 * * *", "0 0 3 * * ?"),
        ("*/20 0-23/6 * * *", "0 0,20,40 0,6,12,18 * * ?"),
        ("5,10-12 3 1,15 */6 *", "0 5,10,11,12 3 1,15 1,7 ?"),
        ("0 3 * * 0", "0 0 3 ? * SUN"),
        ("0  3 * 2 5-7", "0 0 3 ? 2 SUN,FRI,SAT"),
        ("0 3 * * */7", "0 0 3 ? * SUN"),
    ],
)
def test_a_time_is_the_same_one_in_the_words_of_quartz(cron, same):
    assert quartz(validate(ScheduleSettings, {"cron": cron}, "test").cron) == same


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ({"cron": "0 3 * *"}, "found 4 field(s), expected five: minute, hour"),
        ({"cron": "@daily"}, "found 1 field(s), expected five"),
        ({"cron": "60 3 * * *"}, "minute: found '60', expected numbers from 0 to 59"),
        ({"cron": "0 5-3 * * *"}, "hour: found '5-3', expected numbers from 0 to 23, the lower one first"),
        ({"cron": "0 3 0 * *"}, "day of the month: found '0', expected numbers from 1 to 31"),
        ({"cron": "0 3 * jan *"}, "month: found 'jan', expected a number, 1-5, *, */2 or 1-9/2"),
        ({"cron": "0 3 * * 8"}, "day of the week: found '8', expected numbers from 0 to 7"),
        ({"cron": "0/5 3 * * *"}, "minute: found '0/5', expected a number"),
        ({"cron": "*/0 3 * * *"}, "minute: found '*/0', expected a number"),
        (
            {"cron": "0 3 1 * 1"},
            "found a day of the month and one of the week, which schedulers understand differently",
        ),
        ({"cron": "0 3 * * *", "timezone": "Berlin"}, "found 'Berlin', expected a name of the tz database"),
        ({"cron": "0 3 * * *", "timezone": "../etc"}, "found '../etc', expected a name of the tz database"),
    ],
)
def test_what_not_all_schedulers_would_understand_alike_is_no_schedule(schedule, said):
    with pytest.raises(ConfigError) as raised:
        validate(ScheduleSettings, schedule, "test")
    assert said in str(raised.value)


def test_values_of_a_cron_expression():
    assert cron_values("0 */8 * 1-3 6,7") == [[0], [0, 8, 16], None, [1, 2, 3], [0, 6]]


def test_a_config_that_cannot_be_scheduled_says_why(config_file, monkeypatch):
    monkeypatch.chdir(ROOT)
    unscheduled = {key: value for key, value in read_yaml(DEMO).items() if key != "schedule"}
    with pytest.raises(ConfigError, match="does not say when it is to run. Set schedule, such as schedule: {cron: "):
        scheduled(config_file(unscheduled), (), ".", "sparkrec")
    with pytest.raises(ConfigError, match="expected a text of one line without control characters"):
        scheduled(DEMO, ("lake=a\n* * * * * rm",), ".", "sparkrec")
    with pytest.raises(ConfigError, match=r"spark.conf.secret is a secret, .*: spark.conf.secret=\$\{NAME\}") as raised:
        scheduled(DEMO, ("spark.conf.secret=hunter2",), ".", "sparkrec")
    assert "hunter2" not in str(raised.value)
    with pytest.raises(ConfigError, match="prepare has 1 wrong setting"):
        scheduled(DEMO, ("prepare.split.kind=resent",), ".", "sparkrec")


def test_the_command_prints_a_file_or_writes_it(tmp_path, capsys, monkeypatch):
    def render(*arguments):
        monkeypatch.setattr(sys, "argv", ["sparkrec", "schedule", "render", "--config", DEMO, *arguments])
        try:
            cli.main()
        except SystemExit as ended:
            return ended.code, capsys.readouterr()
        return 0, capsys.readouterr()

    code, said = render("--to", "crontab")
    assert code == 0
    assert f"cd {shlex.quote(str(ROOT))} || exit; " in said.out
    for target in TARGETS:
        path = tmp_path / target
        code, said = render("--to", target, "--output", str(path), "--directory", "/srv", "--program", "/opt/sparkrec")
        assert (code, said.out) == (0, f"{path}\n")
        assert path.read_text().count("rendered by `sparkrec schedule render` from conf/retrain/demo.yaml") == 1
    code, said = render("--to", "windows")
    assert code == 2
    assert "'windows' is not one of 'crontab', 'airflow', 'databricks', 'spark-submit'" in said.err
