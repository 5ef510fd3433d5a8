"""Who may change what is served under a name: one run at a time, and none for longer than it said."""

from __future__ import annotations

import datetime as dt
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pyspark.sql import Row

from sparkrec import storage, tables
from sparkrec.errors import Refused
from sparkrec.spark.platform.failures import mended
from sparkrec.spark.platform.lake import Lake
from sparkrec.stages.ledger import Ledger, instant_of

log = logging.getLogger(__name__)

_SIGN = 20.0
"""Seconds between signs of life."""
PATIENCE = 120.0
"""A holder that has given no sign for so many seconds is dead."""


@dataclass(frozen=True)
class Lease:
    """A name that this process holds."""

    ledger: Ledger
    name: str
    row: Row
    until: dt.datetime

    def check(self) -> None:
        """Raise Refused unless the name is still held: before anything is changed that others see."""
        latest = self.ledger.latest()
        if latest is None or latest["token"] != self.row["token"]:
            raise Refused(f"another run has taken {self.name!r} meanwhile: this one changes nothing more.")
        if _now() >= self.until:
            raise Refused(
                f"the deadline of this run of {self.name!r} was {self.until:%Y-%m-%d %H:%M} (UTC): it changes nothing "
                "more. What is finished is kept; run it again, or raise deadline_hours."
            )


@contextmanager
def held(lake: Lake, name: str, hours: float) -> Iterator[Lease]:
    """Hold a name while the body runs, and give a sign of life meanwhile.

    Raises Refused where another run holds it that is alive and in time.
    """
    ledger = Ledger(lake, tables.LEASES, name)
    beats = _beats(lake, name)
    lease = _taken(ledger, name, hours, beats)
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(beats, lease.row["token"], ended), daemon=True)
    beating.start()
    try:
        yield lease
    finally:
        ended.set()
        beating.join()
        _give_back(lease)


def _give_back(lease: Lease) -> None:
    """End a lease; where that fails, it ends when there has been no sign of life for a while. It raises nothing, since
    what the body raised counts."""
    try:
        if lease.ledger.add_after(lease.row, holder=_holder(), until=_now()) is None:
            log.warning("another run has taken %r meanwhile", lease.name)
    except Exception as error:
        log.warning(
            "cannot give %r back, which is free in %g minutes: %s", lease.name, PATIENCE / 60, mended(error) or error
        )


def holder_of(lake: Lake, name: str) -> str | None:
    """Who holds a name, since when and until when at the latest; None where nobody does who is alive and in time."""
    return _told(Ledger(lake, tables.LEASES, name).latest(), _beats(lake, name))


def _beats(lake: Lake, name: str) -> str:
    return lake.path("leases", f"{name}.json")


def _told(latest: Row | None, beats: str) -> str | None:
    if latest is None or (until := instant_of(latest, "until")) <= _now() or not _is_alive(latest, beats):
        return None
    since = instant_of(latest, "at")
    return f"{latest['holder']}, since {since:%Y-%m-%d %H:%M}, until {until:%Y-%m-%d %H:%M} (UTC) at the latest"


def _taken(ledger: Ledger, name: str, hours: float, beats: str) -> Lease:
    latest = ledger.latest()
    if (holder := _told(latest, beats)) is not None:
        raise Refused(
            f"{name!r} is held by {holder}. Run this again when that has ended; if it is dead, in "
            f"{PATIENCE / 60:g} minutes."
        )
    until = _now() + dt.timedelta(hours=hours)
    row = ledger.add_after(latest, holder=_holder(), until=until)
    if row is None:
        raise Refused(f"another run has taken {name!r} at the same moment. Run this again when that has ended.")
    storage.write_json(beats, {"token": row["token"], "at": time.time()})
    return Lease(ledger, name, row, until)


def _is_alive(latest: Row, beats: str) -> bool:
    """Whether the holder of a lease has lately given a sign."""
    sign = storage.read_json(beats)
    taken = instant_of(latest, "at").timestamp()
    at = sign["at"] if sign is not None and sign["token"] == latest["token"] else taken
    return bool(time.time() - at < PATIENCE)


def _beat(path: str, token: str, ended: threading.Event) -> None:
    while not ended.wait(_SIGN):
        try:
            storage.write_json(path, {"token": token, "at": time.time()})
        except Exception:
            log.warning("cannot write the sign of life %s", path, exc_info=True)


def _holder() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _now() -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc)
