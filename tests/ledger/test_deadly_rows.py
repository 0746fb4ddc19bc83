"""A row that kills the worker which works on it, or that no worker can bring to its end, on both databases."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from ledger_rows import PROCESS, arrive, now_ms
from redis import Redis
from sqlalchemy import Row, select, update
from sqlalchemy.exc import DataError, OperationalError, TimeoutError
from structlog.testing import capture_logs

from bridge.engine.batches import MAX_STARTS
from bridge.engine.hints import Hints
from bridge.engine.worker import Lanes
from bridge.ledger.database import Ledger
from bridge.ledger.lanes import LEASE_MS, Lease, has_due
from bridge.ledger.processing import DeadDelivery, Processed, finish
from bridge.ledger.tables import deliveries_in, lanes


@dataclass
class Deadly:
    """A stage whose process ends, as if killed, when it works on one certain row."""

    ledger: Ledger
    batch: int = 100

    def work(self, lease: Lease, rows: Sequence[Row[Any]]) -> None:
        for row in rows:
            if row.starts >= MAX_STARTS:
                finish(self.ledger, lease, [], dead=[DeadDelivery(seq=row.seq, source=row.source, reason="deadly")])
                continue
            if row.id == "id-killer":
                os._exit(9)
            finish(self.ledger, lease, [Processed(seq=row.seq, source=row.source, events=[], messages=[])])


def no_redis() -> Redis:
    raise OSError


def a_worker(url: str) -> None:
    ledger = Ledger(url)
    at_work = Lanes(ledger, Hints(no_redis), {"process": Deadly(ledger)}, slots=1)
    at_work.start(PROCESS)
    while has_due(ledger, PROCESS, now_ms=now_ms()):
        time.sleep(0.01)
    at_work.stop()
    ledger.close()


@dataclass
class Stumbling:
    """A stage that fails when it works on one certain row."""

    ledger: Ledger
    error: Exception
    batch: int = 100

    def work(self, lease: Lease, rows: Sequence[Row[Any]]) -> None:
        for row in rows:
            if row.starts >= MAX_STARTS:
                finish(self.ledger, lease, [], dead=[DeadDelivery(seq=row.seq, source=row.source, reason="deadly")])
                continue
            if row.id == "id-killer":
                raise self.error
            finish(self.ledger, lease, [Processed(seq=row.seq, source=row.source, events=[], messages=[])])


def one_turn(ledger: Ledger, stage: Stumbling) -> None:
    """A worker takes the lane, and has it until it fails or nothing is left."""
    at_work = Lanes(ledger, Hints(no_redis), {"process": stage}, slots=1)
    before, _ = turns(ledger)
    at_work.start(PROCESS)
    while True:
        taken, free = turns(ledger)
        if taken > before and (free or not has_due(ledger, PROCESS, now_ms=now_ms())):
            break
        time.sleep(0.01)
    at_work.stop()


def turns(ledger: Ledger) -> tuple[int, bool]:
    """How often the lane was taken, and whether it was given back."""
    with ledger.read() as connection:
        row = connection.execute(select(lanes.c.token, lanes.c.until_ms).where(lanes.c.name == PROCESS)).one()
    return row.token, row.until_ms == 0


def one_life(ledger: Ledger) -> int | None:
    url = ledger.engine.url.render_as_string(hide_password=False)
    process = multiprocessing.get_context("spawn").Process(target=a_worker, args=(url,))
    process.start()
    process.join(timeout=60)
    with ledger.write() as connection:  # what LEASE_MS of silence does
        connection.execute(update(lanes).where(lanes.c.until_ms > 0).values(until_ms=lanes.c.until_ms - LEASE_MS))
    return process.exitcode


def found(ledger: Ledger) -> dict[str, str]:
    """What became of the deliveries."""
    with ledger.read() as connection:
        rows = connection.execute(select(deliveries_in.c.id, deliveries_in.c.status)).all()
    return {row.id: row.status for row in rows}


def test_what_kills_its_worker_ends_as_a_dead_letter_and_takes_nothing_with_it(ledger: Ledger) -> None:
    arrive(ledger, "a", "b", "killer", "c", "d")
    lives = [one_life(ledger) for _ in range(MAX_STARTS + 2)]
    assert lives == [9] * (MAX_STARTS + 1) + [0]
    assert found(ledger) == {"id-a": "done", "id-b": "done", "id-killer": "dead", "id-c": "done", "id-d": "done"}


BUGS = [RuntimeError("a bug"), DataError("", {}, ValueError("a value that no ledger can keep"))]
NO_ROWS_FAULT = [OperationalError("", {}, ConnectionError("reset by peer")), TimeoutError("no connection is free")]


@pytest.mark.parametrize("error", BUGS, ids=lambda error: type(error).__name__)
def test_what_fails_every_time_ends_as_a_dead_letter_and_takes_nothing_with_it(
    ledger: Ledger, error: Exception
) -> None:
    arrive(ledger, "a", "b", "killer", "c", "d")
    for _ in range(MAX_STARTS + 2):
        with capture_logs():  # to draw a traceback takes longer than all the rest
            one_turn(ledger, Stumbling(ledger, error))
    assert found(ledger) == {"id-a": "done", "id-b": "done", "id-killer": "dead", "id-c": "done", "id-d": "done"}


@pytest.mark.parametrize("error", NO_ROWS_FAULT, ids=lambda error: type(error).__name__)
def test_a_database_that_is_gone_for_long_is_no_rows_fault(ledger: Ledger, error: Exception) -> None:
    arrive(ledger, "killer", "c")
    for _ in range(MAX_STARTS + 3):
        one_turn(ledger, Stumbling(ledger, error))
    with ledger.read() as connection:
        rows = connection.execute(select(deliveries_in.c.status, deliveries_in.c.starts)).all()
    assert [tuple(row) for row in rows] == [("waiting", 0)] * 2
