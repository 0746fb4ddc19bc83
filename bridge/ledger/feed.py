"""The order in which events are offered to those who pull: complete, stable, and the same for every reader.

Ids that a database counts up are given out before the commit: a reader at 10 would miss a 9 that is committed later.
Here a position is given out by changing the one row of `feed_head`, as the last thing a transaction does. The row stays
locked until the commit, so whoever gets the next position commits later, and no reader sees a position before all lower
ones. Nothing depends on the database's transaction numbers, which a long transaction of anybody on the same server
holds back, and which begin anew after a restore.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, Connection, Select, bindparam, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import Insert, ReturningUpdate

from bridge.ledger.database import Ledger
from bridge.ledger.reading import bodies_of
from bridge.ledger.tables import events, feed, feed_head

WINDOW: Final = 10_000
"""How many positions one page looks at: a filter that matches next to nothing costs a page no more than this."""

_FROZEN_MS: Final = 30_000
"""How long a transaction that has taken its places may do nothing, before PostgreSQL ends it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The newest position, and the name of the line that it is a position of."""

    line: str
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which events a reader wants, or may have: short types, and names of sources (None: of all)."""

    types: frozenset[str]
    sources: frozenset[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One event of the feed: its position and its canonical JSON as text."""

    position: int
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A piece of the feed. `next` is where to go on, whether there were entries or not; `more` if it pays at once."""

    entries: Sequence[Entry]
    next: int
    more: bool


def changed(connection: Connection, bodies: Mapping[str, str]) -> set[str]:
    """Those of these events (their new JSON by id) that stand in the ledger with another JSON."""
    if not bodies:
        return set()
    known = bodies_of(connection, list(bodies))
    return {id for id, body in bodies.items() if id in known and known[id][0] != body}


def offer(connection: Connection, ids: Collection[str]) -> None:
    """Give the newest positions to these events, in the order in which they were stored.

    This has to be the last thing a transaction does: from here to the commit it holds up all others who come here, and
    as it waits for nobody while it does, there is no deadlock.
    """
    if not ids:
        return
    head = connection.execute(_advance(connection.dialect.name), {"by": len(ids)}).scalar_one()
    connection.execute(_entry(connection.dialect.name), {"base": head - len(ids), "ids": list(ids)})


@cache
def _advance(dialect: str) -> ReturningUpdate[Any]:
    """Takes places, and the row's lock. A worker that is frozen before its commit must not hold it for ever."""
    returned: list[ColumnElement[Any]] = [feed_head.c.position]
    if dialect == "postgresql":
        returned.append(func.set_config("idle_in_transaction_session_timeout", str(_FROZEN_MS), True))
    return update(feed_head).values(position=feed_head.c.position + bindparam("by")).returning(*returned)


@cache
def _entry(dialect: str) -> Insert:
    """Enters events behind a position; those that have a place already move."""
    numbers = bindparam("base", type_=BigInteger) + func.row_number().over(order_by=events.c.cursor)
    found = select(numbers, events.c.cursor).where(events.c.id.in_(bindparam("ids", expanding=True)))
    insert = (sqlite.insert if dialect == "sqlite" else postgresql.insert)(feed)
    moved = insert.from_select(["position", "event"], found)
    return moved.on_conflict_do_update(index_elements=["event"], set_={"position": insert.excluded.position})


def head_of(ledger: Ledger) -> Head:
    """Where the feed ends now."""
    with ledger.read() as connection:
        return _head(connection)


def read_feed(ledger: Ledger, wanted: Wanted, *, after: int, limit: int) -> Page:
    """The entries behind a position, in order, at most `limit`."""
    with ledger.read() as connection:
        # Asked first: all that is read after it contains everything up to there.
        head = _head(connection).position
        if after >= head:
            return Page(entries=(), next=after, more=False)
        end = min(head, after + WINDOW)
        query = _matching(wanted).where(feed.c.position > after, feed.c.position <= end)
        rows = connection.execute(query.order_by(feed.c.position).limit(limit + 1)).all()
        found = [Entry(position=row.position, body=row.body) for row in rows[:limit]]
        if len(rows) > limit:
            return Page(entries=found, next=found[-1].position, more=True)
        if not found and end < head:  # what was deleted leaves gaps that may be long
            first = connection.execute(select(func.min(feed.c.position)).where(feed.c.position > end)).scalar()
            end = head if first is None else min(head, first - 1)
        return Page(entries=found, next=end, more=end < head)


def read_event(ledger: Ledger, wanted: Wanted, id: str) -> str | None:
    """The canonical JSON of an event as text, if it is there and wanted."""
    with ledger.read() as connection:
        body: str | None = connection.execute(_matching(wanted).where(events.c.id == id)).scalars(1).first()
    return body


def _matching(wanted: Wanted) -> Select[tuple[int, str]]:
    query = select(feed.c.position, events.c.body).join_from(feed, events, events.c.cursor == feed.c.event)
    query = query.where(events.c.type.in_(sorted(wanted.types)))
    return query if wanted.sources is None else query.where(events.c.source.in_(sorted(wanted.sources)))


def _head(connection: Connection) -> Head:
    row = connection.execute(select(feed_head)).one()
    return Head(line=row.line, position=row.position)
