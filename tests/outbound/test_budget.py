"""The budget of a credential, whoever counts: the limit holds in every window, and is used."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from valkeys import Valkey

from bridge.core.errors import SourceUnavailable
from bridge.core.manifest import Rate
from bridge.core.target import Answer, Request
from bridge.engine.owners import is_dead, this_process
from bridge.flow.judge import AnswerLost
from bridge.main import registry
from bridge.outbound.budget import Book, Rules, Said, Wait, rules_of
from bridge.outbound.gate import Gate
from bridge.outbound.local_budget import LocalBook
from bridge.outbound.shared_budget import SharedBook
from connectors.wiseflow.simulated_limits import Limits

RULES = Rules(calls=100, span=1.0, concurrent=8)
FINE = Said(fine=True)
FAILED = Said(fine=False)
ASK = Request(method="GET", url="https://api.example/flow/1")

Making = Callable[[Rules], Book]


@pytest.fixture(params=["shared", "local"])
def making(request: pytest.FixtureRequest) -> Iterator[Making]:
    """Makes books; all of one kind, and for Redis all of one credential."""
    if request.param == "local":
        yield LocalBook
    else:
        valkey: Valkey = request.getfixturevalue("valkey")
        yield lambda rules: SharedBook(valkey.server(), "c" * 64, rules)


class Platform:
    """A sender whose platform counts: when each call arrived, and how many were there at once."""

    def __init__(self, seconds: float = 0.0, answer: Answer | Exception | None = None) -> None:
        self.arrived: list[float] = []
        self.most = 0
        self.answer = answer or Answer(status=200, headers={}, body=b"{}")
        self._seconds = seconds
        self._there = 0
        self._lock = threading.Lock()

    def send(self, request: Request) -> Answer:
        with self._lock:
            self.arrived.append(time.monotonic())
            self._there += 1
            self.most = max(self.most, self._there)
        try:
            time.sleep(self._seconds)
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer
        finally:
            with self._lock:
                self._there -= 1

    def most_in(self, span: float) -> int:
        times = sorted(self.arrived)
        return max((bisect_left(times, began + span) - number for number, began in enumerate(times)), default=0)


def take(book: Book, place: str) -> Wait | None:
    """One place, or how long to wait for it."""
    granted, wait = book.take([place])
    assert granted == (wait is None)
    return wait


def hammer(gates: list[Gate], platform: Platform, seconds: float, threads: int = 8) -> int:
    """All gates' threads ask as fast as they may; how many calls were put off."""
    end = time.monotonic() + seconds
    refused = []

    def work(gate: Gate) -> None:
        while time.monotonic() < end:
            try:
                gate.send(platform, ASK, patience=2.0, begun=False)
            except SourceUnavailable:
                refused.append(1)

    with ThreadPoolExecutor(len(gates) * threads) as pool:
        list(pool.map(work, [gate for gate in gates for _ in range(threads)]))
    return len(refused)


def test_no_window_sees_more_than_the_limit_and_the_limit_is_used(valkey: Valkey) -> None:
    rules = Rules(calls=120, span=2.0, concurrent=8)
    platform = Platform(seconds=0.01)
    gates = [Gate("s", rules, server=valkey.server(), credential="c" * 64) for _ in range(3)]
    hammer(gates, platform, 5.0)
    assert platform.most_in(rules.span) <= rules.calls
    # A call counts until a window after its answer: on a slow machine that is noticed in a window as short as this.
    assert len(platform.arrived) >= 5 * 60 * 0.88
    assert platform.most <= rules.concurrent


def test_no_window_of_several_sees_more_than_its_limit(valkey: Valkey) -> None:
    rules = Rules(calls=400, span=4.0, concurrent=24, also=(Rate(calls=30, seconds=0.4),))
    platform = Platform(seconds=0.01)
    gates = [Gate("s", rules, server=valkey.server(), credential="c" * 64) for _ in range(2)]
    for _ in range(2):
        hammer(gates, platform, 1.5, threads=12)
        time.sleep(0.4)  # what is saved up meanwhile is more than the shorter window allows
    assert platform.most_in(0.4) <= 30
    assert len(platform.arrived) >= 2 * 1.5 * 75 * 0.75


def test_calls_that_come_late_and_together_count_in_wiseflows_second(making: Making) -> None:
    """64 that were held up for a while, 64 that were saved up meanwhile, and 82 at the even pace: more than 200."""
    wiseflow = registry().sources["wiseflow"]
    platform = Limits(on=True)
    book = making(rules_of(wiseflow.manifest.budget))
    held: list[str] = []
    while len(held) < 64:
        held += ["h" + str(len(held))] if take(book, "h" + str(len(held))) is None else []
    time.sleep(0.9)
    for place in held:
        platform.take("c")
        book.give_back(place, FINE)
    end, number = time.monotonic() + 0.95, 0
    while time.monotonic() < end:
        number += 1
        if take(book, f"p{number}") is None:
            platform.take("c")
            book.give_back(f"p{number}", FINE)
    assert platform.exceeded == 0
    assert platform._used["c", "Second"] > min(150, number / 3), "and the limit is used"


def test_what_was_called_without_the_shared_book_counts_in_each_window(valkey: Valkey) -> None:
    book = SharedBook(
        valkey.server(), "c" * 64, Rules(calls=10, span=9.0, concurrent=9, also=(Rate(calls=4, seconds=0.3),))
    )
    book.owe([7, 4])
    wait = take(book, "a")
    assert wait is not None
    assert wait.why == "budget"
    assert wait.seconds < 0.31
    book.owe([3, 0])
    wait = take(book, "b")
    assert wait is not None
    assert wait.seconds > 8


def test_calls_go_out_evenly(making: Making) -> None:
    book = making(replace(RULES, concurrent=100))
    began, taken = time.monotonic(), []
    while time.monotonic() < began + 0.5:
        if take(book, f"p{len(taken)}") is None:
            taken.append(time.monotonic() - began)
    assert 35 <= len(taken) <= 65
    assert sum(when < 0.1 for when in taken) <= 22


def test_a_call_counts_until_a_window_after_its_answer(making: Making) -> None:
    book = making(Rules(calls=2, span=0.4, concurrent=8))
    taken = 0
    while taken < 2:
        taken += take(book, f"p{taken}") is None
    time.sleep(0.5)
    wait = take(book, "p2")
    assert wait is not None
    assert wait.why == "busy"  # both are still out, and may be counted this very moment
    book.give_back("p0", FINE)
    book.give_back("p1", FINE)
    wait = take(book, "p2")
    assert wait is not None
    assert wait.why == "budget"
    assert 0.3 < wait.seconds <= 0.41
    time.sleep(wait.seconds + 0.005)
    assert take(book, "p2") is None


def test_no_more_calls_at_the_same_time_than_allowed(making: Making) -> None:
    book = making(Rules(calls=1_000_000, span=1.0, concurrent=3))
    time.sleep(0.01)
    assert [take(book, name) for name in "abc"] == [None] * 3
    wait = take(book, "d")
    assert wait is not None
    assert wait.why == "busy"
    book.give_back("b", FINE)
    assert take(book, "d") is None


def test_a_place_of_a_dead_worker_is_free_after_a_while(valkey: Valkey) -> None:
    book = SharedBook(valkey.server(), "c" * 64, Rules(calls=1_000_000, span=1.0, concurrent=1, lease=0.3))
    assert take(book, "dead") is None
    other = SharedBook(valkey.server(), "c" * 64, Rules(calls=1_000_000, span=1.0, concurrent=1, lease=0.3))
    assert take(other, "a") is not None
    time.sleep(0.31)
    assert take(other, "a") is None


def test_places_of_a_process_that_was_killed_here_are_free_at_once_and_count(valkey: Valkey) -> None:
    rules = Rules(calls=1_000_000, span=10.0, concurrent=2)
    book = SharedBook(valkey.server(), "c" * 64, rules)
    gate = Gate("s", rules, server=valkey.server(), credential="c" * 64, owner=this_process(), is_dead=is_dead)
    killed = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        owner = f"{this_process().rpartition(':')[0]}:{killed.pid}"
        for number in range(2):
            assert take(book, f"{owner}/x-{number}") is None
            time.sleep(0.01)
        with pytest.raises(SourceUnavailable, match="as many calls"):
            gate.send(Platform(), ASK, patience=0.3, begun=False)
    finally:
        killed.communicate()
    began = time.monotonic()
    gate.send(Platform(), ASK, patience=5.0, begun=False)
    assert time.monotonic() - began < 3.0
    assert book.out() == []
    assert valkey.client().hget(f"{book._keys[0]}:spent", "sum") == b"3", "they may have been counted until now"


def test_the_place_of_a_process_elsewhere_is_not_touched(valkey: Valkey) -> None:
    rules = Rules(calls=1000, span=1.0, concurrent=1)
    assert take(SharedBook(valkey.server(), "c" * 64, rules), "another-host:pid:[1]:999999999/x-0") is None
    gate = Gate("s", rules, server=valkey.server(), credential="c" * 64, owner=this_process(), is_dead=is_dead)
    with pytest.raises(SourceUnavailable, match="as many calls"):
        gate.send(Platform(), ASK, patience=1.2, begun=False)


def test_calls_of_a_dead_worker_count(valkey: Valkey) -> None:
    book = SharedBook(valkey.server(), "c" * 64, Rules(calls=2, span=5.0, concurrent=2, lease=0.1))
    assert take(book, "a") is None
    time.sleep(0.2)
    book.owe([1])
    wait = take(book, "b")
    assert wait is not None
    assert wait.why == "budget"
    assert wait.seconds > 4


@pytest.mark.parametrize("why", ["429 with a time", "429 without", "503 with a time"])
def test_a_pause_is_for_everybody(making: Making, why: str) -> None:
    book = making(RULES)
    assert take(book, "a") is None
    said = {
        "429 with a time": Said(fine=True, throttled=True, pause=7.0),
        "429 without": Said(fine=True, throttled=True),
        "503 with a time": Said(fine=False, pause=7.0),
    }[why]
    book.give_back("a", said)
    wait = take(book, "b")
    assert wait is not None
    assert wait.why == "paused"
    assert wait.seconds == pytest.approx(2.0 if why == "429 without" else 7.0, abs=0.1)


def test_a_429_without_a_time_makes_longer_pauses_each_time(valkey: Valkey) -> None:
    client = valkey.client()
    book = SharedBook(valkey.server(), "c" * 64, replace(RULES, concurrent=50))
    name = book._keys[0]
    throttled = Said(fine=True, throttled=True)
    pauses = []
    for number in range(7):
        while (wait := take(book, f"p{number}")) is not None:
            time.sleep(wait.seconds)
        assert take(book, f"late{number}") is not None or book.give_back(f"late{number}", Said()) is False
        book.give_back(f"p{number}", throttled)
        wait = take(book, "x")
        assert wait is not None
        pauses.append(round(wait.seconds))
        client.hdel(name, "paused")
    assert pauses == [2, 4, 8, 16, 32, 60, 60]
    while take(book, "good") is not None:
        time.sleep(0.01)
    book.give_back("good", FINE)
    while take(book, "again") is not None:
        time.sleep(0.01)
    book.give_back("again", throttled)
    wait = take(book, "x")
    assert wait is not None
    assert round(wait.seconds) == 2


def test_many_429_at_once_are_one_strike(making: Making) -> None:
    book = making(Rules(calls=1_000_000, span=1.0, concurrent=8))
    time.sleep(0.01)
    for name in "abcd":
        assert take(book, name) is None
    for name in "abcd":
        book.give_back(name, Said(fine=True, throttled=True))
    wait = take(book, "x")
    assert wait is not None
    assert wait.seconds <= 2.0


def test_the_platform_s_own_count_stops_everybody(making: Making) -> None:
    book = making(Rules(calls=1_000_000, span=60.0, concurrent=8))
    time.sleep(0.01)
    for name in "ab":
        assert take(book, name) is None
    book.give_back("a", Said(fine=True, remaining=3, reset=0.4))
    # Three, and one of them may be for the call that is out.
    assert take(book, "c") is None
    assert take(book, "d") is None
    wait = take(book, "e")
    assert wait is not None
    assert wait.why == "paused"
    assert 0.2 < wait.seconds <= 0.4
    time.sleep(wait.seconds + 0.01)
    assert take(book, "e") is None


def test_the_breaker_opens_lets_one_call_through_and_closes(making: Making) -> None:
    book = making(Rules(calls=1_000_000, span=1.0, concurrent=8, failures=3, first_pause=0.2, longest_pause=0.4))
    time.sleep(0.01)

    def call(name: str, said: Said) -> bool:
        assert take(book, name) is None
        return book.give_back(name, said)

    assert [call(name, said) for name, said in zip("abcde", [FAILED, FAILED, FINE, FAILED, FAILED], strict=True)] == [
        False
    ] * 5
    for pause in (0.2, 0.4, 0.4):
        assert call("f", FAILED)
        wait = take(book, "g")
        assert wait is not None
        assert wait.why == "open"
        assert wait.seconds == pytest.approx(pause, abs=0.05)
        time.sleep(wait.seconds + 0.01)
    assert take(book, "probe") is None
    wait = take(book, "g")
    assert wait is not None
    assert wait.why == "open"  # one at a time
    assert not book.give_back("probe", FINE)
    assert [take(book, name) for name in "hi"] == [None] * 2
    assert not book.give_back("h", FAILED)


def test_a_probe_that_tells_nothing_lets_another_one_go(making: Making) -> None:
    book = making(Rules(calls=1_000_000, span=1.0, concurrent=8, failures=1, first_pause=0.1))
    assert take(book, "a") is None
    assert book.give_back("a", FAILED)
    time.sleep(0.11)
    assert take(book, "b") is None
    assert book.give_back("b", Said())
    assert take(book, "c") is None
    assert not book.give_back("c", FINE)


def test_failures_that_come_late_do_not_prolong_the_pause(making: Making) -> None:
    book = making(Rules(calls=1_000_000, span=1.0, concurrent=8, failures=1, first_pause=0.3))
    time.sleep(0.01)
    for name in "abc":
        assert take(book, name) is None
    for name in "abc":
        assert book.give_back(name, FAILED)
    wait = take(book, "x")
    assert wait is not None
    assert wait.seconds <= 0.3


# --- the gate ---------------------------------------------------------------------------------------------------------


def test_an_open_breaker_refuses_at_once_and_says_when(valkey: Valkey) -> None:
    rules = replace(RULES, failures=2, first_pause=30.0)
    platform = Platform(answer=AnswerLost("no answer in time"))
    gates = [Gate("s", rules, server=valkey.server(), credential="c" * 64) for _ in range(2)]
    for gate in gates:
        with pytest.raises(AnswerLost):
            gate.send(platform, ASK, patience=2.0, begun=False)
    began = time.monotonic()
    for gate in gates:
        with pytest.raises(SourceUnavailable, match="left alone") as caught:
            gate.send(platform, ASK, patience=2.0, begun=False)
        assert caught.value.retry_after == pytest.approx(30.0, abs=0.5)
    assert time.monotonic() - began < 0.2
    assert len(platform.arrived) == 2
    other = Gate("t", rules, server=valkey.server(), credential="d" * 64)
    assert other.send(Platform(), ASK, patience=2.0, begun=False).status == 200


def test_who_finds_no_turn_in_time_is_told_when_to_come_again() -> None:
    gate = Gate("s", Rules(calls=1, span=60.0, concurrent=1))
    platform = Platform()
    gate.send(platform, ASK, patience=0.5, begun=False)
    began = time.monotonic()
    with pytest.raises(SourceUnavailable, match="budget") as caught:
        gate.send(platform, ASK, patience=0.5, begun=False)
    assert time.monotonic() - began < 0.3
    assert caught.value.retry_after is not None
    assert 55 < caught.value.retry_after <= 61


def test_a_work_that_has_begun_goes_first() -> None:
    gate = Gate("s", Rules(calls=10, span=1.0, concurrent=4))
    platform = Platform()
    gate.send(platform, ASK, patience=1.0, begun=False)
    order: list[str] = []

    def ask(name: str, begun: bool) -> None:
        gate.send(platform, ASK, patience=5.0, begun=begun)
        order.append(name)

    with ThreadPoolExecutor(8) as pool:
        for number in range(4):
            pool.submit(ask, f"first {number}", False)
        time.sleep(0.02)
        pool.submit(ask, "begun", True)
    assert order.index("begun") <= 1


def test_without_redis_each_process_keeps_to_its_share_and_nothing_fails(valkey: Valkey) -> None:
    rules = Rules(calls=100, span=1.0, concurrent=8)
    valkey.stop()
    platform = Platform(seconds=0.005)
    gates = [Gate("s", rules, server=valkey.server(), credential="c" * 64, shares=4) for _ in range(2)]
    assert hammer(gates, platform, 1.5, threads=4) == 0
    assert platform.most_in(rules.span) <= 2 * 25
    assert len(platform.arrived) >= 1.5 * 2 * 25 * 0.9
    assert platform.most <= 4


def test_a_redis_that_dies_and_comes_back_breaks_neither_calls_nor_the_limit(valkey: Valkey) -> None:
    rules = Rules(calls=100, span=1.0, concurrent=8)
    platform = Platform(seconds=0.005)
    gates = [Gate("s", rules, server=valkey.server(), credential="c" * 64, shares=4) for _ in range(2)]
    timers = [threading.Timer(0.7, valkey.stop), threading.Timer(1.4, valkey.start)]
    for timer in timers:
        timer.start()
    assert hammer(gates, platform, 2.6, threads=4) == 0
    for timer in timers:
        timer.join()
    assert platform.most_in(rules.span) <= rules.calls
    assert len(platform.arrived) > 150


def test_places_that_are_asked_for_together_are_given_as_far_as_they_go(making: Making) -> None:
    book = making(Rules(calls=10_000, span=1.0, concurrent=3))
    assert take(book, "first") is None
    book.give_back("first", Said(fine=True))
    time.sleep(0.05)
    assert book.take(["a", "b", "c", "d"]) == (3, Wait(0.0, "busy"))
    book.give_back("b", Said(fine=True))
    assert book.take(["d"]) == (1, None)
    for place in "acd":
        book.give_back(place, Said(fine=True))
    assert book.take(["e", "f"]) == (2, None)


def test_of_those_that_ask_together_after_a_break_one_goes_first(making: Making) -> None:
    book = making(Rules(calls=1000, span=10.0, concurrent=10, failures=1, first_pause=0.05))
    assert take(book, "a") is None
    assert book.give_back("a", Said(fine=False))
    time.sleep(0.1)
    granted, wait = book.take(["b", "c"])
    assert granted == 1
    assert wait is not None
    assert wait.why == "open"


def test_who_gave_up_waiting_leaves_no_place_taken() -> None:
    gate = Gate("s", Rules(calls=40, span=1.0, concurrent=2))
    platform = Platform(seconds=0.3)
    refused = []

    def ask(patience: float) -> None:
        try:
            gate.send(platform, ASK, patience=patience, begun=False)
        except SourceUnavailable:
            refused.append(patience)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(ask, [0.05, 5.0] * 6))
    assert len(platform.arrived) + len(refused) == 12
    assert set(refused) <= {0.05}
    began = time.monotonic()
    gate.send(platform, ASK, patience=1.0, begun=False)
    assert time.monotonic() - began < 0.7, "all places are free again"
