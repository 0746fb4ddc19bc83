"""Wakes what nobody woke: due retries, lost hints, lanes of dead workers. Also heals the embedded Redis server."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from bridge.engine.hints import Hints
from bridge.engine.owners import is_dead
from bridge.ledger.database import Ledger, milliseconds
from bridge.ledger.lanes import bury, due_lanes, held

ROUND_SECONDS: Final = 1.0
_log = structlog.get_logger(__name__)


def sweep(ledger: Ledger, hints: Hints, wait: Callable[[float], bool]) -> None:
    """Sweep until `wait` (which sleeps for that many seconds) says to stop."""
    while not wait(ROUND_SECONDS):
        try:
            for lease, owner in held(ledger):
                if is_dead(owner):
                    bury(ledger, lease)
                    hints.asleep(lease.lane)
                    _log.warning("owner_died", lane=lease.lane)
            hints.wake(due_lanes(ledger, now_ms=milliseconds(datetime.now(UTC))))
        except SQLAlchemyError as error:
            _log.warning("ledger_unreachable", error=type(error).__name__)
