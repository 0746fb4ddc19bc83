"""Answers that are kept: for one process and for all of them, whatever Redis does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from valkeys import Valkey

from bridge.core.errors import SourceUnavailable
from bridge.outbound.kept import Kept, KeptAnswers
from bridge.outbound.shared_answers import SharedAnswers


class Question:
    """Takes its time, counts, and answers with the count."""

    def __init__(self, seconds: float = 0.0, value: Callable[[int], object] = lambda number: {"n": number}) -> None:
        self.count = 0
        self._seconds = seconds
        self._value = value
        self._lock = threading.Lock()

    def __call__(self) -> Kept | None:
        with self._lock:
            self.count += 1
            number = self.count
        time.sleep(self._seconds)
        value = self._value(number)
        return None if value is None else Kept(value, 10)


def workers(valkey: Valkey, count: int, **limits: float) -> list[KeptAnswers]:
    """As many processes would have them."""
    return [KeptAnswers(shared=SharedAnswers(valkey.server(), **limits)) for _ in range(count)]  # type: ignore[arg-type]


def at_once(kept: list[KeptAnswers], ask: Callable[[], Kept | None], **more: datetime) -> list[object]:
    barrier = threading.Barrier(len(kept))

    def one(answers: KeptAnswers) -> object:
        barrier.wait()
        found = answers.get("k", 60, ask, **more)[0]
        return None if found is None else found.value

    with ThreadPoolExecutor(len(kept)) as pool:
        return list(pool.map(one, kept))


def test_what_one_worker_asked_all_have(valkey: Valkey) -> None:
    first, second = workers(valkey, 2)
    question = Question(value=lambda number: {"n": number, "name": "Ødegård \ud83d\ude00", "big": 2**70, "f": 0.1})
    given, there = first.get("k", 60, question)
    assert not there
    assert second.get("k", 60, question) == (given, True)
    assert second.get("k", 60, question) == (given, True)
    assert question.count == 1


def test_workers_that_ask_at_once_ask_once(valkey: Valkey) -> None:
    question = Question(seconds=0.2)
    assert at_once(workers(valkey, 6), question) == [{"n": 1}] * 6
    assert question.count == 1


def test_that_there_is_nothing_is_shared_at_once_and_not_kept(valkey: Valkey) -> None:
    question = Question(seconds=0.2, value=lambda _: None)
    kept = workers(valkey, 6)
    assert at_once(kept, question) == [None] * 6
    assert question.count == 1
    assert kept[0].get("k", 60, question) == (None, False)
    assert question.count == 2


def test_a_failure_is_not_shared_between_workers_and_leaves_nothing_behind(valkey: Valkey) -> None:
    def failing() -> Kept:
        raise SourceUnavailable("HTTP 503")

    first, second = workers(valkey, 2)
    with pytest.raises(SourceUnavailable):
        first.get("k", 60, failing)
    began = time.monotonic()
    assert second.get("k", 60, Question()) == (Kept({"n": 1}, 10), False)
    assert time.monotonic() - began < 0.3


def test_an_answer_is_never_older_than_since(valkey: Valkey) -> None:
    question = Question()
    first, second = workers(valkey, 2)
    first.get("k", 60, question)
    time.sleep(0.005)
    since = datetime.now(UTC)
    time.sleep(0.005)
    assert second.get("k", 60, question)[0] == Kept({"n": 1}, 10)
    assert second.get("k", 60, question, since)[0] == Kept({"n": 2}, 10)
    assert second.get("k", 60, question, since) == (Kept({"n": 2}, 10), True)
    # The first one has an older answer of its own, and finds the newer one with the others.
    assert first.get("k", 60, question, since) == (Kept({"n": 2}, 10), True)
    assert question.count == 2


@pytest.mark.parametrize("others", [False, True], ids=["threads", "workers"])
def test_a_question_that_was_asked_too_early_is_not_shared(valkey: Valkey, others: bool) -> None:
    question = Question(seconds=0.3)
    first, second = workers(valkey, 2) if others else [KeptAnswers()] * 2
    with ThreadPoolExecutor(1) as pool:
        early = pool.submit(first.get, "k", 60, question)
        time.sleep(0.1)
        assert second.get("k", 60, question, datetime.now(UTC))[0] == Kept({"n": 2}, 10)
        assert early.result()[0] == Kept({"n": 1}, 10)


def test_an_answer_is_good_as_long_as_was_said(valkey: Valkey) -> None:
    question = Question()
    first, second = workers(valkey, 2)
    first.get("k", 0.3, question)
    assert second.get("k", 0.3, question)[1]
    time.sleep(0.35)
    assert not second.get("k", 0.3, question)[1]
    time.sleep(0.01)
    assert not first.get("k", 0.001, question)[1]
    assert not [key for key in valkey.client().keys("*") if not 0 < valkey.client().pttl(key) < 91_000_000]


def test_a_worker_that_dies_while_it_asks_holds_the_others_up_only_for_a_while(valkey: Valkey) -> None:
    since = datetime.now(UTC) - timedelta(minutes=1)
    assert isinstance(SharedAnswers(valkey.server(), ask_seconds=0.5).find("k", since, since), str)
    [kept] = workers(valkey, 1, ask_seconds=0.5)
    began = time.monotonic()
    assert kept.get("k", 60, Question())[0] == Kept({"n": 1}, 10)
    assert 0.3 < time.monotonic() - began < 1.5


def test_what_all_keep_has_bounds(valkey: Valkey) -> None:
    small = {"max_bytes": 10_000, "max_entry_bytes": 2_000}
    first, second = workers(valkey, 2, **small)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    for number in range(100):
        # Hard to compress, so that sizes are what they seem.
        text = "".join(letters[(number * 7919 + place * place * 31 + place // 7) % 36] for place in range(400))
        first.get(f"k{number}", 60 + number, lambda text=text: Kept(text, 400))  # type: ignore[misc]
    client = valkey.client()
    held = {key: client.strlen(key) for key in client.keys("*") if client.type(key) == b"string"}
    assert 8_000 < sum(held.values()) <= 10_000
    assert int(client.hget("bridge:answers:{answers}:sizes", "sum")) == sum(held.values())
    assert second.get("k99", 60, Question())[1]
    assert not second.get("k0", 60, Question())[1]
    first.get("long", 60, lambda: Kept([number * 7919 % 10007 for number in range(5000)], 30_000))
    assert first.get("long", 60, Question())[1]
    assert not second.get("long", 60, Question())[1]


def test_without_redis_each_worker_keeps_its_own_and_nothing_fails(valkey: Valkey) -> None:
    question = Question()
    first, second = workers(valkey, 2)
    valkey.stop()
    began = time.monotonic()
    assert [first.get("k", 60, question)[1] for _ in range(2)] == [False, True]
    assert [second.get("k", 60, question)[1] for _ in range(2)] == [False, True]
    assert question.count == 2
    assert time.monotonic() - began < 1
    valkey.start()
    time.sleep(0.25)
    [third] = workers(valkey, 1)
    assert not third.get("other", 60, question)[1]
    assert first.get("other", 60, question)[1]


def test_a_redis_that_dies_while_workers_ask_makes_them_ask_themselves(valkey: Valkey) -> None:
    question = Question(seconds=0.4)
    killer = threading.Timer(0.15, valkey.stop)
    killer.start()
    assert len(at_once(workers(valkey, 4), question)) == 4
    killer.join()
    assert 2 <= question.count <= 4
    time.sleep(0.25)


def test_what_another_version_left_there_is_no_answer(valkey: Valkey) -> None:
    [kept] = workers(valkey, 1)
    valkey.client().set("bridge:answers:{answers}:k", "9999999999999 something else")
    assert kept.get("k", 60, Question()) == (Kept({"n": 1}, 10), False)
