"""How Python reaches an object store follows from what Spark is told, then from AWS's variables."""

import pyarrow.fs as pafs
import pytest

from sparkrec import object_stores, storage
from sparkrec.errors import InputError

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def session(monkeypatch):
    """Name the settings of a session; there are no variables of AWS."""
    for name in object_stores._VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name in ("_ask", "_answer", "_handed"):
        monkeypatch.setattr(object_stores, name, getattr(object_stores, name))
    object_stores.be_told(None)

    def told(**settings):
        object_stores.ask(lambda: {f"fs.s3a.{name.replace('__', '.')}": value for name, value in settings.items()})

    told()
    return told


def test_a_setting_of_the_session_goes_before_a_variable(session, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://variable:9000/")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    access = object_stores._access("bucket")
    assert (access.endpoint, access.region) == ("http://variable:9000", "eu-west-1")
    session(endpoint="http://setting:9000", endpoint__region="eu-north-1")
    access = object_stores._access("bucket")
    assert (access.endpoint, access.region) == ("http://setting:9000", "eu-north-1")


def test_of_two_variables_the_narrower_one_holds(session, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://of-s3")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://of-all")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    access = object_stores._access("bucket")
    assert (access.endpoint, access.region) == ("http://of-s3", "eu-west-1")


def test_keys_of_a_session_do_not_take_the_token_of_a_variable(session, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "temporary")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    session(endpoint=NOBODY)
    access = object_stores._access("bucket")
    assert (access.access_key, access.secret_key, access.session_token) == ("temporary", "secret", "token")
    session(endpoint=NOBODY, access__key="permanent", secret__key="other")
    access = object_stores._access("bucket")
    assert (access.access_key, access.secret_key, access.session_token) == ("permanent", "other", None)


def test_a_bucket_may_have_settings_of_its_own(session):
    session(
        endpoint="http://of-all", endpoint__region="r", access__key="a", secret__key="s", session__token="t",
        bucket__one__endpoint="http://of-one", bucket__one__access__key="b", bucket__one__session__token="",
    )  # fmt: skip
    one, other = map(object_stores._access, ("one", "other"))
    assert (one.endpoint, one.access_key, one.secret_key, one.session_token) == ("http://of-one", "b", "s", None)
    assert (other.endpoint, other.access_key, other.session_token) == ("http://of-all", "a", "t")


@pytest.mark.parametrize(
    ("endpoint", "region"),
    [
        ("s3.eu-central-1.amazonaws.com", "eu-central-1"),
        ("https://s3-us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("https://minio.example.com", "us-east-1"),
    ],
)
def test_an_endpoint_tells_its_region(session, endpoint, region):
    session(endpoint=endpoint)
    assert object_stores._access("bucket").region == region


@pytest.mark.parametrize(
    ("endpoint", "style", "is_virtual"),
    [
        ("http://store.example.com", "false", True),
        ("http://store.example.com", "true", False),
        ("http://store.example.com", None, False),
        ("http://10.0.0.1:9000", "false", False),
        ("10.0.0.1:9000", "false", False),
        (None, "false", False),
    ],
)
def test_a_bucket_is_named_in_the_host_where_spark_does_that(session, endpoint, style, is_virtual):
    given = {"endpoint": endpoint, "path__style__access": style, "endpoint__region": "r"}
    session(**{name: value for name, value in given.items() if value})
    assert object_stores._access("bucket").is_virtual == is_virtual


def test_an_endpoint_without_a_scheme_is_encrypted_as_spark_has_it(session):
    session(endpoint="10.0.0.1:9000")
    assert object_stores._access("bucket").is_encrypted
    session(endpoint="10.0.0.1:9000", connection__ssl__enabled="false")
    assert not object_stores._access("bucket").is_encrypted


def test_what_reaches_a_store_does_not_show_its_secrets(session):
    session(endpoint=NOBODY, access__key="KEY", secret__key="SECRET", session__token="TOKEN")
    shown = repr(object_stores._access("bucket"))
    assert not any(secret in shown for secret in ("KEY", "SECRET", "TOKEN"))


def test_processes_are_told_what_the_session_and_the_variables_say(session, monkeypatch):
    monkeypatch.setattr(object_stores, "_filesystem", object_stores._filesystem.__wrapped__)
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    session(access__key="a", secret__key="s")
    object_stores.be_told(handed := object_stores._settings())
    monkeypatch.delenv("AWS_REGION")
    session()
    assert object_stores.told() == handed
    access = object_stores._access("bucket")
    assert (access.access_key, access.secret_key, access.region) == ("a", "s", "eu-west-1")


def test_nothing_is_handed_on_where_no_store_was_used(session):
    object_stores._filesystem.cache_clear()
    session(access__key="a", secret__key="s")
    assert object_stores.told() is None


def test_settings_that_name_a_store_are_found_at_any_depth():
    assert object_stores.mentioned({"lake": "lake", "ingest": [{"source": {"path": "s3a://bucket/events"}}]})
    assert not object_stores.mentioned({"lake": "lake", "ingest": [{"source": {"path": "events"}}], "k": 3})


def test_a_store_that_is_not_there_is_one_sentence(session):
    session(endpoint=NOBODY, access__key="a", secret__key="s")
    with pytest.raises(InputError, match=f"^cannot reach {NOBODY} for s3://bucket/lake/a.json. Correct AWS_ENDPOINT"):
        storage.write("s3://bucket/lake/a.json", b"{}")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "org.apache.hadoop.fs.s3a.UnknownStoreException: `s3a://bucket/a': getFileStatus on s3a://bucket/a: "
            "software.amazon.awssdk.services.s3.model.NoSuchBucketException: The specified bucket does not exist",
            f"there is no bucket 'bucket' at {NOBODY}. Create it, or correct s3a://bucket/a.",
        ),
        (
            "java.nio.file.AccessDeniedException: s3a://bucket/a: getFileStatus on s3a://bucket/a: "
            "software.amazon.awssdk.services.s3.model.S3Exception: (Service: S3, Status Code: 403):AccessDenied",
            f"{NOBODY} denies access to s3a://bucket/a (getFileStatus). Whoever works on a lake needs s3:ListBucket on",
        ),
        (
            "NoAwsCredentialsException: s3a://bucket/a: No AWS Credentials provided by TemporaryAWSCredentialsProvider",
            "there are no credentials for s3a://bucket/a. Set AWS_ACCESS_KEY_ID, ",
        ),
    ],
)
def test_what_spark_says_is_one_sentence(session, text, sentence):
    session(endpoint=NOBODY, access__key="a", secret__key="s")
    assert object_stores.explained(text).startswith(sentence)


@pytest.mark.parametrize("text", ["AccessDeniedException: /lake/a", "s3a://bucket/a is not a Delta table"])
def test_what_is_not_of_a_store_is_left(session, text):
    assert object_stores.explained(text) is None


@pytest.mark.parametrize(
    ("path", "name"),
    [("dbfs:/Volumes/main/shop/runs", "/Volumes/main/shop/runs"), ("dbfs:/shop/runs", "/dbfs/shop/runs")],
)
def test_files_of_databricks_are_where_it_shows_them_to_python(path, name):
    assert storage.resolve(path) == (pafs.LocalFileSystem(), name)
