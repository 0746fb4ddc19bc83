"""HubSpot beyond its tests.yaml: the manual's example from bridge.yaml to the contact, and batches that go wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from target_sending import Example, Way, way_to

from bridge.config.configuration import load_configuration
from bridge.config.mappings import fixture_events, load_mapping
from bridge.core.target import Message, Outcome, Verdict
from bridge.main import registry
from bridge.testing.simulated_target import SimulatedTargetServer
from bridge.testing.target_faults import Fault
from connectors.hubspot import simulator

REGISTRY = registry()
HUBSPOT = REGISTRY.targets["hubspot"]

BRIDGE = """\
version: 1
sources:
  wiseflow-main:
    connector: wiseflow
    secrets: ["${WISEFLOW_SECRET}", "${WISEFLOW_SECRET_OLD}"]
    api: {base_url: "https://europe-api.wiseflow.net/v1", client_id: "${WF_ID}", client_secret: "${WF_SECRET}"}
targets:
  crm:    {connector: hubspot, token: "${HUBSPOT_TOKEN}"}
"""

GRADES = """\
version: 1
description: The newest published grade on the CRM contact
events: [grade.published, grade.updated]
sources: [wiseflow-main]
when: "event.data.person.email is not none"
order: strict
requires: full
target: crm
operation: upsert_contact
with:
  key: "{{ event.data.person.key }}"
  properties: {email: "{{ event.data.person.email }}", last_grade: "{{ event.data.grade.label }}"}
tests:
  - event: wiseflow/final-mark
    expect: {key: "wiseflow:813879", properties: {email: ada@example.test, last_grade: "10"}}
"""

SECRETS = {
    "WISEFLOW_SECRET": "whsec-new",
    "WISEFLOW_SECRET_OLD": "whsec-old",
    "WF_ID": "id",
    "WF_SECRET": "secret",
    "HUBSPOT_TOKEN": simulator.TOKEN,
}


@pytest.fixture
def server() -> Iterator[SimulatedTargetServer]:
    with SimulatedTargetServer(simulator) as running:
        yield running


def hubspot(server: SimulatedTargetServer) -> simulator.SimulatedHubSpot:
    assert isinstance(server.system, simulator.SimulatedHubSpot)
    return server.system


def messages(operation: str, *each: Mapping[str, Any]) -> Example:
    made = tuple(
        Message(
            key=f"6019ce76-b63e-52e2-a450-dc7b4dac{place:04d}",
            mapping="m",
            mapping_version="1",
            target="crm",
            operation=operation,
            params=dict(params),
            event={"time": "2026-06-05T09:30:00.000Z", "data": {}},
            attempt=1,
            sent_at=datetime.now(UTC),
        )
        for place, params in enumerate(each)
    )
    return Example(name=operation, messages=made, settings={})


def verdicts(outcomes: Sequence[Outcome]) -> list[str]:
    return [outcome.verdict.value for outcome in outcomes]


def contacts(server: SimulatedTargetServer) -> dict[str, dict[str, str]]:
    """By the bridge's key."""
    held = server.effects()["records"]["contacts"]
    return {values.get("bridge_person_key", id): values for id, values in held.items()}


def test_the_example_of_the_manual_works_as_it_stands(server: SimulatedTargetServer, tmp_path: Path) -> None:
    (tmp_path / "bridge.yaml").write_text(BRIDGE, "utf-8")
    found = {"sources": REGISTRY.sources, "targets": REGISTRY.targets}
    configuration = load_configuration(tmp_path / "bridge.yaml", **found, environ=SECRETS)
    loaded = load_mapping("grades", GRADES.encode(), file="grades.yaml", configuration=configuration, **found)
    assert loaded.problems == ()
    assert loaded.mapping is not None
    [event] = fixture_events("wiseflow/final-mark", REGISTRY.sources)
    params = loaded.mapping.render(event, "wiseflow-main", {"key": "k"})
    options = {**configuration.targets["crm"].settings.options, "base_url": server.url}

    way = Way(HUBSPOT, server.url, options, tmp_path)
    [outcome] = way.send(messages("upsert_contact", params))

    assert outcome.verdict is Verdict.OK
    assert server.calls()[0].headers["authorization"] == f"Bearer {simulator.TOKEN}"
    assert server.calls()[0].target == "/crm/objects/2026-09/contacts/batch/upsert"
    assert server.effects()["records"]["contacts"]["512"]["last_grade"] == "10"


def test_an_app_with_oauth_needs_no_token_in_the_settings(server: SimulatedTargetServer, tmp_path: Path) -> None:
    client, secret, refresh = simulator.CLIENT
    auth = {"kind": "oauth2_refresh_token", "client_id": client, "client_secret": secret, "refresh_token": refresh}
    settings = {"base_url": server.url, "auth": {**auth, "token_url": f"{server.url}/oauth/v3/token"}}
    way = Way(HUBSPOT, server.url, settings, tmp_path)

    assert verdicts(way.send(messages("upsert_contact", {"key": "p1", "properties": {"firstname": "P"}}))) == ["ok"]
    assert [call.target.split("/")[1] for call in server.calls()] == ["oauth", "crm"]


def test_without_any_login_everything_waits_for_a_person(server: SimulatedTargetServer, tmp_path: Path) -> None:
    way = Way(HUBSPOT, server.url, {"base_url": server.url}, tmp_path)
    for operation, params in (
        ("upsert_contact", {"key": "p1", "properties": {"firstname": "P"}}),
        ("add_note", {"contact": {"id": "512"}, "body": "x"}),
        ("timeline_event", {"event_type": "t", "email": "ada@example.test"}),
    ):
        assert verdicts(way.send(messages(operation, params))) == ["auth"]


def test_a_hundred_contacts_go_in_one_request_and_those_who_are_there_are_adopted(
    server: SimulatedTargetServer, tmp_path: Path
) -> None:
    theirs = hubspot(server).put("contacts", {"email": "7@example.test", "phone": "+45 7"})
    everyone = [{"key": f"wiseflow:{n}", "properties": {"email": f"{n}@example.test", "n": n}} for n in range(2, 102)]

    outcomes = way_to(server, HUBSPOT, tmp_path).send(messages("upsert_contact", *everyone))

    assert verdicts(outcomes) == ["ok"] * 100
    assert outcomes[5].target_id == theirs
    held = contacts(server)
    assert len(held) == 101  # with the one who was there
    assert held["wiseflow:7"] == {
        "email": "7@example.test",
        "phone": "+45 7",
        "n": "7",
        "bridge_person_key": "wiseflow:7",
    }
    assert [call.method for call in server.calls()] == ["POST", "GET", "PATCH"]


def test_somebody_whom_two_platforms_know_is_one_contact_and_keeps_the_first_key(
    server: SimulatedTargetServer, tmp_path: Path
) -> None:
    both = messages(
        "upsert_contact",
        {"key": "wiseflow:9", "properties": {"email": "x@example.test", "last_grade": "A"}},
        {"key": "inspera:4", "properties": {"email": "x@example.test", "last_exam": "B"}},
    )
    way = way_to(server, HUBSPOT, tmp_path)
    assert verdicts(way.send(both)) == ["ok", "ok"]
    once = server.effects()
    assert verdicts(way.send(both)) == ["ok", "ok"]

    assert server.effects() == once
    assert contacts(server)["wiseflow:9"] == {
        "email": "x@example.test",
        "last_grade": "A",
        "last_exam": "B",
        "bridge_person_key": "wiseflow:9",
    }


def test_one_unknown_property_is_the_trouble_of_its_own_message_alone(
    server: SimulatedTargetServer, tmp_path: Path
) -> None:
    hubspot(server).unknown = {"graad"}
    both = messages(
        "upsert_contact",
        {"key": "p1", "properties": {"firstname": "P"}},
        {"key": "p2", "properties": {"firstname": "Q", "graad": "secret"}},
    )
    said = way_to(server, HUBSPOT, tmp_path).said(both)
    assert (verdicts(said.outcomes), said.together) == (["ok", "permanent"], False)
    assert said.outcomes[1].reason == "VALIDATION_ERROR: graad"
    assert set(contacts(server)) == {"wiseflow:1", "p1"}
    assert len(server.calls()) == 1


def test_of_whom_nothing_but_a_key_is_known_no_contact_can_be_made(
    server: SimulatedTargetServer, tmp_path: Path
) -> None:
    hubspot(server).nameless = False
    way = way_to(server, HUBSPOT, tmp_path)
    grade = {"last_grade": "10"}
    assert verdicts(way.send(messages("upsert_contact", {"key": "p1", "properties": grade}))) == ["permanent"]
    assert verdicts(way.send(messages("upsert_contact", {"key": "wiseflow:1", "properties": grade}))) == ["ok"]
    assert set(contacts(server)) == {"wiseflow:1"}


def test_an_address_is_one_in_any_case(server: SimulatedTargetServer, tmp_path: Path) -> None:
    shouted = {"key": "p1", "properties": {"email": "ADA@example.test"}}
    outcomes = way_to(server, HUBSPOT, tmp_path).send(messages("upsert_contact", shouted))
    assert [outcome.target_id for outcome in outcomes] == ["512"]


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_a_batch_that_is_cut_off_anywhere_ends_with_one_contact_each(
    calls: int, server: SimulatedTargetServer, tmp_path: Path
) -> None:
    hubspot(server).put("contacts", {"email": "3@example.test"})
    everyone = [{"key": f"p{n}", "properties": {"email": f"{n}@example.test"}} for n in range(5)]
    example, way = messages("upsert_contact", *everyone), way_to(server, HUBSPOT, tmp_path)

    server.fail(Fault(name="drop", after=calls - 1, calls=1))
    assert set(verdicts(way.send(example))) == {"retry"}
    assert verdicts(way.send(example)) == ["ok"] * 5
    assert sorted(contacts(server)) == ["p0", "p1", "p2", "p3", "p4", "wiseflow:1"]


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({}, "/notes$"),
        ({"version": "v3"}, "/notes$"),
        ({"note_key_property": "bridge_note_key"}, "/notes/batch/upsert$"),
        ({"note_key_property": "bridge_note_key"}, "/associations/default/"),
    ],
)
def test_a_note_whose_answer_is_lost_is_there_once_and_on_its_contact(
    settings: dict[str, str], path: str, server: SimulatedTargetServer, tmp_path: Path
) -> None:
    way = Way(HUBSPOT, server.url, {**server.settings(), **settings}, tmp_path)
    note = messages("add_note", {"contact": {"key": "wiseflow:1"}, "body": "<p>10</p>"})

    server.fail(Fault(name="drop", path=path, calls=1))
    assert verdicts(way.send(note)) == ["retry"]
    way.send(note)
    [outcome] = way.send(note)

    effects = server.effects()
    [(id, written)] = effects["records"]["notes"].items()
    assert outcome.target_id == id
    assert ["notes", id, "contacts", "512"] in effects["associations"]
    assert written["hs_note_body"].startswith("<p>10</p>")


def test_a_second_note_is_a_second_note(server: SimulatedTargetServer, tmp_path: Path) -> None:
    way = way_to(server, HUBSPOT, tmp_path)
    two = messages("add_note", *[{"contact": {"id": "512"}, "body": f"<p>{n}</p>"} for n in range(2)])
    for message in two.messages:
        assert verdicts(way.send(replace(two, messages=(message,)))) == ["ok"]
    assert len(server.effects()["records"]["notes"]) == 2


def test_notes_are_found_beyond_the_first_page_of_associations(server: SimulatedTargetServer, tmp_path: Path) -> None:
    way = way_to(server, HUBSPOT, tmp_path)
    note = messages("add_note", {"contact": {"id": "512"}, "body": "<p>mine</p>"})
    account = hubspot(server)
    for n in range(505):
        account.put("notes", {"hs_note_body": f"<p>{n}</p>"}, on="512")
    assert verdicts(way.send(note)) == ["ok"]
    assert verdicts(way.send(note)) == ["duplicate"]


def test_a_relation_waits_for_its_contact_and_is_then_made_once(server: SimulatedTargetServer, tmp_path: Path) -> None:
    way = way_to(server, HUBSPOT, tmp_path)
    relation = messages(
        "associate", {"from": {"type": "contacts", "key": "p1"}, "to": {"type": "2-1234567", "key": "course:1"}}
    )
    assert verdicts(way.send(relation)) == ["retry"]
    way.send(messages("upsert_contact", {"key": "p1", "properties": {"firstname": "P"}}))
    assert verdicts(way.send(relation)) == ["ok"]
    assert verdicts(way.send(relation)) == ["ok"]
    assert len(server.effects()["associations"]) == 2  # one, from both ends


def test_that_a_record_is_missing_says_nothing_about_hubspot(server: SimulatedTargetServer, tmp_path: Path) -> None:
    """A message that waits for its contact does not stop those of others: nobody counts it as HubSpot's failure."""
    note = messages("add_note", {"contact": {"key": "nobody"}, "body": "x"})
    said = way_to(server, HUBSPOT, tmp_path).said(note)
    assert (verdicts(said.outcomes), said.together) == (["retry"], False)


def test_a_timeline_event_is_there_once_and_knows_both_kinds_of_paths(
    server: SimulatedTargetServer, tmp_path: Path
) -> None:
    event = messages("timeline_event", {"event_type": "1001", "email": "ada@example.test", "properties": {"grade": 10}})
    for version in ("v3", "2026-03", "2026-09"):
        way = Way(HUBSPOT, server.url, {**server.settings(), "version": version}, tmp_path)
        server.reset()
        assert verdicts(way.send(event)) == ["ok"]
        assert verdicts(way.send(event)) == ["duplicate"]
        [occurrence] = server.effects()["timeline"]
        assert occurrence["tokens" if version == "v3" else "properties"] == {"grade": "10"}


@pytest.mark.parametrize(
    ("fault", "verdict", "wait"),
    [
        ("secondly", "throttled", 10.0),
        ("daily", "throttled", 3600.0),
        ("locked", "retry", 2.0),
        ("moving", "throttled", 7200.0),
        ("scopes", "permanent", None),
    ],
)
def test_hubspots_own_troubles_pass(
    fault: str, verdict: str, wait: float | None, server: SimulatedTargetServer, tmp_path: Path
) -> None:
    way = way_to(server, HUBSPOT, tmp_path)
    contact = messages("upsert_contact", {"key": "p1", "properties": {"firstname": "P"}})
    hubspot(server).fault = fault
    [outcome] = way.send(contact)
    assert (outcome.verdict.value, outcome.retry_after) == (verdict, wait)
    hubspot(server).fault = None
    assert verdicts(way.send(contact)) == ["ok"]


def test_a_refusal_never_repeats_what_was_sent(server: SimulatedTargetServer, tmp_path: Path) -> None:
    hubspot(server).unknown = {"graad"}
    way = way_to(server, HUBSPOT, tmp_path)
    outcomes = way.send(messages("upsert_contact", {"key": "person-7", "properties": {"graad": "a secret grade"}}))
    assert "secret" not in json.dumps([outcome.reason for outcome in outcomes])
