"""Secrets do not leave the process: not in output, errors, logs, manifests."""

import logging

import pytest

from sparkrec import config
from sparkrec.config import IngestSettings, PrepareSettings, Settings
from sparkrec.configfile import load, override, validate
from sparkrec.errors import ConfigError, InputError
from sparkrec.secrets import MASK, MaskingFormatter, is_secret, masked


@pytest.mark.parametrize(
    "key",
    [
        "spark.hadoop.fs.s3a.secret.key",
        "spark.hadoop.fs.s3a.access.key",
        "fs.azure.account.key.shop.dfs.core.windows.net",
        "fs.azure.sas.fixed.token",
        "PASSWORD",
        "credentialsFile",
        "api_key",
    ],
)
def test_what_stands_under_a_key_that_looks_secret_is_masked_at_any_depth(key):
    assert masked({"source": [{"options": {key: "hunter2", "header": "true"}}]}) == {
        "source": [{"options": {key: MASK, "header": "true"}}]
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("hdfs://ann:hunter2@host/lake", f"hdfs://ann:{MASK}@host/lake"),
        ("abfss://events@shop.dfs.core.windows.net/log", "abfss://events@shop.dfs.core.windows.net/log"),
        ("jdbc:postgresql://db/shop?user=ann&password=hunter2&ssl=true",
         f"jdbc:postgresql://db/shop?user=ann&password={MASK}&ssl=true"),
        ("https://shop/log?sv=2024&sig=hunter2", f"https://shop/log?sv=2024&sig={MASK}"),
        ("s3a://bucket/lake", "s3a://bucket/lake"),
    ],
)  # fmt: skip
def test_passwords_in_urls_are_masked(text, shown):
    assert masked(text) == shown
    assert str(InputError(f"cannot read {text} today")) == f"cannot read {shown} today"
    record = logging.LogRecord("sparkrec", logging.INFO, "here", 1, "reading %s", (text,), None)
    assert MaskingFormatter("%(message)s").format(record) == f"reading {shown}"


def test_no_setting_of_ours_looks_secret_but_the_one_that_is():
    classes = [each for each in vars(config).values() if isinstance(each, type) and issubclass(each, Settings)]
    assert len(classes) > 30
    assert [name for each in classes for name in each.model_fields if is_secret(name)] == ["webhook"]


def test_an_error_about_a_secret_does_not_tell_it():
    source = {"path": "log", "format": "csv", "options": {"password": 31337}}
    with pytest.raises(ConfigError, match="source.options.password: Input should be a valid string") as raised:
        validate(IngestSettings, {"lake": "lake", "source": source}, "config")
    assert "31337" not in str(raised.value)
    with pytest.raises(ConfigError, match=r"which has no keys|there is no key") as raised:
        override({"spark": {"conf": {"secret": "hunter2"}}}, ["spark.conf.secret.more.less=1"])
    assert "hunter2" not in str(raised.value)


def test_a_line_of_yaml_that_cannot_be_read_is_not_repeated(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("lake: lake\npassword: 'hunter2\n")
    with pytest.raises(ConfigError, match=r"is not valid YAML: .* in line \d+, column \d+") as raised:
        load(IngestSettings, path)
    assert "hunter2" not in str(raised.value)


def test_a_masked_secret_is_no_setting():
    source = {"path": "log", "format": "csv", "options": {"password": MASK}}
    with pytest.raises(ConfigError, match="in place of a secret"):
        validate(IngestSettings, {"lake": "lake", "source": source}, "config")


@pytest.mark.spark
def test_a_manifest_has_no_secret_and_names_the_same_run_with_another_password(lake):
    def settings(password):
        items = {
            "source": {"path": f"hdfs://ann:{password}@host/items", "format": "csv", "options": {"token": password}},
            "id": "item",
            "fields": [{"kind": "categorical", "column": "genre"}],
        }
        return validate(PrepareSettings, {"lake": lake.root, "dataset": "shop", "features": {"items": items}}, "test")

    run = lake.open_run("prepare", "shop", settings("hunter2"), {})
    run.publish(model={"options": {"secret": "hunter2"}})
    from sparkrec import storage

    text = storage.read(f"{run.path}/manifest.json").decode()
    assert "hunter2" not in text
    again = lake.open_run("prepare", "shop", settings("other"), {})
    assert again.id == run.id
    kept = PrepareSettings.model_validate({**again.manifest["settings"], "lake": lake.root})
    assert kept.features.items.source.options == {"token": MASK}
