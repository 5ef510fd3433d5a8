"""A session over Spark Connect, in a process of its own: a process has sessions of one kind or the other."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.conftest import QUICK_JVM

HEAD = """
import json, sys
from tests.connecting import connect, say

given = json.loads(sys.argv[1])
spark = connect()
"""
_SAID = "FOUND "


def connect():
    """Start a server in this process and connect to it, on a free port: the usual one may be that of another test."""
    from pyspark.sql import SparkSession
    from pyspark.sql.connect.client.core import DefaultChannelBuilder

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    DefaultChannelBuilder.default_port = staticmethod(lambda: port)
    builder = SparkSession.builder.remote("local[2]").config("spark.connect.grpc.binding.port", str(port))
    return builder.config("spark.sql.shuffle.partitions", 2).getOrCreate()


def say(value: Any) -> None:
    """What a script found, for the test that started it."""
    print(f"{_SAID}{json.dumps(value)}", flush=True)


def on_connect(script: str, given: Any, folder: Path, conf: dict[str, str], timeout: int) -> tuple[list[Any], str]:
    """Run a script that finds `spark` and `given`: (what it said, all that it wrote).

    Its output goes to a file, and its processes end with it: a server may outlive its client, and keep a pipe open.
    """
    of_server = " ".join(f"--conf '{name}={value}'" for name, value in {**QUICK_JVM, **conf}.items())
    variables = {
        "PYSPARK_SUBMIT_ARGS": f"{of_server} pyspark-shell",
        "PYSPARK_PYTHON": sys.executable,
        "SPARKREC_SCRATCH": str(folder / "scratch"),
    }
    log = folder / "connect.log"
    command = [sys.executable, "-c", HEAD + script, json.dumps(given)]
    with (
        log.open("wb") as out,
        subprocess.Popen(
            command, env={**os.environ, **variables}, stdout=out, stderr=out, start_new_session=True
        ) as process,
    ):
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    text = log.read_text(errors="replace")
    said = [json.loads(line.removeprefix(_SAID)) for line in text.splitlines() if line.startswith(_SAID)]
    assert code is not None, f"not done after {timeout} seconds\n{text[-4000:]}"
    assert said, f"exit status {code} of the script\n{text[-4000:]}"
    return said, text
