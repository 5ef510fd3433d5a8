"""From a YAML file and `key.sub=value` overrides to validated settings, with errors that name the key."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import yaml
from pydantic import ValidationError

from sparkrec.config import Settings
from sparkrec.errors import ConfigError
from sparkrec.secrets import MASK, is_secret, masked

S = TypeVar("S", bound=Settings)
Place: TypeAlias = tuple[str | int, ...]
"""Keys and numbers of entries, from the top."""


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
    return value


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def with_environment(text: str, label: str) -> str:
    """A text in which `${NAME}` and `${NAME:-VALUE}` have become environment variables.

    Raises ConfigError for one that is not set and has no VALUE to stand for it.
    """

    def variable(match: re.Match[str]) -> str:
        name, default = match.groups()
        if not os.environ.get(name) and default is not None:
            return str(default)
        if name not in os.environ:
            raise ConfigError(
                f"{label} needs the environment variable {name}, which is not set. Export it, or write "
                f"${{{name}:-VALUE}} with what stands for it."
            )
        return os.environ[name]

    return _VARIABLE.sub(variable, text)


def _filled(value: Any, label: str, texts: dict[Place, str], at: Place = ()) -> Any:
    """A copy with environment variables filled in.

    A value that is one variable and nothing else is read as YAML: `texts` takes its text by its place.
    """
    if isinstance(value, Mapping):
        return {key: _filled(each, label, texts, (*at, key)) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, label, texts, (*at, number)) for number, each in enumerate(value)]
    if not isinstance(value, str) or not _VARIABLE.search(value):
        return value
    text = with_environment(value, label)
    if not _VARIABLE.fullmatch(value):
        return text
    texts[at] = text
    try:
        read = parse_yaml(text, label)
    except ConfigError:
        return text
    return read if isinstance(read, bool | int | float | list | dict) or text == "null" else text


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
    """Settings from plain values, in which `${NAME}` is an environment variable.

    Raises ConfigError with a line for each key that is unknown, of the wrong type or out of range.
    """
    if MASK in json.dumps(raw, default=str):
        raise ConfigError(
            f"{label} holds {MASK} in place of a secret, as sparkrec writes it: set it, or name a variable, ${{NAME}}."
        )
    texts: dict[Place, str] = {}
    values = {
        key: each if key in settings_class.validated_later else _filled(each, label, texts, (key,))
        for key, each in raw.items()
    }
    try:
        return _validated(settings_class, values)
    except ValidationError as error:
        wrong = error
    if _as_texts(values, texts, wrong):
        try:
            return _validated(settings_class, values)
        except ValidationError as error:
            wrong = error
    lines = [_explain(detail, values) for detail in wrong.errors(include_url=False)]
    raise ConfigError(f"{label} has {len(lines)} wrong setting(s):\n  " + "\n  ".join(lines)) from None


def _validated(settings_class: type[S], values: Mapping[str, Any]) -> S:
    # Through JSON, whose strict mode takes a list where a tuple is meant.
    return settings_class.model_validate_json(json.dumps(values, default=str))


def _as_texts(values: dict[str, Any], texts: Mapping[Place, str], wrong: ValidationError) -> bool:
    """Put back the text of each variable that was read as YAML where a setting takes text; whether there was any."""
    found = False
    for detail in wrong.errors(include_url=False):
        place = _place(detail["loc"], values)
        if detail["type"] == "string_type" and place in texts:
            node: Any = values
            for part in place[:-1]:
                node = node[part]
            found, node[place[-1]] = True, texts[place]
    return found


def _place(location: Place, values: Any) -> Place:
    """Where in plain values a location of pydantic is, which also names variants that it has chosen."""
    place: list[Any] = []
    for part in location:
        keys = values if isinstance(values, Mapping) else range(len(values)) if isinstance(values, list) else ()
        if part in keys:
            values = values[part]
            place.append(part)
    return tuple(place)


def _explain(detail: Any, raw: Any) -> str:
    parts, node = [], raw
    for part in detail["loc"]:
        if isinstance(node, Mapping) and part == node.get("kind"):
            continue  # pydantic's name for the chosen variant, not a key of the file
        if isinstance(part, str) and part.startswith("("):
            continue  # ours
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
