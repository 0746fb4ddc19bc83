"""What people ask the ledger: lists, and the whole story of one event."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, Table, func, select

from bridge.core.events import Event, Json, event_from_json
from bridge.core.vocabulary import TYPES, matches
from bridge.ledger.database import Ledger, moment
from bridge.ledger.tables import attempts, deliveries_in, events, messages, repeats

Filter = Mapping[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventStory:
    """Everything that happened to one event: its delivery, the repeats of that, its messages and their attempts."""

    event: Json
    source: str
    trace: Json
    delivery: Json
    repeats: list[Json]
    messages: list[Json]


def list_events(
    ledger: Ledger,
    *,
    limit: int,
    after: int | None = None,
    source: str | None = None,
    type_pattern: str | None = None,
    subject: str | None = None,
) -> list[Row[Any]]:
    """The newest events, newest first; or, with `after`, those behind a cursor, oldest first."""
    query: Select[*tuple[Any, ...]] = select(
        events.c.cursor,
        events.c.id,
        events.c.source,
        events.c.type,
        events.c.subject,
        events.c.time_ms,
        events.c.recorded_ms,
    )
    if after is None:
        query = query.order_by(events.c.cursor.desc())
    else:
        query = query.where(events.c.cursor > after).order_by(events.c.cursor)
    query = _where(query, events, {"source": source, "subject": subject})
    if type_pattern is not None:
        query = query.where(events.c.type.in_(_types(type_pattern)))
    with ledger.read() as connection:
        return list(connection.execute(query.limit(limit)))


def list_messages(
    ledger: Ledger,
    *,
    limit: int,
    status: str | None = None,
    target: str | None = None,
    mapping: str | None = None,
    event_id: str | None = None,
) -> list[Row[Any]]:
    """The newest messages, newest first."""
    query = _where(
        select(messages).order_by(messages.c.seq.desc()),
        messages,
        {"status": status, "target": target, "mapping": mapping, "event_id": event_id},
    )
    with ledger.read() as connection:
        return list(connection.execute(query.limit(limit)))


def list_unprocessed(ledger: Ledger, *, limit: int) -> list[Row[Any]]:
    """Deliveries that no connector could process: our own bugs, kept for a replay."""
    query = (
        select(deliveries_in.c.id, deliveries_in.c.source, deliveries_in.c.received_ms, deliveries_in.c.reason)
        .where(deliveries_in.c.status == "dead")
        .order_by(deliveries_in.c.seq.desc())
    )
    with ledger.read() as connection:
        return list(connection.execute(query.limit(limit)))


def find_event(ledger: Ledger, name: str) -> EventStory | None:
    """The story of an event by its id or the beginning of it (8 characters or more), or by its delivery's id."""
    with ledger.read() as connection:
        row = connection.execute(select(events).where(events.c.id == name)).first()
        if row is None and len(name) >= 8:
            row = connection.execute(select(events).where(events.c.id.startswith(name, autoescape=True))).first()
        if row is None:
            row = connection.execute(
                select(events)
                .join(deliveries_in, deliveries_in.c.seq == events.c.delivery_seq)
                .where(deliveries_in.c.id == name)
            ).first()
        if row is None:
            row = connection.execute(
                select(events)
                .join(repeats, repeats.c.delivery_seq == events.c.delivery_seq)
                .where(repeats.c.id == name)
            ).first()
        return None if row is None else _story(connection, row)


def event_bodies(ledger: Ledger, *, last: int) -> list[tuple[str, Json]]:
    """The newest events as (name of the source, canonical event), newest first."""
    with ledger.read() as connection:
        rows = connection.execute(select(events.c.source, events.c.body).order_by(events.c.cursor.desc()).limit(last))
        return [(row.source, json.loads(row.body)) for row in rows]


def _story(connection: Connection, event: Row[Any]) -> EventStory:
    delivery = connection.execute(select(deliveries_in).where(deliveries_in.c.seq == event.delivery_seq)).one()
    again = connection.execute(
        select(repeats).where(repeats.c.delivery_seq == event.delivery_seq).order_by(repeats.c.received_ms)
    )
    sent = connection.execute(select(messages).where(messages.c.event_id == event.id).order_by(messages.c.seq)).all()
    tried: dict[str, list[Json]] = {message.key: [] for message in sent}
    for row in connection.execute(
        select(attempts).where(attempts.c.message_key.in_(list(tried))).order_by(attempts.c.seq)
    ):
        tried[row.message_key].append(
            {
                "number": row.number,
                "at": _time(row.at_ms),
                "took_ms": row.took_ms,
                "verdict": row.verdict,
                "status": row.status,
                "reason": row.reason,
            }
        )
    return EventStory(
        event=json.loads(event.body),
        source=event.source,
        trace=json.loads(event.trace),
        delivery={
            "id": delivery.id,
            "source": delivery.source,
            "received": _time(delivery.received_ms),
            "proof": delivery.proof,
            "bytes": len(delivery.body),
            "repeats": delivery.repeats,
            "status": delivery.status,
            "attempts": delivery.attempts,
            "reason": delivery.reason,
        },
        repeats=[{"id": row.id, "received": _time(row.received_ms)} for row in again],
        messages=[_message(row) | {"tries": tried[row.key]} for row in sent],
    )


def _message(row: Row[Any]) -> Json:
    return {
        "key": row.key,
        "mapping": row.mapping,
        "mapping_version": row.mapping_version,
        "target": row.target,
        "operation": row.operation,
        "status": row.status,
        "step": row.step,
        "reason": row.reason,
        "attempts": row.attempts,
        "due": _time(row.due_ms) if row.status == "waiting" else None,
        "created": _time(row.created_ms),
        "finished": _time(row.finished_ms) if row.finished_ms else None,
        "target_id": row.target_id,
        "params": json.loads(row.params),
    }


def _where(query: Select[*tuple[Any, ...]], table: Table, wanted: Filter) -> Select[*tuple[Any, ...]]:
    for name, value in wanted.items():
        if value is not None:
            query = query.where(table.c[name] == value)
    return query


def _types(pattern: str) -> Sequence[str]:
    return [name for name in TYPES if matches(pattern, name)]


def _time(milliseconds: int) -> str:
    return moment(milliseconds).isoformat(timespec="milliseconds")


def bodies_of(connection: Connection, ids: Collection[str]) -> dict[str, tuple[str, int]]:
    """Per event its canonical JSON as text and when it was recorded, in milliseconds since 1970."""
    query = select(events.c.id, events.c.body, events.c.recorded_ms).where(events.c.id.in_(ids))
    return {row.id: (row.body, row.recorded_ms) for row in connection.execute(query)}


def knows_more(ledger: Ledger, delivery_seq: int) -> bool:
    """Whether an event of a delivery holds what its platform's API told."""
    with ledger.read() as connection:
        bodies = connection.execute(select(events.c.body).where(events.c.delivery_seq == delivery_seq)).scalars().all()
    return any(json.loads(body)["enrichment"] in ("full", "partial") for body in bodies)


def newest_about(ledger: Ledger, source: str, subject: str) -> Event | None:
    """The newest event of a source about a subject, by the platform's time."""
    query = select(events.c.body).where(events.c.source == source, events.c.subject == subject)
    with ledger.read() as connection:
        body = connection.execute(query.order_by(events.c.time_ms.desc(), events.c.cursor.desc()).limit(1)).scalar()
    return None if body is None else event_from_json(json.loads(body))


def keys_beginning(ledger: Ledger, beginning: str) -> list[str]:
    """Whole message keys from what a person types: all of a key, or its first 8 characters or more."""
    if len(beginning) < 8:
        return []
    with ledger.read() as connection:
        query = select(messages.c.key).where(messages.c.key.startswith(beginning, autoescape=True))
        return list(connection.execute(query.limit(2)).scalars())


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """What an account of a whole run needs: deliveries by their state, repeats, and messages by their state."""

    deliveries: Mapping[str, str]
    repeats: frozenset[str]
    events: int
    messages: Mapping[str, str]


def closing(ledger: Ledger) -> Closing:
    """Everything in the ledger by id; for the account of a demo or a test, not for a ledger of years."""
    with ledger.read() as connection:
        arrived = connection.execute(select(deliveries_in.c.id, deliveries_in.c.status))
        return Closing(
            deliveries={row.id: row.status for row in arrived},
            repeats=frozenset(connection.execute(select(repeats.c.id)).scalars()),
            events=connection.execute(select(func.count()).select_from(events)).scalar_one(),
            messages={row.key: row.status for row in connection.execute(select(messages.c.key, messages.c.status))},
        )


def unfinished(ledger: Ledger) -> int:
    """How many deliveries and messages still wait."""
    with ledger.read() as connection:
        return sum(
            connection.execute(select(func.count()).select_from(table).where(table.c.status == "waiting")).scalar_one()
            for table in (deliveries_in, messages)
        )
