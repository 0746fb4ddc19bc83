"""What people do by hand: send again, give up, take a delivery from its bytes once more. All of it is written down."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Connection, select, update

from bridge.flow.standing import FINE, FOREVER, Standing, State
from bridge.ledger.database import Ledger, milliseconds
from bridge.ledger.destinations import Destination, note
from bridge.ledger.tables import audit, deliveries_in, events, messages, repeats

_OPEN_TO_PEOPLE = ("dead", "held", "discarded", "superseded")


def retry(ledger: Ledger, keys: Sequence[str], *, who: str) -> set[str]:
    """Send dead, held or discarded messages again, under their old keys and with their tries counted anew.

    A message that could not be rendered needs a replay of its event, and is left alone. Gives the lanes to wake.
    """
    now = _now()
    with ledger.write() as connection:
        rows = connection.execute(
            update(messages)
            .where(messages.c.key.in_(keys), messages.c.status.in_(_OPEN_TO_PEOPLE), messages.c.step != "map")
            .values(
                status="waiting",
                due_ms=now,
                created_ms=now,  # its patience begins anew
                attempts=0,
                starts=0,
                finished_ms=None,
                reason="sent again by hand",
            )
            .returning(messages.c.key, messages.c.lane)
        ).all()
        lanes = {row.lane for row in rows}
        _write_down(connection, who, "deliveries.retry", [row.key for row in rows])
    return lanes


def discard(ledger: Ledger, keys: Sequence[str], *, who: str) -> int:
    """Give messages up for good; how many were open."""
    with ledger.write() as connection:
        rows = connection.execute(
            update(messages)
            .where(messages.c.key.in_(keys), messages.c.status.in_(("waiting", "dead", "held")))
            .values(status="discarded", finished_ms=_now(), reason="discarded by hand")
            .returning(messages.c.key)
        ).all()
        _write_down(connection, who, "deliveries.discard", [row.key for row in rows])
    return len(rows)


def replay(ledger: Ledger, names: Sequence[str], *, who: str) -> set[str]:
    """Process deliveries again from their bytes, by their own ids or by ids of their events. Gives the lanes to wake.

    Their messages go out again under the same idempotency keys, rendered by the mappings as they are now.
    """
    with ledger.write() as connection:
        by_event = select(events.c.delivery_seq).where(events.c.id.in_(names))
        by_repeat = select(repeats.c.delivery_seq).where(repeats.c.id.in_(names))
        rows = connection.execute(
            update(deliveries_in)
            .where(
                deliveries_in.c.id.in_(names) | deliveries_in.c.seq.in_(by_event) | deliveries_in.c.seq.in_(by_repeat)
            )
            .values(status="waiting", due_ms=0, attempts=0, starts=0, purpose="replay", reason=None, finished_ms=None)
            .returning(deliveries_in.c.id, deliveries_in.c.lane)
        ).all()
        lanes = {row.lane for row in rows}
        _write_down(connection, who, "events.replay", [row.id for row in rows])
    return lanes


def pause(ledger: Ledger, target: str, reason: str, *, who: str) -> None:
    """Send nothing to a target until it is resumed."""
    standing = Standing(state=State.PAUSED, until=FOREVER, reason=reason, since=time.time())
    note(ledger, Destination(target=target, standing=standing, settings=""), by_hand=True)
    with ledger.write() as connection:
        _write_down(connection, who, "targets.pause", [target])


def resume(ledger: Ledger, target: str, *, who: str) -> set[str]:
    """Send to a target again, whatever it was that stopped it. Gives the lanes to wake."""
    lanes = note(ledger, Destination(target=target, standing=FINE, settings=""), by_hand=True)
    with ledger.write() as connection:
        _write_down(connection, who, "targets.resume", [target])
    return lanes or set()


def _write_down(connection: Connection, who: str, action: str, objects: Sequence[str]) -> None:
    if objects:
        now = _now()
        connection.execute(
            audit.insert(),
            [{"at_ms": now, "who": who, "action": action, "object": entry, "detail": ""} for entry in objects],
        )


def _now() -> int:
    return milliseconds(datetime.now(UTC))
