"""Secrets stay in the process: whatever leaves it (output, errors, logs, manifests, reports, MLflow) is masked here."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")

MASK = "*********(redacted)"
"""What Spark writes in place of a secret."""

_NAMES = r"secret|password|passwd|token|access[._-]?key|account[._-]?key|api[._-]?key|private[._-]?key|credential"
_SECRET_KEY = re.compile(rf"(?i){_NAMES}|\bsas\b|passphrase|webhook")
"""Spark's `spark.redaction.regex` (secret, password, token, access key), what else object stores and databases call
their secrets, and addresses to which whoever knows them may post."""
_USER_INFO = re.compile(r"(?<=://)([^/\s:@]*):[^/\s@]+@")
"""`user:password@` of a URL."""
_PARAMETER = re.compile(rf"(?i)([?&;](?:[\w.-]*(?:{_NAMES})[\w.-]*|pwd|sig|signature|x-amz-signature)=)[^&;\s'\"]+")
"""A parameter of a URL: of JDBC, or of a signed link."""


def is_secret(key: str) -> bool:
    """Whether a setting of that name looks secret."""
    return bool(_SECRET_KEY.search(key))


def masked(value: T) -> T:
    """The same value, with every text masked that stands under a key that looks secret, at any depth, and every
    password in a URL."""
    return _masked(value, secret=False)  # type: ignore[no-any-return]


def _masked(value: Any, secret: bool) -> Any:
    if isinstance(value, Mapping):
        return {key: _masked(each, secret or is_secret(str(key))) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_masked(each, secret) for each in value)
    if not isinstance(value, str):
        return value
    if secret:
        return MASK
    return _PARAMETER.sub(rf"\1{MASK}", _USER_INFO.sub(rf"\1:{MASK}@", value))


class MaskingFormatter(logging.Formatter):
    """A formatter whose lines hold no password of a URL."""

    def format(self, record: logging.LogRecord) -> str:
        return masked(super().format(record))
