"""Lanes: who works on which rows. One owner at a time, fenced by a token; rows of one order key never overtake.

A lane is a stage and a shard, `process:<source>:<n>` or `deliver:<target>:<n>`. Its owner holds a lease; every claim
and every finish proves in the same transaction that the lease is still held, so a worker that was thought dead and
comes back cannot write over its successor. Who takes a lane that was not given back counts what it begins for as many
rows as were at work at most: see `claim_counted`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, Table, Update, and_, bindparam, case, exists, func, or_, select, update

from bridge.ledger.database import Ledger, clock
from bridge.ledger.tables import deliveries_in, lanes, messages

LEASE_MS: Final = 12_000
"""How long a lane stays with an owner that says nothing; owners renew it several times in that span."""

BATCH: Final = 100
"""Rows that are claimed together, at most."""

ALONE_AFTER: Final = 2
"""Starts without an end after which a row is worked on alone."""

STAGES: Final[dict[str, Table]] = {"process": deliveries_in, "deliver": messages}


class LeaseLost(Exception):
    """Another worker has the lane now: drop what was done, it will be done again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """`suspects` is how many rows are to be counted when their work begins: an owner that never gave the lane back died
    of one of them, maybe.
    """

    lane: str
    token: int
    suspects: int = 0


def lane_of(stage: str, name: str, order_key: str, shards: int) -> str:
    """The lane of a row: equal order keys share one."""
    return f"{stage}:{name}:{zlib.crc32(order_key.encode()) % shards}"


def stage_table(lane: str) -> Table:
    return STAGES[lane.partition(":")[0]]


def take(ledger: Ledger, lane: str, owner: str) -> Lease | None:
    """The lane, if nobody has it."""
    with ledger.write() as connection:
        now = clock(connection.dialect.name)
        taken = connection.execute(
            update(lanes)
            .where(lanes.c.name == lane, lanes.c.until_ms <= now, lanes.c.not_before_ms <= now)
            .values(
                token=lanes.c.token + 1,
                owner=owner,
                until_ms=now + LEASE_MS,
                suspects=case((lanes.c.until_ms == 0, lanes.c.suspects), else_=BATCH),
            )
            .returning(lanes.c.token, lanes.c.suspects)
        ).one_or_none()
    return None if taken is None else Lease(lane=lane, token=taken.token, suspects=taken.suspects)


def renew(connection: Connection, lease: Lease) -> None:
    """Prove that the lease is held, and hold it for another span. Raises LeaseLost."""
    held = connection.execute(_renewal(connection.dialect.name), {"lane": lease.lane, "held": lease.token})
    if held.rowcount != 1:
        raise LeaseLost(lease.lane)


def release(ledger: Ledger, lease: Lease, *, suspects: int = 0) -> None:
    """Give the lane back, with so many rows that are still suspects."""
    with ledger.write() as connection:
        connection.execute(
            update(lanes)
            .where(lanes.c.name == lease.lane, lanes.c.token == lease.token)
            .values(until_ms=0, suspects=suspects)
        )


def held(ledger: Ledger) -> list[tuple[Lease, str]]:
    """All leases that have not run out, each with its owner."""
    with ledger.read() as connection:
        rows = connection.execute(
            select(lanes.c.name, lanes.c.token, lanes.c.owner).where(lanes.c.until_ms > clock(connection.dialect.name))
        )
        return [(Lease(lane=row.name, token=row.token), row.owner) for row in rows]


def bury(ledger: Ledger, lease: Lease) -> None:
    """End the lease of an owner that is known to be dead, as if it had run out."""
    with ledger.write() as connection:
        connection.execute(
            update(lanes).where(lanes.c.name == lease.lane, lanes.c.token == lease.token).values(until_ms=1)
        )


def claim(ledger: Ledger, lease: Lease, *, now_ms: int, limit: int) -> Sequence[Row[Any]]:
    """Up to `limit` rows of the lane that are due, oldest first; none if the lease is lost.

    A row waits while an older one with the same order key is put off, or stands in another lane because their number
    was changed: nothing overtakes. Nothing is written: the rows stay what they are until they are finished, or are
    claimed by the next owner.
    """
    with ledger.read() as connection:
        return connection.execute(_claimable(stage_table(lease.lane)), _claiming(lease, now_ms, limit)).all()


def claim_counted(ledger: Ledger, lease: Lease, *, now_ms: int, limit: int) -> Sequence[Row[Any]]:
    """The same, counted as started before their work begins; one that was begun ALONE_AFTER times comes alone.

    So what kills its worker is found, and takes none of the others with it. Raises LeaseLost.
    """
    table = stage_table(lease.lane)
    with ledger.write() as connection:
        renew(connection, lease)
        rows = connection.execute(_claimable(table), _claiming(lease, now_ms, limit)).all()
        position = next((at for at, row in enumerate(rows) if row.starts >= ALONE_AFTER), len(rows))
        rows = rows[: max(position, 1)]
        if rows:
            begun = update(table).where(table.c.seq.in_([row.seq for row in rows]))
            connection.execute(begun.values(starts=table.c.starts + 1))
    return rows


def _claiming(lease: Lease, now_ms: int, limit: int) -> dict[str, Any]:
    return {"lane": lease.lane, "held": lease.token, "now": now_ms, "at_most": limit}


@cache
def _claimable(table: Table) -> Select[Any]:
    older = table.alias()
    before = exists().where(
        older.c.order_key == table.c.order_key,
        older.c.status == "waiting",
        older.c.seq < table.c.seq,
        or_(older.c.due_ms > bindparam("now"), older.c.lane != table.c.lane),
    )
    return (
        select(table)
        .where(
            table.c.lane == bindparam("lane"),
            table.c.status == "waiting",
            table.c.due_ms <= bindparam("now"),
            ~before,
            exists().where(
                lanes.c.name == bindparam("lane"),
                lanes.c.token == bindparam("held"),
                lanes.c.not_before_ms <= bindparam("now"),
            ),
        )
        .order_by(table.c.seq)
        .limit(bindparam("at_most"))
    )


@cache
def _renewal(dialect: str) -> Update:
    return (
        update(lanes)
        .where(lanes.c.name == bindparam("lane"), lanes.c.token == bindparam("held"))
        .values(until_ms=clock(dialect) + LEASE_MS)
    )


def put_off(connection: Connection, table: Table, order_keys: Iterable[tuple[str, int]]) -> None:
    """Rows behind one that has to wait are not due before it: otherwise every claim would look at them in vain."""
    for order_key, due_ms in order_keys:
        connection.execute(
            update(table)
            .where(table.c.order_key == order_key, table.c.status == "waiting", table.c.due_ms < due_ms)
            .values(due_ms=due_ms)
        )


def hold(connection: Connection, beginning: str, until_ms: int) -> None:
    """Let nothing be claimed from the lanes whose names begin so before a time; 0 opens them again."""
    connection.execute(
        update(lanes)
        .where(lanes.c.name.startswith(beginning, autoescape=True), lanes.c.not_before_ms != until_ms)
        .values(not_before_ms=until_ms)
    )


def held_back(ledger: Ledger, lane: str, *, now_ms: int) -> bool:
    """Whether nothing may be claimed from a lane for now."""
    with ledger.read() as connection:
        query = select(lanes.c.name).where(lanes.c.name == lane, lanes.c.not_before_ms > now_ms)
        return connection.execute(query).first() is not None


def names(connection: Connection, beginning: str) -> set[str]:
    """The lanes whose names begin so."""
    query = select(lanes.c.name).where(lanes.c.name.startswith(beginning, autoescape=True))
    return set(connection.execute(query).scalars())


def due_lanes(ledger: Ledger, *, now_ms: int) -> list[str]:
    """Lanes with work that nobody holds: what a lost hint, a flushed Redis or a killed worker leaves behind."""
    due = or_(
        *(
            exists().where(and_(table.c.lane == lanes.c.name, table.c.status == "waiting", table.c.due_ms <= now_ms))
            for table in STAGES.values()
        )
    )
    with ledger.read() as connection:
        now = clock(connection.dialect.name)
        free = and_(lanes.c.until_ms <= now, lanes.c.not_before_ms <= now)
        return list(connection.execute(select(lanes.c.name).where(free, due)).scalars())


def has_due(ledger: Ledger, lane: str, *, now_ms: int) -> bool:
    """Whether a lane has a row that could be claimed now."""
    with ledger.read() as connection:
        return connection.execute(_due(stage_table(lane)), {"lane": lane, "now": now_ms}).first() is not None


@cache
def _due(table: Table) -> Select[Any]:
    return (
        select(table.c.seq)
        .where(table.c.lane == bindparam("lane"), table.c.status == "waiting", table.c.due_ms <= bindparam("now"))
        .where(exists().where(lanes.c.name == table.c.lane, lanes.c.not_before_ms <= bindparam("now")))
        .limit(1)
    )


def waiting(ledger: Ledger, beginning: str) -> int:
    """How many rows wait, due or not, in all lanes whose names begin so."""
    table = stage_table(beginning)
    with ledger.read() as connection:
        query = select(func.count()).where(table.c.lane.startswith(beginning, autoescape=True))
        return connection.execute(query.where(table.c.status == "waiting")).scalar_one()


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
