"""The sender keeps the platform's rules, and its account agrees with what the receiver saw."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

import pytest
from toy import simulator

from bridge.core.signing import matching_secret
from bridge.core.simulation import Call, SendingRule
from bridge.testing.answering import Asked, LocalServer, Reply
from bridge.testing.sender import Account, Plan, Sender

SECRET = "shared-with-the-toy"
FAST = Plan(threads=8, time_scale=0.01)


@dataclass
class Hub:
    """A receiver that checks signatures and remembers what it took, in order."""

    fault: Callable[[int], Reply | None] = lambda number: None
    bodies: list[bytes] = field(default_factory=list)
    refused: int = 0
    requests: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, asked: Asked) -> Reply | None:
        with self.lock:
            self.requests += 1
            number = self.requests
            if not matching_secret([SECRET], asked.body, asked.headers.get("x-toy-signature", "")):
                self.refused += 1
                return Reply(401, b'{"status":"refused"}')
            failure = self.fault(number)
            if failure is not None:
                return failure
            self.bodies.append(asked.body)
        return Reply(200, json.dumps({"status": "accepted", "id": f"delivery-{number}"}).encode())

    def ids(self) -> list[int]:
        return [json.loads(body)["id"] for body in self.bodies]


@pytest.fixture
def hub() -> Iterator[tuple[Hub, str]]:
    receiver = Hub()
    with LocalServer(receiver) as server:
        yield receiver, f"{server.url}/hooks/toy"


def sender(url: str, plan: Plan, *, rule: SendingRule = simulator.RULE) -> Sender:
    return Sender(simulator.platform(), rule, secret=SECRET, url=url, plan=plan)


def test_every_call_arrives_once(hub: tuple[Hub, str]) -> None:
    receiver, url = hub
    one = sender(url, replace(FAST, calls=200)).start()
    account = one.wait(20)
    assert (account.calls, account.accepted, account.sent, account.settled) == (200, 200, 200, 200)
    assert not one.running
    expected = [call.body["id"] for call in islice(simulator.platform().day(), 200)]
    assert sorted(receiver.ids()) == expected
    assert one.accepted_ids() == {f"delivery-{number}" for number in range(1, 201)}
    assert account.kinds == {"hand-in": 160, "take-back": 40}


def test_a_rate_is_kept(hub: tuple[Hub, str]) -> None:
    account = sender(hub[1], replace(FAST, calls=100, rate=200)).start().wait(20)
    assert 0.45 < account.seconds < 1.5
    assert account.accepted == 100


def test_duplicates_come_after_what_was_accepted(hub: tuple[Hub, str]) -> None:
    receiver, url = hub
    one = sender(url, replace(FAST, calls=300, duplicates=0.2))
    account = one.start().wait(20)
    seen = Counter(receiver.ids())
    assert 30 < account.duplicates < 100
    assert sum(count == 2 for count in seen.values()) == account.duplicates == account.duplicates_accepted
    assert account.accepted == 300
    assert len(one.accepted_ids()) == 300 + account.duplicates


def test_forgeries_are_refused_and_counted(hub: tuple[Hub, str]) -> None:
    receiver, url = hub
    account = sender(url, replace(FAST, calls=300, forgeries=0.2)).start().wait(20)
    assert 30 < account.forgeries == account.forgeries_refused == receiver.refused < 100
    assert account.forgeries_taken == 0
    assert account.accepted == 300


def test_a_forgery_that_is_taken_shows() -> None:
    with LocalServer(lambda asked: Reply(200, b'{"status":"accepted","id":"x"}')) as server:
        account = sender(server.url, replace(FAST, calls=100, forgeries=0.5)).start().wait(20)
    assert account.forgeries_taken == account.forgeries > 20


def test_disorder_lets_later_calls_overtake(hub: tuple[Hub, str]) -> None:
    receiver, url = hub
    sender(url, replace(FAST, calls=200, rate=1000, threads=1)).start().wait(20)
    assert receiver.ids() == sorted(receiver.ids())
    receiver.bodies.clear()
    sender(url, replace(FAST, calls=200, rate=1000, threads=1, disorder=0.3)).start().wait(20)
    assert len(receiver.ids()) == 200
    assert receiver.ids() != sorted(receiver.ids())


def test_a_failed_attempt_is_repeated_after_the_platforms_pause(hub: tuple[Hub, str]) -> None:
    receiver, url = hub
    receiver.fault = lambda number: Reply(503) if number in (1, 2) else None
    rule = SendingRule(success=range(200, 300), timeout=5.0, retries=(10.0, 30.0))
    account = sender(url, replace(FAST, calls=1), rule=rule).start().wait(20)
    assert (account.accepted, account.retries, account.failures) == (1, 2, {"503": 2})
    assert account.seconds >= 0.4


def test_after_the_last_retry_the_platform_gives_up(hub: tuple[Hub, str]) -> None:
    receiver, url = hub
    receiver.fault = lambda number: Reply(500)
    account = sender(url, replace(FAST, calls=5)).start().wait(20)
    assert (account.gave_up, account.accepted, account.sent, account.settled) == (5, 0, 20, 5)


def test_a_platform_without_retries_sends_once(hub: tuple[Hub, str]) -> None:
    receiver, url = hub
    receiver.fault = lambda number: Reply(500) if number % 2 else None
    rule = SendingRule(success=range(200, 300), timeout=5.0, retries=())
    account = sender(url, replace(FAST, calls=20), rule=rule).start().wait(20)
    assert (account.sent, account.gave_up, account.accepted) == (20, 10, 10)


def test_only_the_platforms_own_success_counts() -> None:
    rule = SendingRule(success=range(200, 201), timeout=5.0, retries=())
    with LocalServer(lambda asked: Reply(202, b'{"status":"accepted","id":"x"}')) as server:
        account = sender(server.url, replace(FAST, calls=3), rule=rule).start().wait(20)
    assert (account.gave_up, account.failures) == (3, {"202": 3})


def test_a_refused_connection_is_a_failed_attempt() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        account = sender(f"http://127.0.0.1:{taken.getsockname()[1]}", replace(FAST, calls=2)).start().wait(20)
    assert (account.gave_up, account.failures) == (2, {"no connection": 8})


def test_silence_is_a_timeout() -> None:
    rule = SendingRule(success=range(200, 300), timeout=0.2, retries=())
    done = threading.Event()

    def silent(_: Asked) -> None:
        done.wait(5)

    with LocalServer(silent) as server:
        account = sender(server.url, replace(FAST, calls=2), rule=rule).start().wait(20)
        done.set()
    assert account.failures == {"timeout": 2}


def test_an_outage_is_survived(hub: tuple[Hub, str]) -> None:
    receiver, url = hub
    began = time.monotonic()
    receiver.fault = lambda number: Reply(503) if 0.1 < time.monotonic() - began < 0.3 else None
    rule = SendingRule(success=range(200, 300), timeout=5.0, retries=(10.0,) * 20)
    account = sender(url, replace(FAST, calls=200, rate=400), rule=rule).start().wait(20)
    assert account.accepted == 200
    assert account.failures["503"] > 10
    assert len(set(receiver.ids())) == 200


def test_an_answer_that_keeps_nothing_counts_as_ignored() -> None:
    with LocalServer(lambda asked: Reply(200, b'{"status":"ignored"}')) as server:
        one = sender(server.url, replace(FAST, calls=3))
        account = one.start().wait(20)
    assert (account.ignored, account.accepted, one.accepted_ids()) == (3, 0, frozenset())


def test_stop_sees_through_what_is_under_way(hub: tuple[Hub, str]) -> None:
    one = sender(hub[1], replace(FAST, rate=200)).start()
    time.sleep(0.3)
    one.stop()
    account = one.wait(10)
    assert not one.running
    assert 20 < account.calls == account.accepted


def test_stop_now_drops_what_waits_for_a_retry() -> None:
    rule = SendingRule(success=range(200, 300), timeout=5.0, retries=(1e6,))
    with LocalServer(lambda asked: Reply(500)) as server:
        one = sender(server.url, replace(FAST, calls=10), rule=rule).start()
        time.sleep(0.3)
        assert one.running
        one.stop(now=True)
        account = one.wait(10)
    assert (account.dropped, account.settled, one.running) == (10, 10, False)


def test_progress_is_told_and_ends_with_all(hub: tuple[Hub, str]) -> None:
    told: list[Account] = []
    one = Sender(
        simulator.platform(),
        simulator.RULE,
        secret=SECRET,
        url=hub[1],
        plan=Plan(rate=200, calls=100, threads=4),
        on_progress=told.append,
        progress_seconds=0.1,
    )
    one.start().wait(20)
    assert len(told) >= 4
    assert told[-1].accepted == 100
    assert told[0].accepted < 100
    assert [account.accepted for account in told].count(100) <= 2  # the end is told once, not by every thread


def test_the_seed_decides_on_calls_and_mishaps(hub: tuple[Hub, str]) -> None:
    plan = replace(FAST, calls=100, duplicates=0.3, forgeries=0.3)
    one, same, other = (sender(hub[1], replace(plan, seed=seed)).start().wait(20) for seed in (1, 1, 2))
    assert (one.duplicates, one.forgeries) == (same.duplicates, same.forgeries)
    assert (one.duplicates, one.forgeries) != (other.duplicates, other.forgeries)


def test_an_error_of_the_platform_ends_the_sender_and_is_raised(hub: tuple[Hub, str]) -> None:
    one = Sender(
        simulator.platform(),
        simulator.RULE,
        secret=SECRET,
        url=hub[1],
        plan=Plan(calls=3),
        calls=[Call(kind="x", body={"not": {"JSON"}})],
    )
    with pytest.raises(TypeError):
        one.start().wait(10)
    assert not one.running
