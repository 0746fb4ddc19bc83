"""Zoho CRM beyond its tests.yaml: batches that go wrong, notes that are there once, and its dear access tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from target_sending import Example, Way, way_to

from bridge.core.target import Message, Outcome
from bridge.main import registry
from bridge.testing.simulated_target import SimulatedTargetServer
from bridge.testing.target_faults import Fault
from connectors.zoho import simulator

ZOHO = registry().targets["zoho"]


@pytest.fixture
def server() -> Iterator[SimulatedTargetServer]:
    with SimulatedTargetServer(simulator) as running:
        yield running


def account(server: SimulatedTargetServer) -> simulator.SimulatedZoho:
    assert isinstance(server.system, simulator.SimulatedZoho)
    return server.system


def messages(operation: str, *each: Mapping[str, Any]) -> Example:
    made = tuple(
        Message(
            key=f"6019ce76-b63e-52e2-a450-dc7b4dac{place:04d}",
            mapping="m",
            mapping_version="1",
            target="zoho",
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


def people(count: int) -> list[dict[str, Any]]:
    return [{"key": f"{n}@example.test", "fields": {"Last_Name": f"N{n}", "Phone": None}} for n in range(count)]


def contacts(server: SimulatedTargetServer) -> list[str]:
    return sorted(values["Email"] for values in server.effects()["modules"]["Contacts"].values())


def test_each_record_of_a_batch_is_judged_by_itself(server: SimulatedTargetServer, tmp_path: Path) -> None:
    account(server).locked = {"1@example.test"}
    everyone = people(100)
    everyone[2]["fields"] = {"First_Name": "No last name"}
    outcomes = way_to(server, ZOHO, tmp_path).send(messages("upsert_contact", *everyone))
    assert verdicts(outcomes) == ["ok", "retry", "permanent", *["ok"] * 97]
    assert outcomes[2].reason == "MANDATORY_NOT_FOUND: Last_Name"
    assert len(contacts(server)) == 99  # with the one who was there
    assert [call.target for call in server.calls() if "/oauth/" not in call.target] == ["/crm/v8/Contacts/upsert"]


def test_a_batch_whose_answer_is_lost_ends_with_one_contact_each(server: SimulatedTargetServer, tmp_path: Path) -> None:
    way, batch = way_to(server, ZOHO, tmp_path), messages("upsert_contact", *people(5))
    server.fail(Fault(name="drop", path="upsert$", calls=1))
    assert set(verdicts(way.send(batch))) == {"retry"}
    assert verdicts(way.send(batch)) == ["ok"] * 5
    assert contacts(server) == [f"{n}@example.test" for n in range(5)] + ["ada@example.test"]


def test_a_note_whose_answer_is_lost_is_there_once(server: SimulatedTargetServer, tmp_path: Path) -> None:
    way = way_to(server, ZOHO, tmp_path)
    note = messages("add_note", {"key": "ada@example.test", "title": "Grade", "content": "10"})
    server.fail(Fault(name="drop", path="/Notes$", after=1, calls=1))  # not when it is looked for, when it is written
    assert verdicts(way.send(note)) == ["retry"]
    assert len(server.effects()["notes"]) == 1
    assert verdicts(way.send(note)) == ["duplicate"]
    assert len(server.effects()["notes"]) == 1


def test_that_a_contact_is_missing_says_nothing_about_zoho(server: SimulatedTargetServer, tmp_path: Path) -> None:
    """A message that waits for its contact does not stop those of others: nobody counts it as Zoho's failure."""
    said = way_to(server, ZOHO, tmp_path).said(messages("add_note", {"key": "nobody@example.test", "content": "x"}))
    assert (verdicts(said.outcomes), said.together) == (["retry"], False)


def test_fields_of_a_contact_who_was_written_a_moment_ago_are_emptied_on_a_second_try(
    server: SimulatedTargetServer, tmp_path: Path
) -> None:
    way, clear = way_to(server, ZOHO, tmp_path), {"key": "0@example.test", "names": ["Last_Grade"]}
    way.send(messages("upsert_contact", {"key": "0@example.test", "fields": {"Last_Name": "N", "Last_Grade": "10"}}))
    account(server).search_lag = 1
    assert verdicts(way.send(messages("clear_fields", clear))) == ["retry"]
    assert verdicts(way.send(messages("clear_fields", clear))) == ["ok"]
    [contact] = [one for one in server.effects()["modules"]["Contacts"].values() if one["Email"] == "0@example.test"]
    assert contact["Last_Grade"] is None


def test_whose_address_only_looks_alike_is_left_alone(server: SimulatedTargetServer, tmp_path: Path) -> None:
    account(server).put("110", {"Last_Name": "Other", "Email": "a.da@example.test", "Last_Grade": "12"})
    way = way_to(server, ZOHO, tmp_path)
    for operation, params in (
        ("clear_fields", {"key": "ad.a@example.test", "names": ["Last_Grade"]}),
        ("add_note", {"key": "ad.a@example.test", "content": "x"}),
    ):
        assert verdicts(way.send(messages(operation, params))) == ["retry"]
    effects = server.effects()
    assert (effects["modules"]["Contacts"]["110"]["Last_Grade"], effects["notes"]) == ("12", [])


def test_workflows_start_only_where_the_settings_want_them(server: SimulatedTargetServer, tmp_path: Path) -> None:
    contact = messages("upsert_contact", *people(1))
    way_to(server, ZOHO, tmp_path).send(contact)
    assert account(server).triggered == 0
    Way(ZOHO, server.url, {**server.settings(), "workflows": True}, tmp_path).send(contact)
    assert account(server).triggered == 1


def test_one_access_token_serves_a_hundred_messages(server: SimulatedTargetServer, tmp_path: Path) -> None:
    way = way_to(server, ZOHO, tmp_path)
    for contact in people(100):
        way.send(messages("upsert_contact", contact))
    assert account(server).tokens == 1


@pytest.mark.parametrize(
    ("fault", "verdict", "wait"),
    [("limit", "throttled", 60.0), ("broken", "retry", None), ("scope", "permanent", None)],
)
def test_zohos_own_troubles(
    fault: str, verdict: str, wait: float | None, server: SimulatedTargetServer, tmp_path: Path
) -> None:
    account(server).fault = fault
    [outcome] = way_to(server, ZOHO, tmp_path).send(messages("upsert_contact", *people(1)))
    assert (outcome.verdict.value, outcome.retry_after) == (verdict, wait)
