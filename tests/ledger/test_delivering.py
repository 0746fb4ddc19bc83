"""What became of messages, and which state is the newest, on both databases."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from ledger_rows import DELIVER, LONG_AFTER, all_messages, attempt, event, leased, now_ms, result, waiting
from sqlalchemy import select

from bridge.ledger.byhand import discard
from bridge.ledger.database import Ledger
from bridge.ledger.delivering import Head, finish, heads, newest_waiting
from bridge.ledger.figures import totals
from bridge.ledger.lanes import claim
from bridge.ledger.tables import attempts, lanes


def heads_of(ledger: Ledger, order_keys: set[str]) -> Mapping[str, Head]:
    with ledger.read() as connection:
        return heads(connection, order_keys)


def newest_of(ledger: Ledger, order_keys: set[str]) -> Mapping[str, int]:
    with ledger.read() as connection:
        return newest_waiting(connection, order_keys)


def test_a_delivered_state_is_the_head_of_its_order_key(ledger: Ledger) -> None:
    [row] = waiting(ledger, event(1, after=5, sequence=7))
    finish(ledger, leased(ledger, DELIVER), [result(row, target_id="crm-1")])
    [after] = all_messages(ledger)
    assert (after.status, after.target_id) == ("delivered", "crm-1")
    assert after.finished_ms is not None
    assert heads_of(ledger, {row.order_key, "other"}) == {
        row.order_key: Head(time_ms=row.time_ms, sequence=7, message_key=row.key)
    }


def test_of_several_states_in_one_batch_the_last_is_the_head(ledger: Ledger) -> None:
    rows = waiting(ledger, event(1), event(2, after=5))
    finish(ledger, leased(ledger, DELIVER), [result(row) for row in rows])
    assert heads_of(ledger, {rows[0].order_key})[rows[0].order_key].message_key == rows[1].key


def test_an_occurrence_leaves_no_head(ledger: Ledger) -> None:
    [row] = waiting(ledger, event(1, type="attendance.signed"))
    finish(ledger, leased(ledger, DELIVER), [result(row)])
    assert heads_of(ledger, {row.order_key}) == {}


@pytest.mark.parametrize(
    ("head", "other", "newer"),
    [
        ((10, None), (9, None), True),
        ((10, None), (10, None), False),
        ((9, None), (10, None), False),
        ((10, 2), (10, 1), True),
        ((10, 1), (10, 2), False),
        ((10, 2), (10, 2), False),
        ((10, 2), (10, None), False),
        ((10, None), (10, 2), False),
        ((9, 99), (10, 1), False),
    ],
)
def test_newer_is_later_at_the_platform_then_higher_in_its_count(
    head: tuple[int, int | None], other: tuple[int, int | None], newer: bool
) -> None:
    assert Head(time_ms=head[0], sequence=head[1], message_key="k").is_newer_than(*other) is newer


def test_every_try_is_written_down_and_only_those_that_count_are_counted(ledger: Ledger) -> None:
    [row] = waiting(ledger, event(1))
    lease = leased(ledger, DELIVER)
    finish(ledger, lease, [result(row, "waiting", due_ms=5, attempt=attempt(1, "retry", 503))])
    [row] = all_messages(ledger)
    finish(ledger, lease, [result(row, "waiting", due_ms=5, attempt=attempt(2, "throttled", 429), counts=False)])
    finish(ledger, lease, [result(row, attempt=attempt(2))])
    assert all_messages(ledger)[0].attempts == 2
    with ledger.read() as connection:
        tried = connection.execute(select(attempts).order_by(attempts.c.seq)).all()
    assert [(entry.message_key, entry.verdict, entry.status) for entry in tried] == [
        (row.key, "retry", 503),
        (row.key, "throttled", 429),
        (row.key, "ok", 200),
    ]
    assert totals(ledger)["target:crm"] == {"messages": 1, "retries": 2, "delivered": 1}


def test_messages_behind_one_that_waits_wait_with_it(ledger: Ledger) -> None:
    rows = waiting(ledger, event(1), event(2, after=5))
    [other] = waiting(ledger, event(3), order="another paper")
    lease = leased(ledger, DELIVER)
    finish(ledger, lease, [result(rows[0], "waiting", due_ms=LONG_AFTER)])
    assert [row.key for row in claim(ledger, lease, now_ms=now_ms(), limit=10)] == [other.key]
    found = claim(ledger, lease, now_ms=LONG_AFTER, limit=10)
    assert [row.key for row in found if row.key != other.key] == [row.key for row in rows]


def test_what_a_person_gave_up_while_it_was_on_its_way_stays_given_up(ledger: Ledger) -> None:
    [row] = waiting(ledger, event(1))
    lease = leased(ledger, DELIVER)
    claim(ledger, lease, now_ms=now_ms(), limit=10)
    discard(ledger, [row.key], who="ada")
    finish(ledger, lease, [result(row, "waiting", due_ms=1)])
    assert all_messages(ledger)[0].status == "discarded"


def test_nothing_to_write_renews_the_lease_all_the_same(ledger: Ledger) -> None:
    waiting(ledger, event(1))
    lease = leased(ledger, DELIVER)
    with ledger.write() as connection:
        connection.exec_driver_sql("update lanes set until_ms = 1")
    finish(ledger, lease, [])
    with ledger.read() as connection:
        until = connection.execute(select(lanes.c.until_ms).where(lanes.c.name == DELIVER)).scalar()
    assert until is not None
    assert until > now_ms()


def test_the_newest_waiting_state_is_the_newest_at_the_platform_not_the_last_to_come(ledger: Ledger) -> None:
    rows = waiting(ledger, event(1, after=5), event(2, after=9), event(3, after=1), event(4, after=9))
    order_key = rows[0].order_key
    assert newest_of(ledger, {order_key, "nobody"}) == {order_key: rows[3].seq}
    finish(ledger, leased(ledger, DELIVER), [result(rows[3])])
    assert newest_of(ledger, {order_key}) == {order_key: rows[1].seq}
    assert newest_of(ledger, set()) == {}
