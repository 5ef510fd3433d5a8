"""The wheel beside a Spark that is there: it stays, and so do the packages that came with it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
OF_RUNTIME = ["pyspark==4.0.1", "pandas==2.2.3", "numpy==2.1.3", "pyarrow==19.0.1"]
"""As a runtime brings them: older than the newest, newer than the lowest."""


def pip(python, *arguments):
    command = [python, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_wheel_changes_nothing_of_a_runtime(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "runtime"], check=True)
    python = tmp_path / "runtime" / "bin" / "python"
    if (found := pip(python, "install", "--quiet", *OF_RUNTIME)).returncode:
        pytest.skip(f"no runtime could be made: {found.stderr.strip()[-200:]}")
    source = tmp_path / "source"  # where building may leave what it leaves
    source.mkdir()
    archived = subprocess.run(["git", "-C", ROOT, "archive", "HEAD"], check=True, capture_output=True)
    subprocess.run(["tar", "x", "-C", source], input=archived.stdout, check=True)
    built = pip(sys.executable, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path, source)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("sparkrec-*.whl")
    installed = pip(python, "install", "--quiet", wheel)
    assert installed.returncode == 0, installed.stderr
    there = {each["name"]: each["version"] for each in json.loads(pip(python, "list", "--format", "json").stdout)}
    for name, _, version in (each.partition("==") for each in OF_RUNTIME):
        assert there[name] == version
    assert "delta-spark" not in there
    checked = pip(python, "check")
    assert checked.returncode == 0, checked.stdout
    code = "import sparkrec; from sparkrec import ALS, evaluate, fit, session; print(sparkrec.__version__)"
    ran = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ran.returncode == 0, ran.stderr
