"""One owner at a time, and nothing overtakes within an order key, on both databases."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest
from ledger_rows import (
    DELIVER,
    LONG_AFTER,
    PROCESS,
    all_messages,
    arrive,
    delivery,
    event,
    leased,
    now_ms,
    result,
    waiting,
)
from sqlalchemy import select, text, update
from sqlalchemy.event import listen, remove

from bridge.ledger.database import Ledger
from bridge.ledger.delivering import finish
from bridge.ledger.lanes import (
    BATCH,
    LEASE_MS,
    Lease,
    LeaseLost,
    claim,
    claim_counted,
    due_lanes,
    has_due,
    oldest_unfinished,
    put_off,
    release,
    renew,
    take,
)
from bridge.ledger.processing import PostponedDelivery
from bridge.ledger.processing import finish as finish_processing
from bridge.ledger.tables import deliveries_in, lanes, metadata


def expire(ledger: Ledger, lane: str) -> None:
    """What LEASE_MS of silence does, without waiting for it."""
    with ledger.write() as connection:
        connection.execute(update(lanes).where(lanes.c.name == lane).values(until_ms=lanes.c.until_ms - LEASE_MS))


def ids(ledger: Ledger, lease: Lease, *, now: int | None = None, limit: int = 100) -> list[str]:
    return [row.id for row in claim(ledger, lease, now_ms=now or now_ms(), limit=limit)]


def postpone(ledger: Ledger, lease: Lease, key: str, due_ms: int) -> None:
    row = delivery(ledger, key)
    entry = PostponedDelivery(seq=row.seq, order_key=row.order_key, due_ms=due_ms, reason="the API is away")
    finish_processing(ledger, lease, [], [entry])


def test_a_lane_has_one_owner_at_a_time(ledger: Ledger) -> None:
    arrive(ledger, "a")
    first = leased(ledger, PROCESS)
    assert take(ledger, PROCESS, "worker-b") is None
    release(ledger, first)
    second = take(ledger, PROCESS, "worker-b")
    assert second is not None
    assert second.token > first.token


def test_of_many_who_want_a_lane_at_once_one_gets_it(ledger: Ledger) -> None:
    arrive(ledger, "a")
    barrier, taken = threading.Barrier(8), []

    def want(number: int) -> None:
        barrier.wait()
        taken.append(take(ledger, PROCESS, f"worker-{number}"))

    threads = [threading.Thread(target=want, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([lease for lease in taken if lease is not None]) == 1


def test_a_lane_that_nobody_registered_cannot_be_taken(ledger: Ledger) -> None:
    assert take(ledger, PROCESS, "worker-a") is None


def test_an_expired_lease_is_taken_over_and_the_old_owner_can_commit_nothing(ledger: Ledger) -> None:
    [row] = waiting(ledger, event(1))
    old = leased(ledger, DELIVER)
    claim(ledger, old, now_ms=now_ms(), limit=10)
    expire(ledger, DELIVER)
    leased(ledger, DELIVER, "worker-b")
    with pytest.raises(LeaseLost):
        finish(ledger, old, [result(row)])
    assert claim(ledger, old, now_ms=now_ms(), limit=10) == []
    with pytest.raises(LeaseLost):
        claim_counted(ledger, old, now_ms=now_ms(), limit=10)
    assert all_messages(ledger)[0].status == "waiting"
    with ledger.read() as connection:
        assert connection.execute(text("select count(*) from attempts")).scalar() == 0
        assert connection.execute(text("select count(*) from subject_heads")).scalar() == 0


def test_a_worker_that_lost_its_lease_writes_no_events(ledger: Ledger) -> None:
    arrive(ledger, "a")
    old = leased(ledger, PROCESS)
    expire(ledger, PROCESS)
    leased(ledger, PROCESS, "worker-b")
    with pytest.raises(LeaseLost):
        postpone(ledger, old, "a", LONG_AFTER)
    assert delivery(ledger, "a").due_ms == 0


def test_giving_back_a_lost_lease_does_not_free_the_lane_of_its_successor(ledger: Ledger) -> None:
    arrive(ledger, "a")
    old = leased(ledger, PROCESS)
    expire(ledger, PROCESS)
    leased(ledger, PROCESS, "worker-b")
    release(ledger, old)
    assert take(ledger, PROCESS, "worker-c") is None


def test_an_owner_that_renews_keeps_its_lane(ledger: Ledger) -> None:
    arrive(ledger, "a")
    lease = leased(ledger, PROCESS)
    expire(ledger, PROCESS)
    with ledger.write() as connection:
        renew(connection, lease)  # late, but nobody else was there
    assert take(ledger, PROCESS, "worker-b") is None


def test_rows_come_oldest_first(ledger: Ledger) -> None:
    arrive(ledger, "a", "b", "c")
    assert ids(ledger, leased(ledger, PROCESS), limit=2) == ["id-a", "id-b"]


def test_counted_rows_that_never_end_come_alone_in_the_end(ledger: Ledger) -> None:
    arrive(ledger, "a", "b", "c")
    lease = leased(ledger, PROCESS)

    def counted(limit: int) -> list[tuple[str, int]]:
        return [(row.id, row.starts) for row in claim_counted(ledger, lease, now_ms=now_ms(), limit=limit)]

    assert counted(2) == [("id-a", 0), ("id-b", 0)]
    assert counted(2) == [("id-a", 1), ("id-b", 1)]
    assert counted(9) == [("id-a", 2)]
    assert counted(9) == [("id-a", 3)]
    assert [delivery(ledger, key).starts for key in "abc"] == [4, 2, 0]


def test_who_takes_a_lane_that_was_not_given_back_counts_what_it_begins(ledger: Ledger) -> None:
    arrive(ledger, "a")
    assert leased(ledger, PROCESS).suspects == 0
    expire(ledger, PROCESS)  # killed
    second = leased(ledger, PROCESS)
    assert second.suspects == BATCH
    release(ledger, second, suspects=BATCH - 60)  # its slice was over before it had seen all suspects
    third = leased(ledger, PROCESS)
    assert third.suspects == BATCH - 60
    release(ledger, third)
    assert leased(ledger, PROCESS).suspects == 0


def test_a_claim_takes_only_rows_of_its_lane(ledger: Ledger) -> None:
    arrive(ledger, "a")
    arrive(ledger, "b", lane=f"{PROCESS}1")
    assert ids(ledger, leased(ledger, PROCESS)) == ["id-a"]


def test_nothing_overtakes_a_row_that_was_put_off_and_other_subjects_go_on(ledger: Ledger) -> None:
    arrive(ledger, "a1", "a2", order_key="a")
    arrive(ledger, "b1", order_key="b")
    lease = leased(ledger, PROCESS)
    due = now_ms() + 60_000
    postpone(ledger, lease, "a1", due)
    assert ids(ledger, lease) == ["id-b1"]
    assert ids(ledger, lease, now=due)[:2] == ["id-a1", "id-a2"]


def test_nothing_overtakes_a_row_that_stands_in_another_lane(ledger: Ledger) -> None:
    """The number of lanes was changed while rows waited: equal order keys now lead to another one."""
    arrive(ledger, "a1", order_key="a")
    arrive(ledger, "a2", order_key="a", lane=f"{PROCESS}1")
    arrive(ledger, "b1", order_key="b", lane=f"{PROCESS}1")
    other = leased(ledger, f"{PROCESS}1")
    assert ids(ledger, other) == ["id-b1"]
    with ledger.write() as connection:
        connection.execute(update(deliveries_in).where(deliveries_in.c.id == "id-a1").values(status="done"))
    assert ids(ledger, other) == ["id-a2", "id-b1"]


def test_a_row_that_comes_in_behind_one_that_was_put_off_waits_with_it(ledger: Ledger) -> None:
    arrive(ledger, "a1", order_key="a")
    lease = leased(ledger, PROCESS)
    due = now_ms() + 60_000
    postpone(ledger, lease, "a1", due)
    arrive(ledger, "a2", order_key="a")
    assert ids(ledger, lease) == []
    assert ids(ledger, lease, now=due) == ["id-a1", "id-a2"]


def test_rows_behind_one_that_was_put_off_do_not_keep_their_lane_awake(ledger: Ledger) -> None:
    arrive(ledger, "a1", "a2", order_key="a")
    lease = leased(ledger, PROCESS)
    due = now_ms() + 60_000
    postpone(ledger, lease, "a1", due)
    release(ledger, lease)
    assert not has_due(ledger, PROCESS, now_ms=now_ms())
    assert due_lanes(ledger, now_ms=now_ms()) == []
    assert due_lanes(ledger, now_ms=due) == [PROCESS]


def test_putting_off_never_brings_a_row_forward(ledger: Ledger) -> None:
    arrive(ledger, "a1", order_key="a")
    with ledger.write() as connection:
        put_off(connection, deliveries_in, [("a", 500)])
        put_off(connection, deliveries_in, [("a", 300)])
    assert delivery(ledger, "a1").due_ms == 500


def test_lanes_with_work_are_found_only_while_nobody_holds_them(ledger: Ledger) -> None:
    waiting(ledger, event(1))
    arrive(ledger, "z")
    assert sorted(due_lanes(ledger, now_ms=now_ms())) == [DELIVER, PROCESS]
    lease = leased(ledger, PROCESS)
    assert due_lanes(ledger, now_ms=now_ms()) == [DELIVER]
    expire(ledger, PROCESS)  # its owner was killed
    assert sorted(due_lanes(ledger, now_ms=now_ms())) == [DELIVER, PROCESS]
    release(ledger, lease)


def test_a_lane_that_is_empty_is_not_due(ledger: Ledger) -> None:
    [row] = waiting(ledger, event(1))
    lease = leased(ledger, DELIVER)
    finish(ledger, lease, [result(row)])
    release(ledger, lease)
    assert due_lanes(ledger, now_ms=LONG_AFTER) == []


def test_the_age_of_the_oldest_row_counts_what_was_put_off_too(ledger: Ledger) -> None:
    assert oldest_unfinished(ledger) == {"process": None, "deliver": None}
    arrive(ledger, "a")
    postpone(ledger, leased(ledger, PROCESS), "a", LONG_AFTER)
    assert oldest_unfinished(ledger) == {"process": delivery(ledger, "a").received_ms, "deliver": None}


@pytest.mark.parametrize(("name", "lane"), [("deliveries_in", PROCESS), ("messages", DELIVER)])
def test_claiming_reads_an_index_of_what_waits_however_much_is_finished(ledger: Ledger, name: str, lane: str) -> None:
    if name == "messages":
        waiting(ledger, event(1))
    else:
        arrive(ledger, "a")
    add_finished(ledger, name, 5_000)
    asked: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        if "NOT (EXISTS" in statement:
            asked.append(with_literals(statement, parameters))

    listen(ledger.engine, "before_cursor_execute", note)
    assert len(claim(ledger, leased(ledger, lane), now_ms=now_ms(), limit=100)) == 1
    remove(ledger.engine, "before_cursor_execute", note)
    [statement] = asked
    steps = plan(ledger, statement)
    assert f"{name.removesuffix('_in')}_waiting_lane" in steps, steps
    assert not re.search(rf"(SCAN|Seq Scan on) {name}", steps), steps


def add_finished(ledger: Ledger, name: str, number: int) -> None:
    """Finished copies of the table's one row, each with unique keys of its own, and statistics for the planner."""
    table = metadata.tables[name]
    with ledger.write() as connection:
        row = dict(connection.execute(select(table)).mappings().one())
        del row["seq"]
        names = row.keys() & {"id", "key", "dedupe_key", "order_key"}
        copies = [row | {"status": "done"} | dict.fromkeys(names, f"{number}") for number in range(number)]
        connection.execute(table.insert(), copies)
        connection.exec_driver_sql("analyze")


def with_literals(statement: str, parameters: Any) -> str:
    """A statement with its parameters in it, so that it can be explained."""
    if isinstance(parameters, dict):
        literals = {key: f"'{value}'" if isinstance(value, str) else str(value) for key, value in parameters.items()}
        return re.sub(r"%\((\w+)\)s(::VARCHAR|::BIGINT|::INTEGER)?", lambda found: literals[found[1]], statement)
    values = iter(f"'{value}'" if isinstance(value, str) else str(value) for value in parameters)
    return re.sub(r"\?", lambda _: next(values), statement)


def plan(ledger: Ledger, statement: str) -> str:
    """How the database goes about a statement: one step a line."""
    with ledger.read() as connection:
        if ledger.engine.dialect.name == "sqlite":
            return "\n".join(row[3] for row in connection.exec_driver_sql(f"explain query plan {statement}"))
        return "\n".join(row[0] for row in connection.exec_driver_sql(f"explain {statement}"))
