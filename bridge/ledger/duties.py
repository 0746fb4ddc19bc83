"""Work that comes round again: when it is due, and whose it is. One owner at a time, as with lanes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, case, select, update

from bridge.ledger.database import Ledger, clock, insert_new
from bridge.ledger.tables import duties

LEASE_MS: Final = 30_000
"""How long a duty stays with an owner that says nothing; owners hold on to it several times in that span."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A duty that is ours; `failures` is how often in a row it has failed before."""

    name: str
    token: int
    failures: int


def enrol(ledger: Ledger, name: str, *, due_ms: int, no_later: bool = False) -> None:
    """Make a duty known that is due then; with `no_later` one that is known is due then at the latest, too."""
    row = {"name": name, "due_ms": due_ms, "token": 0, "owner": "", "until_ms": 0, "failures": 0}
    with ledger.write() as connection:
        if not insert_new(connection, duties, [row], "name") and no_later:
            connection.execute(
                update(duties).where(duties.c.name == name, duties.c.due_ms > due_ms).values(due_ms=due_ms)
            )


def due(ledger: Ledger, names: Collection[str], *, now_ms: int) -> Sequence[str]:
    """Which of these are due and nobody's."""
    with ledger.read() as connection:
        free = duties.c.until_ms <= clock(connection.dialect.name)
        query = select(duties.c.name).where(duties.c.name.in_(names), duties.c.due_ms <= now_ms, free)
        return list(connection.execute(query).scalars())


def take(ledger: Ledger, name: str, owner: str, *, now_ms: int, next_ms: int) -> Turn | None:
    """The duty, if it is due and nobody has it; it is due again at `next_ms`, or earlier if it is asked for."""
    with ledger.write() as connection:
        now = clock(connection.dialect.name)
        taken = connection.execute(
            update(duties)
            .where(duties.c.name == name, duties.c.due_ms <= now_ms, duties.c.until_ms <= now)
            .values(
                token=duties.c.token + 1,
                owner=owner,
                until_ms=now + LEASE_MS,
                due_ms=next_ms,
                began_ms=now_ms,
            )
            .returning(duties.c.token, duties.c.failures)
        ).one_or_none()
    return None if taken is None else Turn(name=name, token=taken.token, failures=taken.failures)


def hold(ledger: Ledger, turn: Turn) -> bool:
    """Keep it for another span; False if somebody else has it now."""
    with ledger.write() as connection:
        held = connection.execute(
            update(duties)
            .where(duties.c.name == turn.name, duties.c.token == turn.token)
            .values(until_ms=clock(connection.dialect.name) + LEASE_MS)
        )
    return held.rowcount == 1


def leave(ledger: Ledger, turn: Turn, *, now_ms: int, problem: str | None = None, again_ms: int | None = None) -> None:
    """Give it back: done, or with what went wrong and when to try again (it may be asked for earlier)."""
    earlier = (
        duties.c.due_ms if again_ms is None else case((duties.c.due_ms < again_ms, duties.c.due_ms), else_=again_ms)
    )
    with ledger.write() as connection:
        connection.execute(
            update(duties)
            .where(duties.c.name == turn.name, duties.c.token == turn.token)
            .values(
                until_ms=0,
                token=duties.c.token + 1,  # who still holds on to it comes too late
                ended_ms=now_ms,
                problem=problem,
                failures=duties.c.failures + 1 if problem is not None else 0,
                due_ms=earlier,
            )
        )


def ask_for(connection: Connection, names: Collection[str]) -> None:
    """Make duties due at once, in a transaction of somebody else; those that nobody does are left alone."""
    if names:
        connection.execute(update(duties).where(duties.c.name.in_(names)).values(due_ms=0))


def reconciling(source: str) -> str:
    """The name of the duty that compares a source with what its platform lists."""
    return f"reconcile:{source}"
