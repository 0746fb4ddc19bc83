"""Who owns a lane: a process on a host, by a name that others on that host can ask after."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def this_process() -> str:
    """`host:namespace:pid`; process ids mean something only within their namespace, and containers may share a host's
    name.
    """
    return f"{_home()}:{os.getpid()}"


def is_dead(owner: str) -> bool:
    """Whether an owner was a process here and is no more. Of those elsewhere nobody can tell: their leases run out."""
    home, _, pid = owner.rpartition(":")
    if home != _home() or not pid.isdecimal():
        return False
    with suppress(PermissionError):  # it is there, and somebody else's
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
    return False


def _home() -> str:
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}:{namespace}"
