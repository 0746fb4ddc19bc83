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


def test_a_lookup_in_a_key_is_bound_where_a_row_is_created(server: SimulatedTargetServer) -> None:
    told(server, "upsert_contact", contact())
    known = server.effects()["contacts"][0]["contactid"]
    row = {"table": "seats", "key": {"number": 7, "_student_value": known}, "fields": {}, "mode": "create"}
    assert "lookups" in told(server, "upsert_record", row).reason
    bound = {"lookups": {"Student": {"table": "contacts", "key": {"bridge_personkey": "p1"}}}}
    assert [told(server, "upsert_record", {**row, **bound}).verdict for _ in range(2)] == [
        Verdict.OK,
        Verdict.DUPLICATE,
    ]
    assert len(server.effects()["seats"]) == 1


def test_what_is_no_id_never_becomes_part_of_an_address(server: SimulatedTargetServer) -> None:
    row = {"table": "seats", "key": {"_student_value": "1)/contacts(2"}, "fields": {}}
    assert "expected an id" in told(server, "upsert_record", row).reason


def test_a_key_that_is_not_active_is_a_mistake_and_no_second_row(server: SimulatedTargetServer) -> None:
    environment(server).keys["contacts"] = {frozenset({"emailaddress1"})}
    assert told(server, "upsert_contact", contact(mode="create")).verdict is Verdict.PERMANENT
    assert server.effects() == {}


def test_another_row_with_a_unique_value_is_no_row_that_is_there_already(server: SimulatedTargetServer) -> None:
    environment(server).keys["contacts"].add(frozenset({"emailaddress1"}))
    ada = {"lastname": "Lovelace", "emailaddress1": "ada@example.org"}
    rows = [contact(key, mode="create", fields=ada) for key in ("p1", "p2")]
    alone = [told(server, "upsert_contact", row) for row in rows]
    together = all_told(server, "upsert_contact", *rows)

    assert [outcome.verdict for outcome in alone] == [Verdict.OK, Verdict.PERMANENT]
    assert [outcome.verdict for outcome in together] == [Verdict.DUPLICATE, Verdict.PERMANENT]
    assert {alone[1].reason, together[1].reason} == {"another row has a value that must be unique"}


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


@pytest.mark.parametrize("mode", ["upsert", "create"])
def test_no_column_takes_the_place_of_the_key(server: SimulatedTargetServer, mode: str) -> None:
    """A new row would get the key of the body, which nobody could address: there would be one row for each message."""
    fields = {"bridge_personkey": "wise:1", "lastname": "Lovelace"}
    for _ in range(2):
        told(server, "upsert_contact", contact("wise:1", fields=fields, mode=mode))
    assert [row["bridge_personkey"] for row in server.effects()["contacts"]] == ["wise~3A1"]


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
    nobody = {"parentcustomerid_contact": {"table": "contacts", "key": {"bridge_personkey": "nobody"}}}
    bad = contact("bad", lookups=nobody)
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


def test_in_a_batch_rows_are_created_that_were_not_there(server: SimulatedTargetServer) -> None:
    told(server, "upsert_contact", contact("p0", mode="create"))
    rows = [contact(f"p{number}", mode="create", fields={"lastname": "New"}) for number in range(3)]
    outcomes = all_told(server, "upsert_contact", *rows, contact("p3"))

    assert [outcome.verdict for outcome in outcomes] == [Verdict.DUPLICATE, Verdict.OK, Verdict.OK, Verdict.OK]
    names = {row["bridge_personkey"]: row["lastname"] for row in server.effects()["contacts"]}
    assert names == {"p0": "Lovelace", "p1": "New", "p2": "New", "p3": "Lovelace"}


def test_fields_of_nobody_are_empty_already(server: SimulatedTargetServer) -> None:
    row = {"table": "contacts", "key": {"bridge_personkey": "p9"}}
    assert told(server, "clear_fields", {**row, "fields": {"bridge_lastgrade": None}}).verdict is Verdict.DUPLICATE
    assert told(server, "delete_record", row).verdict is Verdict.DUPLICATE
    nobody = {"table": "contacts", "key": "00000000-0000-0000-0000-000000000009"}
    assert told(server, "delete_record", nobody).verdict is Verdict.DUPLICATE


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
