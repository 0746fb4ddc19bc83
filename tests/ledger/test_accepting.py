"""Deliveries come in exactly once, on both databases."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select

from bridge.core.source import Accepted, Inbound, Verified
from bridge.ledger.accepting import Arrival, accept, accept_one, positions
from bridge.ledger.database import Ledger
from bridge.ledger.figures import totals
from bridge.ledger.tables import deliveries_in, repeats

START = datetime(2026, 6, 5, 9, 30, tzinfo=UTC)


def arrival(number: int, key: str, *, after: float = 0.0, window: float = 60.0) -> Arrival:
    inbound = Inbound(
        id=f"id-{number}",
        source="wiseflow-main",
        received_at=START + timedelta(seconds=after),
        headers={"event-type": "paper.submission"},
        query={},
        body=b'{"n":\x00\xff}',
    )
    verified = Verified(inbound=inbound, proof="secret 1", dedupe_key=key, dedupe_window=timedelta(seconds=window))
    return Arrival(accepted=Accepted(verified=verified), lane="process:wiseflow-main:1", order_key=key)


def rows(ledger: Ledger) -> list[tuple[str, int, int]]:
    with ledger.read() as connection:
        found = connection.execute(
            select(deliveries_in.c.id, deliveries_in.c.generation, deliveries_in.c.repeats).order_by(
                deliveries_in.c.seq
            )
        )
        return [tuple(row) for row in found]


def test_bytes_come_back_as_they_went_in(ledger: Ledger) -> None:
    accept(ledger, [arrival(1, "a")])
    with ledger.read() as connection:
        assert connection.execute(select(deliveries_in.c.body)).scalar() == b'{"n":\x00\xff}'


def test_a_repeat_within_its_window_gets_no_row_of_its_own(ledger: Ledger) -> None:
    accept(ledger, [arrival(1, "a")])
    accept(ledger, [arrival(2, "a", after=59), arrival(3, "b")])
    assert rows(ledger) == [("id-1", 0, 1), ("id-3", 0, 0)]
    with ledger.read() as connection:
        assert connection.execute(select(repeats.c.id)).scalars().all() == ["id-2"]


def test_the_same_key_after_its_window_is_a_new_delivery(ledger: Ledger) -> None:
    accept(ledger, [arrival(1, "a")])
    accept(ledger, [arrival(2, "a", after=61)])
    accept(ledger, [arrival(3, "a", after=100)])
    assert rows(ledger) == [("id-1", 0, 0), ("id-2", 1, 1)]


def test_repeats_inside_one_batch_are_recognised(ledger: Ledger) -> None:
    accept(ledger, [arrival(1, "a"), arrival(2, "a"), arrival(3, "a", after=120)])
    assert rows(ledger) == [("id-1", 0, 1), ("id-3", 1, 0)]


def test_the_same_record_shipped_twice_is_one_delivery(ledger: Ledger) -> None:
    accept(ledger, [arrival(1, "a"), arrival(2, "a")])
    accept(ledger, [arrival(1, "a"), arrival(2, "a")])
    assert rows(ledger) == [("id-1", 0, 1)]


def test_a_repeat_of_an_unfinished_delivery_makes_it_due_at_once(ledger: Ledger) -> None:
    accept(ledger, [arrival(1, "a")])
    with ledger.write() as connection:
        connection.execute(deliveries_in.update().values(due_ms=10**15))
    accept(ledger, [arrival(2, "a", after=1)])
    with ledger.read() as connection:
        assert connection.execute(select(deliveries_in.c.due_ms)).scalar() == 0


def test_one_at_a_time_is_as_exact_as_many(ledger: Ledger) -> None:
    assert accept_one(ledger, arrival(1, "a")) == {"process:wiseflow-main:1"}
    accept_one(ledger, arrival(1, "a"))
    accept_one(ledger, arrival(2, "a", after=59))
    accept_one(ledger, arrival(3, "a", after=61))
    assert rows(ledger) == [("id-1", 0, 1), ("id-3", 1, 0)]


def test_the_position_of_a_segment_is_written_with_its_records(ledger: Ledger) -> None:
    accept(ledger, [arrival(1, "a")], {"seg-1": 100})
    accept(ledger, [], {"seg-1": 250, "seg-2": 8})
    assert positions(ledger, ["seg-1", "seg-2", "seg-3"]) == {"seg-1": 250, "seg-2": 8}


def test_many_at_once_with_one_key_make_one_row(ledger: Ledger) -> None:
    barrier = threading.Barrier(8)

    def send(number: int) -> None:
        barrier.wait()
        accept(ledger, [arrival(number, "same", after=number / 1000)])

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with ledger.read() as connection:
        assert connection.execute(select(func.count()).select_from(deliveries_in)).scalar() == 1
        assert connection.execute(select(func.count()).select_from(repeats)).scalar() == 7


def test_many_at_once_after_the_window_make_one_new_generation(ledger: Ledger) -> None:
    accept(ledger, [arrival(0, "same")])
    barrier = threading.Barrier(8)

    def send(number: int) -> None:
        barrier.wait()
        accept(ledger, [arrival(number, "same", after=1000 + number / 1000)])

    threads = [threading.Thread(target=send, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [generation for _, generation, _ in rows(ledger)] == [0, 1]


def test_repeats_are_counted(ledger: Ledger) -> None:
    accept(ledger, [arrival(1, "a"), arrival(2, "a"), arrival(3, "b")])
    assert totals(ledger) == {"source:wiseflow-main": {"repeats": 1}}
