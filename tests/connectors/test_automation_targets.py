"""Automation tools and plain receivers, played by their simulators over HTTP: what their own refusals come to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from target_sending import TARGETS, Example, Way, told, way_to

from bridge.core.target import Outcome, Verdict
from bridge.testing.simulated_target import SimulatedTargetServer
from connectors.cloudevents.simulator import Sink as EventSink
from connectors.make.simulator import Make
from connectors.n8n.simulator import N8n
from connectors.power_automate.simulator import PowerAutomate
from connectors.webhook.simulator import Sink as WebhookSink
from connectors.zapier.simulator import Zapier


def set_to(kind: type, **values: Any) -> Callable[[Any], None]:
    """Turns the system's own knobs, which must be there."""

    def turn(system: Any) -> None:
        assert isinstance(system, kind)
        for name, value in values.items():
            assert hasattr(system, name)
            setattr(system, name, value)

    return turn


def first_case(name: str, **settings: Any) -> Example:
    example = told(TARGETS[name])[0].keyed("one")
    return Example(name=example.name, messages=example.messages, settings={**example.settings, **settings})


@pytest.mark.parametrize(
    ("name", "turn", "expected"),
    [
        ("zapier", set_to(Zapier, most=0), (Verdict.THROTTLED, 10, 0)),
        ("zapier", set_to(Zapier, deleted=True), (Verdict.GONE, None, 0)),
        ("make", set_to(Make, queue=0), (Verdict.THROTTLED, 60, 0)),
        ("make", set_to(Make, most=0), (Verdict.THROTTLED, 10, 0)),
        ("make", set_to(Make, disabled=True), (Verdict.GONE, None, 0)),
        ("n8n", set_to(N8n, registered=False), (Verdict.RETRY, None, 0)),
        ("n8n", set_to(N8n, failing=True), (Verdict.AMBIGUOUS, None, 1)),
        ("power_automate", set_to(PowerAutomate, deleted=True), (Verdict.GONE, None, 0)),
        ("power_automate", set_to(PowerAutomate, required=("course",)), (Verdict.PERMANENT, None, 0)),
        ("power_automate", set_to(PowerAutomate, response=200), (Verdict.OK, None, 1)),
        ("power_automate", set_to(PowerAutomate, response=502), (Verdict.AMBIGUOUS, None, 1)),
        ("power_automate", set_to(PowerAutomate, response=504), (Verdict.AMBIGUOUS, None, 1)),
        ("webhook", set_to(WebhookSink, gone=True), (Verdict.GONE, None, 0)),
    ],
)
def test_a_refusal(
    name: str, turn: Callable[[Any], None], expected: tuple[Verdict, float | None, int], tmp_path: Path
) -> None:
    """The verdict, how long to wait, and how many effects there are."""
    connector = TARGETS[name]
    assert connector.simulator is not None
    with SimulatedTargetServer(connector.simulator) as server:
        turn(server.system)
        [outcome] = way_to(server, connector, tmp_path).send(first_case(name))
        effects = sum(len(entries) for entries in server.effects().values())
    assert (outcome.verdict, outcome.retry_after, effects) == expected


def test_a_receiver_that_takes_no_batches_gets_none(tmp_path: Path) -> None:
    connector = TARGETS["cloudevents"]
    assert connector.simulator is not None
    with SimulatedTargetServer(connector.simulator) as server:
        set_to(EventSink, batches=False)(server.system)
        [outcome] = way_to(server, connector, tmp_path).send(first_case("cloudevents", mode="batched"))
        assert outcome.verdict is Verdict.PERMANENT
        assert server.effects() == {"events": {}}


@pytest.mark.parametrize("mode", ["structured", "binary", "batched"])
def test_an_event_arrives_whole_in_every_mode(mode: str, tmp_path: Path) -> None:
    connector = TARGETS["cloudevents"]
    assert connector.simulator is not None
    example = first_case("cloudevents", mode=mode)
    with SimulatedTargetServer(connector.simulator) as server:
        [outcome] = way_to(server, connector, tmp_path).send(example)
        [event] = server.effects()["events"].values()
    assert outcome.verdict is Verdict.OK
    assert event == example.messages[0].event


def _send(name: str, settings: dict[str, Any], folder: Path) -> tuple[Outcome, Any]:
    """One message with changed settings, and what the system holds then."""
    connector = TARGETS[name]
    assert connector.simulator is not None
    with SimulatedTargetServer(connector.simulator) as server:
        given = server.settings() | {
            key: value.replace("URL", server.url) if isinstance(value, str) else value
            for key, value in settings.items()
        }
        [outcome] = Way(connector, server.url, given, folder).send(first_case(name))
        return outcome, server.effects()


@pytest.mark.parametrize(
    ("name", "settings", "verdict"),
    [
        ("make", {"api_key": "wrong"}, Verdict.AUTH),
        ("n8n", {"auth": {"kind": "header", "name": "X-Bridge-Key", "value": "wrong"}}, Verdict.AUTH),
        ("n8n", {"url": "URL/webhook-test/grades"}, Verdict.RETRY),
        ("n8n", {"method": "PUT"}, Verdict.RETRY),
        ("power_automate", {"auth": {"kind": "none"}}, Verdict.AUTH),
        ("power_automate", {"auth": {"kind": "none"}, "sig": "wrong"}, Verdict.AUTH),
        ("webhook", {"secrets": ["whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="]}, Verdict.AUTH),
        ("http", {"auth": {"kind": "bearer", "token": "wrong"}}, Verdict.AUTH),
    ],
)
def test_who_is_not_known_is_not_let_in(name: str, settings: dict[str, Any], verdict: Verdict, tmp_path: Path) -> None:
    outcome, effects = _send(name, settings, tmp_path)
    assert outcome.verdict is verdict
    assert not any(effects.values())


def test_a_flow_that_anyone_may_start_lets_in_who_has_its_address(tmp_path: Path) -> None:
    outcome, effects = _send("power_automate", {"auth": {"kind": "none"}, "sig": "s1gnature"}, tmp_path)
    assert (outcome.verdict, len(effects["runs"])) == (Verdict.OK, 1)


def test_a_token_for_another_audience_does_not_open_a_flow(tmp_path: Path) -> None:
    """As with one slash less in the scope (learn.microsoft.com/power-automate/oauth-authentication)."""
    connector = TARGETS["power_automate"]
    assert connector.simulator is not None
    with SimulatedTargetServer(connector.simulator) as server:
        settings = server.settings()
        settings["auth"] |= {"scope": "https://service.flow.microsoft.com/.default"}
        [outcome] = Way(connector, server.url, settings, tmp_path).send(first_case("power_automate"))
        assert outcome.verdict is Verdict.AUTH


def test_a_test_address_answers_once_for_each_click(tmp_path: Path) -> None:
    connector = TARGETS["n8n"]
    assert connector.simulator is not None
    with SimulatedTargetServer(connector.simulator) as server:
        set_to(N8n, listening=True)(server.system)
        way = Way(connector, server.url, server.settings() | {"url": f"{server.url}/webhook-test/grades"}, tmp_path)
        verdicts = [way.send(first_case("n8n"))[0].verdict for _ in range(2)]
    assert verdicts == [Verdict.OK, Verdict.RETRY]


def test_an_array_starts_one_run_for_each_of_its_elements() -> None:
    """What a mapping can therefore not send to Zapier: `json` is an object."""
    connector = TARGETS["zapier"]
    assert connector.simulator is not None
    with SimulatedTargetServer(connector.simulator) as server:
        requests.post(server.settings()["url"], data=json.dumps([1, 2, 3]), timeout=5)
        assert server.effects() == {"runs": [1, 2, 3]}
    assert connector.manifest.operations["send"].params["properties"]["json"]["type"] == "object"
