"""How much came when: deliveries counted by the hour, so that a source's habits can be read without its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, delete, func, select

from bridge.flow.reconcile import PROOF
from bridge.ledger.database import Ledger, milliseconds, moment, upsert
from bridge.ledger.tables import arrivals, deliveries_in

_CHUNK: Final = 5_000
_SETTLED_MS: Final = 60_000
_HOUR_MS: Final = 3_600_000
_KEPT_HOURS: Final = 70 * 24
_COUNTING_LOCK: Final = 0x43414E54  # any number, the same for every process that counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Habit:
    """The hours since 1970 in which a source sent something, up to ten weeks before the last, and its last delivery."""

    hours: frozenset[int]
    last: datetime


def count_arrivals(ledger: Ledger, now: datetime) -> None:
    """Count what has come in since the last time, each delivery once, whoever calls this and however many do.

    Deliveries of the last minute wait for the next time: their neighbours may not be committed yet.
    """
    reached = _reached(ledger)
    if reached is None:
        reached = _before(ledger, milliseconds(now) - _KEPT_HOURS * _HOUR_MS)
    now_ms = milliseconds(now)
    while True:
        rows = _next(ledger, reached)
        old = _settled(rows, now_ms)
        if old and not _count(ledger, reached, old, now_ms):
            return
        if len(old) < _CHUNK:
            break
        reached = old[-1].seq
    _forget_old(ledger)


def habit(ledger: Ledger, source: str) -> Habit | None:
    """When a source sent webhooks; None when it never did. Verification calls and reconciled events do not count."""
    with ledger.read() as connection:
        query = select(arrivals.c.hour, arrivals.c.last_ms)
        rows = connection.execute(query.where(arrivals.c.source == source, arrivals.c.kind == "genuine")).all()
    if not rows:
        return None
    return Habit(hours=frozenset(row.hour for row in rows), last=moment(max(row.last_ms for row in rows)))


def verifications(ledger: Ledger, source: str, *, latest: int) -> list[datetime]:
    """The last verification call of each hour that had one, newest first."""
    with ledger.read() as connection:
        query = select(arrivals.c.last_ms).where(arrivals.c.source == source, arrivals.c.kind == "ignored")
        return [moment(ms) for ms in connection.execute(query.order_by(arrivals.c.hour.desc()).limit(latest)).scalars()]


def newest_delivery(ledger: Ledger) -> int:
    """The `seq` of the newest delivery of all; 0 when there is none."""
    with ledger.read() as connection:
        return connection.execute(select(func.max(deliveries_in.c.seq))).scalar() or 0


def first_after(ledger: Ledger, source: str, seq: int) -> Row[Any] | None:
    """The first genuine delivery of a source behind a `seq`: its `id`, `proof`, `ignored` and `received_ms`."""
    query: Select[*tuple[Any, ...]] = select(
        deliveries_in.c.id, deliveries_in.c.proof, deliveries_in.c.ignored, deliveries_in.c.received_ms
    )
    query = query.where(deliveries_in.c.seq > seq, deliveries_in.c.source == source, deliveries_in.c.proof != PROOF)
    with ledger.read() as connection:
        return connection.execute(query.order_by(deliveries_in.c.seq).limit(1)).first()


def _reached(ledger: Ledger) -> int | None:
    with ledger.read() as connection:
        return _counted_to(connection)


def _counted_to(connection: Connection) -> int | None:
    return connection.execute(select(func.max(arrivals.c.last_seq))).scalar()


def _before(ledger: Ledger, received_ms: int) -> int:
    """A `seq` below which nothing is as new as that: found by halves, for a ledger of millions."""
    with ledger.read() as connection:
        low, high = 0, connection.execute(select(func.max(deliveries_in.c.seq))).scalar() or 0
        while high - low > _CHUNK:
            middle = (low + high) // 2
            query = (
                select(deliveries_in.c.received_ms).where(deliveries_in.c.seq > middle).order_by(deliveries_in.c.seq)
            )
            if (connection.execute(query.limit(1)).scalar() or received_ms) < received_ms:
                low = middle
            else:
                high = middle
    return low


def _next(ledger: Ledger, reached: int) -> Sequence[Row[Any]]:
    query: Select[*tuple[Any, ...]] = select(
        deliveries_in.c.seq,
        deliveries_in.c.source,
        deliveries_in.c.ignored,
        deliveries_in.c.proof,
        deliveries_in.c.received_ms,
    )
    query = query.where(deliveries_in.c.seq > reached).order_by(deliveries_in.c.seq).limit(_CHUNK)
    with ledger.read() as connection:
        return connection.execute(query).all()


def _forget_old(ledger: Ledger) -> None:
    """Ten weeks up to its last hour are kept of each source: one that is silent for long keeps what tells so."""
    same = arrivals.alias()
    newest = (
        select(func.max(same.c.hour))
        .where(same.c.source == arrivals.c.source, same.c.kind == arrivals.c.kind)
        .correlate(arrivals)
        .scalar_subquery()
    )
    with ledger.write() as connection:
        connection.execute(delete(arrivals).where(arrivals.c.hour < newest - _KEPT_HOURS))


def _settled(rows: Sequence[Row[Any]], now_ms: int) -> Sequence[Row[Any]]:
    """Rows up to the first of the last minute. One that came in later than now, by a clock that was ahead, is none."""
    settled = now_ms - _SETTLED_MS
    young = next((place for place, row in enumerate(rows) if settled < row.received_ms <= now_ms), len(rows))
    return rows[:young]


def _count(ledger: Ledger, reached: int, rows: Sequence[Row[Any]], now_ms: int) -> bool:
    """Add rows to their hours, unless somebody else has counted meanwhile."""
    counts: Counter[tuple[str, str, int]] = Counter()
    last: dict[tuple[str, str, int], tuple[int, int]] = {}
    for row in rows:
        received_ms = min(row.received_ms, now_ms)
        key = (row.source, _kind(row), received_ms // _HOUR_MS)
        counts[key] += 1
        last[key] = (max(received_ms, last.get(key, (0, 0))[0]), row.seq)
    with ledger.write() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(_COUNTING_LOCK)))
        if (_counted_to(connection) or reached) > reached:
            return False
        documents = [
            {"source": key[0], "kind": key[1], "hour": key[2], "count": number}
            | {"last_ms": last[key][0], "last_seq": last[key][1]}
            for key, number in sorted(counts.items())
        ]
        upsert(connection, arrivals, documents, add=("count",))
    return True


def _kind(row: Row[Any]) -> str:
    if row.proof == PROOF:  # made by ourselves, it says nothing about whether webhooks come
        return "reconciled"
    return "ignored" if row.ignored else "genuine"
