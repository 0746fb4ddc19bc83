"""How targets stand, shared by all workers: who is left alone, until when, and who may try first when that is over."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, select, update

from bridge.flow.standing import FINE, Standing, State
from bridge.ledger.database import Ledger, upsert
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


def note(ledger: Ledger, destination: Destination) -> set[str]:
    """Write down how a target stands now, and open or close its lanes. Gives the lanes to wake."""
    standing = destination.standing
    with ledger.write() as connection:
        _write(connection, destination)
        hold(connection, _lanes(destination.target), _ms(standing.until))
        return names(connection, _lanes(destination.target)) if standing.state is State.FINE else set()


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


def _write(connection: Connection, destination: Destination) -> None:
    standing = destination.standing
    row = {
        "target": destination.target,
        "state": standing.state.value,
        "until_ms": _ms(standing.until),
        "reason": standing.reason,
        "rounds": standing.rounds,
        "since_ms": None if standing.since is None else _ms(standing.since),
        "settings": destination.settings,
        "changed_ms": _ms(time.time()),
    }
    upsert(connection, destinations, [row])


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
