"""Small rows for the ledger's tests: deliveries, events and messages about one paper."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row, select

from bridge.core.events import Event, idempotency_key
from bridge.core.source import Accepted, Inbound, Verified
from bridge.ledger.accepting import Arrival, accept
from bridge.ledger.database import Ledger, milliseconds
from bridge.ledger.delivering import Attempt, Head, Result
from bridge.ledger.lanes import Lease, take
from bridge.ledger.processing import NewEvent, NewMessage, Processed
from bridge.ledger.processing import finish as finish_processing
from bridge.ledger.tables import audit, deliveries_in, events, messages

START = datetime(2026, 6, 5, 9, 30, tzinfo=UTC)
SOURCE = "wiseflow-main"
PROCESS = f"process:{SOURCE}:1"
DELIVER = "deliver:crm:0"
LONG_AFTER = 10**15


def now_ms() -> int:
    return milliseconds(datetime.now(UTC))


def arrive(ledger: Ledger, *keys: str, lane: str = PROCESS, order_key: str | None = None) -> None:
    """Deliveries with these dedupe keys (their ids too), each of a subject of its own unless `order_key` says one."""
    arrivals = []
    for key in keys:
        inbound = Inbound(id=f"id-{key}", source=SOURCE, received_at=START, headers={}, query={}, body=b"{}")
        verified = Verified(inbound=inbound, proof="secret 1", dedupe_key=key, dedupe_window=timedelta(seconds=60))
        arrivals.append(Arrival(accepted=Accepted(verified=verified), lane=lane, order_key=order_key or key))
    accept(ledger, arrivals)


def leased(ledger: Ledger, lane: str, owner: str = "worker-a") -> Lease:
    lease = take(ledger, lane, owner)
    assert lease is not None
    return lease


def event(number: int, *, type: str = "submission.submitted", after: float = 0.0, sequence: int | None = None) -> Event:
    moment = START + timedelta(seconds=after)
    return Event(
        id=f"00000000-0000-5000-8000-{number:012d}",
        source="urn:edu:wiseflow:lic-1",
        type=type,
        subject="submission/1",
        time=moment,
        recordedtime=moment,
        tenant=SOURCE,
        sourceevent="paper.submission",
        sequence=sequence,
    )


def message(
    of: Event,
    *,
    mapping: str = "papers",
    target: str = "crm",
    order: str | None = None,
    latest: bool = False,
    params: dict[str, Any] | None = None,
) -> NewMessage:
    key = idempotency_key(of.id, mapping, target)
    return NewMessage(
        key=key,
        event_id=of.id,
        mapping=mapping,
        mapping_version="v1",
        target=target,
        operation="request",
        params=params or {},
        lane=f"deliver:{target}:0",
        order_key=order or f"{mapping}|{target}|{of.state_key}",
        state=of.kind.nature == "state",
        latest_only=latest,
        time_ms=milliseconds(of.time),
        sequence=of.sequence,
    )


def processed(
    seq: int, found: Sequence[Event], sent: Sequence[NewMessage] | None = None, *, purpose: str = "new"
) -> Processed:
    return Processed(
        seq=seq,
        source=SOURCE,
        events=[NewEvent(event=entry, document=entry.to_json(), source=SOURCE, trace={}) for entry in found],
        messages=[message(entry) for entry in found] if sent is None else sent,
        purpose=purpose,
    )


def waiting(ledger: Ledger, *found: Event, **how: Any) -> list[Row[Any]]:
    """Messages of these events as they wait in the ledger, oldest first."""
    name = f"d{found[0].id[-6:]}"
    arrive(ledger, name)
    lease = leased(ledger, PROCESS)
    sent = [message(entry, **how) for entry in found]
    finish_processing(ledger, lease, [processed(delivery(ledger, name).seq, found, sent)])
    with ledger.write() as connection:
        connection.exec_driver_sql("update lanes set until_ms = 0")
    keys = [entry.key for entry in sent]
    return [row for row in all_messages(ledger) if row.key in keys]


def result(row: Row[Any], status: Any = "delivered", *, reason: str = "ok", due_ms: int = 0, **more: Any) -> Result:
    head = Head(time_ms=row.time_ms, sequence=row.sequence, message_key=row.key)
    return Result(
        seq=row.seq,
        key=row.key,
        target=row.target,
        order_key=row.order_key,
        status=status,
        reason=reason,
        was_due=row.due_ms,
        due_ms=due_ms,
        finished_ms=None if status == "waiting" else now_ms(),
        head=head if row.state and status == "delivered" else None,
        **more,
    )


def attempt(number: int, verdict: str = "ok", status: int | None = 200) -> Attempt:
    return Attempt(number=number, at_ms=1, took_ms=2, verdict=verdict, status=status, reason=f"HTTP {status}")


def delivery(ledger: Ledger, key: str) -> Row[Any]:
    with ledger.read() as connection:
        return connection.execute(select(deliveries_in).where(deliveries_in.c.id == f"id-{key}")).one()


def all_messages(ledger: Ledger) -> Sequence[Row[Any]]:
    with ledger.read() as connection:
        return connection.execute(select(messages).order_by(messages.c.seq)).all()


def all_events(ledger: Ledger) -> Sequence[Row[Any]]:
    with ledger.read() as connection:
        return connection.execute(select(events).order_by(events.c.cursor)).all()


def written_down(ledger: Ledger) -> list[tuple[str, str, str]]:
    with ledger.read() as connection:
        rows = connection.execute(select(audit).order_by(audit.c.seq))
        return [(row.who, row.action, row.object) for row in rows]
