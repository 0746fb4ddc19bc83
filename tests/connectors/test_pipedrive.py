"""Pipedrive beyond its tests.yaml: nobody is added twice, whatever the search knows, and both ways to log in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from target_sending import Example, Way, way_to

from bridge.core.target import Message, Outcome
from bridge.main import registry
from bridge.testing.simulated_target import SimulatedTargetServer
from bridge.testing.target_faults import Fault
from connectors.pipedrive import simulator

PIPEDRIVE = registry().targets["pipedrive"]
GRACE: dict[str, Any] = {"email": "grace@example.test", "key": "wiseflow:2", "name": "Grace Hopper"}


@pytest.fixture
def server() -> Iterator[SimulatedTargetServer]:
    with SimulatedTargetServer(simulator) as running:
        yield running


def company(server: SimulatedTargetServer) -> simulator.SimulatedPipedrive:
    assert isinstance(server.system, simulator.SimulatedPipedrive)
    return server.system


def one(operation: str, params: Mapping[str, Any], attempt: int = 1) -> Example:
    message = Message(
        key="6019ce76-b63e-52e2-a450-dc7b4dacb101",
        mapping="m",
        mapping_version="1",
        target="pipedrive",
        operation=operation,
        params=dict(params),
        event={"time": "2026-06-05T09:30:00.000Z", "data": {}},
        attempt=attempt,
        sent_at=datetime.now(UTC),
    )
    return Example(name=operation, messages=(message,), settings={})


def verdicts(outcomes: Sequence[Outcome]) -> list[str]:
    return [outcome.verdict.value for outcome in outcomes]


@pytest.mark.parametrize(
    ("operation", "params", "kind"),
    [
        ("upsert_person", GRACE, "persons"),
        ("upsert_deal", {"key": "wise:inv-1", "title": "Tuition", "person": {"id": 7}}, "deals"),
        ("add_note", {"person": {"email": "ada@example.test"}, "content": "<p>10</p>"}, "notes"),
    ],
)
def test_what_was_added_and_not_answered_is_found_although_the_search_lags(
    operation: str, params: dict[str, Any], kind: str, server: SimulatedTargetServer, tmp_path: Path
) -> None:
    company(server).search_lag = 1000
    before = len(server.effects()[kind])
    way = way_to(server, PIPEDRIVE, tmp_path)

    server.fail(Fault(name="drop", path=f"/{kind}$", after=1, calls=1))  # not when it is looked for, when it is written
    assert verdicts(way.send(one(operation, params))) == ["retry"]
    assert len(server.effects()[kind]) == before + 1
    assert verdicts(way.send(one(operation, params, attempt=2))) in (["ok"], ["duplicate"])
    assert len(server.effects()[kind]) == before + 1


@pytest.mark.parametrize(
    ("operation", "params", "kind"),
    [("upsert_person", GRACE, "persons"), ("upsert_deal", {"key": "wise:inv-1", "title": "Tuition"}, "deals")],
)
def test_two_events_at_the_same_time_add_one_record_although_the_search_lags(
    operation: str, params: dict[str, Any], kind: str, server: SimulatedTargetServer, tmp_path: Path
) -> None:
    company(server).search_lag = 1000
    before = len(server.effects()[kind])
    way = way_to(server, PIPEDRIVE, tmp_path)
    assert verdicts([*way.send(one(operation, params)), *way.send(one(operation, params))]) == ["ok", "ok"]
    assert len(server.effects()[kind]) == before + 1


def test_fields_of_a_person_who_was_added_a_moment_ago_are_emptied(
    server: SimulatedTargetServer, tmp_path: Path
) -> None:
    company(server).search_lag = 1000
    way = way_to(server, PIPEDRIVE, tmp_path)
    way.send(one("upsert_person", {**GRACE, "fields": {"3" * 40: "10"}}))
    for person in ({"key": GRACE["key"]}, {"email": GRACE["email"].upper()}):
        assert verdicts(way.send(one("clear_fields", {"person": person, "names": ["3" * 40]}))) == ["ok"]
    [grace] = [held for held in server.effects()["persons"].values() if held["name"] == GRACE["name"]]
    assert grace["custom_fields"]["3" * 40] is None


@pytest.mark.parametrize("kind", ["persons", "deals"])
def test_a_key_that_stands_in_another_field_is_not_the_key(
    kind: str, server: SimulatedTargetServer, tmp_path: Path
) -> None:
    company(server).note_down(kind, 5, "9" * 40, "wiseflow:2")
    company(server).note_down(kind, 6, simulator.PERSON_KEY if kind == "persons" else simulator.DEAL_KEY, "WISEFLOW:2")
    before = server.effects()[kind]
    operation = ("upsert_person", GRACE) if kind == "persons" else ("upsert_deal", {"key": "wiseflow:2", "title": "T"})
    [outcome] = way_to(server, PIPEDRIVE, tmp_path).send(one(*operation))
    after = server.effects()[kind]
    assert (outcome.verdict.value, outcome.reason) == ("ok", "added")
    assert {id: after[id] for id in before} == before


def test_nothing_is_lost_while_the_account_is_not_paid(server: SimulatedTargetServer, tmp_path: Path) -> None:
    company(server).fault = "unpaid"
    assert verdicts(way_to(server, PIPEDRIVE, tmp_path).send(one("upsert_person", GRACE))) == ["auth"]


def test_a_person_whose_address_changed_is_known_by_key(server: SimulatedTargetServer, tmp_path: Path) -> None:
    way = way_to(server, PIPEDRIVE, tmp_path)
    way.send(one("upsert_person", GRACE))
    [outcome] = way.send(one("upsert_person", {**GRACE, "email": "hopper@example.test", "name": "G. Hopper"}))
    person = server.effects()["persons"][outcome.target_id]
    assert (person["name"], person["emails"][0]["value"]) == ("G. Hopper", "grace@example.test")
    assert len(server.effects()["persons"]) == 2


def test_with_oauth_calls_go_to_the_company_that_the_token_names(server: SimulatedTargetServer, tmp_path: Path) -> None:
    client, secret, refresh = simulator.CLIENT
    auth = {"kind": "oauth2_refresh_token", "client_id": client, "client_secret": secret, "refresh_token": refresh}
    auth["token_url"] = f"{server.url}/oauth/token"
    elsewhere = server.url.replace("127.0.0.1", "localhost")  # never asked
    way = Way(PIPEDRIVE, server.url, {**server.settings(), "base_url": elsewhere, "auth": auth}, tmp_path)
    assert verdicts(way.send(one("upsert_person", GRACE))) == ["ok"]
    assert server.calls()[0].target == "/oauth/token"
    assert {call.headers["host"] for call in server.calls()} == {server.url.removeprefix("http://")}


@pytest.mark.parametrize(("fault", "wait"), [("burst", 2.0), ("daily", 3600.0), ("shut_out", 3600.0)])
def test_pipedrives_limits_pause_it(fault: str, wait: float, server: SimulatedTargetServer, tmp_path: Path) -> None:
    company(server).fault = fault
    [outcome] = way_to(server, PIPEDRIVE, tmp_path).send(one("upsert_person", GRACE))
    assert (outcome.verdict.value, outcome.retry_after) == ("throttled", wait)


def test_that_a_person_is_missing_says_nothing_about_pipedrive(server: SimulatedTargetServer, tmp_path: Path) -> None:
    """A message that waits for its person does not stop those of others: nobody counts it as Pipedrive's failure."""
    note = one("add_note", {"person": {"email": "nobody@example.test"}, "content": "x"})
    said = way_to(server, PIPEDRIVE, tmp_path).said(note)
    assert (verdicts(said.outcomes), said.together) == (["retry"], False)


def test_a_second_note_is_a_second_note(server: SimulatedTargetServer, tmp_path: Path) -> None:
    way = way_to(server, PIPEDRIVE, tmp_path)
    note = one("add_note", {"person": {"id": 7}, "content": "x"})
    other = replace(note, messages=(replace(note.messages[0], key="6019ce76-b63e-52e2-a450-dc7b4dacb102"),))
    assert verdicts([*way.send(note), *way.send(other), *way.send(note)]) == ["ok", "ok", "duplicate"]
    assert len(server.effects()["notes"]) == 2
