"""Lanes: who works on which rows. One owner at a time, fenced by a token; rows of one order key never overtake.

A lane is a stage and a shard, `process:<source>:<n>` or `deliver:<target>:<n>`. Its owner holds a lease; every claim
and every finish proves in the same transaction that the lease is still held, so a worker that was thought dead and
comes back cannot write over its successor.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, Table, and_, exists, func, or_, select, update

from bridge.ledger.database import Ledger, database_now
from bridge.ledger.tables import deliveries_in, lanes, messages

LEASE_MS: Final = 12_000
"""How long a lane stays with an owner that says nothing; owners renew it several times in that span."""

SUSPECT_STARTS: Final = 2
"""A row whose work was begun this often and never ended is worked on alone: it may be what kills its worker."""

STAGES: Final[dict[str, Table]] = {"process": deliveries_in, "deliver": messages}


class LeaseLost(Exception):
    """Another worker has the lane now: drop what was done, it will be done again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    lane: str
    token: int


def lane_of(stage: str, name: str, order_key: str, shards: int) -> str:
    """The lane of a row: equal order keys share one."""
    return f"{stage}:{name}:{zlib.crc32(order_key.encode()) % shards}"


def stage_table(lane: str) -> Table:
    return STAGES[lane.partition(":")[0]]


def take(ledger: Ledger, lane: str, owner: str) -> Lease | None:
    """The lane, if nobody has it."""
    with ledger.write() as connection:
        now = database_now(connection)
        token = connection.execute(
            update(lanes)
            .where(lanes.c.name == lane, lanes.c.until_ms <= now)
            .values(token=lanes.c.token + 1, owner=owner, until_ms=now + LEASE_MS)
            .returning(lanes.c.token)
        ).scalar()
    return None if token is None else Lease(lane=lane, token=token)


def renew(connection: Connection, lease: Lease) -> None:
    """Prove that the lease is held, and hold it for another span. Raises LeaseLost."""
    now = database_now(connection)
    held = connection.execute(
        update(lanes).where(lanes.c.name == lease.lane, lanes.c.token == lease.token).values(until_ms=now + LEASE_MS)
    )
    if held.rowcount != 1:
        raise LeaseLost(lease.lane)


def release(ledger: Ledger, lease: Lease) -> None:
    """Give the lane back."""
    with ledger.write() as connection:
        connection.execute(
            update(lanes).where(lanes.c.name == lease.lane, lanes.c.token == lease.token).values(until_ms=0)
        )


def claim(ledger: Ledger, lease: Lease, *, now_ms: int, limit: int) -> Sequence[Row[Any]]:
    """Up to `limit` rows of the lane that are due, oldest first, counted as started.

    A row waits while an older one with the same order key is put off: nothing overtakes. A suspect comes alone, so that
    the others of its batch do not share its fate.
    """
    table = stage_table(lease.lane)
    older = table.alias()
    put_off = exists().where(
        older.c.order_key == table.c.order_key,
        older.c.status == "waiting",
        older.c.seq < table.c.seq,
        older.c.due_ms > now_ms,
    )
    query = (
        select(table)
        .where(
            table.c.lane == lease.lane,
            table.c.status == "waiting",
            table.c.due_ms <= now_ms,
            ~put_off,
        )
        .order_by(table.c.seq)
        .limit(limit)
    )
    with ledger.write() as connection:
        renew(connection, lease)
        rows = _without_suspects(connection.execute(query).all())
        if rows:
            started = update(table).where(table.c.seq.in_([row.seq for row in rows]))
            connection.execute(started.values(starts=table.c.starts + 1))
    return rows


def _without_suspects(rows: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
    """The rows before the first suspect, or that one alone where it is the first."""
    suspect = next((position for position, row in enumerate(rows) if row.starts >= SUSPECT_STARTS), len(rows))
    return rows[: max(suspect, 1)]


def put_off(connection: Connection, table: Table, order_keys: Iterable[tuple[str, int]]) -> None:
    """Rows behind one that has to wait are not due before it: otherwise every claim would look at them in vain.

    Those that were claimed with it were not begun after all.
    """
    for order_key, due_ms in order_keys:
        connection.execute(
            update(table)
            .where(table.c.order_key == order_key, table.c.status == "waiting", table.c.due_ms < due_ms)
            .values(due_ms=due_ms, starts=0)
        )


def due_lanes(ledger: Ledger, *, now_ms: int) -> list[str]:
    """Lanes with work that nobody holds: what a lost hint, a flushed Redis or a killed worker leaves behind."""
    due = or_(
        *(
            exists().where(and_(table.c.lane == lanes.c.name, table.c.status == "waiting", table.c.due_ms <= now_ms))
            for table in STAGES.values()
        )
    )
    with ledger.read() as connection:
        free = lanes.c.until_ms <= database_now(connection)
        return list(connection.execute(select(lanes.c.name).where(free, due)).scalars())


def has_due(ledger: Ledger, lane: str, *, now_ms: int) -> bool:
    """Whether a lane has a row that could be claimed now."""
    table = stage_table(lane)
    with ledger.read() as connection:
        found = connection.execute(
            select(table.c.seq)
            .where(table.c.lane == lane, table.c.status == "waiting", table.c.due_ms <= now_ms)
            .limit(1)
        ).scalar()
    return found is not None


def oldest_unfinished(ledger: Ledger) -> dict[str, int | None]:
    """Per stage, when (in milliseconds since 1970) its oldest unfinished row came in; put-off rows count too."""
    with ledger.read() as connection:
        return {
            "process": connection.execute(
                select(func.min(deliveries_in.c.received_ms)).where(deliveries_in.c.status == "waiting")
            ).scalar(),
            "deliver": connection.execute(
                select(func.min(messages.c.created_ms)).where(messages.c.status == "waiting")
            ).scalar(),
        }
