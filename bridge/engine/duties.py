"""Work that comes round again, on one machine at a time: each duty in a thread of its own, its lease kept alive."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from bridge.core.errors import SourceUnavailable
from bridge.engine.bugs import place_of
from bridge.ledger import duties as kept
from bridge.ledger.database import Ledger, milliseconds

ROUND_SECONDS: Final = 2.0
_FIRST_PAUSE: Final = timedelta(minutes=1)
_END_SECONDS: Final = 5.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Duty:
    """`work` is done every so often, and `after_start` of a process at the latest (None: when it is due anyway).

    It should end soon once the event it is given is set: somebody else has the duty then, or the process ends. After a
    failure it is tried again sooner: in a minute, two, four …, or when the platform asked for it.
    """

    name: str
    every: timedelta
    work: Callable[[threading.Event], None]
    after_start: timedelta | None = None


@dataclass(frozen=True, slots=True)
class _Run:
    turn: kept.Turn
    thread: threading.Thread
    stopping: threading.Event


class Duties:
    """Does all duties that are due and nobody's, until told to stop."""

    def __init__(self, ledger: Ledger, duties: Sequence[Duty]) -> None:
        self._ledger = ledger
        self._duties = {duty.name: duty for duty in duties}
        self._owner = f"{socket.gethostname()}:{os.getpid()}"
        self._running: dict[str, _Run] = {}
        self._enrolled: set[str] = set()

    def run(self, stopping: threading.Event) -> None:
        """Round after round. Threads at work are given some seconds to end; what they leave is done by the next."""
        while not stopping.wait(ROUND_SECONDS):
            try:
                self.round()
            except SQLAlchemyError as error:
                _log.warning("ledger_unreachable", error=type(error).__name__)
        for run in self._running.values():
            run.stopping.set()
        end = time.monotonic() + _END_SECONDS
        for run in self._running.values():
            run.thread.join(max(0.0, end - time.monotonic()))

    def round(self) -> None:
        """Keep what is at work, and begin what is due."""
        self._enrol()
        self._running = {name: run for name, run in self._running.items() if run.thread.is_alive()}
        for run in self._running.values():
            if not kept.hold(self._ledger, run.turn):
                run.stopping.set()
        free = [name for name in self._duties if name not in self._running]
        for name in kept.due(self._ledger, free, now_ms=_in(timedelta(0))) if free else ():
            self._begin(self._duties[name])

    def _enrol(self) -> None:
        for duty in self._duties.values():
            if duty.name not in self._enrolled:
                first = duty.every if duty.after_start is None else duty.after_start
                kept.enrol(self._ledger, duty.name, due_ms=_in(first), no_later=duty.after_start is not None)
                self._enrolled.add(duty.name)

    def _begin(self, duty: Duty) -> None:
        turn = kept.take(self._ledger, duty.name, self._owner, now_ms=_in(timedelta(0)), next_ms=_in(duty.every))
        if turn is None:
            return
        stopping = threading.Event()
        thread = threading.Thread(target=self._do, args=(duty, turn, stopping), name=duty.name, daemon=True)
        self._running[duty.name] = _Run(turn, thread, stopping)
        thread.start()

    def _do(self, duty: Duty, turn: kept.Turn, stopping: threading.Event) -> None:
        problem, again = None, None
        try:
            duty.work(stopping)
        except SourceUnavailable as error:
            problem, again = error.reason, _pause(turn, duty, error.retry_after)
        except SQLAlchemyError as error:
            problem, again = f"the ledger is unreachable ({type(error).__name__})", _pause(turn, duty, None)
        except Exception as error:  # noqa: BLE001  a bug of a connector or of ours: the other duties go on
            problem, again = place_of(error), _pause(turn, duty, None)
        if problem is not None:
            _log.error("duty_failed", duty=duty.name, reason=problem)
        try:
            kept.leave(
                self._ledger,
                turn,
                now_ms=_in(timedelta(0)),
                problem=problem,
                again_ms=None if again is None else _in(again),
            )
        except SQLAlchemyError as error:  # its lease runs out by itself
            _log.warning("ledger_unreachable", error=type(error).__name__)


def _pause(turn: kept.Turn, duty: Duty, asked_for: float | None) -> timedelta:
    if asked_for is not None:
        return timedelta(seconds=max(asked_for, 1.0))
    return min(_FIRST_PAUSE * 2.0 ** min(turn.failures, 12), duty.every)


def _in(span: timedelta) -> int:
    return milliseconds(datetime.now(UTC) + span)
