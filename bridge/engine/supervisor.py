"""Runs all processes of one machine and watches over them: one that dies is started again.

Children are forked, not started anew: what they have in common is in memory once, and a new one is there at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

import structlog
from setproctitle import setproctitle

_PR_SET_PDEATHSIG: Final = 1
_QUICK_SECONDS: Final = 5.0
_LONGEST_PAUSE: Final = 10.0
_POLL_SECONDS: Final = 0.1
_GRACE_SECONDS: Final = 15.0
_NOT_STARTED_PAUSE: Final = 1.0
_libc: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A process to keep running: `run` is called in a child of its own, and is not expected to return."""

    name: str
    run: Callable[[], None]


@dataclass(slots=True, kw_only=True)
class _Running:
    program: Program
    pid: int = 0
    started: float = 0.0
    pause: float = 0.0
    again_at: float = 0.0


class Supervisor:
    """Starts programs, and starts them again when they end. `pids` are written to a file that people can read.

    It must have one thread and no open connection when it starts one. Children get SIGTERM from the kernel when the
    supervisor itself is killed.
    """

    def __init__(self, programs: Sequence[Program], pid_file: Path) -> None:
        self._all = [_Running(program=program) for program in programs]
        self._pid_file = pid_file
        self._stopping = False
        self._written: dict[str, int] = {}

    def run(self) -> None:
        """Watch until SIGTERM or SIGINT, then end the children."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        while not self._stopping:
            self.round()
            time.sleep(_POLL_SECONDS)
        self.end()

    def round(self) -> None:
        """Look once after every child."""
        now = time.monotonic()
        for child in self._all:
            if child.pid:
                self._look(child, now)
            if not child.pid and now >= child.again_at:
                _start(child, now)
        if self.pids != self._written:
            self._write_pids()

    def end(self) -> None:
        """Ask all children to end, and make those that have not ended after a grace period."""
        deadline = time.monotonic() + _GRACE_SECONDS
        for child in self._all:
            if child.pid:
                os.kill(child.pid, signal.SIGTERM)
        while any(child.pid for child in self._all):
            for child in self._all:
                if child.pid and _ended(child.pid) is not None:
                    child.pid = 0
            if time.monotonic() > deadline:
                for child in self._all:
                    if child.pid:
                        _log.warning("killed", process=child.program.name, pid=child.pid)
                        os.kill(child.pid, signal.SIGKILL)
                        os.waitpid(child.pid, 0)
                        child.pid = 0
            time.sleep(_POLL_SECONDS / 5)
        self._pid_file.unlink(missing_ok=True)

    @property
    def pids(self) -> dict[str, int]:
        return {child.program.name: child.pid for child in self._all if child.pid}

    def _look(self, child: _Running, now: float) -> None:
        status = _ended(child.pid)
        if status is None:
            return
        quick = now - child.started < _QUICK_SECONDS
        child.pause = min(max(child.pause * 2, 0.5), _LONGEST_PAUSE) if quick else 0.0
        child.again_at = now + child.pause
        child.pid = 0
        _log.warning("process_ended", name=child.program.name, status=status, again_in=child.pause)

    def _write_pids(self) -> None:
        """For people; what cannot be written, on a full disk for instance, is tried again in the next round."""
        fresh = self._pid_file.with_suffix(".new")
        with contextlib.suppress(OSError):
            fresh.write_text(json.dumps(self.pids | {"supervisor": os.getpid()}), "utf-8")
            fresh.rename(self._pid_file)
            self._written = self.pids

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True


def _ended(pid: int) -> int | None:
    """The exit status of a child that has ended; negative is the number of the signal that ended it."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _start(child: _Running, now: float) -> None:
    """Start a program, or try again soon: a machine short of memory or of process ids takes nothing from the others."""
    try:
        child.pid = _fork(child.program)
        child.started = now
    except OSError as error:
        child.again_at = now + _NOT_STARTED_PAUSE
        _log.error("not_started", name=child.program.name, error=error.strerror, again_in=_NOT_STARTED_PAUSE)


def _fork(program: Program) -> int:
    """Start a program in a child; in the child this never returns."""
    parent = os.getpid()
    _flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        end_with(parent)
        setproctitle(f"campusbridge: {program.name}")
        program.run()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001  this is the bottom of a process: whatever it is, it has to be told
        with contextlib.suppress(OSError):
            traceback.print_exc()
    finally:
        _flush()
        os._exit(status)


def _flush() -> None:
    """Where a full disk or a closed pipe takes nothing, the processes go on without."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()


def end_with(parent: int) -> None:
    """In a child: ask the kernel (Linux only) for SIGTERM when the parent dies, and end if it already did."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)
