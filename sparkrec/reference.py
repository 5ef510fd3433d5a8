"""The settings of stages and models as a page for people and as a JSON schema for editors, made from their classes."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import yaml

from sparkrec import config
from sparkrec.errors import ConfigError

Node: TypeAlias = dict[str, Any]
"""A part of a JSON schema."""

STAGES: dict[str, type[config.Settings]] = dict(config.STAGES)
KINDS = config.installed_kinds()
TRAINING = "training"
"""What all networks share has a section of its own."""
_SECTIONS = {*STAGES, *KINDS, TRAINING}
_WIDTH = 120
_PLURALS = {"integer": "integers", "number": "numbers", "mapping": "mappings", "list": "lists"}
_VARIABLE = {"type": "string", "pattern": r"^\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}$"}
_HEAD = """# Settings

What every stage and every model can be told. This page is what `sparkrec settings` prints; `sparkrec settings NAME`
prints one stage or kind of model, `sparkrec settings --json-schema STAGE` a schema that editors complete from.
Made from the classes of settings in `sparkrec/config/` and beside each model: change a setting there, then
`make settings`.
[configuration.md](configuration.md) says how files, overrides and environment variables come together.

A key with dots is a mapping in a mapping: `split.kind` of `split: {kind: time}`. What is required within a mapping that
may be null is required once the mapping is there.
"""


class Setting(NamedTuple):
    """One setting, for people."""

    key: str
    type: str
    default: str
    meaning: str

    @property
    def facts(self) -> str:
        """Type and default."""
        return f"{self.type}, {self.default}"

    @property
    def summary(self) -> str:
        """The first sentence of the meaning."""
        return self.meaning.split(". ")[0].rstrip(".") + "."


class Section(NamedTuple):
    """The settings of one class, those of mappings in it with dotted keys."""

    title: str
    summary: str
    settings: list[Setting]


def page(name: str | None = None) -> str:
    """Markdown of a stage, a kind of model or `training`; of all of them if no name is given.

    Raises ConfigError for another name.
    """
    if name is not None:
        trained = name in KINDS and "training" in config.declaration(name).settings.model_fields
        names = [name, TRAINING] if trained else [name]
        return "\n".join(_markdown(each) for name in names for each in sections(name))
    parts = [_HEAD, "# Stages\n", *map(_markdown, _once(STAGES)), "# Models\n", *map(_markdown, _once(KINDS))]
    return "\n".join([*parts, "# Training of networks\n", *map(_markdown, sections(TRAINING))])


def _once(names: Iterable[str]) -> Iterator[Section]:
    """The sections of all names, each where it comes first."""
    known: set[str] = set()
    for each in (section for name in names for section in sections(name)):
        if each.title not in known:
            known.add(each.title)
            yield each


def models_table() -> str:
    """Markdown: every kind of model, what it is, what it learns from, and what fits it."""
    rows = ["| kind | what it is | learns from | fitted by |", "|---|---|---|---|"]
    for kind in KINDS:
        declared = config.declaration(kind)
        what = re.split(r"(?<! al)\. ", " ".join((declared.settings.__doc__ or "").split()))[0].rstrip(".")
        rows.append(f"| `{kind}` | {what} | {', '.join(declared.feedback)} | {'Spark' if declared.fit else 'torch'} |")
    return "\n".join(rows) + "\n"


def sections(name: str) -> list[Section]:
    """The settings of a stage, a kind of model or `training`, and of each variant that a key of it may have."""
    if name not in _SECTIONS:
        stages, kinds = ", ".join(STAGES), ", ".join(KINDS)
        raise ConfigError(f"there are no settings {name!r}. Stages are {stages}; models are {kinds}; and {TRAINING}.")
    with config.models_by_name():
        schema = _settings_class(name).model_json_schema()
    return list(_sections(name, schema, schema.get("$defs", {})))


def _settings_class(name: str) -> type[config.Settings]:
    if name in KINDS:
        return config.declaration(name).settings
    return STAGES.get(name, config.TrainingSettings)


def _sections(title: str, node: Node, defs: Node) -> Iterator[Section]:
    settings: list[Setting] = []
    variants: dict[tuple[str, str], list[str]] = {}
    """By class and kind, the keys that may be of it."""

    def add(node: Node, prefix: str) -> None:
        for name, each in node["properties"].items():
            if "const" in each:
                continue  # the kind, which is in the title
            key = prefix + name
            default = f"default {_default(each, defs)}" if "default" in each else "required"
            meaning = " ".join(each.get("description", "").split()).replace("None:", "null:")
            settings.append(Setting(key, _type(each, defs), default, meaning))
            for tag, reference in _references(each).items():
                if tag is None and _type(each, defs).startswith("mapping to"):
                    variants.setdefault((reference, "mapping"), []).append(key)
                elif tag is None and reference != config.TrainingSettings.__name__:
                    add(defs[reference], f"{key}.")
                elif tag is not None and tag not in KINDS:
                    variants.setdefault((reference, f"kind {tag}"), []).append(key)

    add(node, "")
    yield Section(title, " ".join(node.get("description", "").split()), settings)
    for (reference, kind), keys in variants.items():
        yield from _sections(f"{', '.join(keys)}: {kind}", defs[reference], defs)


def _references(node: Node) -> dict[str | None, str]:
    """The classes that a value may be of: by kind, or one by None."""
    if "discriminator" in node:
        return {tag: path.rpartition("/")[2] for tag, path in node["discriminator"]["mapping"].items()}
    if "$ref" in node:
        return {None: node["$ref"].rpartition("/")[2]}
    inner = [*_alternatives(node), *(node[key] for key in ("items", "additionalProperties") if key in node)]
    return {tag: name for each in inner if isinstance(each, dict) for tag, name in _references(each).items()}


def _alternatives(node: Node) -> list[Node]:
    """What a value may be one of, where its kind does not say which: that is `_references`' to tell."""
    found: list[Node] = node.get("anyOf") or ([] if "discriminator" in node else node.get("oneOf", []))
    return found


def _type(node: Node, defs: Node) -> str:
    if "discriminator" in node:
        kinds = [tag for tag, _ in sorted(node["discriminator"]["mapping"].items())]
        return f"mapping of kind {_either(kinds)}" if len(kinds) < 10 else "mapping of a model's kind and settings"
    if "$ref" in node:
        return "mapping"
    if alternatives := _alternatives(node):
        types = list(dict.fromkeys(_type(each, defs) for each in alternatives))
        rest = [each for each in types if each != "null"]
        null = (", or null" if len(rest) > 1 else " or null") if len(rest) < len(types) else ""
        return _either(rest) + null
    if "enum" in node:
        return _either(node["enum"])
    kind: str = node.get("type", "anything")
    if kind == "array":
        n = f"{node['maxItems']} " if node.get("maxItems") == node.get("minItems", -1) else ""
        first, *rest = _type(node.get("items") or node["prefixItems"][0], defs).split(" ")
        return f"list of {n}{' '.join([_PLURALS.get(first, first), *rest])}"
    if kind == "object":
        inner = node.get("additionalProperties")
        return f"mapping to {_type(inner, defs)}" if isinstance(inner, dict) else "mapping"
    names = {"string": "text", "boolean": "true or false"}
    limits = {"minimum": "from {}", "exclusiveMinimum": "above {}", "maximum": "to {}", "exclusiveMaximum": "below {}"}
    bounds = (limits[key].format(_number(node[key])) for key in limits if key in node)
    return " ".join([names.get(kind, str(kind)), *bounds])


def _number(value: float) -> float:
    """Pydantic has one bound as 0 or as 0.0, by its version."""
    return int(value) if value == int(value) else value


def _either(names: list[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _default(node: Node, defs: Node) -> str:
    """The default as YAML; of a mapping, what is not as its class has it."""
    value = node["default"]
    if isinstance(value, dict) and (classes := _references(node)):
        properties = defs[classes.get(value.get("kind")) or classes[None]]["properties"]
        value = {
            key: each
            for key, each in value.items()
            if "const" in properties[key] or each != properties[key].get("default")
        }
        if not value:
            return "as below"
    return yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).splitlines()[0]


def _markdown(section: Section) -> str:
    heading = "##" if section.title in _SECTIONS else "###"
    lines = [f"{heading} {section.title}", "", *textwrap.wrap(section.summary, _WIDTH), ""]
    for each in section.settings:
        text = f"- `{each.key}` ({each.facts}): {each.meaning}"
        lines += textwrap.wrap(text, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines) + "\n"


def json_schema(stage: str) -> Node:
    """A JSON schema of the config files of a stage. Raises ConfigError for another name."""
    if stage not in STAGES:
        raise ConfigError(f"there is no stage {stage!r}: expected one of {', '.join(STAGES)}.")
    schema = STAGES[stage].model_json_schema()
    defs: Node = schema.setdefault("$defs", {})
    if stage == "run":
        for name in STAGES.keys() & schema["properties"].keys():
            entry = STAGES[name].model_json_schema()
            defs.update(entry.pop("$defs", {}))
            for filled in ("lake", "spark"):
                entry["properties"].pop(filled)
            entry["required"] = [key for key in entry["required"] if key not in ("lake", *_FILLED.get(name, ()))]
            defs[f"{name} entry"] = entry
            _replace_free_mappings(schema["properties"][name], {"$ref": f"#/$defs/{name} entry"})
    for each in (schema, *defs.values()):
        _let_variables(each)
    defs["Variable"] = _VARIABLE
    return schema


_FILLED = {"train": ("dataset",), "evaluate": ("model",), "recommend": ("model",)}
"""What the pipeline knows, so that an entry need not say it."""


def _replace_free_mappings(node: Any, entry: Node) -> None:
    for key, each in node.items() if isinstance(node, dict) else enumerate(node):
        if _is_free_mapping(each):
            node[key] = entry
        elif isinstance(each, dict | list):
            _replace_free_mappings(each, entry)
    if _is_free_mapping(node):
        node.clear()
        node.update(entry)


def _is_free_mapping(node: Any) -> bool:
    """Any keys with any values: what Pydantic before 2.11 says by leaving `additionalProperties` out."""
    if not isinstance(node, dict) or node.get("type") != "object" or "properties" in node:
        return False
    return node.get("additionalProperties", True) is True


def _let_variables(node: Node) -> None:
    """Let `${NAME}` stand for every value that is no mapping, and require the kind where there are several."""
    for name, each in node.get("properties", {}).items():
        variants = [variant for variant in (each, *_alternatives(each), each.get("items", {})) if variant]
        for variant in variants:
            if "discriminator" in variant:
                variant["required"] = ["kind"]
        if {"const", "$ref", "discriminator"} & each.keys() or each.get("type") == "object":
            continue
        about = {key: each.pop(key) for key in ("title", "description", "default") if key in each}
        node["properties"][name] = {**about, "anyOf": [*(_alternatives(each) or [each]), {"$ref": "#/$defs/Variable"}]}
