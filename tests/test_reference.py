"""The reference of settings says all that can be set, and the schema takes what the stages take."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sparkrec import config, reference
from sparkrec.configfile import read_yaml
from sparkrec.errors import ConfigError

ROOT = Path(__file__).parents[1]


def test_the_page_of_settings_is_up_to_date():
    assert (ROOT / "docs/settings.md").read_text() == reference.page(), "run `make settings`"


def classes(base=config.Settings) -> Iterator[type[config.Settings]]:
    for each in base.__subclasses__():
        yield each
        yield from classes(each)


for kind in reference.KINDS:
    config.declaration(kind)  # so that the classes of all kinds are there


@pytest.mark.parametrize("each", sorted(set(classes()), key=lambda each: each.__name__), ids=lambda each: each.__name__)
def test_every_setting_has_a_meaning(each):
    assert [name for name, field in each.model_fields.items() if name != "kind" and not field.description] == []


def test_a_setting_is_told_with_its_key_type_default_and_meaning():
    by_key = {each.key: each for each in reference.sections("train")[0].settings}
    assert by_key["seed"][1:3] == ("integer", "default 0")
    assert by_key["spark.memory"].default == "default 4g"
    assert by_key["dataset"].default == "required"
    assert by_key["name"].type == "text or null"
    assert by_key["name"].meaning == "What to call it. null: `<dataset>-<kind>`."
    assert by_key["name"].summary == "What to call it."


def test_the_settings_of_a_network_come_with_those_of_its_training_and_its_own_defaults():
    page = reference.page("item2vec")
    assert "`training` (mapping, default {popularity_power: 0.75})" in page
    assert "- `learning_rate` (number above 0" in page


@pytest.mark.parametrize("name", [*reference.STAGES, *reference.KINDS])
def test_every_stage_and_kind_has_a_page(name):
    assert reference.page(name).startswith(f"## {name}\n")


def test_a_wrong_name_says_what_names_there_are():
    with pytest.raises(ConfigError, match=r"no settings 'sasrek'\. Stages are ingest, .*; models are .*sasrec"):
        reference.page("sasrek")
    with pytest.raises(ConfigError, match="no stage 'sasrec': expected one of ingest, prepare"):
        reference.json_schema("sasrec")


TYPES = {"string": str, "boolean": bool, "integer": int, "array": list, "object": dict, "null": type(None)}


def faults(value: Any, node: dict[str, Any], defs: dict[str, Any], at: str = "") -> list[str]:
    """What a schema, of those parts that ours is made of, has against a value."""
    if "$ref" in node:
        node = defs[node["$ref"].removeprefix("#/$defs/")]
    if missing := [key for key in node.get("required", ()) if isinstance(value, dict) and key not in value]:
        return [f"{at}: without {missing}"]
    for several in ("anyOf", "oneOf"):
        if several in node:
            found = [faults(value, each, defs, at) for each in node[several]]
            fits = sum(not each for each in found)
            if fits == 0 or (several == "oneOf" and fits > 1):
                return [f"{at}: {fits} of {several}: {found}"]
    if "const" in node and value != node["const"]:
        return [f"{at}: {value!r}"]
    if "enum" in node and value not in node["enum"]:
        return [f"{at}: {value!r}"]
    kind = node.get("type")
    right = isinstance(value, int | float) if kind == "number" else isinstance(value, TYPES.get(kind, object))
    if not right or (kind in ("number", "integer") and isinstance(value, bool)):
        return [f"{at}: {value!r} is no {kind}"]
    if kind == "string" and not re.search(node.get("pattern", ""), value):
        return [f"{at}: {value!r}"]
    if kind in ("number", "integer") and not (
        node.get("minimum", value) <= value <= node.get("maximum", value)
        and node.get("exclusiveMinimum", value - 1) < value < node.get("exclusiveMaximum", value + 1)
    ):
        return [f"{at}: {value!r}"]
    inner = []
    if kind == "array" and "items" in node:
        inner = [(each, node["items"], f"{at}.{n}") for n, each in enumerate(value)]
    elif kind == "object":
        properties, more = node.get("properties", {}), node.get("additionalProperties", True)
        if more is False and value.keys() - properties.keys():
            return [f"{at}: unknown {value.keys() - properties.keys()}"]
        rest = more if isinstance(more, dict) else {}
        inner = [(each, properties.get(key, rest), f"{at}.{key}") for key, each in value.items()]
    return [fault for each in inner for fault in faults(each[0], each[1], defs, each[2])]


def faults_of(stage, value):
    schema = json.loads(json.dumps(reference.json_schema(stage)))
    return faults(value, schema, schema["$defs"])


CONFIGS = {f"{path.parent.name}/{path.stem}": path for path in sorted((ROOT / "conf").glob("*/*.yaml"))}


@pytest.mark.parametrize("path", CONFIGS.values(), ids=CONFIGS)
def test_the_schema_takes_every_config(path):
    stage = "run" if path.parent.name == "pipeline" else path.parent.name
    assert faults_of(stage, read_yaml(path)) == []


@pytest.mark.parametrize(
    ("change", "at"),
    [
        ({"kind": "als", "rnk": 8}, "rnk"),
        ({"kind": "als", "rank": 0}, "rank"),
        ({"kind": "als", "solver": "lu"}, "solver"),
        ({"rank": 8}, "kind"),
        ({"kind": "mf", "training": {"epochs": "many"}}, "epochs"),
    ],
)
def test_the_schema_marks_what_the_stage_refuses(change, at):
    train = {"lake": "x", "dataset": "plays", "model": {"kind": "als", "rank": "${RANK:-8}"}}
    assert faults_of("train", train) == []
    assert at in str(faults_of("train", {**train, "model": change}))
    evaluate = {"lake": "x", "model": "plays-als", "protocol": {"kind": "sampled", "negatives": 5}}
    assert faults_of("evaluate", evaluate) == []
    assert "kind" in str(faults_of("evaluate", {**evaluate, "protocol": {"negatives": 5}}))
    run = {"lake": "x", "prepare": "a.yaml", "train": [{"model": {"kind": "als"}}]}
    assert faults_of("run", run) == []
    assert at in str(faults_of("run", {**run, "train": [{"model": change}]}))


def test_the_table_of_the_readme_is_what_the_kinds_declare():
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    assert reference.models_table() in readme, 'put reference.models_table() under "Models" of README.md'
