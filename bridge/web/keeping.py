"""The two ways of making bytes safe before the 200."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.exc import DBAPIError

from bridge.core.errors import StorageUnavailable
from bridge.core.source import Accepted
from bridge.engine.hints import Hints
from bridge.engine.shipper import Lanes
from bridge.journal.writer import JournalWriter
from bridge.ledger.accepting import Arrival, accept_one
from bridge.ledger.database import Ledger

Keep = Callable[[Accepted], None]


def _committed(ledger: Ledger, arrival: Arrival) -> set[str]:
    """A connection that died in the pool, say because the database was restarted, is no reason to refuse anybody."""
    try:
        return accept_one(ledger, arrival)
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
    return accept_one(ledger, arrival)  # had the first one been committed, its id is there already


def in_journal(writer: JournalWriter) -> Keep:
    """`accept: journal`: the local disk and nothing else; the shipper moves it on."""
    return writer.append


def in_ledger(ledger: Callable[[], Ledger], lanes: Lanes, hints: Hints) -> Keep:
    """`accept: ledger`: a commit in PostgreSQL, for hosts whose disks do not outlive them."""

    def keep(accepted: Accepted) -> None:
        arrival = lanes.arrival(accepted)
        try:
            woken = _committed(ledger(), arrival)
        except DBAPIError as error:
            raise StorageUnavailable(f"the ledger cannot be written: {type(error).__name__}") from error
        hints.wake(woken)

    return keep
