"""Events and messages go in once, whatever is processed how often, on both databases."""

from __future__ import annotations

import json

from ledger_rows import (
    DELIVER,
    PROCESS,
    SOURCE,
    all_events,
    all_messages,
    arrive,
    delivery,
    event,
    leased,
    message,
    processed,
    result,
)

from bridge.ledger.database import Ledger
from bridge.ledger.delivering import finish as finish_delivering
from bridge.ledger.figures import totals
from bridge.ledger.lanes import due_lanes
from bridge.ledger.processing import DeadDelivery, PostponedDelivery, finish


def test_a_delivery_becomes_its_events_and_messages_in_one_step(ledger: Ledger) -> None:
    arrive(ledger, "a")
    lease = leased(ledger, PROCESS)
    lanes = finish(ledger, lease, [processed(delivery(ledger, "a").seq, [event(1), event(2)])])
    assert lanes == {DELIVER}
    assert [row.id for row in all_events(ledger)] == [event(1).id, event(2).id]
    assert [(row.event_id, row.status) for row in all_messages(ledger)] == [
        (event(1).id, "waiting"),
        (event(2).id, "waiting"),
    ]
    assert delivery(ledger, "a").status == "done"
    assert due_lanes(ledger, now_ms=10**15) == [DELIVER]


def test_the_stored_event_is_the_canonical_event(ledger: Ledger) -> None:
    arrive(ledger, "a")
    finish(ledger, leased(ledger, PROCESS), [processed(delivery(ledger, "a").seq, [event(1)])])
    [row] = all_events(ledger)
    assert json.loads(row.body) == event(1).to_json()
    assert (row.type, row.subject, row.state_key) == (event(1).type, "submission/1", event(1).state_key)


def test_an_event_that_is_there_already_makes_no_second_message(ledger: Ledger) -> None:
    arrive(ledger, "a", "b")
    lease = leased(ledger, PROCESS)
    finish(ledger, lease, [processed(delivery(ledger, "a").seq, [event(1)])])
    lanes = finish(ledger, lease, [processed(delivery(ledger, "b").seq, [event(1), event(2)])])
    assert lanes == {DELIVER}
    assert [row.event_id for row in all_messages(ledger)] == [event(1).id, event(2).id]
    assert totals(ledger)[f"source:{SOURCE}"]["known_events"] == 1


def test_a_known_event_makes_no_message_for_a_mapping_that_is_new_since(ledger: Ledger) -> None:
    arrive(ledger, "a", "b")
    lease = leased(ledger, PROCESS)
    finish(ledger, lease, [processed(delivery(ledger, "a").seq, [event(1)])])
    both = [message(event(1)), message(event(1), mapping="newer")]
    assert finish(ledger, lease, [processed(delivery(ledger, "b").seq, [event(1)], both)]) == set()
    assert [row.mapping for row in all_messages(ledger)] == ["papers"]


def test_the_same_event_twice_in_one_batch_is_one(ledger: Ledger) -> None:
    arrive(ledger, "a", "b")
    lease = leased(ledger, PROCESS)
    batch = [processed(delivery(ledger, key).seq, [event(1)]) for key in "ab"]
    finish(ledger, lease, batch)
    assert len(all_events(ledger)) == len(all_messages(ledger)) == 1
    assert delivery(ledger, "b").status == "done"


def test_a_replay_sends_again_under_the_same_key_as_the_mapping_renders_it_now(ledger: Ledger) -> None:
    arrive(ledger, "a")
    lease = leased(ledger, PROCESS)
    seq = delivery(ledger, "a").seq
    finish(ledger, lease, [processed(seq, [event(1)], [message(event(1), params={"v": 1})])])
    [before] = all_messages(ledger)
    finish_delivering(ledger, leased(ledger, DELIVER), [result(before)])
    again = [message(event(1), params={"v": 2}), message(event(1), mapping="newer")]
    assert finish(ledger, lease, [processed(seq, [event(1)], again, purpose="replay")]) == {DELIVER}
    first, second = all_messages(ledger)
    assert (first.key, first.status, json.loads(first.params)) == (before.key, "waiting", {"v": 2})
    assert (first.attempts, first.finished_ms) == (0, None)
    assert first.created_ms > before.created_ms, "its patience begins anew"
    assert second.mapping == "newer"
    assert len(all_events(ledger)) == 1


def test_a_replay_brings_the_stored_event_up_to_date(ledger: Ledger) -> None:
    arrive(ledger, "a")
    lease = leased(ledger, PROCESS)
    seq = delivery(ledger, "a").seq
    finish(ledger, lease, [processed(seq, [event(1)])])
    finish(ledger, lease, [processed(seq, [event(1, type="submission.withdrawn")], purpose="replay")])
    assert [row.type for row in all_events(ledger)] == ["submission.withdrawn"]


def test_a_message_that_could_not_be_rendered_is_a_dead_letter_at_once(ledger: Ledger) -> None:
    from dataclasses import replace

    arrive(ledger, "a")
    dead = replace(message(event(1)), status="dead", step="map", reason="with.email: is missing")
    assert finish(ledger, leased(ledger, PROCESS), [processed(delivery(ledger, "a").seq, [event(1)], [dead])]) == set()
    [row] = all_messages(ledger)
    assert (row.status, row.step, row.reason) == ("dead", "map", "with.email: is missing")
    assert totals(ledger)["target:crm"]["dead"] == 1


def test_a_delivery_that_waits_is_due_later_and_counts_its_waits(ledger: Ledger) -> None:
    arrive(ledger, "a")
    lease = leased(ledger, PROCESS)
    row = delivery(ledger, "a")
    for due in (1000, 2000):
        finish(ledger, lease, [], [PostponedDelivery(seq=row.seq, order_key=row.order_key, due_ms=due, reason="away")])
    row = delivery(ledger, "a")
    assert (row.status, row.due_ms, row.attempts, row.starts, row.reason) == ("waiting", 2000, 2, 0, "away")


def test_a_delivery_that_nothing_can_process_is_kept_with_its_reason(ledger: Ledger) -> None:
    arrive(ledger, "a")
    finish(
        ledger,
        leased(ledger, PROCESS),
        [],
        [],
        [DeadDelivery(seq=delivery(ledger, "a").seq, source=SOURCE, reason="bug")],
    )
    row = delivery(ledger, "a")
    assert (row.status, row.reason, row.body) == ("dead", "bug", b"{}")
    assert totals(ledger)[f"source:{SOURCE}"]["dead"] == 1
