"""A fact is told once: by the webhook or by the list, whichever is first, and whoever waits for whom."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from ledger_rows import (
    DELIVER,
    PROCESS,
    SOURCE,
    START,
    all_events,
    all_messages,
    arrive,
    delivery,
    event,
    leased,
    message,
)
from sqlalchemy import select

from bridge.core.events import Event
from bridge.ledger.database import Ledger
from bridge.ledger.duties import due, enrol, reconciling
from bridge.ledger.facts import known_facts, newest_of_each, reconciled_key
from bridge.ledger.figures import by_day, totals
from bridge.ledger.lanes import Lease, release
from bridge.ledger.processing import NewEvent, Processed, finish
from bridge.ledger.tables import deliveries_in, facts, repeats
from bridge.ledger.watermarks import advance, look_after, watermark


def process(
    ledger: Ledger,
    name: str,
    *told: tuple[Event, Sequence[str]],
    reconciled: bool = False,
    purpose: str = "new",
    returns: bool = False,
) -> set[str]:
    """A delivery becomes these events, each with its facts, and a message for each of them."""
    with ledger.read() as connection:
        there = connection.execute(select(deliveries_in.c.seq).where(deliveries_in.c.id == f"id-{name}")).scalar()
    if there is None:
        arrive(ledger, name)
    found = [replace(entry, origin="reconciled") if reconciled else entry for entry, _ in told]
    lease: Lease = leased(ledger, PROCESS)
    try:
        return finish(
            ledger,
            lease,
            [
                Processed(
                    seq=delivery(ledger, name).seq,
                    source=SOURCE,
                    events=[
                        NewEvent(
                            event=entry,
                            document=entry.to_json(),
                            source=SOURCE,
                            trace={},
                            facts=tuple(words),
                            returns=returns,
                        )
                        for entry, (_, words) in zip(found, told, strict=True)
                    ],
                    messages=[message(entry) for entry in found],
                    purpose=purpose,
                    reconciled=reconciled,
                )
            ],
        )
    finally:
        release(ledger, lease)


def repeated(ledger: Ledger) -> list[tuple[str, int]]:
    with ledger.read() as connection:
        return [(row.id, row.delivery_seq) for row in connection.execute(select(repeats))]


def ids(ledger: Ledger) -> list[str]:
    return [row.id for row in all_events(ledger)]


def test_a_webhook_is_known_after_a_list_told_the_same(ledger: Ledger) -> None:
    process(ledger, "list", (event(1), ["f"]), reconciled=True)
    assert process(ledger, "late", (event(2), ["f"])) == set()
    assert ids(ledger) == [event(1).id]
    assert [row.event_id for row in all_messages(ledger)] == [event(1).id]
    assert delivery(ledger, "late").status == "done"
    assert repeated(ledger) == [("id-late", delivery(ledger, "list").seq)]
    assert delivery(ledger, "list").repeats == 1
    assert totals(ledger)[f"source:{SOURCE}"] == {"events": 1, "reconciled": 1, "received": 1, "known_events": 1}


def test_a_state_that_has_come_back_since_a_list_told_it_is_news(ledger: Ledger) -> None:
    process(ledger, "first", (event(1), ["a"]), reconciled=True)
    process(ledger, "between", (event(2, after=5), ["b"]))
    assert process(ledger, "back", (event(3, after=9), ["a"])) == {DELIVER}
    assert len(all_events(ledger)) == 3


def shown(number: int, *, at: int) -> Event:
    """An event that tells what the API showed at a time, in seconds."""
    return replace(event(number, after=at), observedat=START + timedelta(seconds=at), enrichment="full")


def test_a_state_that_the_platform_shows_again_after_lists_told_it_and_another_is_news(ledger: Ledger) -> None:
    process(ledger, "a", (shown(1, at=0), ["a"]), reconciled=True, returns=True)
    process(ledger, "b", (shown(2, at=5), ["b"]), reconciled=True, returns=True)
    assert process(ledger, "back", (shown(3, at=9), ["a"]), returns=True) == {DELIVER}
    assert ids(ledger) == [event(1).id, event(2).id, event(3).id]


def test_a_late_webhook_of_an_outage_is_known_where_the_platform_did_not_show_its_state_again(ledger: Ledger) -> None:
    process(ledger, "a", (shown(1, at=0), ["a"]), reconciled=True, returns=True)
    process(ledger, "b", (shown(2, at=5), ["b"]), reconciled=True, returns=True)
    assert process(ledger, "not asked", (event(3, after=9), ["a"])) == set()
    assert process(ledger, "asked before", (shown(4, at=3), ["a"]), returns=True) == set()
    assert len(ids(ledger)) == 2


def test_a_state_that_came_back_in_a_list_is_told_once_whichever_is_first(ledger: Ledger) -> None:
    process(ledger, "a", (shown(1, at=0), ["a"]), returns=True)
    process(ledger, "b", (shown(2, at=5), ["b"]), returns=True)
    back = (shown(3, at=9), ["a", "a|after 2"])
    assert process(ledger, "back", back, reconciled=True, returns=True) == {DELIVER}
    assert process(ledger, "late", (shown(4, at=11), ["a"]), returns=True) == set()
    assert repeated(ledger) == [("id-late", delivery(ledger, "back").seq)]
    process(ledger, "b2", (shown(5, at=15), ["b"]), returns=True)
    process(ledger, "a3", (shown(6, at=19), ["a"]), returns=True)
    assert process(ledger, "list", (shown(7, at=20), ["a", "a|after 5"]), reconciled=True, returns=True) == set()
    assert ids(ledger) == [event(number).id for number in (1, 2, 3, 5, 6)]
    assert process(ledger, "b", (shown(2, at=5), ["b"]), purpose="replay", returns=True) == {DELIVER}
    assert process(ledger, "again", (shown(8, at=25), ["b", "b|after 6"]), reconciled=True, returns=True) == {DELIVER}


def test_what_a_list_told_is_known_after_the_webhook(ledger: Ledger) -> None:
    assert process(ledger, "first", (event(1), ["f"])) == {DELIVER}
    assert process(ledger, "list", (event(2), ["f"]), reconciled=True) == set()
    assert ids(ledger) == [event(1).id]
    assert known_facts(ledger, SOURCE, ["f", "g"]) == {"f": "webhook"}


def test_two_webhooks_with_one_fact_are_both_kept(ledger: Ledger) -> None:
    process(ledger, "a", (event(1), ["f"]))
    assert process(ledger, "b", (event(2), ["f"])) == {DELIVER}
    assert len(ids(ledger)) == 2
    assert repeated(ledger) == []


def test_events_of_one_delivery_may_tell_the_same(ledger: Ledger) -> None:
    process(ledger, "list", (event(1), ["f"]), (event(2), ["f"]), reconciled=True)
    assert len(ids(ledger)) == 2
    process(ledger, "late", (event(3), ["f"]), (event(4), ["f"]))
    assert len(ids(ledger)) == 2


def test_a_delivery_that_also_tells_something_new_keeps_that(ledger: Ledger) -> None:
    process(ledger, "list", (event(1), ["f"]), reconciled=True)
    assert process(ledger, "late", (event(2), ["f"]), (event(3), ["g"])) == {DELIVER}
    assert ids(ledger) == [event(1).id, event(3).id]
    assert repeated(ledger) == []


def test_facts_of_one_source_say_nothing_about_another(ledger: Ledger) -> None:
    process(ledger, "list", (event(1), ["f"]), reconciled=True)
    assert known_facts(ledger, "another", ["f"]) == {}


def test_a_completion_of_what_a_list_told_meanwhile_is_brought_up_to_date_and_sends_nothing(ledger: Ledger) -> None:
    process(ledger, "partial", (event(1), []))
    process(ledger, "list", (event(2), ["f"]), reconciled=True)
    sent = len(all_messages(ledger))
    changed = replace(event(1), enrichment="full")
    arrive(ledger, "other")
    assert process(ledger, "partial", (changed, ["f"]), purpose="completion") == set()
    assert '"enrichment":"full"' in all_events(ledger)[0].body
    assert len(all_messages(ledger)) == sent


def test_a_person_may_replay_an_event_that_is_kept(ledger: Ledger) -> None:
    process(ledger, "partial", (event(1), []))
    process(ledger, "list", (event(2), ["f"]), reconciled=True)
    assert process(ledger, "partial", (event(1), ["f"]), purpose="replay") == {DELIVER}
    assert totals(ledger)["target:crm"]["replayed"] == 1


def test_the_same_event_from_both_sides_is_kept_once(ledger: Ledger) -> None:
    """Where a platform's own time and ids are all in the body, the reconciled delivery makes the very same event."""
    process(ledger, "first", (event(1), ["f"]))
    process(ledger, "list", (event(1), ["f"]), reconciled=True)
    assert ids(ledger) == [event(1).id]
    assert '"origin":"webhook"' in all_events(ledger)[0].body


def test_every_fact_of_an_event_that_was_told_stands_for_the_one_that_is_kept(ledger: Ledger) -> None:
    process(ledger, "first", (event(1), ["now"]))
    process(ledger, "list", (event(2), ["now", "then"]), reconciled=True)
    with ledger.read() as connection:
        rows = connection.execute(select(facts.c.fact, facts.c.event_id, facts.c.origin).order_by(facts.c.fact)).all()
    assert [tuple(row) for row in rows] == [("now", event(1).id, "webhook"), ("then", event(1).id, "reconciled")]


def test_a_long_fact_is_known_by_its_hash(ledger: Ledger) -> None:
    long = "submission/" + "ü" * 5000
    process(ledger, "first", (event(1), [long]))
    assert known_facts(ledger, SOURCE, [long, long + "x"]) == {long: "webhook"}


def test_what_is_on_its_way_is_known(ledger: Ledger) -> None:
    arrive(ledger, reconciled_key("f"))
    assert known_facts(ledger, SOURCE, ["f", "g"]) == {"f": "reconciled"}


def test_many_facts_are_looked_up_at_once(ledger: Ledger) -> None:
    told = [f"f-{number}" for number in range(1200)]
    process(ledger, "first", (event(1), told))
    assert known_facts(ledger, SOURCE, [*told, "other"]) == dict.fromkeys(told, "webhook")


def test_one_fact_told_from_two_sides_at_the_same_time_makes_one_event(ledger: Ledger) -> None:
    arrive(ledger, "w", lane=PROCESS)
    arrive(ledger, "r", lane=f"process:{SOURCE}:2")
    leases = {"w": leased(ledger, PROCESS), "r": leased(ledger, f"process:{SOURCE}:2")}
    both = threading.Barrier(2)

    def work(name: str, number: int) -> None:
        own = replace(event(number), origin="reconciled") if name == "r" else event(number)
        entry = NewEvent(event=own, document=own.to_json(), source=SOURCE, trace={}, facts=("b", "a"))
        seq = delivery(ledger, name).seq
        done = Processed(seq=seq, source=SOURCE, events=[entry], messages=[message(own)], reconciled=name == "r")
        both.wait()
        finish(ledger, leases[name], [done])

    threads = [threading.Thread(target=work, args=args) for args in (("w", 1), ("r", 2))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids(ledger)) == len(all_messages(ledger)) == 1


def test_the_mark_is_set_once_and_only_goes_forward(ledger: Ledger) -> None:
    later = START + timedelta(hours=1)
    assert watermark(ledger, SOURCE) is None
    look_after(ledger, [SOURCE], START)
    look_after(ledger, [SOURCE], later)
    assert watermark(ledger, SOURCE) == START
    day = {"2026-06-05": {"expected": 3, "received": 2, "reconciled": 1}}
    assert advance(ledger, SOURCE, later, day, mark=START)
    assert watermark(ledger, SOURCE) == later
    assert not advance(ledger, SOURCE, START, day, mark=later)
    assert not advance(ledger, SOURCE, later + timedelta(hours=1), day, mark=START), "somebody else was faster"
    assert watermark(ledger, SOURCE) == later
    assert by_day(ledger, f"reconcile:{SOURCE}", since="2026-06-01") == day


def test_a_source_that_nobody_looked_after_has_its_first_mark_from_its_first_comparison(ledger: Ledger) -> None:
    assert advance(ledger, SOURCE, START, {}, mark=None)
    assert watermark(ledger, SOURCE) == START


def test_the_newest_event_of_each_subject_is_known(ledger: Ledger) -> None:
    old, new = event(1), event(2, after=60)
    other = replace(event(3), subject="submission/2")
    process(ledger, "a", (old, []), (new, []), (other, []), (replace(event(4), subject="submissions/9"), []))
    found = list(newest_of_each(ledger, SOURCE, "submission", START))
    assert [entry.id for entry in found] == [new.id, other.id]
    assert [entry.id for entry in newest_of_each(ledger, SOURCE, "submission", START + timedelta(seconds=1))] == [
        new.id
    ]
    assert list(newest_of_each(ledger, "another", "submission", START)) == []


def test_a_tick_of_the_platform_makes_its_comparison_due_once(ledger: Ledger) -> None:
    name = reconciling(SOURCE)
    enrol(ledger, name, due_ms=10**15)
    process(ledger, "night", (event(1, type="source.tick"), []))
    assert due(ledger, [name], now_ms=1) == [name]
    with ledger.write() as connection:
        connection.exec_driver_sql("update duties set due_ms = 9000000000000")
    process(ledger, "night", (event(1, type="source.tick"), []), purpose="replay")
    assert due(ledger, [name], now_ms=1) == []
