"""A target's requests keep to its rate, whoever sends them, and who cannot wait pauses the target."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from valkeys import Valkey

from bridge.config.configuration import load_configuration
from bridge.core.errors import CredentialsRefused, DestinationForbidden, TargetError
from bridge.core.manifest import Rate
from bridge.core.settings import Settings
from bridge.core.target import Answer, Ask, Request, Verdict
from bridge.engine.assembly import line_of
from bridge.engine.hints import Hints
from bridge.flow.judge import AnswerLost, NotSent, NoTurn, outcome_of_silence
from bridge.ledger.database import Ledger
from bridge.main import registry
from bridge.outbound.gate import Gate
from bridge.outbound.pace import PATIENCE_SECONDS, in_turn, rules_for
from bridge.testing.target_server import serve_target

ASK = Request(method="POST", url="https://target.example/")
OK = Answer(status=200, headers={"x-ratelimit-remaining": "0", "x-ratelimit-reset": "600"}, body=b"{}")


class Target:
    """What the target sees: when each request came."""

    def __init__(self, answer: Answer | Exception = OK) -> None:
        self.arrived: list[float] = []
        self._answer = answer
        self._lock = threading.Lock()

    def send(self, request: Request) -> Answer:
        with self._lock:
            self.arrived.append(time.monotonic())
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    def most_in(self, seconds: float) -> int:
        times = sorted(self.arrived)
        return max(bisect_left(times, begin + seconds) - place for place, begin in enumerate(times))


def gate(rate: Rate, **more: Any) -> Gate:
    return Gate("target:crm", rules_for(rate), **more)


def hammer(ways: list[Callable[[Request], Answer]], seconds: float, threads: int = 4) -> int:
    """How many requests were kept back while all ways are used as fast as they go."""
    until = time.monotonic() + seconds
    kept_back = []

    def work(way: Callable[[Request], Answer]) -> None:
        while time.monotonic() < until:
            try:
                way(ASK)
            except NoTurn as error:
                kept_back.append(error.retry_after)
                time.sleep(0.02)

    with ThreadPoolExecutor(len(ways) * threads) as pool:
        list(pool.map(work, [way for way in ways for _ in range(threads)]))
    return len(kept_back)


def test_all_workers_together_keep_to_the_rate(valkey: Valkey) -> None:
    rate = Rate(calls=60, seconds=2.0)
    target = Target()
    ways = [in_turn(target.send, gate(rate, server=valkey.server(), credential="c" * 64)) for _ in range(3)]
    hammer(ways, 4.0)
    assert target.most_in(rate.seconds) <= rate.calls
    assert len(target.arrived) >= 0.7 * 2 * rate.calls


def test_without_redis_each_process_keeps_to_its_share() -> None:
    target = Target()
    hammer([in_turn(target.send, gate(Rate(calls=40, seconds=1.0), shares=2))], 2.0)
    assert target.most_in(1.0) <= 20
    assert len(target.arrived) >= 25


def test_a_days_quota_need_not_last_for_the_day_and_is_kept(valkey: Valkey) -> None:
    target = Target()
    rate = Rate(calls=60, seconds=86400.0)
    rules = replace(rules_for(rate), evenly=1.0)
    way = in_turn(target.send, Gate("target:lms", rules, server=valkey.server(), credential="e" * 64))
    until = time.monotonic() + 10
    while len(target.arrived) < rate.calls and time.monotonic() < until:
        way(ASK)
    with pytest.raises(NoTurn) as kept_back:
        way(ASK)
    assert len(target.arrived) == rate.calls
    assert (kept_back.value.retry_after or 0) > 80000
    assert rules_for(Rate(calls=10000, seconds=86400)).interval < 0.05


def test_who_would_wait_too_long_is_told_when_to_come(valkey: Valkey) -> None:
    target = Target()
    way = in_turn(target.send, gate(Rate(calls=2, seconds=30.0), server=valkey.server(), credential="d" * 64))
    way(ASK)
    began = time.monotonic()
    with pytest.raises(NoTurn) as kept_back:
        way(ASK)
    assert time.monotonic() - began < PATIENCE_SECONDS + 2
    assert 1 <= (kept_back.value.retry_after or 0) <= 31
    assert len(target.arrived) == 1


def test_a_request_that_was_kept_back_pauses_its_target_and_was_not_sent() -> None:
    operation = registry().targets["zapier"].manifest.operations["send"]
    outcome = outcome_of_silence(NoTurn("enough", 12.5), operation, Settings(name="t"), Ask(request=ASK))
    assert (outcome.verdict, outcome.retry_after, outcome.reason) == (Verdict.THROTTLED, 12.5, "enough")


@pytest.mark.parametrize(
    "error",
    [
        NotSent("no connection"),
        AnswerLost("no answer"),
        TargetError("no URL"),
        DestinationForbidden("loopback"),
        CredentialsRefused("wrong"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_goes_wrong_comes_through_and_stops_nobody(error: Exception) -> None:
    """The breaker of targets is elsewhere: however often one fails, its next request gets its turn."""
    target = Target(error)
    way = in_turn(target.send, gate(Rate(calls=1000, seconds=1.0)))
    for _ in range(20):
        with pytest.raises(type(error)) as raised:
            way(ASK)
        assert raised.value is error
    assert len(target.arrived) == 20


@pytest.mark.parametrize("status", [200, 401, 404, 429, 500, 503])
def test_answers_come_through_whatever_they_say(status: int) -> None:
    answer = Answer(status=status, headers={"retry-after": "600", "x-ratelimit-remaining": "0"}, body=b"x")
    target = Target(answer)
    way = in_turn(target.send, gate(Rate(calls=1000, seconds=1.0)))
    assert [way(ASK) for _ in range(20)] == [answer] * 20


def test_a_connectors_own_bug_is_not_swallowed() -> None:
    way = in_turn(Target(ZeroDivisionError()).send, gate(Rate(calls=1000, seconds=1.0)))
    with pytest.raises(ZeroDivisionError):
        way(ASK)


@pytest.mark.parametrize(
    ("line", "rate"),
    [
        ("", Rate(calls=90, seconds=10)),
        ("rate: {calls: 5, seconds: 0.5}", Rate(calls=5, seconds=0.5)),
        ("rate: null", None),
    ],
)
def test_bridge_yaml_has_the_last_word_about_the_rate(tmp_path: Path, line: str, rate: Rate | None) -> None:
    known = registry()
    hubspot = known.targets["hubspot"]
    assert hubspot.manifest.rate == Rate(calls=90, seconds=10)
    file = tmp_path / "bridge.yaml"
    entry = f"connector: hubspot\n    auth: {{kind: bearer, token: t0ken}}\n    {line}"
    file.write_text(
        f"version: 1\nsources: {{w: {{connector: wise, secrets: [abcdefgh]}}}}\ntargets:\n  crm:\n    {entry}\n"
    )
    configuration = load_configuration(file, sources=known.sources, targets=known.targets, environ={})
    assert configuration.targets["crm"].rate == rate


def test_a_worker_sends_to_a_target_at_its_rate(tmp_path: Path) -> None:
    """From bridge.yaml to the wire; without Redis this process has a quarter of what all may send."""

    def no_redis() -> Any:
        raise OSError("away")

    known = registry()
    file = tmp_path / "bridge.yaml"
    with serve_target() as server:
        host = server.url.removeprefix("http://")
        file.write_text(
            "version: 1\n"
            "sources: {w: {connector: wise, secrets: [abcdefgh]}}\n"
            f"network: {{allow_hosts: ['{host}']}}\n"
            "storage: {redis: 'redis://127.0.0.1:1/0'}\n"
            "targets:\n"
            f"  slow: {{connector: http, base_url: '{server.url}', rate: {{calls: 4, seconds: 60}}}}\n"
            f"  fast: {{connector: http, base_url: '{server.url}'}}\n"
        )
        configuration = load_configuration(file, sources=known.sources, targets=known.targets, environ={})
        ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
        ledger.upgrade()
        line = line_of(configuration, known, ledger, Hints(no_redis))
        ask = Request(method="POST", url=server.url)
        for _ in range(5):
            line.targets["fast"].send(ask)
        line.targets["slow"].send(ask)
        with pytest.raises(NoTurn) as kept_back:
            line.targets["slow"].send(ask)
        assert server.state()["taken"] == 6
        ledger.close()
    assert 30 <= (kept_back.value.retry_after or 0) <= 61
