"""A session that is opened here has the S3A that fits its Spark, and is told what AWS's variables say."""

import pytest

from sparkrec.spark.platform import hadoop_aws, s3


@pytest.fixture(autouse=True)
def variables(monkeypatch):
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch.setenv


def told(given=None):
    return {
        name.removeprefix("spark.hadoop.fs.s3a."): value
        for name, value in hadoop_aws.settings(given or {}).items()
        if name not in hadoop_aws._PATIENCE
    }


@pytest.mark.parametrize(("hadoop", "sdk"), [("3.4.1", "2.24.6"), ("3.5.0", "2.35.4"), ("9.0.0", "2.35.4")])
def test_the_jars_follow_the_hadoop_of_spark(monkeypatch, hadoop, sdk):
    monkeypatch.setattr(hadoop_aws, "hadoop_version", lambda: hadoop)
    first, *others = hadoop_aws.coordinates()
    assert first == f"org.apache.hadoop:hadoop-aws:{hadoop}"
    assert {each.rpartition(":")[2] for each in others} == {sdk}


def test_this_spark_has_a_hadoop():
    assert hadoop_aws.hadoop_version().count(".") == 2


def test_an_endpoint_that_is_not_of_aws_has_paths_and_a_region(variables):
    assert told() == {"spark.hadoop.fs.s3.impl": hadoop_aws._IMPLEMENTATION}
    variables("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert told()["path.style.access"] == "true"
    assert told()["endpoint.region"] == "us-east-1"
    variables("AWS_ENDPOINT_URL_S3", "https://s3.eu-west-1.amazonaws.com")
    assert told()["endpoint"] == "https://s3.eu-west-1.amazonaws.com"
    assert "path.style.access" not in told()


def test_an_endpoint_that_is_given_goes_before_a_variable(variables):
    variables("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    variables("AWS_REGION", "eu-west-1")
    found = told({"spark.hadoop.fs.s3a.endpoint": "https://s3.amazonaws.com"})
    assert (found["endpoint"], found["endpoint.region"]) == ("https://s3.amazonaws.com", "eu-west-1")
    assert "path.style.access" not in found


def test_keys_that_are_given_do_not_take_the_token_of_a_variable():
    assert told({"spark.hadoop.fs.s3a.access.key": "a"})["session.token"] == ""


@pytest.mark.spark
def test_settings_of_a_session_are_read_wherever_they_are(spark):
    hadoop = spark.sparkContext._jsc.hadoopConfiguration()
    hadoop.set("fs.s3a.bucket.of-hadoop.endpoint", "http://one")
    spark.conf.set("fs.s3a.bucket.of-session.access.key", "two")
    spark.conf.set("fs.s3a.bucket.of-session.committer.name", "magic")
    try:
        found = s3.session_settings()
    finally:
        hadoop.unset("fs.s3a.bucket.of-hadoop.endpoint")
        spark.conf.unset("fs.s3a.bucket.of-session.access.key")
        spark.conf.unset("fs.s3a.bucket.of-session.committer.name")
    assert found["fs.s3a.bucket.of-hadoop.endpoint"] == "http://one"
    assert found["fs.s3a.bucket.of-session.access.key"] == "two"
    assert "fs.s3a.bucket.of-session.committer.name" not in found


@pytest.mark.spark
def test_keys_in_a_credential_provider_are_read(spark, tmp_path):
    hadoop = spark.sparkContext._jsc.hadoopConfiguration()
    hadoop.set("hadoop.security.credential.provider.path", f"localjceks://file{tmp_path}/keys.jceks")
    try:
        providers = spark._jvm.org.apache.hadoop.security.alias.CredentialProviderFactory.getProviders(hadoop)
        secret = spark.sparkContext._gateway.new_array(spark._jvm.char, 6)
        for at, letter in enumerate("secret"):
            secret[at] = letter
        providers.get(0).createCredentialEntry("fs.s3a.secret.key", secret)
        providers.get(0).flush()
        assert s3.session_settings()["fs.s3a.secret.key"] == "secret"
    finally:
        hadoop.unset("hadoop.security.credential.provider.path")


class _Session:
    """One whose settings are a mapping."""

    def __init__(self, **settings):
        self.conf, self._settings = self, settings

    def get(self, name, default=None):
        return self._settings.get(name.replace(".", "_"), default)


@pytest.mark.parametrize(
    ("lake", "settings", "warned"),
    [
        ("s3a://bucket/one", {}, True),
        ("s3://bucket/two", {"spark_delta_logStore_s3_impl": "io.delta.storage.S3SingleDriverLogStore"}, True),
        ("s3a://bucket/three", {"spark_delta_logStore_s3a_impl": "io.delta.storage.S3DynamoDBLogStore"}, False),
        ("s3a://bucket/four", {"spark_delta_logStore_class": "org.of.another.LogStore"}, False),
        ("gs://bucket/five", {}, False),
        ("lake", {}, False),
    ],
)
def test_two_writers_are_warned_of_where_delta_does_not_tell_them_apart(caplog, monkeypatch, lake, settings, warned):
    monkeypatch.delenv("DATABRICKS_RUNTIME_VERSION", raising=False)
    for _ in range(2):
        s3.warn_of_two_writers(_Session(**settings), lake)
    assert caplog.text.count("one may lose its rows") == warned


def test_databricks_tells_writers_apart(caplog, monkeypatch):
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
    s3.warn_of_two_writers(_Session(), "s3://bucket/of-databricks")
    assert not caplog.text
