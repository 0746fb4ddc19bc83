"""A target that throttles, fails, refuses or is gone is left alone as a whole, by all workers, and nothing is lost."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from destination_parts import LANES, System, Worker, due, message, over, put, rows, statuses, tries
from sqlalchemy import func, select, update

from bridge.core.target import Outcome, Verdict
from bridge.engine.destination import RETRIES
from bridge.flow.standing import FAILURES, State
from bridge.ledger.byhand import pause, resume, retry
from bridge.ledger.database import Ledger, milliseconds
from bridge.ledger.destinations import listed
from bridge.ledger.lanes import has_due, held_back, lane_of
from bridge.ledger.processing import send_again
from bridge.ledger.tables import messages
from bridge.testing.answering import LocalServer, Reply


@pytest.fixture
def system() -> System:
    return System()


@pytest.fixture
def url(system: System) -> Iterator[str]:
    with LocalServer(system.answer) as server:
        yield server.url


@pytest.fixture
def worker(ledger: Ledger, url: str) -> Iterator[Worker]:
    made = Worker(ledger, url)
    yield made
    made.pool.shutdown()


def test_a_target_that_is_down_is_left_alone_after_a_few_tries(ledger: Ledger, worker: Worker, system: System) -> None:
    put(ledger, *map(str, range(40)))
    system.status = 503
    worker.work_all()
    assert tries(ledger) == FAILURES
    standing = listed(ledger)["crm"]
    assert standing.state is State.FAILING
    assert 5 < standing.until - time.time() <= 10
    assert due(ledger) == [], "no lane of it is woken meanwhile"
    now = milliseconds(datetime.now(UTC))
    assert not has_due(ledger, "deliver:crm:0", now_ms=now)
    assert held_back(ledger, "deliver:crm:0", now_ms=now)
    assert not held_back(ledger, "deliver:crm:0", now_ms=now + 60_000)
    worker.work_all()
    assert tries(ledger) == FAILURES
    assert statuses(ledger) == ["waiting"] * 40


def test_another_worker_knows_it_too(ledger: Ledger, worker: Worker, system: System, url: str) -> None:
    put(ledger, *map(str, range(40)))
    system.status = 503
    worker.work_all()
    other = Worker(ledger, url)
    other.work_all()
    assert tries(ledger) == FAILURES
    other.pool.shutdown()


def test_after_the_pause_one_message_tries_and_all_go_when_it_went_well(
    ledger: Ledger, worker: Worker, system: System, url: str
) -> None:
    put(ledger, *map(str, range(40)))
    system.status = 503
    worker.work_all()
    other = Worker(ledger, url)
    over(ledger)
    worker.work_all()
    other.work_all()
    assert tries(ledger) == FAILURES + 1, "one probe of all lanes and workers"
    first = listed(ledger)["crm"]
    assert (first.state, first.rounds) == (State.FAILING, 2)
    system.status = 200
    over(ledger)
    worker.work("deliver:crm:1")
    assert listed(ledger) == {}
    assert worker.woken == {f"deliver:crm:{number}" for number in range(LANES)}
    worker.work_all()
    other.work_all()
    assert statuses(ledger).count("delivered") >= 40 - FAILURES - 2, "those tried before wait for their second try"
    over_again = milliseconds(datetime.now(UTC)) + 10_000
    for number in range(LANES):
        worker.work(f"deliver:crm:{number}", later=(over_again / 1000 - time.time()))
    assert statuses(ledger) == ["delivered"] * 40
    assert system.taken == {str(number): 1 for number in range(40)}
    other.pool.shutdown()


def test_who_had_nothing_to_try_with_lets_another_lane_try(ledger: Ledger, worker: Worker, system: System) -> None:
    put(ledger, *map(str, range(20)))
    system.status = 503
    worker.work_all()
    over(ledger)
    with ledger.write() as connection:  # whatever this lane claims is given up without being sent
        connection.execute(update(messages).where(messages.c.lane == "deliver:crm:0").values(starts=99))
    worker.work("deliver:crm:0")
    system.status = 200
    worker.work("deliver:crm:1")
    assert listed(ledger) == {}


def test_a_target_that_throttles_is_paused_and_its_messages_use_up_no_tries(
    ledger: Ledger, worker: Worker, system: System
) -> None:
    put(ledger, *map(str, range(20)))
    system.status, system.headers = 429, {"Retry-After": "120"}
    worker.work_all()
    assert system.requests == 1
    assert 115 < listed(ledger)["crm"].until - time.time() <= 120
    with ledger.read() as connection:
        assert connection.execute(select(func.sum(messages.c.attempts))).scalar_one() == 0
    system.status = 200
    over(ledger, State.THROTTLED)
    worker.work_all()
    assert statuses(ledger) == ["delivered"] * 20, "without a probe: it was never ill"


@pytest.mark.parametrize(("status", "state"), [(410, State.GONE), (401, State.REFUSED)])
def test_a_gone_address_and_refused_credentials_lose_nothing(
    worker: Worker, system: System, status: int, state: State
) -> None:
    ledger = worker.ledger
    put(ledger, *map(str, range(20)))
    system.status = status
    worker.work_all()
    assert system.requests == 1
    assert listed(ledger)["crm"].state is state
    assert statuses(ledger) == ["waiting"] * 20
    system.status = 200
    assert resume(ledger, "crm", who="somebody") == {f"deliver:crm:{number}" for number in range(LANES)}
    worker.work_all(later=90)
    assert statuses(ledger) == ["delivered"] * 20


def test_new_settings_are_a_new_beginning(ledger: Ledger, worker: Worker, system: System, url: str) -> None:
    put(ledger, "a", "b")
    system.status = 410
    worker.work_all()
    assert due(ledger) == []
    system.status = 200
    changed = Worker(ledger, url, settings="another address")
    changed.destination.begin()
    changed.work_all(later=90)
    assert statuses(ledger) == ["delivered"] * 2
    changed.pool.shutdown()


def test_what_a_person_paused_stays_so_whatever_the_settings(ledger: Ledger, worker: Worker, system: System) -> None:
    put(ledger, "a")
    pause(ledger, "crm", "maintenance on Sunday", who="somebody")
    worker.destination.begin()
    worker.work_all()
    assert system.requests == 0
    assert listed(ledger)["crm"].reason == "maintenance on Sunday"
    resume(ledger, "crm", who="somebody")
    worker.work_all()
    assert statuses(ledger) == ["delivered"]


def test_an_address_that_comes_back_within_its_patience_is_not_gone(
    ledger: Ledger, worker: Worker, system: System
) -> None:
    put(ledger, "a")
    system.status = 404
    worker.work_all()
    assert listed(ledger) == {}
    time.sleep(0.3)
    worker.work_all(later=10)
    assert listed(ledger)["crm"].state is State.GONE


def test_messages_go_together_and_what_is_equal_goes_apart(ledger: Ledger, worker: Worker, system: System) -> None:
    put(ledger, *map(str, range(25)), "3", operation="many")
    system.bad = frozenset({"7"})
    worker.work_all()
    assert max(len(batch) for batch in system.batches) > 4
    assert all(len(batch) == len(set(batch)) for batch in system.batches)
    assert Counter(statuses(ledger)) == {"delivered": 25, "dead": 1}
    assert system.taken == {str(number): 1 for number in range(25)} | {"3": 2}


def test_one_that_spoils_a_batch_is_found(ledger: Ledger, worker: Worker, system: System) -> None:
    put(ledger, *map(str, range(9)), "poison", operation="many")
    worker.work_all()
    assert set(statuses(ledger)) == {"delivered"}, "by itself even that one was fine here"
    assert all(system.taken[str(number)] == 1 for number in range(9))


def test_those_of_one_order_key_never_share_a_batch(ledger: Ledger, worker: Worker, system: System) -> None:
    put(ledger, "first", "second", "third", operation="many", same_key=True)
    worker.work_all()
    assert system.batches == [["first"], ["second"], ["third"]]


def test_a_batch_waits_a_moment_for_company(ledger: Ledger, worker: Worker, system: System) -> None:
    put(ledger, "a", operation="many", same_key=True)
    lane = lane_of("deliver", "crm", "paper", LANES)

    def late() -> None:
        time.sleep(0.03)
        with ledger.read() as connection:
            first = connection.execute(select(func.count()).select_from(messages)).scalar_one()
        # Messages of other subjects that fall into the same lane.
        found = [n for n in range(100) if lane_of("deliver", "crm", f"key-{first + n}", LANES) == lane][:1]
        put(ledger, *[f"late-{n}" for n in range(found[0] + 1)], operation="many")

    thread = threading.Thread(target=late)
    thread.start()
    worker.work(lane)
    thread.join()
    assert len(system.batches[0]) == 2


def test_second_tries_are_rationed(ledger: Ledger, worker: Worker, system: System) -> None:
    put(ledger, *map(str, range(int(RETRIES) * 4)))
    with ledger.write() as connection:
        connection.execute(update(messages).values(attempts=1))
    system.status = 400  # an answer, so the breaker stays shut; second tries that come to nothing are not refunded
    worker.work_all()
    assert RETRIES <= system.requests <= RETRIES * 2 + 10


def test_a_batch_that_was_refused_does_not_go_on_one_by_one_into_a_target_that_is_to_be_left_alone(
    ledger: Ledger, worker: Worker, system: System
) -> None:
    put(ledger, *[f"key-{number}" for number in range(9)], "poison", operation="many")
    with ledger.write() as connection:  # all of them in one lane
        connection.execute(update(messages).values(lane="deliver:crm:0"))
    system.alone = Reply(429, b"{}", {"Retry-After": "600"})
    worker.work_all()
    assert system.requests == 2, "all together, and the first by itself"
    assert listed(ledger)["crm"].state is State.THROTTLED
    assert statuses(ledger) == ["waiting"] * 10
    system.alone = None
    over(ledger, State.THROTTLED)
    worker.work_all()
    assert statuses(ledger) == ["delivered"] * 10


def test_a_batch_that_is_refused_after_a_pause_is_tried_one_by_one_however_slow_the_target(
    ledger: Ledger, worker: Worker, system: System
) -> None:
    """What goes first after a pause is a batch; its target takes longer than a commit is put off."""
    put(ledger, *[f"key-{number}" for number in range(3)], "poison", operation="many")
    with ledger.write() as connection:
        connection.execute(update(messages).values(lane="deliver:crm:0"))
    for _ in range(FAILURES):
        worker.destination.judged(Outcome(verdict=Verdict.RETRY, reason="down"), again=False)
    over(ledger)
    system.takes = 0.7
    worker.work("deliver:crm:0")
    assert listed(ledger) == {}
    system.takes = 0.0
    worker.work("deliver:crm:0")
    assert statuses(ledger) == ["delivered"] * 4


@pytest.mark.parametrize("said", [rb"\ud800", rb"crm-\u0000-1"], ids=["half_a_surrogate", "NUL"])
def test_an_id_that_no_ledger_can_keep_is_not_kept_and_holds_up_nothing(
    ledger: Ledger, worker: Worker, system: System, said: bytes
) -> None:
    put(ledger, "a", "b", same_key=True)
    system.body = b'{"id": "%s"}' % said
    worker.work_all()
    assert [(row.status, row.target_id) for row in rows(ledger)] == [("delivered", None)] * 2
    assert system.taken == {"a": 1, "b": 1}
    system.body = b'{"id": "crm-7"}'
    put(ledger, "c", same_key=True)
    worker.work_all()
    assert rows(ledger)[2].target_id == "crm-7"


def made_ago(ledger: Ledger, hours: float) -> None:
    with ledger.write() as connection:
        connection.execute(update(messages).values(created_ms=messages.c.created_ms - int(hours * 3_600_000)))


@pytest.mark.parametrize(
    ("status", "headers"), [(429, {"Retry-After": "60"}), (429, {"Retry-After": "7200"}), (401, {}), (410, {})]
)
def test_what_is_not_a_messages_fault_is_no_reason_to_give_it_up_however_old_it_is(
    ledger: Ledger, worker: Worker, system: System, status: int, headers: dict[str, str]
) -> None:
    put(ledger, "a")
    made_ago(ledger, 3)
    system.status, system.headers = status, headers
    worker.work_all()
    assert system.requests == 1
    assert [(row.status, row.attempts) for row in rows(ledger)] == [("waiting", 0)]
    system.status = 200
    resume(ledger, "crm", who="ada")
    worker.work_all(later=10_000)
    assert statuses(ledger) == ["delivered"]


@pytest.mark.parametrize("by_replay", [False, True], ids=["retried_by_hand", "replayed"])
def test_an_old_message_that_a_person_sends_again_is_tried_as_long_as_a_new_one(
    ledger: Ledger, url: str, system: System, by_replay: bool
) -> None:
    worker = Worker(ledger, url, longest=timedelta(seconds=0.6))
    put(ledger, "a", same_key=True)
    made_ago(ledger, 3)
    system.status = 503
    worker.work_all()
    assert statuses(ledger) == ["dead"]
    if by_replay:
        with ledger.write() as connection:
            send_again(connection, [message(0, "a")], milliseconds(datetime.now(UTC)))
    else:
        retry(ledger, ["key-0"], who="ada")
    worker.work_all()
    assert statuses(ledger) == ["waiting"]
    time.sleep(0.7)
    worker.work_all(later=10)
    assert statuses(ledger) == ["dead"], "and no longer"
    worker.pool.shutdown()
