"""Runs all processes of one machine and watches over them: one that dies is started again."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

import structlog

_PR_SET_PDEATHSIG: Final = 1
_QUICK_SECONDS: Final = 5.0
_LONGEST_PAUSE: Final = 10.0
_POLL_SECONDS: Final = 0.1
_GRACE_SECONDS: Final = 20.0
_libc: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A process to keep running."""

    name: str
    command: Sequence[str]


@dataclass(slots=True, kw_only=True)
class _Running:
    program: Program
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause: float = 0.0
    again_at: float = 0.0


class Supervisor:
    """Starts programs, and starts them again when they end. `pids` are written to a file that people can read.

    Children get SIGTERM from the kernel when the supervisor itself is killed.
    """

    def __init__(self, programs: Sequence[Program], environ: Mapping[str, str], pid_file: Path) -> None:
        self._all = [_Running(program=program) for program in programs]
        self._environ = dict(environ)
        self._pid_file = pid_file
        self._stopping = False

    def run(self) -> None:
        """Watch until SIGTERM or SIGINT, then end the children in the order of their names in the list."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        while not self._stopping:
            self.round()
            time.sleep(_POLL_SECONDS)
        self.end()

    def round(self) -> None:
        """Look once after every child."""
        now = time.monotonic()
        changed = False
        for child in self._all:
            if child.process is not None and child.process.poll() is not None:
                self._died(child, now)
            if child.process is None and now >= child.again_at:
                child.process = self._start(child.program)
                child.started = now
                changed = True
        if changed:
            self._write_pids()

    def end(self) -> None:
        """Ask all children to end, one after the other, and make them after a grace period."""
        deadline = time.monotonic() + _GRACE_SECONDS
        for child in self._all:
            if child.process is not None:
                child.process.terminate()
        for child in self._all:
            if child.process is None:
                continue
            try:
                child.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _log.warning("killed", process=child.program.name, pid=child.process.pid)
                child.process.kill()
                child.process.wait()
            child.process = None
        self._pid_file.unlink(missing_ok=True)

    @property
    def pids(self) -> dict[str, int]:
        return {child.program.name: child.process.pid for child in self._all if child.process is not None}

    def _died(self, child: _Running, now: float) -> None:
        if child.process is None:
            return
        quick = now - child.started < _QUICK_SECONDS
        child.pause = min(max(child.pause * 2, 0.5), _LONGEST_PAUSE) if quick else 0.0
        child.again_at = now + child.pause
        status = child.process.returncode
        _log.warning("process_ended", process=child.program.name, status=status, again_in=child.pause)
        child.process = None

    def _start(self, program: Program) -> subprocess.Popen[bytes]:
        parent = os.getpid()
        return subprocess.Popen(
            list(program.command),
            env=self._environ,
            stdin=subprocess.DEVNULL,
            preexec_fn=lambda: _end_with(parent),  # noqa: PLW1509  the supervisor has one thread
        )

    def _write_pids(self) -> None:
        fresh = self._pid_file.with_suffix(".new")
        fresh.write_text(json.dumps(self.pids | {"supervisor": os.getpid()}), "utf-8")
        fresh.rename(self._pid_file)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True


def _end_with(parent: int) -> None:
    """In the child: ask the kernel for SIGTERM when the parent dies, and look whether it already did."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)
