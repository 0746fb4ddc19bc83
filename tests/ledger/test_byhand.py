"""Retry, discard and replay by hand, and the trail that they leave, on both databases."""

from __future__ import annotations

from dataclasses import replace

from ledger_rows import (
    DELIVER,
    PROCESS,
    all_messages,
    arrive,
    attempt,
    delivery,
    event,
    leased,
    message,
    processed,
    result,
    waiting,
    written_down,
)

from bridge.ledger.accepting import accept
from bridge.ledger.byhand import discard, replay, retry
from bridge.ledger.database import Ledger
from bridge.ledger.delivering import finish
from bridge.ledger.lanes import due_lanes
from bridge.ledger.processing import finish as finish_processing


def test_a_dead_letter_goes_out_again_with_its_tries_counted_anew(ledger: Ledger) -> None:
    [row] = waiting(ledger, event(1))
    finish(
        ledger, leased(ledger, DELIVER), [result(row, "dead", reason="HTTP 400", attempt=attempt(1, "permanent", 400))]
    )
    assert retry(ledger, [row.key], who="ada") == {DELIVER}
    [after] = all_messages(ledger)
    assert (after.key, after.status, after.attempts, after.finished_ms) == (row.key, "waiting", 0, None)
    assert written_down(ledger) == [("ada", "deliveries.retry", row.key)]


def test_what_was_delivered_or_still_waits_is_not_sent_again(ledger: Ledger) -> None:
    first, second = waiting(ledger, event(1), event(2))
    finish(ledger, leased(ledger, DELIVER), [result(first)])
    assert retry(ledger, [first.key, second.key], who="ada") == set()
    assert [row.status for row in all_messages(ledger)] == ["delivered", "waiting"]
    assert written_down(ledger) == []


def test_held_and_discarded_messages_can_be_sent_again(ledger: Ledger) -> None:
    first, second = waiting(ledger, event(1), event(2))
    finish(ledger, leased(ledger, DELIVER), [result(first, "held", reason="the answer was lost")])
    assert discard(ledger, [second.key], who="ada") == 1
    assert retry(ledger, [first.key, second.key], who="ada") == {DELIVER}


def test_a_message_that_was_never_rendered_needs_a_replay(ledger: Ledger) -> None:
    arrive(ledger, "a")
    dead = replace(message(event(1)), status="dead", step="map", reason="with.email")
    lease = leased(ledger, PROCESS)
    finish_processing(ledger, lease, [processed(delivery(ledger, "a").seq, [event(1)], [dead])])
    assert retry(ledger, [dead.key], who="ada") == set()
    assert replay(ledger, [event(1).id], who="ada") == {PROCESS}
    finish_processing(
        ledger, lease, [processed(delivery(ledger, "a").seq, [event(1)], [message(event(1))], purpose="replay")]
    )
    assert [(row.key, row.status, row.reason) for row in all_messages(ledger)] == [(dead.key, "waiting", None)]


def test_discarding_counts_only_what_was_open(ledger: Ledger) -> None:
    first, second, third = waiting(ledger, event(1), event(2), event(3))
    finish(ledger, leased(ledger, DELIVER), [result(first), result(second, "dead", reason="HTTP 400")])
    assert discard(ledger, [first.key, second.key, third.key, "nobody"], who="ada") == 2
    assert [row.status for row in all_messages(ledger)] == ["delivered", "discarded", "discarded"]
    assert sorted(written_down(ledger)) == sorted(
        [("ada", "deliveries.discard", second.key), ("ada", "deliveries.discard", third.key)]
    )


def test_a_delivery_is_replayed_by_its_own_id_its_event_or_its_repeat(ledger: Ledger) -> None:
    arrive(ledger, "a")
    finish_processing(ledger, leased(ledger, PROCESS), [processed(delivery(ledger, "a").seq, [event(1)])])
    from datetime import timedelta

    from ledger_rows import START

    from bridge.core.source import Accepted, Inbound, Verified
    from bridge.ledger.accepting import Arrival

    again = Inbound(id="id-again", source="wiseflow-main", received_at=START, headers={}, query={}, body=b"{}")
    verified = Verified(inbound=again, proof="secret 1", dedupe_key="a", dedupe_window=timedelta(seconds=60))
    accept(ledger, [Arrival(accepted=Accepted(verified=verified), lane=PROCESS, order_key="a")])
    for name in ("id-a", event(1).id, "id-again"):
        assert replay(ledger, [name], who="ada") == {PROCESS}
        row = delivery(ledger, "a")
        assert (row.status, row.purpose, row.starts, row.finished_ms) == ("waiting", "replay", 0, None)
        with ledger.write() as connection:
            connection.exec_driver_sql("update deliveries_in set status = 'done', purpose = 'new'")
    assert replay(ledger, ["nobody"], who="ada") == set()
    assert written_down(ledger) == [("ada", "events.replay", "id-a")] * 3


def test_what_goes_out_by_hand_is_found_by_the_sweeper(ledger: Ledger) -> None:
    [row] = waiting(ledger, event(1))
    finish(ledger, leased(ledger, DELIVER), [result(row, "dead", reason="HTTP 400")])
    with ledger.write() as connection:
        connection.exec_driver_sql("update lanes set until_ms = 0")
    assert due_lanes(ledger, now_ms=10**15) == []
    retry(ledger, [row.key], who="ada")
    assert due_lanes(ledger, now_ms=10**15) == [DELIVER]
