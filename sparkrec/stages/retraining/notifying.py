"""What came of a night, told to a webhook or a command: whoever cannot be told changes nothing of it."""

from __future__ import annotations

import json
import logging
import subprocess
import time
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from sparkrec.config import NotifySettings

log = logging.getLogger(__name__)

_ATTEMPTS = 3
_PAUSE = 2.0
"""Seconds before the second attempt; twice as many before the third."""
_PATIENCE = 10.0
"""Seconds that a webhook has to answer."""
_COMMAND_PATIENCE = 60.0
"""Seconds that a command has."""


class _NoRedirect(HTTPRedirectHandler):
    """What is posted to an address that has moved would arrive as a GET without it."""

    def redirect_request(self, *_: Any) -> None:
        return None


_opener = build_opener(_NoRedirect)


def notify(targets: Sequence[NotifySettings], summary: Mapping[str, Any]) -> None:
    """Tell a summary, whose `outcome` says who wants to know it, to one after the other.

    Who is not reached is warned of, without the address and without arguments, which may be secret.
    """
    body = json.dumps(summary).encode()
    for each in targets:
        if summary["outcome"] not in each.outcomes:
            continue
        try:
            if each.webhook is not None:
                whom = f"webhook on {urlsplit(each.webhook).hostname}"
                _post(each.webhook, body)
            else:
                command = each.command or []
                whom = f"command {command[0]}"
                _run(command, body)
        except Exception as error:
            log.warning("the %s was not told what came of the night: %s", whom, error)


def _post(url: str, body: bytes) -> None:
    request = Request(url, body, {"Content-Type": "application/json"}, method="POST")
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with _opener.open(request, timeout=_PATIENCE):
                return
        except (OSError, HTTPException) as error:
            final = isinstance(error, HTTPError) and error.code < 500 and error.code != 429
            if final or attempt == _ATTEMPTS:
                raise
        time.sleep(_PAUSE * attempt)


def _run(command: Sequence[str], body: bytes) -> None:
    try:
        ended = subprocess.run(command, input=body, capture_output=True, timeout=_COMMAND_PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"it did not end in {_COMMAND_PATIENCE:g} seconds") from None
    if ended.returncode:
        said = ended.stderr.decode(errors="replace").strip()[-500:]
        raise RuntimeError(f"exit code {ended.returncode}{f', {said}' if said else ''}")
