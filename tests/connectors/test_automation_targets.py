"""Automation tools and plain receivers, played by their simulators over HTTP: what their own refusals come to."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from target_sending import TARGETS, Example, Way, told, way_to

from bridge.core.errors import TargetError
from bridge.core.target import Outcome, Verdict
from bridge.testing.simulated_target import SimulatedTargetServer
from connectors.cloudevents.simulator import Sink as EventSink
from connectors.cloudevents.simulator import sound
from connectors.make.simulator import Make
from connectors.n8n.simulator import N8n
from connectors.power_automate.simulator import PowerAutomate
from connectors.webhook.simulator import OWN_KEY
from connectors.webhook.simulator import Sink as WebhookSink
from connectors.webhook.target import signature
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
        ("make", set_to(Make, failing=True), (Verdict.AMBIGUOUS, None, 1)),
        ("n8n", set_to(N8n, registered=False), (Verdict.RETRY, None, 0)),
        ("n8n", set_to(N8n, starting=True), (Verdict.RETRY, None, 0)),
        ("n8n", set_to(N8n, open_door=True), (Verdict.AUTH, None, 0)),
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


PAIR = "6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="


@pytest.mark.parametrize(
    ("secret", "expected"),
    [
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        (
            "whsk_VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk=",
            "v1a,tQ9V2XOqn7jL/DQenEFpqIugdBVtiMmER5mhSkXBNwM0mkATuDe6KYYUuxqtaiHeYGb7KaaBRdM5WqyeFiL8Ag==",
        ),
    ],
)
def test_signatures_are_those_of_the_official_libraries(secret: str, expected: str) -> None:
    """github.com/standard-webhooks/standard-webhooks, libraries/go: webhook_test.go and webhook_asymmetric_test.go."""
    assert signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}') == expected


def test_a_key_with_its_public_half_behind_it_signs_as_the_key_alone() -> None:
    """As github.com/svix/svix-webhooks writes its keys."""
    alone = base64.b64encode(base64.b64decode(PAIR)[:32]).decode()
    assert signature(f"whsk_{PAIR}", "m", 1, b"{}") == signature(f"whsk_{alone}", "m", 1, b"{}")


@pytest.mark.parametrize("secret", ["whsk_AAAA", "whsk_", "whsec_", "whsec_*"])
def test_what_is_no_key_signs_nothing(secret: str) -> None:
    with pytest.raises(TargetError, match="secrets: expected"):
        signature(secret, "m", 1, b"{}")


def test_receivers_with_abuse_protection_hear_who_sends(tmp_path: Path) -> None:
    """github.com/cloudevents/spec, http-webhook.md, 2.1."""
    connector = TARGETS["cloudevents"]
    assert connector.simulator is not None
    with SimulatedTargetServer(connector.simulator) as server:
        set_to(EventSink, origin="bridge.example.edu")(server.system)
        way = way_to(server, connector, tmp_path)
        assert way.send(first_case("cloudevents"))[0].verdict is Verdict.PERMANENT
        assert way.send(first_case("cloudevents", origin="bridge.example.edu"))[0].verdict is Verdict.OK


EVENT = {"specversion": "1.0", "id": "1", "type": "io.cloudevents.test", "source": "https://cloudevents.io"}


@pytest.mark.parametrize(
    ("change", "taken"),
    [
        ({}, True),
        ({"time": "2018-04-05T18:31:00+05:00", "data": None, "extension1": 1}, True),
        ({"specversion": "0.9"}, False),
        ({"id": ""}, False),
        ({"id": 25}, False),
        ({"time": "2018-04-05T18:31Z"}, False),
        ({"time": "lunchtime"}, False),
        ({"time": "2018-04-05T18:31:00+05"}, False),
        ({"datacontenttype": "xyz"}, False),
        ({"subject": ""}, False),
        ({"subject": None}, False),
        ({"MyExtension": "bad"}, False),
        ({"my.extension": "bad"}, False),
        ({"extension1": 1.5}, False),
        ({"data": "text", "data_base64": "eA=="}, False),
    ],
)
def test_the_simulated_receiver_takes_what_receivers_take(change: dict[str, Any], taken: bool) -> None:
    """github.com/cloudevents/conformance, format/json/invalid-events.json."""
    assert sound({**EVENT, **change}) is taken


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
        ("webhook", {"secrets": [f"whsk_{PAIR}"]}, Verdict.AUTH),
        ("http", {"auth": {"kind": "bearer", "token": "wrong"}}, Verdict.AUTH),
    ],
)
def test_who_is_not_known_is_not_let_in(name: str, settings: dict[str, Any], verdict: Verdict, tmp_path: Path) -> None:
    outcome, effects = _send(name, settings, tmp_path)
    assert outcome.verdict is verdict
    assert not any(effects.values())


def test_the_bridges_own_key_is_believed_like_a_shared_secret(tmp_path: Path) -> None:
    outcome, effects = _send("webhook", {"secrets": [OWN_KEY]}, tmp_path)
    assert (outcome.verdict, len(effects["webhooks"])) == (Verdict.OK, 1)


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
