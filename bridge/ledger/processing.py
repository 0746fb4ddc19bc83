"""The end of the process stage: events and messages go in, and the delivery is closed, in one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

import orjson
from sqlalchemy import Connection, bindparam, update

from bridge.core.events import Event, Json
from bridge.ledger.database import Ledger, insert_new, milliseconds
from bridge.ledger.duties import ask_for, reconciling
from bridge.ledger.facts import Telling, Told, already_told, note_repeat
from bridge.ledger.feed import changed, offer
from bridge.ledger.figures import count
from bridge.ledger.lanes import Lease, put_off, renew
from bridge.ledger.tables import deliveries_in, events, messages


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """A canonical event and its JSON, of a source (by its name in bridge.yaml), and the story of how it came about.

    `facts` are what it tells; where another delivery told one of them and either was reconciled, the event is known.
    With `returns` they are the present truth, and may come true again.
    """

    event: Event
    document: Json
    source: str
    trace: Json
    facts: tuple[str, ...] = ()
    returns: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMessage:
    """A rendered message, or, with status "dead", one that could not be rendered."""

    key: str
    event_id: str
    mapping: str
    mapping_version: str
    target: str
    operation: str
    params: Json
    lane: str
    order_key: str
    state: bool
    latest_only: bool
    time_ms: int
    sequence: int | None
    status: Literal["waiting", "dead"] = "waiting"
    step: Literal["map", "deliver"] = "deliver"
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Processed:
    """A delivery that became these events and messages.

    The purpose `replay` lets known events and messages go out again; `completion` brings known events up to date and
    lets only messages go out that there were none of before. `reconciled` ones no platform sent. With `again_ms` the
    delivery is processed once more then, as a completion, and holds up nothing until it is.
    """

    seq: int
    source: str
    events: Sequence[NewEvent]
    messages: Sequence[NewMessage]
    purpose: str = "new"
    reconciled: bool = False
    again_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PostponedDelivery:
    """A delivery that waits for a platform's API; `due_ms` is when to ask again."""

    seq: int
    order_key: str
    due_ms: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadDelivery:
    """A delivery that our own code cannot process; a replay takes it up again after a fix."""

    seq: int
    source: str
    reason: str


def finish(
    ledger: Ledger,
    lease: Lease,
    processed: Sequence[Processed],
    postponed: Sequence[PostponedDelivery] = (),
    dead: Sequence[DeadDelivery] = (),
) -> set[str]:
    """Commit the results of one batch. Gives the lanes to wake. Raises LeaseLost: then nothing was written."""
    ledger.register({message.lane for entry in processed for message in entry.messages})
    with ledger.write() as connection:
        renew(connection, lease)
        told = _told(connection, processed)
        lanes, offered = _store(connection, processed, told)
        _close(connection, [(entry.seq, "done", None) for entry in processed if entry.again_ms is None])
        for entry in processed:
            if entry.again_ms is not None:
                connection.execute(
                    _INCOMPLETE, {"row": entry.seq, "due": entry.again_ms, "own": f"rest of {entry.seq}"}
                )
        _close(connection, [(entry.seq, "dead", entry.reason) for entry in dead])
        for late in postponed:
            connection.execute(
                update(deliveries_in)
                .where(deliveries_in.c.seq == late.seq)
                .values(due_ms=late.due_ms, reason=late.reason, starts=0, attempts=deliveries_in.c.attempts + 1)
            )
        put_off(connection, deliveries_in, ((late.order_key, late.due_ms) for late in postponed))
        count(connection, Counter((f"source:{entry.source}", "dead") for entry in dead))
        offer(connection, offered)  # last: whoever comes after us waits from here until the commit
    return lanes


def _told(connection: Connection, processed: Sequence[Processed]) -> Told:
    told = already_told(
        connection,
        [
            Telling(
                source=entry.source,
                facts=new.facts,
                delivery_seq=entry.seq,
                event_id=new.event.id,
                origin=new.event.origin,
                subject=new.event.subject,
                state=new.event.state_key if new.event.kind.nature == "state" else None,
                shown_at=new.event.observedat if new.returns else None,
            )
            for entry in processed
            for new in entry.events
            if new.facts
        ],
    )
    for entry in processed:
        first = told.whole(entry.seq, [new.event.id for new in entry.events])
        if first is not None:
            note_repeat(connection, of=first, late=entry.seq)
    return told


def _store(connection: Connection, processed: Sequence[Processed], told: Told) -> tuple[set[str], set[str]]:
    """Gives the lanes to wake, and the ids of the events that are new or not as they were."""
    now = _now()
    rows = [
        _event_row(entry.seq, event)
        for entry in processed
        for event in entry.events
        if told.stored(entry.seq, event.event.id)
    ]
    fresh = set(insert_new(connection, events, rows, "id"))
    again = {event.event.id for entry in processed if entry.purpose != "new" for event in entry.events} - fresh
    offered = fresh | changed(connection, {row["id"]: row["body"] for row in rows if row["id"] in again})
    for row in rows:
        if row["id"] in again:
            connection.execute(update(events).where(events.c.id == row["id"]).values(row))
    wanted = [
        message
        for entry in processed
        for message in entry.messages
        if message.event_id in fresh | again and not told.silent(entry.seq, message.event_id, entry.purpose)
    ]
    new = set(insert_new(connection, messages, [message_row(message, now) for message in wanted], "key"))
    repeated = {message.key for entry in processed if entry.purpose == "replay" for message in entry.messages} - new
    send_again(connection, [message for message in wanted if message.key in repeated], now)

    figures = _counted(processed, fresh)
    ask_for(connection, {reconciling(entry.source) for entry in processed if _ticks(entry, fresh)})
    for message in wanted:
        if message.key not in new | repeated:
            continue
        figures[f"target:{message.target}", "messages" if message.key in new else "replayed"] += 1
        if message.status == "dead":
            figures[f"target:{message.target}", "dead"] += 1
    count(connection, figures)
    woken = {message.lane for message in wanted if message.status == "waiting" and message.key in new | repeated}
    return woken, offered


def _counted(processed: Sequence[Processed], fresh: Collection[str]) -> Counter[tuple[str, str]]:
    """What came in and what became of it, per source. What no platform sent was not received."""
    figures: Counter[tuple[str, str]] = Counter()
    for entry in processed:
        source = f"source:{entry.source}"
        new = [event.event for event in entry.events if event.event.id in fresh]
        if entry.purpose == "new" and not entry.reconciled:
            figures[source, "received"] += 1
        figures[source, "events"] += len(new)
        figures[source, "known_events"] += len(entry.events) - len(new)
        figures[source, "unmapped"] += sum(event.type == "source.unmapped" for event in new)
        figures[source, "reconciled"] += len(new) if entry.reconciled else 0
    return figures


def _ticks(entry: Processed, fresh: Collection[str]) -> bool:
    return any(new.event.type == "source.tick" and new.event.id in fresh for new in entry.events)


def send_again(connection: Connection, known: Iterable[NewMessage], now: int) -> None:
    """Messages that stand in the ledger already go out once more, under the same key, as they are rendered now."""
    for message in known:
        row = message_row(message, now)
        connection.execute(update(messages).where(messages.c.key == message.key).values(row))


def message_row(message: NewMessage, now: int) -> dict[str, Any]:
    """The row of a message that has not been tried yet."""
    return {
        "key": message.key,
        "event_id": message.event_id,
        "mapping": message.mapping,
        "mapping_version": message.mapping_version,
        "target": message.target,
        "operation": message.operation,
        "params": orjson.dumps(message.params).decode(),
        "lane": message.lane,
        "order_key": message.order_key,
        "state": message.state,
        "latest_only": message.latest_only,
        "time_ms": message.time_ms,
        "sequence": message.sequence,
        "status": message.status,
        "due_ms": now,
        "starts": 0,
        "attempts": 0,
        "created_ms": now,
        "step": message.step,
        "reason": message.reason,
        "finished_ms": now if message.status == "dead" else None,
    }


def _event_row(delivery_seq: int, new: NewEvent) -> dict[str, Any]:
    event = new.event
    return {
        "id": event.id,
        "delivery_seq": delivery_seq,
        "source": new.source,
        "type": event.type,
        "subject": event.subject,
        "state_key": event.state_key,
        "time_ms": milliseconds(event.time),
        "recorded_ms": milliseconds(event.recordedtime),
        "body": orjson.dumps(new.document).decode(),
        "trace": orjson.dumps(new.trace).decode(),
    }


_CLOSED: Final = (
    update(deliveries_in)
    .where(deliveries_in.c.seq == bindparam("row"))
    .values(status=bindparam("new_status"), reason=bindparam("new_reason"), finished_ms=bindparam("now"), purpose="new")
)


_INCOMPLETE: Final = (
    update(deliveries_in)
    .where(deliveries_in.c.seq == bindparam("row"))
    .values(purpose="completion", due_ms=bindparam("due"), order_key=bindparam("own"), attempts=0, starts=0)
)


def _close(connection: Connection, closed: Sequence[tuple[int, str, str | None]]) -> None:
    if closed:
        now = _now()
        connection.execute(
            _CLOSED,
            [{"row": seq, "new_status": status, "new_reason": reason, "now": now} for seq, status, reason in closed],
        )


def _now() -> int:
    return milliseconds(datetime.now(UTC))
