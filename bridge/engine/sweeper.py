"""Wakes what nobody woke: due retries, lost hints, lanes of dead workers. Also heals the embedded Redis server."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import structlog
from sqlalchemy.exc import DBAPIError

from bridge.engine.hints import Hints
from bridge.ledger.database import Ledger, milliseconds
from bridge.ledger.lanes import due_lanes

ROUND_SECONDS: Final = 1.0
_PATIENT_ROUNDS: Final = 3
_log = structlog.get_logger(__name__)


def sweep(ledger: Ledger, hints: Hints, wait: Callable[[float], bool]) -> None:
    """Sweep until `wait` (which sleeps for that many seconds) says to stop."""
    overdue: dict[str, int] = {}
    while not wait(ROUND_SECONDS):
        try:
            due = due_lanes(ledger, now_ms=milliseconds(datetime.now(UTC)))
        except DBAPIError as error:
            _log.warning("ledger_unreachable", error=type(error).__name__)
            continue
        overdue = {lane: overdue.get(lane, 0) + 1 for lane in due}
        for lane in [lane for lane, rounds in overdue.items() if rounds > _PATIENT_ROUNDS]:
            # Awake, and yet nobody has come for it: its hint went with a worker that was killed, or it stands far back
            # in the queue; then a second one does no harm.
            hints.asleep(lane)
            del overdue[lane]
        hints.wake(due)
