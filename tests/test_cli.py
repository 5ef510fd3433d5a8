"""The command line: exit codes, one clear line an error, --dry-run."""

import json
import subprocess
import sys

import pytest
import yaml

from sparkrec.cli import main


@pytest.fixture
def run(monkeypatch, capsys):
    """Exit code, standard output and standard error of a command line."""

    def call(*arguments, stage=None):
        monkeypatch.setattr(sys, "argv", ["sparkrec", *arguments])
        code = 0
        try:
            main(stage)
        except SystemExit as left:
            code = left.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_a_config_with_a_typo_is_exit_code_2_and_names_the_key_before_spark_starts(run, config_file):
    path = config_file({"lake": "x", "datset": "plays", "model": {"kind": "bias"}})
    code, _, err = run("train", "--config", path)
    assert code == 2
    assert "error: " in err
    assert "datset: unknown key" in err


def test_a_config_that_is_not_there_is_exit_code_2(run):
    code, _, err = run("train", "--config", "nowhere.yaml")
    assert code == 2
    assert "cannot read the config nowhere.yaml" in err


def test_a_job_takes_the_arguments_of_its_stage(run):
    code, _, err = run("lake=x", "model.kind=als", stage="train")
    assert code == 2
    assert "dataset: required, but not set." in err


def test_an_unknown_stage_is_refused(run):
    code, _, err = run("tran")
    assert code == 2
    assert "No such command" in err


def test_the_help_of_a_stage_names_its_settings(run):
    _, out, _ = run("recommend", "--help")
    assert "(integer from 1, default 10) Items in each list." in out
    assert "train.1.model.rank=8" in out


def test_settings_are_printed_as_the_page_has_them(run):
    code, out, _ = run("settings", "als")
    assert code == 0
    assert out.startswith("## als\n")
    assert "- `rank` (integer from 1 to 1024, default 64): Length of the factors.\n" in out
    code, _, err = run("settings", "alz")
    assert code == 2
    assert "models are afm, als, " in err


def test_a_json_schema_is_printed_for_editors(run):
    code, out, _ = run("settings", "--json-schema", "train")
    assert code == 0
    assert json.loads(out)["properties"]["seed"]["default"] == 0
    code, _, err = run("settings", "--json-schema")
    assert code == 2
    assert "--json-schema needs a STAGE" in err


@pytest.mark.spark
@pytest.mark.parametrize(
    ("stage", "settings", "message"),
    [
        ("prepare", {"dataset": "plays"}, "there is no table 'interactions' in the lake"),
        ("train", {"dataset": "plays", "model": {"kind": "bias"}}, "no finished prepare run 'plays'"),
        ("tune", {"dataset": "plays", "model": {"kind": "bias"}, "space": {}}, "no finished prepare run 'plays'"),
        ("evaluate", {"model": "plays-als"}, "no finished train run 'plays-als'"),
        ("recommend", {"model": "plays-als"}, "no finished train run 'plays-als'"),
    ],
)
def test_a_stage_before_its_input_exists_says_what_to_run_first(
    run, spark, config_file, tmp_path, stage, settings, message
):
    code, _, err = run(stage, "--config", config_file({"lake": str(tmp_path / "lake"), **settings}))
    assert code == 1
    assert message in err
    assert "Run `sparkrec " in err
    assert "Traceback" not in err


@pytest.mark.spark
def test_dry_run_prints_settings_and_input_versions_and_writes_nothing(
    run, spark, lake, config_file, pipeline_settings
):
    raw = {"lake": lake.root, **pipeline_settings["ingest"][0]}
    code, out, _ = run("ingest", "--config", config_file(raw), "--dry-run", "max_rejected=0.2")
    assert code == 0
    printed = yaml.safe_load(out)
    assert printed["settings"]["max_rejected"] == 0.2
    assert printed["settings"]["max_abs_rating"] == 1e6
    assert printed["inputs"] == {"table": "interactions", "version": None}
    assert not lake.has_table("interactions")


def test_ctrl_c_within_a_finalizer_is_not_lost():
    program = """
import os, signal, time
from sparkrec.cli.signals import interruption

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

interruption.listen()
try:
    Finalized()
    time.sleep(10)
except KeyboardInterrupt:
    print("interrupted")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ended.stdout, ended.stderr) == ("interrupted\n", "")


def test_sigterm_ends_a_command_with_one_sentence_and_exit_code_143():
    program = """
import os, signal, sys, time
from sparkrec import cli

@cli.sparkrec.command()
def wait():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
    except KeyboardInterrupt:
        raise RuntimeError("Answer from Java side is empty") from None  # what a lost JVM may make of it

sys.argv = ["sparkrec", "wait"]
cli.main()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 143
    assert ended.stderr == "error: terminated. What was finished is kept; run the same command to go on.\n"


@pytest.mark.parametrize("goes_on_for", [0, 3])
def test_a_termination_that_a_library_swallows_ends_the_run_all_the_same(goes_on_for):
    """Raised again while it goes on; and where it came to its end, the code says that it was told to stop."""
    program = (
        "import os, signal, sys, time\n"
        "from sparkrec import cli\n"
        "cli.interruption.PATIENCE = 0.2\n"
        "@cli.sparkrec.command('swallow')\n"
        "def swallow():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(1)\n"
        "    except BaseException:\n"
        "        print('swallowed', flush=True)\n"
        f"    time.sleep({goes_on_for})\n"
        "    print('the end', flush=True)\n"
        "sys.argv = ['sparkrec', 'swallow']\n"
        "cli.main()\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 143
    assert "error: terminated. What was finished is kept" in ended.stderr
    assert ended.stdout.split("\n")[0] == "swallowed"
    assert ("the end" in ended.stdout) == (goes_on_for == 0)


@pytest.mark.parametrize(
    "program",
    [
        "import sparkrec; sparkrec.fit",
        "from sparkrec.cli import main; sys.argv[1:] = ['settings', 'als']; main()",
        "from sparkrec.cli import main; sys.argv[1:] = ['ingest', '--config', CONFIG]; main()",
    ],
)
def test_without_pyspark_a_sentence_says_how_to_get_it(config_file, program):
    config = config_file({"lake": "lake", "source": {"path": "a.csv", "format": "csv"}, "columns": {}})
    hidden = f"import sys; sys.modules['pyspark'] = None; CONFIG = {config!r}; {program}"
    ended = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "has no module 'pyspark'. On one machine: pip install 'sparkrec[spark]'" in ended.stderr
    assert ("Traceback" in ended.stderr) == (".fit" in program)
