"""Every target against its simulator over HTTP, with everything that can go wrong around it: what becomes of a message,
and that sending it again never makes a second effect.

A new connector is in here as soon as it has a simulator; its tests.yaml says what is sent.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from target_sending import (
    GOOD,
    TARGETS,
    Example,
    Way,
    examples,
    good,
    idempotent,
    not_logging_in,
    send_all,
    told,
    way_to,
)

from bridge.core.target import Outcome, Verdict
from bridge.testing.simulated_target import SimulatedTargetServer
from bridge.testing.target_faults import ELSEWHERE, Fault

NOT_SIMULATED: dict[str, str] = {"email": "SMTP is not HTTP; see tests/outbound/test_mail.py"}
"""Connectors without a simulator, with the reason."""

NOT_SHOWN: dict[tuple[str, str], str] = {}
"""Operations of which no case of tests.yaml can be sent to the simulator, with the reason."""

ANY_BODY: dict[str, str] = {
    "cloudevents": "a receiver of webhooks may answer any 2xx",
    "http": "nothing is known about the other side",
    "make": "the scenario says what it answers",
    "n8n": "the workflow says what it answers",
    "pabbly": "any 2xx is a yes",
    "power_automate": "the flow says what it answers",
    "webhook": "a receiver of webhooks may answer any 2xx",
    "zapier": "any 200 is a yes",
}
"""Connectors for which a page with status 200 is a yes, with the reason."""

SIMULATED = sorted(name for name, connector in TARGETS.items() if connector.simulator is not None)
SHORT = 0.2
"""Seconds that a request waits which is not going to be answered."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("targets")


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """A simulated target that has taken every example once, and the way to it."""

    server: SimulatedTargetServer
    way: Way
    shown: tuple[Example, ...]

    def fail(self, **fault: Any) -> None:
        """A fault for all calls but those that log in."""
        self.server.fail(Fault(path=not_logging_in(self.server.settings()), **fault))


@pytest.fixture(scope="module")
def around(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Around]:
    made = _around(request.param, folder, tmp_path_factory.mktemp(request.param))
    yield made
    made.server.close()


def _around(name: str, folder: Path, place: Path) -> Around:
    connector = TARGETS[name]
    assert connector.simulator is not None
    place.mkdir(parents=True, exist_ok=True)
    shown = examples(name, folder / name)
    server = SimulatedTargetServer(connector.simulator)
    way = way_to(server, connector, place)
    for example in shown:
        outcomes = way.send(example.keyed("before"))
        assert good(outcomes), (example.name, outcomes)
    return Around(server=server, way=way, shown=shown)


# --- what may become of a message -------------------------------------------------------------------------------------


def fine(outcome: Outcome, repeatable: bool, changed: bool) -> bool:
    return outcome.verdict in GOOD


def silent(outcome: Outcome, repeatable: bool, changed: bool) -> bool:
    """No answer: never lost, and never sent again by itself where that could do something twice."""
    if repeatable or not changed:
        return outcome.verdict is Verdict.RETRY or (not repeatable and outcome.verdict is Verdict.AMBIGUOUS)
    return outcome.verdict is Verdict.AMBIGUOUS


def failing(outcome: Outcome, repeatable: bool, changed: bool) -> bool:
    allowed = {Verdict.RETRY, Verdict.THROTTLED} | (set() if repeatable else {Verdict.AMBIGUOUS})
    return outcome.verdict in allowed


def refused(outcome: Outcome, repeatable: bool, changed: bool) -> bool:
    return outcome.verdict is Verdict.PERMANENT and not changed


def spoilt(outcome: Outcome, repeatable: bool, changed: bool) -> bool:
    """A success whose words cannot be read: done, or to be done again; a person only where that may be twice."""
    allowed = {*GOOD, Verdict.RETRY} | (set() if repeatable else {Verdict.AMBIGUOUS})
    return outcome.verdict in allowed


def throttled(least: float | None = None, most: float | None = None) -> Callable[[Outcome, bool, bool], bool]:
    def check(outcome: Outcome, repeatable: bool, changed: bool) -> bool:
        if outcome.verdict is not Verdict.THROTTLED or changed:
            return False
        return least is None or (outcome.retry_after is not None and least <= outcome.retry_after <= (most or least))

    return check


FAULTS: dict[str, tuple[dict[str, Any], Callable[[Outcome, bool, bool], bool]]] = {
    "latency": ({"name": "latency", "seconds": 0.01}, fine),
    "gzip": ({"name": "gzip"}, fine),
    "a Date of yesterday": ({"name": "skew", "seconds": 86400.0}, fine),
    "Connection: close": ({"name": "close"}, fine),
    "hang": ({"name": "hang", "seconds": 30.0}, silent),
    "taken, then hang": ({"name": "hang", "seconds": 30.0, "taken": True}, silent),
    "taken, then closed": ({"name": "drop"}, silent),
    "reset": ({"name": "reset"}, silent),
    "taken, then reset": ({"name": "reset", "taken": True}, silent),
    "broken off": ({"name": "break_off"}, silent),
    **{f"status {code}": ({"name": "status", "status": code}, failing) for code in (500, 502, 503, 504)},
    **{f"redirect {code}": ({"name": "redirect", "status": code}, refused) for code in (301, 302, 307, 308)},
    "429 for 7 seconds": ({"name": "throttle", "retry_after": "7"}, throttled(7, 7)),
    "429 until a date": ({"name": "throttle", "retry_after": "date+30"}, throttled(20, 31)),
    "429 that does not say": ({"name": "throttle"}, throttled()),
    "429 for less than nothing": ({"name": "throttle", "retry_after": "-5"}, throttled()),
    "429 with nonsense": ({"name": "throttle", "retry_after": "soon"}, throttled()),
    "429 for years": ({"name": "throttle", "retry_after": "999999999"}, throttled(86400, 86400)),
    "half of the answer": ({"name": "truncate"}, spoilt),
    "100 MB": ({"name": "flood"}, spoilt),
}
SILENT = frozenset({"hang", "taken, then hang"})


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("around", SIMULATED, indirect=True)
def test_what_becomes_of_a_message(around: Around, fault: str) -> None:
    settings, promised = FAULTS[fault]
    wrong = []
    one_each = {(example.operation, len(example.messages) > 1): example for example in around.shown}
    for example in one_each.values() if fault in SILENT else around.shown:
        before = around.server.effects()
        around.fail(**settings)
        outcomes = around.way.send(example.keyed(fault), timeout=SHORT if fault in SILENT else 20.0)
        around.server.fail()
        changed = around.server.effects() != before
        repeatable = _repeatable(around, example)
        wrong += [
            f"{example.name}: {outcome.verdict.value} ({outcome.reason}, {outcome.retry_after})"
            for outcome in outcomes
            if not promised(outcome, repeatable, changed)
        ]

    assert wrong == []
    assert [call for call in around.server.calls() if call.target.startswith(ELSEWHERE)] == []


@pytest.mark.parametrize("around", SIMULATED, indirect=True)
def test_a_page_instead_of_an_answer_is_no_success(around: Around) -> None:
    name, taken_for_yes = around.way.connector.name, set()
    for example in around.shown:
        around.fail(name="html")
        if good(around.way.send(example.keyed("page"))):
            taken_for_yes.add(example.operation)
        around.fail(name="html", status=502)
        assert not good(around.way.send(example.keyed("page")))
        around.server.fail()

    assert (taken_for_yes == set()) == (name not in ANY_BODY), taken_for_yes


def _repeatable(around: Around, example: Example) -> bool:
    operation = around.way.connector.manifest.operations[example.operation]
    options = around.way.connector.manifest.options["properties"]
    on_ambiguous = example.settings.get("on_ambiguous", options.get("on_ambiguous", {}).get("default"))
    return operation.idempotent or on_ambiguous == "retry"


# --- one effect -------------------------------------------------------------------------------------------------------


HALF_DONE: dict[str, dict[str, Any]] = {
    **{
        name: FAULTS[name][0]
        for name in ("taken, then closed", "taken, then reset", "broken off", "half of the answer")
    },
    "taken, then 504": {"name": "status", "status": 504, "taken": True},
    "the second call only": {"name": "drop", "after": 1, "calls": 1},
}


@pytest.mark.parametrize("fault", HALF_DONE)
@pytest.mark.parametrize("name", SIMULATED)
def test_what_is_sent_again_has_one_effect(name: str, fault: str, folder: Path, tmp_path: Path) -> None:
    settings = HALF_DONE[fault]
    with_fault, without = (_around(name, folder, tmp_path / way) for way in ("with", "without"))
    for example in idempotent(name, folder / name):
        with_fault.fail(**settings)
        with_fault.way.send(example.keyed("again"))
        with_fault.server.fail()
        assert good(with_fault.way.send(example.keyed("again"))), example.name
        once = with_fault.server.effects()
        assert good(with_fault.way.send(example.keyed("again"))), example.name
        assert with_fault.server.effects() == once, example.name
        without.way.send(example.keyed("again"))
        assert shape(once) == shape(without.server.effects()), example.name
    with_fault.server.close()
    without.server.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("part", [0.5, 0.99])
@pytest.mark.parametrize("name", SIMULATED)
def test_a_killed_sender_starts_again(name: str, part: float, folder: Path, tmp_path: Path) -> None:
    connector = TARGETS[name]
    assert connector.simulator is not None
    work = idempotent(name, folder / name)
    if not work:
        assert not any(operation.idempotent for operation in connector.manifest.operations.values())
        return
    with SimulatedTargetServer(connector.simulator) as clean:
        way = way_to(clean, connector, _made(tmp_path / "clean"))
        assert all(good(way.send(example.keyed("killed"))) for example in work)
        path = not_logging_in(clean.settings())
        count = sum(1 for call in clean.calls() if not path or not _logs_in(clean, call.target))
        expected = clean.effects()

    with SimulatedTargetServer(connector.simulator) as server:
        after = min(int(count * part), count - 1)
        server.fail(Fault(name="hang", taken=True, seconds=60.0, after=after, path=path))
        _kill_while_sending(name, server, folder / name, lambda: _held(server, after))
        server.fail()
        way = way_to(server, connector, folder / name)  # where what the killed one was given to log in with is kept
        assert all(good(way.send(example.keyed("killed"))) for example in work)
        once = server.effects()
        assert all(good(way.send(example.keyed("killed"))) for example in work)

        assert server.effects() == once
        assert shape(once) == shape(expected)


def _logs_in(server: SimulatedTargetServer, target: str) -> bool:
    endpoint = (server.settings().get("auth") or {}).get("token_url", "")
    return bool(endpoint) and endpoint.endswith(target.partition("?")[0])


def _held(server: SimulatedTargetServer, after: int) -> bool:
    calls = [call for call in server.calls() if not _logs_in(server, call.target)]
    return len(calls) > after and calls[after].status is None


def _kill_while_sending(name: str, server: SimulatedTargetServer, folder: Path, held: Callable[[], bool]) -> None:
    # A fork need not read all manifests again, which takes seconds.
    context = multiprocessing.get_context("fork")
    sender = context.Process(target=send_all, args=(name, server.url, server.settings(), str(folder), "killed"))
    sender.start()
    until = time.monotonic() + 60
    while not held() and sender.is_alive() and time.monotonic() < until:
        time.sleep(0.01)
    assert held(), "the sender was through before it was killed"
    assert sender.pid is not None
    os.kill(sender.pid, signal.SIGKILL)
    sender.join(10)
    assert sender.exitcode == -signal.SIGKILL


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def shape(value: Any) -> Any:
    """How many of everything there are: two runs give other times and other random ids."""
    if isinstance(value, dict):
        return sorted(json.dumps(shape(entry), sort_keys=True) for entry in value.values())
    if isinstance(value, list):
        return [shape(entry) for entry in value]
    return type(value).__name__


# --- nothing is left out ----------------------------------------------------------------------------------------------


def test_every_target_has_a_simulator() -> None:
    assert {name for name, connector in TARGETS.items() if connector.simulator is None} == set(NOT_SIMULATED)


@pytest.mark.parametrize("name", SIMULATED)
def test_every_operation_is_shown_to_the_simulator(name: str, folder: Path) -> None:
    shown = {(name, example.operation) for example in examples(name, folder / name)}
    missing = {(name, operation) for operation in TARGETS[name].manifest.operations} - shown

    assert missing == {entry for entry in NOT_SHOWN if entry[0] == name}, (
        f"of tests.yaml the simulator takes {len(shown)} operations; "
        f"it was told of {sorted({example.operation for example in told(TARGETS[name])})}"
    )


@pytest.mark.parametrize("name", SIMULATED)
def test_the_simulator_knows_who_is_asking(name: str, folder: Path, tmp_path: Path) -> None:
    """What needs a login is refused without one, and the message waits for a person who looks after the credentials."""
    connector = TARGETS[name]
    assert connector.simulator is not None
    with SimulatedTargetServer(connector.simulator) as server:
        settings = server.settings()
        if "auth" not in settings:
            return
        way = Way(connector, server.url, {**settings, "auth": {"kind": "none"}}, tmp_path)
        for example in examples(name, folder / name):
            verdicts = {outcome.verdict for outcome in way.send(example.keyed("nobody"))}
            assert verdicts <= {Verdict.AUTH, Verdict.PERMANENT, Verdict.RETRY}, (example.name, verdicts)
