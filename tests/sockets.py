"""The TCP sockets of processes, from Linux's /proc."""

import ipaddress
import os
from contextlib import suppress
from pathlib import Path

import pytest

PROC = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="sockets are looked up in Linux's /proc")


LISTENING, CONNECTED = "0A", "01"


def sockets(pids, *states):
    """(process, address, port) of all that any of these processes has in one of these states."""
    inodes = {}
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = os.readlink(descriptor)
            except OSError:
                continue  # closed meanwhile
            if target.startswith("socket:["):
                inodes[target[8:-1]] = pid
    own = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state in states and rest[5] in inodes:
                host, port = local.split(":")
                words = [bytes.fromhex(host[at : at + 8])[::-1] for at in range(0, len(host), 8)]
                own.append((inodes[rest[5]], ipaddress.ip_address(b"".join(words)), int(port, 16)))
    return own


def to_others(own):
    """Those of them that other machines may reach."""
    return [each for each in own if not (getattr(each[1], "ipv4_mapped", None) or each[1]).is_loopback]


def descendants(pid):
    """The process and all that it started, and they."""
    children = []
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        with suppress(OSError):  # it has ended meanwhile
            children += (thread / "children").read_text().split()
    return [pid, *(each for child in children for each in descendants(int(child)))]
