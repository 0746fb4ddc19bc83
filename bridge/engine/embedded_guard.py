"""Ends the embedded server with its last user. Runs as a process of its own, on the standard library alone.

Every user holds a shared lock on `users.lock`, which the kernel drops however the user dies. When nobody has held it
for GRACE seconds, the guard stops the server. `bridge.engine.embedded` starts it and hands it the locked `guard.lock`.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

GRACE: Final = 2.5
"""Seconds without any user after which the server ends: long enough for a restart of all users."""
POLL: Final = 0.25
TITLE: Final = "campusbridge-redis"
"""How a server calls itself in the list of processes, followed by its socket: that is how it is recognised."""


def servers(socket: str) -> list[int]:
    """The pids of the living servers of a socket; more than one only when its files were deleted under the first."""
    title = f"{TITLE} {socket}".encode()
    return [pid for pid, command in _processes() if command.split(b"\0")[0].rstrip() == title]


def stop(socket: str, *, seconds: float = 10.0, files_are_gone: bool = False) -> None:
    """End all servers of a socket: politely, so that they save, and after `seconds` by force.

    A server whose files are gone has nothing to save, and its farewell would delete a successor's socket: by force.
    """
    deadline = time.monotonic() + seconds
    for pid in servers(socket):
        _signal(pid, signal.SIGKILL if files_are_gone else signal.SIGTERM)
    while pids := servers(socket):
        if time.monotonic() > deadline:
            for pid in pids:
                _signal(pid, signal.SIGKILL)
        if time.monotonic() > deadline + 5:  # the kernel cannot end it, for instance because its disk hangs
            return
        time.sleep(0.02)


def take(descriptor: int, how: int, seconds: float) -> bool:
    """Try for a while to get a lock; `how` is fcntl.LOCK_SH or fcntl.LOCK_EX."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.005)
        else:
            return True


def still_there(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one at this path: False after the folder was deleted, or deleted and made anew."""
    try:
        now, mine = path.stat(), os.fstat(descriptor)
    except OSError:
        return False
    return (now.st_dev, now.st_ino) == (mine.st_dev, mine.st_ino)


def open_lock(path: Path) -> int:
    """A lock file, made if need be; not inherited by other programs."""
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def watch(folder: Path, socket: str, own_lock: int) -> None:
    """Return after the server was ended, or when the folder has been deleted; another guard may have it by then."""
    try:
        # Never made here: somebody may be deleting the folder.
        users = os.open(folder / "users.lock", os.O_RDWR)
    except OSError:
        _clear_up(folder, socket)
        return
    unused_since: float | None = None
    while True:
        time.sleep(POLL)
        if not (still_there(own_lock, folder / "guard.lock") and still_there(users, folder / "users.lock")):
            _clear_up(folder, socket)
            return
        if not take(users, fcntl.LOCK_EX, 0):
            unused_since = None
            continue
        fcntl.flock(users, fcntl.LOCK_UN)
        unused_since = unused_since or time.monotonic()
        if time.monotonic() - unused_since >= GRACE and _end(folder, socket, users, own_lock):
            return


def _end(folder: Path, socket: str, users: int, own_lock: int) -> bool:
    """Stop the server while nobody can start one; False when a user came after all."""
    try:
        start = os.open(folder / "start.lock", os.O_RDWR)
    except OSError:
        return False
    try:
        if not take(start, fcntl.LOCK_EX, 0) or not take(users, fcntl.LOCK_EX, 0):
            return False
        stop(socket)
        # First give up being the guard, then let others start: they must not count on this one.
        fcntl.flock(own_lock, fcntl.LOCK_UN)
        fcntl.flock(start, fcntl.LOCK_UN)
        return True
    finally:
        os.close(start)


def _clear_up(folder: Path, socket: str) -> None:
    """The folder's content was deleted: end the server that lost its files, but not one that was started since."""
    lost = servers(socket)
    time.sleep(POLL)
    if not (folder / "server.pid").exists():
        for pid in set(lost) & set(servers(socket)):
            _signal(pid, signal.SIGKILL)


def _processes() -> list[tuple[int, bytes]]:
    proc = Path("/proc/self/cmdline")
    if proc.exists():
        return [(int(entry), _command(entry)) for entry in os.listdir("/proc") if entry.isdigit()]
    listing = subprocess.run(["/bin/ps", "-axww", "-o", "pid=,args="], capture_output=True, check=False).stdout
    lines = [line.strip().split(None, 1) for line in listing.splitlines()]
    return [(int(line[0]), line[1]) for line in lines if len(line) == 2]


def _command(pid: str) -> bytes:
    try:
        return Path("/proc", pid, "cmdline").read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def main() -> None:
    """`embedded_guard.py <folder> <socket> <descriptor of guard.lock>`: goes on in the background."""
    folder, socket, own_lock = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    if os.fork():
        os._exit(0)
    os.setsid()
    watch(folder, socket, own_lock)


if __name__ == "__main__":
    main()
