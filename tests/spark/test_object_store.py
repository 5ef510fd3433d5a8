"""A pipeline on an object store, killed and run again, ends as on a disk, and what is refused is one sentence."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("moto.server", reason="the object store is moto's")
pytest.importorskip("torch", reason="one of the models is a network")

from sparkrec import cli
from sparkrec.config import SourceSettings
from sparkrec.errors import EnvironmentMismatch, InputError
from sparkrec.spark.platform import hadoop_aws
from sparkrec.spark.platform.quick_start import known_jars
from sparkrec.spark.platform.sources import read_source
from tests.pipeline.processes import command, kill_when
from tests.spark.object_store import PERMANENT, TEMPORARY, serving

pytestmark = [pytest.mark.spark, pytest.mark.slow]

_OPEN = "from sparkrec import session; session(s3=True).range(1).count()"


@pytest.fixture(scope="module")
def environment():
    """Variables of a process that has none of AWS's and reaches loopback without a proxy."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}


@pytest.fixture(scope="module")
def jars(environment):
    """Skips unless there are the jars of S3A, which the first session asks Maven for."""
    if known_jars(hadoop_aws.coordinates()[0]) is None:
        asked = subprocess.run([sys.executable, "-c", _OPEN], env=environment, capture_output=True, text=True)
        if asked.returncode:
            pytest.skip(f"Maven does not give the jars of S3A: {asked.stderr[-300:]}")


@pytest.fixture(scope="module")
def store(jars):
    with serving("bucket", "readonly") as (endpoint, client):
        yield endpoint, client


@pytest.fixture(scope="module")
def config(tmp_path_factory, pipeline_settings):
    """A pipeline in which a model is long enough in the making to be killed."""
    import yaml

    als, popularity = pipeline_settings["train"]
    als = {"model": {**als["model"], "iterations": 40, "snapshot_every": 1}}
    path = tmp_path_factory.mktemp("s3") / "pipeline.yaml"
    path.write_text(yaml.safe_dump({**pipeline_settings, "train": [als, popularity], "lake": "s3a://bucket/lake"}))
    return str(path)


def names(client, end=""):
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="bucket")
    return [each["Key"] for page in pages for each in page.get("Contents", []) if each["Key"].endswith(end)]


@pytest.fixture(scope="module")
def completed(store, config, environment):
    """A run by temporary credentials of the environment that was killed, and what the next one said."""
    endpoint, client = store
    access, secret, token = TEMPORARY
    variables = {
        "AWS_ACCESS_KEY_ID": access,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_SESSION_TOKEN": token,
        "AWS_ENDPOINT_URL": endpoint,
    }
    arguments = command("run", "--config", config)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        kill_when(arguments, lambda: len(names(client, "/manifest.json")) >= 5)
        left = names(client)
        done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return left, done


@pytest.fixture(scope="module")
def said(store, completed, config, environment, tmp_path_factory):
    """What `tests.spark.on_s3` says, whose session has permanent credentials in its settings alone."""
    endpoint, _ = store
    access, secret, _ = PERMANENT
    conf = {
        "spark.hadoop.fs.s3a.access.key": access,
        "spark.hadoop.fs.s3a.secret.key": secret,
        "spark.hadoop.fs.s3a.endpoint": endpoint,
        "spark.hadoop.fs.s3a.bucket.closed.endpoint": "http://127.0.0.1:9",
    }
    local = str(tmp_path_factory.mktemp("twin") / "lake")
    asked = json.dumps({"conf": conf, "config": config, "bucket": "bucket", "local": local})
    done = subprocess.run(
        [sys.executable, "-m", "tests.spark.on_s3", asked], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_pipeline_that_was_killed_goes_on_in_its_bucket(completed):
    left, done = completed
    assert any("/iteration-" in name for name in left)
    assert not any(name.startswith("recommend") for name in left)
    assert "resuming after iteration" in done.stderr


def test_it_recommends_what_one_on_a_disk_does(said):
    assert len(said["there"]) > 100
    assert said["there"] == said["here"]


def test_tasks_and_processes_of_a_training_reach_the_bucket_by_settings_of_the_session(said, store):
    _, client = store
    folder = said["network"].removeprefix("s3a://bucket/")
    assert f"{folder}/manifest.json" in names(client)


def test_a_bucket_is_the_same_by_either_scheme(said):
    assert said["other scheme"] >= 0


@pytest.mark.parametrize(
    ("bucket", "told"),
    [
        ("nowhere", "there is no bucket 'nowhere' at http://127.0.0.1:"),
        ("readonly", " denies access to s3a://readonly/lake"),
        ("expired", "the temporary credentials for s3a://expired/lake"),
        ("closed", "cannot reach http://127.0.0.1:9 for s3a://closed/lake"),
    ],
)
def test_a_refusal_is_one_sentence_soon(said, bucket, told):
    for way, (sentence, seconds) in said[bucket].items():
        if (bucket, way) == ("readonly", "by Spark, reading"):  # which it may, and finds nothing
            assert "there is no such file or folder" in sentence
            continue
        assert told in sentence, way
        for trace in ("\tat ", "Exception", "\n"):
            assert trace not in sentence
        assert seconds < 60


def test_two_writers_are_warned_of_once(completed):
    _, done = completed  # which appends to several tables
    [warning] = [
        line for line in done.stderr.splitlines() if "two jobs that append to one table of s3a://bucket" in line
    ]
    assert "spark.delta.logStore.s3a.impl" in warning


def test_no_secret_is_in_the_store_or_in_what_is_said(completed, said, store):
    _, client = store
    _, done = completed
    secrets = [PERMANENT[1], *TEMPORARY[1:]]
    texts = [done.stdout, done.stderr, json.dumps(said)]
    kept = [client.get_object(Bucket="bucket", Key=name)["Body"] for name in names(client, ".json")]
    texts += [body.read().decode() for body in kept]
    for text in texts:
        assert not any(secret in text for secret in secrets)


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_the_command_line_says_that_a_bucket_is_not_there(spark, store, config, monkeypatch, more):
    endpoint, _ = store
    access, secret, _ = PERMANENT
    variables = {"AWS_ACCESS_KEY_ID": access, "AWS_SECRET_ACCESS_KEY": secret, "AWS_ENDPOINT_URL": endpoint}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cli.interruption, "listen", lambda: None)
    with pytest.raises(InputError, match=f"^there is no bucket 'nowhere' at {endpoint}. Create it"):
        cli.sparkrec.main(["run", "--config", config, *more, "lake=s3a://nowhere/lake"], standalone_mode=False)


@pytest.mark.parametrize(
    ("scheme", "told"), [("s3a", "the Spark session has no S3A"), ("s3", "Write s3a:// in place of")]
)
def test_a_session_without_s3a_is_told_how_to_get_it(spark, scheme, told):
    with pytest.raises(EnvironmentMismatch, match=told):
        read_source(spark, SourceSettings(path=f"{scheme}://bucket/events.csv", format="csv"))
