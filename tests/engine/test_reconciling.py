"""What no webhook told is found in the platform's lists, comes in like any other event, and is told once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from engine_parts import soon
from reconcile_parts import CODE, CONNECTOR, NOW, SOURCE, Office, office

from bridge.config.values import Configuration
from bridge.core.errors import SourceRefused, SourceUnavailable
from bridge.core.events import stamp
from bridge.core.source import Found, Source
from bridge.engine.duties import Duties, Duty
from bridge.engine.reconcile import GRACE, Account, Stopped, reconciling_duties
from bridge.flow.reconcile import compare
from bridge.ledger.byhand import replay
from bridge.ledger.database import Ledger, milliseconds
from bridge.ledger.duties import ask_for, due, enrol, hold, leave, reconciling, take
from bridge.ledger.figures import by_day, totals
from bridge.ledger.reading import find_event
from bridge.ledger.watermarks import advance, look_after, watermark

HOUR_AGO = NOW - timedelta(hours=1)
DAY_AGO = NOW - timedelta(days=1)


@pytest.fixture
def parts(ledger: Ledger) -> Iterator[Office]:
    made = office(ledger)
    look_after(ledger, [SOURCE], DAY_AGO)
    yield made
    made.close()


def compared(parts: Office, *, since: datetime = DAY_AGO, until: datetime = NOW, **how: Any) -> Account:
    return parts.reconciler.run(since=since, until=until, stopping=threading.Event(), **how)


def told(parts: Office) -> tuple[int, int]:
    """Events, and different messages that the target got."""
    return len(parts.events()), len(parts.target.keys())


def test_what_no_webhook_told_becomes_an_event_of_its_time_and_reaches_the_target(parts: Office) -> None:
    parts.desk.hand_in("p-1", HOUR_AGO)
    account = compared(parts)
    assert (account.expected, account.received, account.missing) == (1, 0, 1)
    assert parts.woken
    parts.settle()
    [event] = parts.events()
    assert (event["origin"], event["type"]) == ("reconciled", "edu.submission.submitted.v1")
    assert (event["time"], event["timequality"]) == (stamp(HOUR_AGO), "received")
    assert event["enrichment"] == "full"
    [message] = parts.messages()
    assert message.status == "delivered", message.reason
    assert parts.target.keys() == {message.key: 1}
    [delivery] = parts.deliveries()
    assert delivery.proof == "reconciled"


def test_what_a_webhook_told_is_not_made_again(parts: Office) -> None:
    parts.desk.hand_in("p-1", HOUR_AGO)
    parts.receive(paper="p-1")
    parts.settle()
    account = compared(parts)
    assert (account.expected, account.received, account.missing) == (1, 1, 0)
    assert len(parts.deliveries()) == 1


def test_a_late_webhook_of_what_was_reconciled_makes_no_event_and_no_message_but_can_be_seen(parts: Office) -> None:
    parts.desk.hand_in("p-1", HOUR_AGO)
    compared(parts)
    parts.settle()
    late = parts.receive(paper="p-1")
    parts.settle()
    assert told(parts) == (1, 1)
    first, second = parts.deliveries()
    assert (second.id, second.status) == (late, "done")
    assert totals(parts.ledger)[f"source:{SOURCE}"]["known_events"] == 1
    assert [(row.id, row.delivery_seq) for row in parts.repeats()] == [(late, first.seq)]
    story = find_event(parts.ledger, late)
    assert story is not None
    assert (story.event["origin"], story.delivery["repeats"]) == ("reconciled", 1)
    assert [entry["id"] for entry in story.repeats] == [late]


def test_a_late_webhook_that_is_replayed_is_still_known(parts: Office) -> None:
    parts.desk.hand_in("p-1", HOUR_AGO)
    compared(parts)
    parts.settle()
    late = parts.receive(paper="p-1")
    parts.settle()
    replay(parts.ledger, [late], who="a person")
    parts.settle()
    assert len(parts.events()) == 1
    assert list(parts.target.keys().values()) == [2], "the event that is kept was sent again, under its key"


def test_what_happens_later_to_the_same_paper_is_something_else(parts: Office) -> None:
    parts.desk.hand_in("p-1", HOUR_AGO)
    compared(parts)
    parts.settle()
    parts.desk.hand_in("p-1", HOUR_AGO + timedelta(minutes=5))
    parts.receive(paper="p-1")
    parts.settle()
    parts.desk.hand_in("p-1", HOUR_AGO + timedelta(minutes=9))
    compared(parts)
    parts.settle()
    assert [event["origin"] for event in parts.events()] == ["reconciled", "webhook", "reconciled"]
    assert told(parts) == (3, 3)


def test_comparing_again_finds_nothing_more(parts: Office) -> None:
    for number in range(7):
        parts.desk.hand_in(f"p-{number}", HOUR_AGO + timedelta(seconds=number))
    assert compared(parts).missing == 7
    again = compared(parts)  # they wait, nobody has worked on them yet
    assert (again.reconciled, again.missing) == (7, 0)
    parts.settle()
    assert compared(parts).reconciled == 7
    assert told(parts) == (7, 7)


def test_a_webhook_that_waits_for_the_api_comes_first_and_what_was_reconciled_meanwhile_is_known(
    parts: Office,
) -> None:
    parts.desk.hand_in("p-1", HOUR_AGO)
    parts.api.fail(503)
    name = parts.receive(paper="p-1")
    parts.settle()
    parts.api.heal()
    assert compared(parts).missing == 1
    parts.settle(later=60)
    assert told(parts) == (1, 1)
    assert parts.events()[0]["origin"] == "webhook"
    assert [row.delivery_seq for row in parts.repeats()] == [parts.deliveries()[0].seq]
    assert parts.deliveries()[0].id == name


def test_what_happened_a_moment_ago_is_left_to_its_webhook(parts: Office) -> None:
    parts.desk.hand_in("p-1", NOW - timedelta(minutes=20))
    parts.desk.hand_in("p-2", NOW - timedelta(minutes=5))
    account = compared(parts, until=NOW - timedelta(minutes=10))
    assert (account.expected, account.missing) == (1, 1)
    assert watermark(parts.ledger, SOURCE) == NOW - timedelta(minutes=10)
    assert compared(parts, since=NOW - timedelta(minutes=25)).missing == 1


def test_a_mark_that_a_clock_set_in_the_future_is_set_back_and_the_next_round_compares_from_there(
    parts: Office,
) -> None:
    assert advance(parts.ledger, SOURCE, NOW + timedelta(days=1), {}, mark=DAY_AGO)
    every_hour = SimpleNamespace(sources={SOURCE: SimpleNamespace(enabled=True, reconcile_every=timedelta(hours=1))})
    [duty] = reconciling_duties(cast(Configuration, every_hour), {SOURCE: parts.reconciler})
    parts.desk.hand_in("p-1", datetime.now(UTC) - GRACE - timedelta(minutes=1))
    duty.work(threading.Event())
    mark = watermark(parts.ledger, SOURCE)
    assert mark is not None
    assert timedelta(0) <= datetime.now(UTC) - GRACE - mark < timedelta(seconds=10)
    time.sleep(0.01)
    duty.work(threading.Event())
    parts.settle()
    assert told(parts) == (1, 1)
    moved_on = watermark(parts.ledger, SOURCE)
    assert moved_on is not None
    assert moved_on > mark


def test_a_dry_run_only_counts(parts: Office) -> None:
    parts.desk.hand_in("p-1", HOUR_AGO)
    assert compared(parts, dry_run=True).missing == 1
    assert parts.deliveries() == []
    assert watermark(parts.ledger, SOURCE) == DAY_AGO
    assert f"reconcile:{SOURCE}" not in totals(parts.ledger)


def test_a_list_that_breaks_off_keeps_what_was_found_and_the_mark_stays(parts: Office) -> None:
    for number in range(900):
        parts.desk.hand_in(f"p-{number}", HOUR_AGO + timedelta(seconds=number))
    parts.desk.failing_from_page = 6
    with pytest.raises(SourceRefused):
        compared(parts)
    assert len(parts.deliveries()) == 500
    assert watermark(parts.ledger, SOURCE) == DAY_AGO
    parts.desk.failing_from_page = None
    account = compared(parts)
    assert (account.expected, account.reconciled, account.missing) == (900, 500, 400)
    assert len(parts.deliveries()) == 900
    assert watermark(parts.ledger, SOURCE) == NOW
    assert totals(parts.ledger)[f"reconcile:{SOURCE}"] == {"expected": 900, "reconciled": 900}


def test_figures_are_of_the_day_on_which_it_happened_and_count_everything_once(parts: Office) -> None:
    look_back = NOW - timedelta(days=3)
    parts.ledger.engine.dispose()
    parts.desk.hand_in("p-1", DAY_AGO + timedelta(seconds=1))
    parts.desk.hand_in("p-2", NOW - timedelta(seconds=1))
    parts.receive(paper="p-2")
    parts.settle()
    compared(parts)
    compared(parts, since=look_back)
    days = by_day(parts.ledger, f"reconcile:{SOURCE}", since=look_back.date().isoformat())
    assert sum(day["expected"] for day in days.values()) == 2
    assert days[(DAY_AGO + timedelta(seconds=1)).date().isoformat()]["reconciled"] == 1
    assert days[(NOW - timedelta(seconds=1)).date().isoformat()]["received"] == 1
    parts.settle()
    assert totals(parts.ledger)[f"source:{SOURCE}"] == {
        "received": 1,
        "events": 2,
        "reconciled": 1,
    }


def test_a_span_that_begins_after_the_mark_does_not_move_it(parts: Office) -> None:
    parts.desk.hand_in("p-1", NOW - timedelta(minutes=1))
    account = compared(parts, since=HOUR_AGO)
    assert (account.missing, account.advanced) == (1, False)
    assert watermark(parts.ledger, SOURCE) == DAY_AGO


def test_two_comparisons_at_once_make_everything_once(parts: Office) -> None:
    for number in range(600):
        parts.desk.hand_in(f"p-{number}", HOUR_AGO + timedelta(seconds=number))
    threads = [threading.Thread(target=compared, args=(parts,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(parts.deliveries()) == 600
    assert totals(parts.ledger)[f"reconcile:{SOURCE}"]["expected"] == 600


def test_a_limit_in_the_middle_of_a_list_is_waited_out(parts: Office) -> None:
    for number in range(250):
        parts.desk.hand_in(f"p-{number}", HOUR_AGO + timedelta(seconds=number))
    parts.api.fail(429, calls=1, retry_after=1)
    began = time.monotonic()
    assert compared(parts).missing == 250
    assert time.monotonic() - began >= 1.0


def test_a_comparison_ends_when_it_is_told_to(parts: Office) -> None:
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(Stopped):
        parts.reconciler.run(since=DAY_AGO, until=NOW, stopping=stopping)


def test_headers_of_a_webhook_cannot_make_it_reconciled(parts: Office) -> None:
    parts.desk.hand_in("p-1", HOUR_AGO)
    parts.receive(paper="p-1")
    with parts.ledger.write() as connection:
        connection.exec_driver_sql(
            """update deliveries_in set headers = '{"campusbridge-happened-at": "2020-01-01T00:00:00Z",
            "campusbridge-fact": "anything"}'"""
        )
    parts.settle()
    [event] = parts.events()
    assert (event["origin"], event["timequality"]) == ("webhook", "received")


def test_a_list_that_shows_an_entry_twice_counts_once() -> None:
    found = [Found(kind="k", body={}, occurred_at=NOW, fact=f"f-{number}") for number in (1, 2, 2, 3, 1)]
    batches = list(compare(found, lambda facts: {"f-3": "webhook"}, since=DAY_AGO, until=NOW, size=2))
    assert [[entry.fact for entry in some.found] for some in batches] == [["f-1", "f-2"], ["f-3"]]
    assert [len(some.missing) for some in batches] == [2, 0]


def moved(parts: Office, state: str, *, heard: bool) -> None:
    """The exam is opened or closed, and the webhook about it comes or is lost."""
    parts.desk.state = state
    if heard:
        parts.receive("moved")
    parts.settle()


def states(parts: Office) -> list[tuple[str, str]]:
    return [(event["origin"], event["data"]["change"]["new"]) for event in parts.events()]


def test_a_state_that_came_back_unheard_is_found_and_its_late_webhook_is_known(parts: Office) -> None:
    for state, heard in (("open", True), ("closed", True), ("open", False)):
        moved(parts, state, heard=heard)
    assert compared(parts).missing == 1
    parts.settle()
    assert states(parts) == [("webhook", "open"), ("webhook", "closed"), ("reconciled", "open")]
    assert compared(parts).missing == 0
    parts.receive("moved")
    parts.settle()
    assert len(states(parts)) == 3
    assert len(parts.repeats()) == 1


def test_a_state_that_comes_back_after_lists_told_it_and_another_is_not_dropped(parts: Office) -> None:
    for state in ("open", "closed"):
        moved(parts, state, heard=False)
        assert compared(parts).missing == 1
        parts.settle()
    moved(parts, "open", heard=True)
    assert states(parts) == [("reconciled", "open"), ("reconciled", "closed"), ("webhook", "open")]
    assert compared(parts).missing == 0
    assert told(parts) == (3, 3)


def test_late_webhooks_of_states_that_lists_told_are_known(parts: Office) -> None:
    for state in ("open", "closed"):
        moved(parts, state, heard=False)
        compared(parts)
        parts.settle()
    for _ in range(2):  # both of them come in the end, and the platform shows what is now
        moved(parts, "closed", heard=True)
    assert told(parts) == (2, 2)


def test_a_state_that_came_back_is_told_once_when_its_webhook_waits_for_the_api(parts: Office) -> None:
    for state in ("open", "closed"):
        moved(parts, state, heard=True)
    parts.api.fail(503)
    moved(parts, "open", heard=True)
    parts.api.heal()
    assert compared(parts).missing == 1
    parts.settle(later=60)
    assert [state for _, state in states(parts)] == ["open", "closed", "open"]


def test_a_state_that_comes_back_at_once_is_not_dropped_with_both_webhooks_in_one_batch(parts: Office) -> None:
    moved(parts, "open", heard=False)
    compared(parts)
    parts.settle()
    parts.receive("moved", state="closed")
    parts.receive("moved", state="open")
    parts.settle()
    assert [state for _, state in states(parts)] == ["open", "closed", "open"]


def test_what_was_told_before_and_comes_after_something_else_is_missing_once() -> None:
    def found(**more: str) -> Found:
        return Found(kind="k", body={}, occurred_at=NOW, fact="state 2", **more)

    told = {"state 2": "webhook", "state 2|after e-5": "reconciled"}

    def known(facts: Any) -> dict[str, str]:
        return {fact: told[fact] for fact in facts if fact in told}

    for entry, missing in ((found(), []), (found(after="e-7"), ["state 2|after e-7"]), (found(after="e-5"), [])):
        [some] = compare([entry], known, since=DAY_AGO, until=NOW)
        assert [each.fact for each in some.missing] == missing
    [some] = compare([found(), found(after="e-7"), found()], known, since=DAY_AGO, until=NOW)
    assert [each.fact for each in some.missing] == ["state 2|after e-7"]
    [some] = compare([found(after="e-7")], lambda facts: {}, since=DAY_AGO, until=NOW)
    assert [each.fact for each in some.missing] == ["state 2"], (
        "nobody told it before: its late webhook has these words"
    )


def test_what_a_list_shows_of_before_the_span_is_left_out() -> None:
    old = Found(kind="k", body={}, occurred_at=DAY_AGO - timedelta(seconds=1), fact="old")
    assert list(compare([old], lambda facts: {}, since=DAY_AGO, until=NOW)) == []


def test_a_fact_that_the_completed_event_words_differently_is_known_all_the_same(parts: Office) -> None:
    """The list said T1, and by the time of the completion the paper was handed in again."""
    parts.desk.hand_in("p-1", HOUR_AGO)
    compared(parts)
    parts.desk.hand_in("p-1", HOUR_AGO + timedelta(minutes=1))
    parts.settle()
    assert compared(parts).missing == 0, "the present truth is told"
    parts.desk.hand_in("p-1", HOUR_AGO)
    assert compared(parts).missing == 0, "and so is what the list said first"
    parts.receive(paper="p-1")
    parts.settle()
    assert told(parts) == (1, 1)


def test_a_bug_in_a_connectors_list_is_raised_and_nothing_moves(parts: Office) -> None:
    def broken(since: datetime, api: Any) -> Iterator[Found]:
        raise KeyError("a secret value")
        yield

    code = cast(Source, SimpleNamespace(**vars(CODE) | {"happened": broken}))
    source = replace(parts.line.sources[SOURCE], connector=replace(CONNECTOR, code=code))
    parts.line = replace(parts.line, sources={SOURCE: source})
    with pytest.raises(KeyError):
        compared(parts)
    assert watermark(parts.ledger, SOURCE) == DAY_AGO


# --- duties -----------------------------------------------------------------------------------------------------------


def now_ms(seconds: float = 0) -> int:
    return milliseconds(datetime.now(UTC) + timedelta(seconds=seconds))


def test_the_platforms_own_clock_makes_the_comparison_due_at_once(parts: Office) -> None:
    enrol(parts.ledger, reconciling(SOURCE), due_ms=now_ms(3600))
    parts.receive("midnight")
    assert due(parts.ledger, [reconciling(SOURCE)], now_ms=now_ms()) == []
    parts.settle()
    assert due(parts.ledger, [reconciling(SOURCE)], now_ms=now_ms()) == [reconciling(SOURCE)]


def test_a_duty_has_one_owner_and_the_next_one_fences_it_off(ledger: Ledger) -> None:
    enrol(ledger, "d", due_ms=0)
    turn = take(ledger, "d", "a", now_ms=now_ms(), next_ms=now_ms(60))
    assert turn is not None
    assert take(ledger, "d", "b", now_ms=now_ms(120), next_ms=now_ms(180)) is None
    assert hold(ledger, turn)
    with ledger.write() as connection:
        connection.exec_driver_sql("update duties set until_ms = 0, due_ms = 0")
    other = take(ledger, "d", "b", now_ms=now_ms(), next_ms=now_ms(60))
    assert other is not None
    assert not hold(ledger, turn)
    leave(ledger, turn, now_ms=now_ms())
    assert hold(ledger, other)


def test_what_is_asked_for_while_a_duty_is_done_is_not_forgotten(ledger: Ledger) -> None:
    enrol(ledger, "d", due_ms=0)
    turn = take(ledger, "d", "a", now_ms=now_ms(), next_ms=now_ms(60))
    assert turn is not None
    with ledger.write() as connection:
        ask_for(connection, ["d", "nobody-does-this"])
    leave(ledger, turn, now_ms=now_ms())
    assert due(ledger, ["d"], now_ms=now_ms()) == ["d"]


def running(ledger: Ledger, *duties: Duty) -> Callable[[], None]:
    stopping = threading.Event()
    found = Duties(ledger, duties)

    def run() -> None:
        while not stopping.wait(0.05):
            found.round()

    thread = threading.Thread(target=run)
    thread.start()

    def stop() -> None:
        stopping.set()
        thread.join()

    return stop


def test_a_duty_that_fails_is_done_again_sooner_and_stops_no_other(ledger: Ledger) -> None:
    done: list[str] = []

    def failing(_stopping: threading.Event) -> None:
        done.append("failing")
        if done.count("failing") == 1:
            raise SourceUnavailable("away", retry_after=1.0)

    def broken(_stopping: threading.Event) -> None:
        raise KeyError("a secret value")

    hour, soon_after = timedelta(hours=1), timedelta(0)
    stop = running(
        ledger,
        Duty(name="broken", every=hour, work=broken, after_start=soon_after),
        Duty(name="failing", every=hour, work=failing, after_start=soon_after),
        Duty(name="fine", every=hour, work=lambda _stopping: done.append("fine"), after_start=soon_after),
        Duty(name="later", every=hour, work=lambda _stopping: done.append("later")),
    )
    try:
        assert soon(lambda: done.count("failing") == 2)
    finally:
        stop()
    assert done.count("fine") == 1
    assert "later" not in done
    with ledger.read() as connection:
        problem = connection.exec_driver_sql("select problem from duties where name = 'broken'").scalar()
    assert problem is not None
    assert problem.startswith("KeyError in broken")
    assert "secret" not in problem


def test_a_duty_is_done_on_one_machine_at_a_time(ledger: Ledger) -> None:
    at_work: list[int] = []
    together: list[int] = []

    def work(_stopping: threading.Event) -> None:
        at_work.append(1)
        together.append(len(at_work))
        time.sleep(0.1)
        at_work.pop()

    duty = Duty(name="one", every=timedelta(milliseconds=10), work=work, after_start=timedelta(0))
    stops = [running(ledger, duty) for _ in range(2)]
    assert soon(lambda: len(together) > 3, 20.0)
    for stop in stops:
        stop()
    assert set(together) == {1}
