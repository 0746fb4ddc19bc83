"""What happens while a message is on its way to a target that takes its time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from destination_parts import LANES, Worker, message, put, rows, statuses
from sqlalchemy import Connection, event
from sqlalchemy.exc import OperationalError

from bridge.core.target import Answer, Outcome, Request, Verdict
from bridge.engine.destination import Destination
from bridge.flow.standing import FAILURES, FOREVER, State
from bridge.ledger.byhand import discard, pause, resume
from bridge.ledger.database import Ledger
from bridge.ledger.destinations import listed
from bridge.ledger.lanes import lane_of
from bridge.ledger.processing import send_again
from bridge.testing.answering import Asked, LocalServer, Reply

LANE = lane_of("deliver", "crm", "paper", LANES)
FINE = Reply(200, b"{}")
ANSWERS = {
    "fine": FINE,
    "throttled": Reply(429, b"{}", {"Retry-After": "1"}),
    "refused": Reply(401, b"{}"),
    "failed": Reply(503, b"{}"),
    "gone": Reply(410, b"{}"),
    "bad": Reply(400, b"{}"),
}


@dataclass
class Slow:
    """A receiving system that answers the message `first` with `late`, and not before it may; others with `reply`."""

    late: Reply = FINE
    reply: Reply = FINE
    got: list[str] = field(default_factory=list)
    reached: threading.Event = field(default_factory=threading.Event)
    answers: threading.Event = field(default_factory=threading.Event)

    def answer(self, asked: Asked) -> Reply:
        id = json.loads(asked.body)["id"]
        self.got.append(id)
        if id != "first":
            return self.reply
        self.reached.set()
        self.answers.wait(10)
        return self.late


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def worker(ledger: Ledger, slow: Slow) -> Iterator[Worker]:
    with LocalServer(slow.answer) as server:
        made = Worker(ledger, server.url)
        yield made
        made.pool.shutdown()


@contextmanager
def under_way(worker: Worker, slow: Slow) -> Iterator[None]:
    """While the message `first` is at the target; at the end it is answered, and its lane's batch is over."""
    [lane] = {row.lane for row in rows(worker.ledger) if json.loads(row.params)["id"] == "first"}
    with ThreadPoolExecutor(1) as thread:
        working = thread.submit(worker.work, lane)
        assert slow.reached.wait(10)
        try:
            yield
        finally:
            slow.answers.set()
        working.result(10)


@pytest.mark.parametrize("late", ANSWERS.values(), ids=ANSWERS)
def test_a_pause_by_hand_stays_whatever_is_answered_meanwhile(
    ledger: Ledger, worker: Worker, slow: Slow, late: Reply
) -> None:
    put(ledger, "first", "second", same_key=True)
    slow.late = late
    with under_way(worker, slow):
        pause(ledger, "crm", "wrong grades", who="ada")
    sent = list(slow.got)
    standing = listed(ledger)["crm"]
    assert (standing.state, standing.until, standing.reason) == (State.PAUSED, FOREVER, "wrong grades")
    worker.work_all(later=3600)
    assert slow.got == sent
    slow.late = FINE
    resume(ledger, "crm", who="ada")
    worker.work_all(later=3600)
    assert statuses(ledger) == ["dead" if late.status == 400 else "delivered", "delivered"]


def test_a_worker_that_is_at_a_batch_stops_when_its_target_is_paused(
    ledger: Ledger, worker: Worker, slow: Slow
) -> None:
    put(ledger, "first", "second", "third", same_key=True)
    with under_way(worker, slow):
        pause(ledger, "crm", "wrong grades", who="ada")
        time.sleep(0.7)
    assert slow.got == ["first"]
    assert statuses(ledger) == ["delivered", "waiting", "waiting"]
    assert listed(ledger)["crm"].state is State.PAUSED


@pytest.mark.parametrize(
    "before", [[Verdict.THROTTLED], [Verdict.RETRY] * FAILURES, [Verdict.AUTH]], ids=["throttled", "failing", "refused"]
)
@pytest.mark.parametrize("verdict", [Verdict.OK, Verdict.THROTTLED, Verdict.AUTH, Verdict.RETRY, Verdict.GONE])
def test_a_worker_that_has_not_looked_since_cannot_end_a_pause_by_hand(
    ledger: Ledger, before: list[Verdict], verdict: Verdict
) -> None:
    put(ledger, "first")
    woken: set[str] = set()
    destination = Destination(ledger, "crm", "", woken.update)
    for earlier in before:
        destination.judged(Outcome(verdict=earlier, reason="no"), again=False)
    pause(ledger, "crm", "wrong grades", who="ada")
    for _ in range(FAILURES):
        destination.judged(Outcome(verdict=verdict, reason="an answer"), again=False)
    standing = listed(ledger)["crm"]
    assert (standing.state, standing.until, standing.reason) == (State.PAUSED, FOREVER, "wrong grades")
    assert woken == set()
    with ledger.read() as connection:
        destination.look(connection)
    assert not destination.open()
    resume(ledger, "crm", who="ada")
    with ledger.read() as connection:
        destination.look(connection)
    assert destination.open()


def test_who_was_to_try_first_and_had_nothing_to_send_cannot_end_a_pause_by_hand(ledger: Ledger) -> None:
    put(ledger, "first")
    destination = Destination(ledger, "crm", "", set().update)
    for _ in range(FAILURES):
        destination.judged(Outcome(verdict=Verdict.RETRY, reason="no"), again=False)
    assert destination.mine_to_try()
    pause(ledger, "crm", "wrong grades", who="ada")
    destination.let_others_try()
    assert listed(ledger)["crm"].state is State.PAUSED


def test_an_answer_to_what_was_sent_before_a_pause_does_not_cancel_the_pause(
    ledger: Ledger, worker: Worker, slow: Slow
) -> None:
    put(ledger, "first", *map(str, range(9)))
    slow.reply = Reply(429, b"{}", {"Retry-After": "900"})
    with under_way(worker, slow):
        worker.work_all()
    standing = listed(ledger)["crm"]
    assert standing.state is State.THROTTLED
    assert 890 < standing.until - time.time() <= 900
    worker.work_all(later=600)
    assert len(slow.got) == 2
    assert statuses(ledger).count("delivered") == 1


def broken_once(ledger: Ledger, when: Callable[[], bool]) -> threading.Event:
    """The database breaks off the next renewal of a lease, once; set when it has."""
    broken = threading.Event()

    def execute(_connection: Connection, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if not broken.is_set() and statement.startswith("UPDATE lanes") and when():
            broken.set()
            raise OperationalError(statement, parameters, ConnectionError("reset by peer"))

    event.listen(ledger.engine, "before_cursor_execute", execute)
    return broken


def test_after_a_commit_that_failed_nothing_goes_out_when_the_lane_is_given_back(
    ledger: Ledger, worker: Worker, slow: Slow
) -> None:
    """The older grade waits for its turn to be sent; its worker loses the database, and another one takes the lane."""
    put(ledger, "grade 5", "grade 9", same_key=True)
    own = Ledger(ledger.engine.url.render_as_string(hide_password=False))
    unlucky = Worker(own, worker.url)
    send = unlucky.stage.line.targets["crm"].send
    in_hand, turn = threading.Event(), threading.Event()

    def in_turn(request: Request) -> Answer:
        in_hand.set()
        turn.wait(10)
        return send(request)

    unlucky.send_with(in_turn)
    broken = broken_once(own, in_hand.is_set)
    with ThreadPoolExecutor(1) as thread:
        working = thread.submit(unlucky.work, LANE)
        assert broken.wait(10)
        time.sleep(0.1)
        worker.work(LANE)
        turn.set()
        with pytest.raises(OperationalError):
            working.result(10)
    unlucky.pool.shutdown(wait=True)
    own.close()
    worker.work(LANE)
    assert slow.got[-1] == "grade 9"
    assert slow.got.count("grade 9") == 1
    assert statuses(ledger) == ["delivered"] * 2


def render_again(ledger: Ledger, number: int, id: str) -> None:
    """A replay has come to its end: the message is to go out again as the mended mapping makes it."""
    again = replace(message(number, id), mapping_version="2")
    with ledger.write() as connection:
        send_again(connection, [again], int(time.time() * 1000))


@pytest.mark.parametrize("number", [0, 1], ids=["at_the_target", "in_a_claimed_batch"])
def test_a_message_that_is_replayed_meanwhile_goes_out_as_it_is_rendered_now(
    ledger: Ledger, worker: Worker, slow: Slow, number: int
) -> None:
    put(ledger, "first", "second", same_key=True)
    with under_way(worker, slow):
        render_again(ledger, number, "mended")
    worker.work_all()
    assert slow.got.count("mended") == 1
    assert statuses(ledger) == ["delivered"] * 2
    replayed = rows(ledger)[number]
    assert (replayed.mapping_version, json.loads(replayed.params)) == ("2", {"id": "mended"})
    other = "second" if number == 0 else "first"
    assert [id for id in slow.got if id != other][-1] == "mended"


def test_what_is_discarded_while_it_waits_in_a_claimed_batch_is_not_sent(
    ledger: Ledger, worker: Worker, slow: Slow
) -> None:
    put(ledger, "first", "wrong", "right", "also wrong", same_key=True)
    with under_way(worker, slow):
        discard(ledger, ["key-1", "key-3"], who="ada")
        time.sleep(0.7)
    worker.work_all()
    assert slow.got == ["first", "right"]
    assert statuses(ledger) == ["delivered", "discarded", "delivered", "discarded"]


def test_what_is_replayed_while_it_waits_in_a_claimed_batch_is_sent_once(
    ledger: Ledger, worker: Worker, slow: Slow
) -> None:
    put(ledger, "first", "wrong", "other", same_key=True)
    with under_way(worker, slow):
        render_again(ledger, 1, "mended")
        time.sleep(0.7)
    worker.work_all()
    assert sorted(slow.got) == ["first", "mended", "other"]


def test_a_pause_by_hand_stays_that_comes_while_the_first_throttling_is_written_down(ledger: Ledger) -> None:
    put(ledger, "first")
    by_hand: list[threading.Thread] = []

    def execute(_connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO destinations") and not by_hand:
            by_hand.append(threading.Thread(target=pause, args=(ledger, "crm", "wrong grades"), kwargs={"who": "ada"}))
            by_hand[0].start()
            by_hand[0].join(0.5)  # it has come first, or has to wait for us

    event.listen(ledger.engine, "before_cursor_execute", execute)
    destination = Destination(ledger, "crm", "", set().update)
    destination.judged(Outcome(verdict=Verdict.THROTTLED, reason="too many"), again=False)
    by_hand[0].join()
    assert listed(ledger)["crm"].state is State.PAUSED
