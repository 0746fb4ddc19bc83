"""A lane that comes into use while its target is left alone is left alone with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from destination_parts import LANES, System, Worker, due, put, rows, soon, statuses
from redis import Redis
from sqlalchemy import Row, select, update

from bridge.engine.hints import Hints
from bridge.engine.worker import Lanes, Stage
from bridge.ledger.byhand import pause, resume
from bridge.ledger.database import Ledger
from bridge.ledger.destinations import listed
from bridge.ledger.lanes import Lease, lane_of
from bridge.ledger.tables import lanes
from bridge.testing.answering import LocalServer

OLD = lane_of("deliver", "crm", "paper", LANES)
NEW = [name for name in (f"deliver:crm:{number}" for number in range(LANES)) if name != OLD]


@dataclass
class Counting:
    """A stage that remembers how often it was given something to work on."""

    stage: Stage
    batch: int = 100
    claims: list[str] = field(default_factory=list)

    def work(self, lease: Lease, rows: Sequence[Row[Any]]) -> None:
        self.claims.append(lease.lane)
        self.stage.work(lease, rows)


@pytest.fixture
def system() -> System:
    return System()


@pytest.fixture
def worker(ledger: Ledger, system: System) -> Iterator[Worker]:
    with LocalServer(system.answer) as server:
        made = Worker(ledger, server.url)
        yield made
        made.pool.shutdown()


def no_redis() -> Redis:
    raise OSError


def run(ledger: Ledger, stage: Stage, names: Sequence[str]) -> None:
    """A worker process takes these lanes, and leaves them as soon as it finds that they are closed."""
    at_work = Lanes(ledger, Hints(no_redis), {"deliver": stage}, slots=len(names))
    before = taken(ledger, names)
    for name in names:
        at_work.start(name)
    assert soon(lambda: all(count > before[name] for name, count in taken(ledger, names).items()))
    assert soon(lambda: is_free(ledger, names), 1.2), "it lingers"
    at_work.stop()


def taken(ledger: Ledger, names: Sequence[str]) -> dict[str, int]:
    with ledger.read() as connection:
        found = connection.execute(select(lanes.c.name, lanes.c.token).where(lanes.c.name.in_(names)))
        return {row.name: row.token for row in found}


def is_free(ledger: Ledger, names: Sequence[str]) -> bool:
    with ledger.read() as connection:
        return not connection.execute(select(lanes.c.name).where(lanes.c.name.in_(names), lanes.c.until_ms > 1)).all()


@pytest.mark.parametrize("status", [None, 429, 401, 410], ids=["paused", "throttled", "refused", "gone"])
@pytest.mark.parametrize("after_a_death", [False, True], ids=["", "its_first_owner_was_killed"])
def test_a_lane_that_is_new_while_its_target_is_left_alone_is_held_back(
    ledger: Ledger, worker: Worker, system: System, status: int | None, *, after_a_death: bool
) -> None:
    if status is None:
        pause(ledger, "crm", "not before Monday", who="ada")
    else:
        put(ledger, "a", same_key=True)
        system.status, system.headers = status, {"Retry-After": "600"} if status == 429 else {}
        worker.work(OLD)
    asked, standing = system.requests, listed(ledger)["crm"]
    put(ledger, *map(str, range(20)))
    if after_a_death:
        with ledger.write() as connection:
            connection.execute(update(lanes).where(lanes.c.name.in_(NEW)).values(until_ms=1))
    stage = Counting(worker.stage)
    run(ledger, stage, NEW)
    assert sorted(stage.claims) == NEW, "one look each"
    assert system.requests == asked
    assert listed(ledger)["crm"] == standing
    assert not set(due(ledger)) & set(NEW), "nobody is woken for it meanwhile"
    assert max(row.starts for row in rows(ledger)) <= 1
    system.status = 200
    resume(ledger, "crm", who="ada")
    worker.work_all(later=1000)
    assert set(statuses(ledger)) == {"delivered"}
    assert set(system.taken.values()) == {1}
