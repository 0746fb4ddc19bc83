"""How targets stand, shared by all workers: who is left alone, until when, and who may try first when that is over."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection, Row, select, update

from bridge.flow.standing import FINE, Standing, State
from bridge.ledger.database import Ledger, insert_new, upsert
from bridge.ledger.lanes import hold, names
from bridge.ledger.tables import destinations

PROBE_SECONDS: Final = 90.0
"""How long the one that tries first has for it, before another may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A target and how it stands; `settings` is a fingerprint of those it was reached with."""

    target: str
    standing: Standing
    settings: str


def standing_of(connection: Connection, target: str, settings: str) -> Standing:
    """How a target stands. What happened with other settings is forgotten, except that a person paused it."""
    row = connection.execute(select(destinations).where(destinations.c.target == target)).one_or_none()
    if row is None:
        return FINE
    known = _standing(row)
    return known if row.settings == settings or known.state is State.PAUSED else FINE


def stored(connection: Connection, target: str) -> Standing | None:
    """What is written down of a target, with whatever settings."""
    row = connection.execute(select(destinations).where(destinations.c.target == target)).one_or_none()
    return None if row is None else _standing(row)


def note(ledger: Ledger, destination: Destination, *, by_hand: bool = False) -> set[str] | None:
    """Write down how a target stands now, and open or close its lanes. Gives the lanes to wake.

    What a person paused only a person opens (`by_hand`): then nothing is written, and the answer is None.
    """
    standing = destination.standing
    with ledger.write() as connection:
        if not by_hand and _is_paused(connection, destination):
            return None
        upsert(connection, destinations, [_row(destination)])
        hold(connection, _lanes(destination.target), _ms(standing.until))
        return names(connection, _lanes(destination.target)) if standing.state is State.FINE else set()


def hold_new(ledger: Ledger, target: str, lane: str) -> None:
    """Hold back a lane that was made while its target is left alone, for as long as all the others."""
    with ledger.write() as connection:
        query = select(destinations.c.until_ms).where(destinations.c.target == target).with_for_update()
        hold(connection, lane, connection.execute(query).scalar() or 0)


def probe(ledger: Ledger, destination: Destination) -> bool:
    """Whether the caller is the one who tries first; all others stay away until it knows, or its time is over."""
    until = _ms(time.time() + PROBE_SECONDS)
    with ledger.write() as connection:
        mine = connection.execute(
            update(destinations)
            .where(
                destinations.c.target == destination.target,
                destinations.c.until_ms == _ms(destination.standing.until),
                destinations.c.state == destination.standing.state.value,
            )
            .values(until_ms=until)
        ).rowcount
        if mine:
            hold(connection, _lanes(destination.target), until)
    return bool(mine)


def listed(ledger: Ledger) -> Mapping[str, Standing]:
    """All targets that are not fine."""
    with ledger.read() as connection:
        rows = connection.execute(select(destinations).where(destinations.c.state != State.FINE.value))
        return {row.target: _standing(row) for row in rows}


def _is_paused(connection: Connection, destination: Destination) -> bool:
    insert_new(connection, destinations, [_row(replace(destination, standing=FINE))], "target")  # something to lock
    query = select(destinations.c.state).where(destinations.c.target == destination.target).with_for_update()
    return connection.execute(query).scalar() == State.PAUSED.value


def _row(destination: Destination) -> dict[str, Any]:
    standing = destination.standing
    return {
        "target": destination.target,
        "state": standing.state.value,
        "until_ms": _ms(standing.until),
        "reason": standing.reason,
        "rounds": standing.rounds,
        "since_ms": None if standing.since is None else _ms(standing.since),
        "settings": destination.settings,
        "changed_ms": _ms(time.time()),
    }


def _standing(row: Row[Any]) -> Standing:
    return Standing(
        state=State(row.state),
        until=row.until_ms / 1000,
        reason=row.reason,
        rounds=row.rounds,
        since=None if row.since_ms is None else row.since_ms / 1000,
    )


def _lanes(target: str) -> str:
    return f"deliver:{target}:"


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
