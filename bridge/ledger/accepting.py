"""Deliveries come in: each one exactly once, repeats recognised in the transaction that stores the row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, delete, select, update

from bridge.core.source import Accepted
from bridge.ledger.database import Ledger, insert_new, milliseconds, upsert
from bridge.ledger.figures import count
from bridge.ledger.tables import deliveries_in, journal_positions, repeats


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """An accepted delivery with the lane that will process it and the key that orders it there."""

    accepted: Accepted
    lane: str
    order_key: str


def accept(ledger: Ledger, arrivals: Sequence[Arrival], reached: Mapping[str, int] | None = None) -> set[str]:
    """Store deliveries, and with them how far the journal segments they came from are read. Gives the lanes to wake.

    A delivery with the dedupe key of one that came within its window is a repeat. It gets no row of its own; if the
    first one is not finished it is due at once.
    """
    lanes = {arrival.lane for arrival in arrivals}
    ledger.register(lanes)
    with ledger.write() as connection:
        _store(connection, arrivals)
        rows = [{"segment": segment, "position": position} for segment, position in (reached or {}).items()]
        upsert(connection, journal_positions, rows)
    return lanes


def accept_one(ledger: Ledger, arrival: Arrival) -> set[str]:
    """As `accept` for one delivery whose sender is waiting: what is new costs one round trip to the database."""
    ledger.register([arrival.lane])
    with ledger.at_once() as connection:
        if insert_new(connection, deliveries_in, [delivery_row(arrival)], "id"):
            return {arrival.lane}
    return accept(ledger, [arrival])


def _store(connection: Connection, arrivals: Sequence[Arrival]) -> None:
    rows = [delivery_row(arrival) for arrival in arrivals]
    inserted = set(insert_new(connection, deliveries_in, rows, "id"))
    figures: Counter[tuple[str, str]] = Counter()
    for arrival, row in zip(arrivals, rows, strict=True):
        if row["id"] not in inserted and not _after_window(connection, arrival, row):
            figures[f"source:{row['source']}", "repeats"] += 1
    # What is received is counted when it is processed: with `accept: ledger` every request would have to wait for the
    # one before it to let go of one row of figures.
    count(connection, figures)


def delivery_row(arrival: Arrival) -> dict[str, Any]:
    """The row of a delivery that nobody has worked on yet."""
    verified = arrival.accepted.verified
    inbound = verified.inbound
    return {
        "id": inbound.id,
        "source": inbound.source,
        "received_ms": milliseconds(inbound.received_at),
        "headers": orjson.dumps(dict(inbound.headers)).decode(),
        "query": orjson.dumps(dict(inbound.query)).decode(),
        "body": inbound.body,
        "proof": verified.proof,
        "ignored": arrival.accepted.ignored,
        "dedupe_key": verified.dedupe_key,
        "generation": 0,
        "repeats": 0,
        "lane": arrival.lane,
        "order_key": arrival.order_key,
        "status": "waiting",
        "due_ms": 0,
        "starts": 0,
        "attempts": 0,
        "purpose": "new",
    }


def _after_window(connection: Connection, arrival: Arrival, row: dict[str, Any]) -> bool:
    """Whether a delivery whose key stands already is a new one, because the window since the last one has passed.

    Two processes that both find the window passed try to insert the same next generation; one of them fails and then
    sees the other's row.
    """
    window = arrival.accepted.verified.dedupe_window.total_seconds() * 1000
    same = (deliveries_in.c.source == row["source"]) & (deliveries_in.c.dedupe_key == row["dedupe_key"])
    while True:
        newest = connection.execute(
            select(
                deliveries_in.c.seq,
                deliveries_in.c.id,
                deliveries_in.c.received_ms,
                deliveries_in.c.generation,
                deliveries_in.c.status,
            )
            .where(same)
            .order_by(deliveries_in.c.generation.desc())
            .limit(1)
        ).one()
        if newest.id == row["id"]:
            return True  # shipped before, and not remembered: the journal's position was lost with its host's disk
        if abs(row["received_ms"] - newest.received_ms) <= window:
            _repeat(connection, newest, row)
            return False
        if insert_new(connection, deliveries_in, [row | {"generation": newest.generation + 1}], "id"):
            return True


def _repeat(connection: Connection, first: Any, row: dict[str, Any]) -> None:
    again = {"id": row["id"], "delivery_seq": first.seq, "received_ms": row["received_ms"]}
    if not insert_new(connection, repeats, [again], "id"):
        return
    changes: dict[str, Any] = {"repeats": deliveries_in.c.repeats + 1}
    if first.status == "waiting":
        changes["due_ms"] = 0
    connection.execute(update(deliveries_in).where(deliveries_in.c.seq == first.seq).values(changes))


def positions(ledger: Ledger, segments: Iterable[str]) -> dict[str, int]:
    """How far each of these journal segments is in the ledger; segments that it never saw are left out."""
    with ledger.read() as connection:
        rows = connection.execute(
            select(journal_positions.c.segment, journal_positions.c.position).where(
                journal_positions.c.segment.in_(list(segments))
            )
        )
        return {row.segment: row.position for row in rows}


def forget_positions(ledger: Ledger, segments: Iterable[str]) -> None:
    """Drop the positions of segments whose files are gone."""
    with ledger.write() as connection:
        connection.execute(delete(journal_positions).where(journal_positions.c.segment.in_(list(segments))))
