"""Dataverse where one request is not enough to see it: keys, races, modes and limits, against an environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import pytest

from bridge.config.validation import with_defaults
from bridge.core.settings import Settings
from bridge.core.target import Answer, Outcome, Verdict
from bridge.engine.talk import talk
from bridge.main import registry
from bridge.outbound.guard import NetworkPolicy
from bridge.outbound.target import target_sender
from bridge.testing.simulated_target import SimulatedTargetServer
from bridge.testing.target_cases import messages_of
from bridge.testing.target_faults import Fault
from connectors.dataverse import simulator
from connectors.dataverse.batching import parts_of

CONNECTOR = registry().targets["dataverse"]


@pytest.fixture
def server() -> Iterator[SimulatedTargetServer]:
    with SimulatedTargetServer(simulator) as running:
        yield running


def environment(server: SimulatedTargetServer) -> simulator.Environment:
    assert isinstance(server.system, simulator.Environment)
    return server.system


def told(server: SimulatedTargetServer, operation: str, params: Mapping[str, Any]) -> Outcome:
    [outcome] = all_told(server, operation, params)
    return outcome


def all_told(server: SimulatedTargetServer, operation: str, *params: Mapping[str, Any]) -> Sequence[Outcome]:
    entry = {key: value for key, value in server.settings().items() if key != "connector"}
    known = Settings(name="dataverse", options=with_defaults(CONNECTOR.manifest.options, entry))
    policy = NetworkPolicy(allow_hosts=frozenset({urlsplit(server.url).netloc}))
    messages = messages_of({"operation": operation, "batch": params}, {})
    return talk(CONNECTOR, messages, known, target_sender(known, policy, connections=1)).outcomes


def contact(key: str = "p1", **more: Any) -> dict[str, Any]:
    return {"key": key, "fields": {"lastname": "Lovelace"}, **more}


@pytest.mark.parametrize(
    ("key", "kept"),
    [
        ("S-100", "S-100"),
        ("O'Brien", "O'Brien"),
        ("''", "''"),
        ("wiseflow:7", "wiseflow~3A7"),
        ("a~b", "a~7Eb"),
        (r"</*%&\?+#>", "~3C~2F~2A~25~26~5C~3F~2B~23~3E"),
        ("Ærø 7; (=,@)", "Ærø 7; (=,@)"),
    ],
)
def test_whatever_a_key_holds_there_is_one_row(server: SimulatedTargetServer, key: str, kept: str) -> None:
    for _ in range(2):
        assert told(server, "upsert_contact", contact(key)).verdict is Verdict.OK

    note = {"contact_key": key, "text": "found"}
    assert told(server, "add_note", note).verdict is Verdict.OK
    effects = server.effects()
    assert [row["bridge_personkey"] for row in effects["contacts"]] == [kept]
    assert effects["annotations"][0]["_objectid_contact_value"] == effects["contacts"][0]["contactid"]


def test_no_two_keys_become_one(server: SimulatedTargetServer) -> None:
    for key in ("a:b", "a~3Ab", "a~b", "a3Ab"):
        assert told(server, "upsert_contact", contact(key)).verdict is Verdict.OK
    assert len(server.effects()["contacts"]) == 4


def test_who_loses_the_race_for_a_new_row_updates_it(server: SimulatedTargetServer) -> None:
    environment(server).racing = 1
    assert told(server, "upsert_contact", contact()).verdict is Verdict.OK
    assert [row["lastname"] for row in server.effects()["contacts"]] == ["Lovelace"]


def test_modes_keep_rows_from_being_made_or_changed(server: SimulatedTargetServer) -> None:
    assert told(server, "upsert_contact", contact(mode="update")).verdict is Verdict.PERMANENT
    assert server.effects() == {}
    assert told(server, "upsert_contact", contact(mode="create")).verdict is Verdict.OK
    assert told(server, "upsert_contact", contact(mode="create", fields={})).verdict is Verdict.DUPLICATE
    assert told(server, "upsert_contact", contact(mode="update", fields={"lastname": "King"})).verdict is Verdict.OK
    assert [row["lastname"] for row in server.effects()["contacts"]] == ["King"]


def test_the_same_message_makes_one_note(server: SimulatedTargetServer) -> None:
    told(server, "upsert_contact", contact())
    note = {"contact_key": "p1", "text": "The grade is out."}
    assert [told(server, "add_note", note).verdict for _ in range(2)] == [Verdict.OK, Verdict.DUPLICATE]
    assert len(server.effects()["annotations"]) == 1


def test_a_row_cannot_point_to_what_is_not_there(server: SimulatedTargetServer) -> None:
    lookups = {"bridge_Student": {"table": "contacts", "key": {"bridge_personkey": "p1"}}}
    row = {"table": "bridge_examgrades", "key": {"bridge_key": "g1"}, "fields": {}, "lookups": lookups}
    assert told(server, "upsert_record", row).verdict is Verdict.PERMANENT
    told(server, "upsert_contact", contact())
    assert told(server, "upsert_record", row).verdict is Verdict.OK


def test_columns_of_the_key_are_refused_in_the_body(server: SimulatedTargetServer) -> None:
    outcome = told(server, "upsert_contact", contact(fields={"bridge_personkey": "p1"}))
    assert (outcome.verdict, outcome.reason) == (Verdict.PERMANENT, "HTTP 400: 0x80048d19")


@pytest.mark.parametrize("code", ["0x80072322", "0x80072321", "0x80072326"])
def test_each_limit_says_how_long_to_wait_and_longer_when_asked_again(server: SimulatedTargetServer, code: str) -> None:
    environment(server).limit_on = code
    outcomes = [told(server, "upsert_contact", contact()) for _ in range(3)]
    assert [outcome.retry_after for outcome in outcomes] == [2.0, 4.0, 8.0]
    assert {outcome.verdict for outcome in outcomes} == {Verdict.THROTTLED}


def test_an_app_that_is_no_user_waits_for_a_person(server: SimulatedTargetServer) -> None:
    environment(server).member = False
    outcome = told(server, "upsert_contact", contact())
    assert (outcome.verdict, outcome.reason) == (Verdict.AUTH, "the app is no application user of this environment")


# --- batches ----------------------------------------------------------------------------------------------------------


def contacts(count: int) -> list[dict[str, Any]]:
    return [contact(f"wiseflow:{number}", fields={"lastname": f"Løve {number}"}) for number in range(count)]


def test_rows_of_one_batch_stand_by_themselves(server: SimulatedTargetServer) -> None:
    environment(server).racing = 2
    bad = contact("bad", fields={"bridge_personkey": "bad"})
    outcomes = all_told(server, "upsert_contact", *contacts(3), bad, contact("absent", mode="update"))

    good = [Verdict.OK] * 3
    assert [outcome.verdict for outcome in outcomes] == [*good, Verdict.PERMANENT, Verdict.PERMANENT]
    rows = server.effects()["contacts"]
    assert [row["lastname"] for row in rows] == ["Løve 0", "Løve 1", "Løve 2"]
    assert [outcome.target_id for outcome in outcomes[:3]] == [row["contactid"] for row in rows]


@pytest.mark.parametrize("fault", ["drop", "truncate", "break_off"])
def test_a_batch_that_was_cut_off_is_sent_again_without_a_second_effect(
    server: SimulatedTargetServer, fault: str
) -> None:
    server.fail(Fault(name=fault, path="batch"))
    verdicts = {outcome.verdict for outcome in all_told(server, "upsert_contact", *contacts(20))}
    assert Verdict.RETRY in verdicts <= {Verdict.OK, Verdict.RETRY}
    server.fail()

    assert {outcome.verdict for outcome in all_told(server, "upsert_contact", *contacts(20))} == {Verdict.OK}
    assert len(server.effects()["contacts"]) == 20


def test_wherever_an_answer_is_cut_off_only_whole_parts_are_read() -> None:
    refusal = '{"error":{"code":"0x80040217","message":"Does not exist"}}'
    head = "--b\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 404 Not Found\r\nOData-Version: 4.0\r\n\r\n"
    part = f"{head}{refusal}\r\n"
    body = (part * 3 + "--b--\r\n").encode()
    headers = {"content-type": "multipart/mixed; boundary=b"}
    whole = parts_of(Answer(status=200, headers=headers, body=body))

    assert [(found.status, found.body.decode()) for found in whole] == [(404, refusal)] * 3
    for length in range(len(body)):
        found = parts_of(Answer(status=200, headers=headers, body=body[:length]))
        assert found == whole[: len(found)]


def test_a_limit_stops_the_whole_batch(server: SimulatedTargetServer) -> None:
    environment(server).limit_on = "0x80072321"
    outcomes = all_told(server, "upsert_contact", *contacts(2))
    assert [(outcome.verdict, outcome.retry_after) for outcome in outcomes] == [(Verdict.THROTTLED, 2.0)] * 2
