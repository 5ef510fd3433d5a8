"""Object stores that speak S3, as Python reaches them: with the credentials and at the endpoint that Spark has.

Spark reads and writes a lake with its own client, S3A, and Python with that of pyarrow. What Spark is told by
`spark.hadoop.fs.s3a.*` holds for both, then AWS's variables; what neither says pyarrow finds where AWS's tools do, in
profiles and the identity of the machine. A process that has no session, be it a task of Spark or a part of a training,
is handed what the driver knows: `told` there, `be_told` here.
"""

from __future__ import annotations

import ipaddress
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pyarrow.fs as pafs

from sparkrec.errors import InputError

SECRETS = ("access.key", "secret.key", "session.token")
PARTS = (*SECRETS, "endpoint", "endpoint.region", "path.style.access", "connection.ssl.enabled")
"""Settings of S3A that Python heeds: `fs.s3a.PART`, and `fs.s3a.bucket.BUCKET.PART` for one bucket."""

_VARIABLES = {
    "AWS_ACCESS_KEY_ID": "access.key",
    "AWS_SECRET_ACCESS_KEY": "secret.key",
    "AWS_SESSION_TOKEN": "session.token",
    "AWS_ENDPOINT_URL": "endpoint",
    "AWS_ENDPOINT_URL_S3": "endpoint",
    "AWS_DEFAULT_REGION": "endpoint.region",
    "AWS_REGION": "endpoint.region",
}
"""Of two for one setting the second holds."""

_PATH = re.compile(r"s3a?://[^\s:,;`'\")]+")
_OF_AWS = re.compile(r"amazonaws\.com")
_REGION_OF_AWS = re.compile(r"\bs3[.-]([a-z]+-[a-z-]+-\d)\.amazonaws")
_WHAT = re.compile(r"during (\w+) operation|\b(\w+)(?:\(\))? on s3a?://")
_KINDS = {
    "missing": r"NoSuchBucket|NO_SUCH_BUCKET|UnknownStoreException|Bucket '[^']*' not found",
    "expired": r"ExpiredToken|EXPIRED_TOKEN|REQUEST_EXPIRED|token has expired|token.{0,40}is expired",
    "unknown": r"InvalidAccessKeyId|INVALID_ACCESS_KEY_ID|SignatureDoesNotMatch|SIGNATURE_DOES_NOT_MATCH|InvalidToken|"
    r"INVALID_CLIENT_TOKEN_ID|InvalidClientTokenId|INVALID_SIGNATURE",
    "none": r"NoAwsCredentialsException|No AWS Credentials|Unable to load credentials",
    "denied": r"AccessDenied|ACCESS_DENIED|Access Denied|Status Code: 403",
    "unreachable": r"NETWORK_CONNECTION|ConnectException|UnknownHostException|NoRouteToHost|SocketTimeoutException|"
    r"Unable to execute HTTP request",
    "refused": r"HTTP status 400|Status Code: 400|AWSBadRequestException",
}
"""What clients say, in Java and in C++, by the kind of failure; the first that is found holds."""
_MUTE, _HIDDEN = ("denied", "refused"), ("missing", "expired", "unknown")
"""A store answers the question for one object with a number alone: what looks like the former may be the latter."""

_ask: Callable[[], Mapping[str, str]] = dict
_answer: tuple[float, Mapping[str, str]] | None = None
"""When the session was asked, and what it said."""
_SECONDS = 10.0
"""For so long an answer holds: to ask takes as long as a request to a store."""
_handed: dict[str, str] | None = None


class Place(NamedTuple):
    """A bucket, and a name in it."""

    bucket: str
    key: str

    @property
    def name(self) -> str:
        """As pyarrow knows it."""
        return f"{self.bucket}/{self.key}" if self.key else self.bucket


@dataclass(frozen=True)
class Access:
    """How a bucket is reached. Nothing of it that is secret is shown."""

    endpoint: str | None
    """None: AWS."""
    region: str | None
    """None: that of the bucket."""
    is_encrypted: bool
    is_virtual: bool
    """Whether the bucket is a part of the host's name, at an endpoint that is not AWS."""
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)


def is_s3(path: str) -> bool:
    """Whether a path is in an object store that speaks S3."""
    return path.startswith(("s3://", "s3a://"))


def mentioned(settings: Any) -> bool:
    """Whether plain settings name a path in such a store, at any depth."""
    if isinstance(settings, Mapping):
        return any(map(mentioned, settings.values()))
    if isinstance(settings, list | tuple):
        return any(map(mentioned, settings))
    return isinstance(settings, str) and is_s3(settings)


def ask(source: Callable[[], Mapping[str, str]]) -> None:
    """Name what tells the settings `fs.s3a.*` of this process's session; none where there is no session."""
    global _ask, _answer
    _ask, _answer = source, None


def told() -> dict[str, str] | None:
    """What to hand to a process that has no session: the settings, secrets included. None as long as this process has
    not come near such a store."""
    return _settings() if _handed is not None or _filesystem.cache_info().currsize else None


def be_told(settings: dict[str, str] | None) -> None:
    """Take what `told` said in the process that started this one."""
    global _handed
    _handed = settings


def _settings() -> dict[str, str]:
    """What is known: from the session, and from AWS's variables where it says nothing."""
    if _handed is not None:
        return _handed
    said, variables = _said(), dict(_VARIABLES)
    if said.get("fs.s3a.access.key"):  # keys of two sources do not go together
        variables = {name: part for name, part in variables.items() if part not in SECRETS}
    known = {f"fs.s3a.{part}": os.environ[name] for name, part in variables.items() if os.environ.get(name)}
    return known | {name: value for name, value in said.items() if value or name.startswith("fs.s3a.bucket.")}


def _said() -> Mapping[str, str]:
    global _answer
    now = time.monotonic()
    if _answer is None or now - _answer[0] > _SECONDS:
        _answer = now, _ask()
    return _answer[1]


def opened(path: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem of a path in such a store, and the name by which it knows the file."""
    place = _place(path)
    return _filesystem(_access(place.bucket)), place.name


def check_bucket(path: str) -> None:
    """Raise InputError where the bucket of a path is not there or cannot be asked for: what is not there is empty to
    those who read, and to those who write it says so late."""
    if is_s3(path):
        with mendable(path):
            filesystem, _ = opened(path)
            if filesystem.get_file_info(_place(path).bucket).type == pafs.FileType.NotFound:
                raise InputError(_sentence("missing", path, ""))


@contextmanager
def mendable(path: str) -> Iterator[None]:
    """Raise what pyarrow raises about a path as an InputError, where it is one of what a user can mend."""
    try:
        yield
    except OSError as error:
        if not is_s3(path) or (sentence := explained(str(error), path)) is None:
            raise
        raise InputError(sentence) from None


def explained(text: str, path: str | None = None) -> str | None:
    """What a failure of an object store is, and what to do, by what a client says of it; None where it is something
    else.

    path  what it is about; None: the first path in the text
    """
    if path is None:
        if (found := _PATH.search(text)) is None:
            return None
        path = found[0]
    kind = _kind(text)
    if kind in _MUTE and (words := _kind(_words_about(path))) in _HIDDEN:
        kind = words
    return None if kind in (None, "refused") else _sentence(kind, path, text)


def _kind(text: str) -> str | None:
    return next((kind for kind, pattern in _KINDS.items() if re.search(pattern, text)), None)


def _words_about(path: str) -> str:
    """What the store answers to a question whose answer has words; nothing where it is content."""
    try:
        filesystem, _ = opened(path)
        filesystem.get_file_info(pafs.FileSelector(f"{_place(path).bucket}/no-such-folder-of-sparkrec"))
    except OSError as error:
        return str(error)
    return ""


def _sentence(kind: str, path: str, text: str) -> str:
    bucket = _place(path).bucket
    at = _access(bucket).endpoint or "AWS"
    where = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or spark.hadoop.fs.s3a.access.key, "
    where += "secret.key and session.token"
    if kind == "missing":
        return f"there is no bucket {bucket!r} at {at}. Create it, or correct {path}."
    if kind == "expired":
        return (
            f"the temporary credentials for {path} have expired. Get new ones ({where}) and run the same again: what "
            "was finished is kept."
        )
    if kind == "unknown":
        return f"{at} does not accept the credentials for {path}. Correct them: {where}."
    if kind == "none":
        return f"there are no credentials for {path}. Set {where}."
    if kind == "unreachable":
        return (
            f"cannot reach {at} for {path}. Correct AWS_ENDPOINT_URL or spark.hadoop.fs.s3a.endpoint, or see to the "
            "network."
        )
    found = _WHAT.search(text)
    what = f" ({found[1] or found[2]})" if found else ""
    return (
        f"{at} denies access to {path}{what}. Whoever works on a lake needs s3:ListBucket on its bucket, and "
        "s3:GetObject, s3:PutObject and s3:DeleteObject in it."
    )


def _place(path: str) -> Place:
    bucket, _, key = path.partition("://")[2].partition("/")
    return Place(bucket, key.strip("/"))


def _access(bucket: str) -> Access:
    settings = _settings()

    def part(name: str) -> str | None:
        value = settings.get(f"fs.s3a.bucket.{bucket}.{name}", settings.get(f"fs.s3a.{name}", ""))
        return value.strip() or None

    endpoint, region, access_key = part("endpoint"), part("endpoint.region"), part("access.key")
    if region is None and endpoint is not None:
        of_aws = _REGION_OF_AWS.search(endpoint)
        region = of_aws[1] if of_aws else None if is_of_aws(endpoint) else "us-east-1"
    return Access(
        endpoint=None if endpoint is None else endpoint.rstrip("/"),
        region=region or _region(bucket),
        is_encrypted=part("connection.ssl.enabled") != "false",
        is_virtual=endpoint is not None and part("path.style.access") == "false" and not _is_address(endpoint),
        access_key=access_key,
        secret_key=part("secret.key"),
        session_token=part("session.token") if access_key else None,
    )


def is_of_aws(endpoint: str) -> bool:
    """Whether an endpoint is one of AWS itself."""
    return bool(_OF_AWS.search(endpoint))


def _is_address(endpoint: str) -> bool:
    """Whether the host of an endpoint is an IP address, which has no names below it."""
    try:
        ipaddress.ip_address(urlsplit(endpoint if "://" in endpoint else f"//{endpoint}").hostname or "")
    except ValueError:
        return False
    return True


@lru_cache
def _region(bucket: str) -> str | None:
    """Where a bucket of AWS is; None where AWS does not say."""
    try:
        return str(pafs.resolve_s3_region(bucket))
    except OSError:
        return None


# With it, a small file is one request, of which a kill leaves nothing. Pyarrow has it from 20 on.
_DELAYED = {"allow_delayed_open": True} if "allow_delayed_open" in (pafs.S3FileSystem.__doc__ or "") else {}


@lru_cache
def _filesystem(access: Access) -> pafs.FileSystem:
    return pafs.S3FileSystem(
        access_key=access.access_key,
        secret_key=access.secret_key,
        session_token=access.session_token,
        region=access.region,
        endpoint_override=access.endpoint,
        scheme="https" if access.is_encrypted else "http",
        force_virtual_addressing=access.is_virtual,
        **_DELAYED,
    )
