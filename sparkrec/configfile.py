"""From a YAML file and `key.sub=value` overrides to validated settings, with errors that name the key."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from sparkrec.config import Settings
from sparkrec.errors import ConfigError
from sparkrec.secrets import MASK, is_secret, masked

S = TypeVar("S", bound=Settings)


class _Loader(yaml.SafeLoader):
    """YAML 1.2 floats: PyYAML reads `1e-3` as a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, label: str) -> Any:
    """The value of a YAML text; `label` names it in the error."""
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        # Without the line itself, which may hold a secret.
        mark = error.problem_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{label} is not valid YAML: {error.problem}{where}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{label} is not valid YAML: {error}") from None


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}. Name a YAML file.") from None
    value = parse_yaml(text, str(path))
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds {type(value).__name__}, expected a mapping of settings.")
    return _with_environment(value, str(path))  # type: ignore[no-any-return]


def _with_environment(value: Any, label: str) -> Any:
    """`${NAME}` in a string becomes that environment variable: for paths that differ from machine to machine."""

    def variable(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise ConfigError(f"{label} needs the environment variable {match[1]}, which is not set. Export it.")
        return os.environ[match[1]]

    if isinstance(value, dict):
        return {key: _with_environment(each, label) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_environment(each, label) for each in value]
    return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", variable, value) if isinstance(value, str) else value


def override(raw: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """A copy of `raw` with each `key.sub=value` set; values are YAML, list entries go by number (`train.0.seed=1`)."""
    result: dict[str, Any] = json.loads(json.dumps(raw, default=str))
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise ConfigError(f"{assignment!r} is not an override: expected key.sub=value.")
        set_key(result, key, parse_yaml(text, key))
    return result


def set_key(raw: dict[str, Any], dotted: str, value: Any) -> None:
    """Set one dotted key in place; missing mappings on the way are made."""
    *parents, last = dotted.split(".")
    node: Any = raw
    for depth, part in enumerate(parents):
        node = _child(node, part, ".".join(parents[: depth + 1]))
    if isinstance(node, list):
        node[_index(node, last, dotted)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise ConfigError(f"{dotted}: {'.'.join(parents)} holds {_shown(dotted, node)}, which has no keys.")


def _child(node: Any, part: str, dotted: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, part, dotted)]
    if not isinstance(node, dict):
        raise ConfigError(f"{dotted}: there is no key {part!r} in {_shown(dotted, node)}.")
    if node.get(part) is None:
        node[part] = {}
    return node[part]


def _index(node: list[Any], part: str, dotted: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise ConfigError(f"{dotted}: {part!r} is not an entry of a list of {len(node)} (they count from 0).")
    return int(part)


def validate(settings_class: type[S], raw: Mapping[str, Any], label: str) -> S:
    """Settings from plain values.

    Raises ConfigError with a line for each key that is unknown, of the wrong type or out of range.
    """
    text = json.dumps(raw, default=str)
    if MASK in text:
        raise ConfigError(
            f"{label} holds {MASK} in place of a secret, as sparkrec writes it: set it, or name a variable, ${{NAME}}."
        )
    try:
        # Through JSON, whose strict mode takes a list where a tuple is meant.
        return settings_class.model_validate_json(text)
    except ValidationError as error:
        lines = [_explain(detail, raw) for detail in error.errors(include_url=False)]
        raise ConfigError(f"{label} has {len(lines)} wrong setting(s):\n  " + "\n  ".join(lines)) from None


def _explain(detail: Any, raw: Any) -> str:
    parts, node = [], raw
    for part in detail["loc"]:
        if isinstance(node, Mapping) and part == node.get("kind"):
            continue  # pydantic's name for the chosen variant, not a key of the file
        parts.append(str(part))
        node = node.get(part) if isinstance(node, Mapping) else None
    key = ".".join(parts) or "(top level)"
    if detail["type"] == "extra_forbidden":
        return f"{key}: unknown key. Remove it or correct its name."
    if detail["type"] == "missing":
        return f"{key}: required, but not set."
    return f"{key}: {detail['msg']}; found {_shown(key, detail['input'])}."


def _shown(key: str, value: Any) -> str:
    """A value for an error message."""
    return MASK if is_secret(key) else repr(masked(value))


def load(settings_class: type[S], path: str | Path | None, assignments: Sequence[str] = ()) -> S:
    """Settings of a stage from its YAML file and overrides."""
    raw = read_yaml(path) if path else {}
    return validate(settings_class, override(raw, assignments), str(path or "the command line"))
