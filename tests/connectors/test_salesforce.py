"""Salesforce where one request is not enough to see it: logins, races, and many records at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from bridge.config.validation import with_defaults
from bridge.core.settings import Settings
from bridge.core.target import Answer, Message, Outcome, Request, Verdict
from bridge.engine.talk import talk
from bridge.flow.conversation import unique_key
from bridge.main import registry
from bridge.outbound.guard import NetworkPolicy
from bridge.outbound.login import Login
from bridge.outbound.session import GuardedSession
from bridge.outbound.target import send_logged_in, target_sender
from bridge.outbound.tokens import TokenCache
from bridge.testing.simulated_target import SimulatedTargetServer
from bridge.testing.target_cases import messages_of
from bridge.testing.target_faults import Fault
from connectors.salesforce import simulator

CONNECTOR = registry().targets["salesforce"]

Send = Callable[[Request], Answer]


@pytest.fixture
def server() -> Iterator[SimulatedTargetServer]:
    with SimulatedTargetServer(simulator) as running:
        yield running


def org(server: SimulatedTargetServer) -> simulator.Org:
    assert isinstance(server.system, simulator.Org)
    return server.system


def settings(server: SimulatedTargetServer, **more: Any) -> Settings:
    entry = {key: value for key, value in {**server.settings(), **more}.items() if key != "connector"}
    return Settings(name="salesforce", options=with_defaults(CONNECTOR.manifest.options, entry))


def sender(server: SimulatedTargetServer, known: Settings) -> Send:
    return target_sender(known, policy(server), connections=1)


def policy(server: SimulatedTargetServer) -> NetworkPolicy:
    return NetworkPolicy(allow_hosts=frozenset({urlsplit(server.url).netloc}))


def messages(operation: str, *params: Mapping[str, Any]) -> list[Message]:
    return messages_of({"operation": operation, "batch": list(params)}, {})


def told(server: SimulatedTargetServer, operation: str, *params: Mapping[str, Any], **more: Any) -> Sequence[Outcome]:
    known = settings(server, **more)
    return talk(CONNECTOR, messages(operation, *params), known, sender(server, known)).outcomes


def verdicts(outcomes: Sequence[Outcome]) -> list[Verdict]:
    return [outcome.verdict for outcome in outcomes]


def people(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"key": f"wiseflow:{number}", "fields": {"LastName": f"L{number}", **fields}} for number in range(count)]


def writes(server: SimulatedTargetServer) -> int:
    return sum(1 for call in server.calls() if "/data/" in call.target)


# --- logging in -------------------------------------------------------------------------------------------------------


def test_records_go_to_the_host_that_the_token_names(server: SimulatedTargetServer) -> None:
    nowhere = "http://uni-x.my.salesforce.invalid"
    assert verdicts(told(server, "upsert_contact", *people(1), url=nowhere)) == [Verdict.OK]
    assert len(server.effects()["Contact"]) == 1


def test_a_session_that_has_ended_is_replaced_once(server: SimulatedTargetServer) -> None:
    send, contact = renewing(server), messages("upsert_contact", *people(1))
    assert verdicts(talk(CONNECTOR, contact, settings(server), send).outcomes) == [Verdict.OK]
    org(server).sessions.end()

    assert verdicts(talk(CONNECTOR, contact, settings(server), send).outcomes) == [Verdict.OK]
    assert org(server).sessions.count == 2


def test_a_session_that_is_refused_again_waits_for_a_person(server: SimulatedTargetServer) -> None:
    org(server).sessions.seconds = 0.0
    contact = messages("upsert_contact", *people(1))

    assert verdicts(talk(CONNECTOR, contact, settings(server), renewing(server)).outcomes) == [Verdict.AUTH]
    assert org(server).sessions.count == 2


def renewing(server: SimulatedTargetServer) -> Send:
    """A way out on which no token is too young to be at fault for a 401."""
    session = GuardedSession(policy(server), connections=1)
    login = Login(settings(server).options["auth"], session, TokenCache(None), renewed_after=0.0)
    return lambda request: send_logged_in(session, login, request)


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def with_certificate(server: SimulatedTargetServer, key: rsa.RSAPrivateKey, **more: Any) -> Settings:
    """Settings for JWT bearer, of an app whose certificate the org has."""
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    org(server).sessions.certificate = public.decode()
    auth = {
        "kind": "oauth2_jwt_bearer",
        "token_url": f"{server.url}/services/oauth2/token",
        "issuer": simulator.CLIENT,
        "subject": simulator.USER,
        "private_key": private.decode(),
    }
    return settings(server, auth={**auth, **more})


def test_a_certificate_logs_in_too(server: SimulatedTargetServer, key: rsa.RSAPrivateKey) -> None:
    known = with_certificate(server, key)
    outcomes = talk(CONNECTOR, messages("upsert_contact", *people(1)), known, sender(server, known)).outcomes
    assert verdicts(outcomes) == [Verdict.OK]


@pytest.mark.parametrize(
    "wrong", [{"issuer": "another"}, {"subject": "nobody@example.org"}, {"audience": "https://example.org"}]
)
def test_an_assertion_that_the_org_does_not_take_is_no_login(
    server: SimulatedTargetServer, key: rsa.RSAPrivateKey, wrong: Mapping[str, str]
) -> None:
    known = with_certificate(server, key, **wrong)
    [outcome] = talk(CONNECTOR, messages("upsert_contact", *people(1)), known, sender(server, known)).outcomes
    assert outcome.verdict is Verdict.AUTH
    assert "invalid_grant" in outcome.reason
    assert writes(server) == 0


# --- records ----------------------------------------------------------------------------------------------------------


def test_two_hundred_contacts_are_one_request(server: SimulatedTargetServer) -> None:
    outcomes = told(server, "upsert_contact", *people(200))

    assert set(verdicts(outcomes)) == {Verdict.OK}
    assert len({outcome.target_id for outcome in outcomes}) == 200
    assert writes(server) == 1


def test_an_answer_too_long_to_be_read_ends_with_everybody_judged(server: SimulatedTargetServer) -> None:
    """A validation rule with a long message, and 200 records that it refuses: more than is read of one answer."""
    org(server).rule = "x" * 500
    good = {"LastName": "L", "Email": "ada@example.org"}
    outcomes = told(server, "upsert_contact", *people(199), {"key": "good", "fields": good})

    assert verdicts(outcomes) == [Verdict.PERMANENT] * 199 + [Verdict.OK]
    assert "a validation rule" in outcomes[0].reason
    assert writes(server) == 3  # all of them, and each half


@pytest.mark.parametrize("count", [1, 3])
def test_who_loses_the_race_for_a_new_contact_updates_it(server: SimulatedTargetServer, count: int) -> None:
    org(server).racing = count
    assert set(verdicts(told(server, "upsert_contact", *people(count)))) == {Verdict.OK}

    contacts = server.effects()["Contact"]
    assert [contact["LastName"] for contact in contacts] == [f"L{number}" for number in range(count)]


@pytest.mark.parametrize("count", [1, 3])
def test_a_key_that_several_contacts_have_is_a_mistake_in_the_org(server: SimulatedTargetServer, count: int) -> None:
    for _ in range(2):
        org(server).add("Contact", {"Bridge_Person_Key__c": "WISEFLOW:0", "LastName": "Twin"})
    outcomes = told(server, "upsert_contact", *people(count))

    assert verdicts(outcomes) == [Verdict.PERMANENT] + [Verdict.OK] * (count - 1)
    assert "several records" in outcomes[0].reason


def test_a_locked_record_of_a_batch_is_tried_again_and_the_others_are_done(server: SimulatedTargetServer) -> None:
    org(server).locked = 1
    assert verdicts(told(server, "upsert_contact", *people(3))) == [Verdict.RETRY, Verdict.OK, Verdict.OK]


def test_two_messages_for_one_contact_do_not_share_a_request(server: SimulatedTargetServer) -> None:
    same = messages("upsert_contact", {"key": "a:1", "fields": {}}, {"key": "A:1", "fields": {}})
    one, other = (unique_key(CONNECTOR, message, settings(server)) for message in same)
    assert one == other


def test_no_field_takes_the_place_of_the_key(server: SimulatedTargetServer) -> None:
    told(server, "upsert_contact", *people(2, Bridge_Person_Key__c="another"))
    assert [row["Bridge_Person_Key__c"] for row in server.effects()["Contact"]] == ["wiseflow:0", "wiseflow:1"]


def test_a_batch_that_was_cut_off_is_sent_again_without_a_second_effect(server: SimulatedTargetServer) -> None:
    server.fail(Fault(name="drop", path="/composite/"))
    assert set(verdicts(told(server, "upsert_contact", *people(50)))) == {Verdict.RETRY}
    server.fail()

    assert set(verdicts(told(server, "upsert_contact", *people(50)))) == {Verdict.OK}
    assert len(server.effects()["Contact"]) == 50


def test_records_that_belong_together_are_all_there_or_none(server: SimulatedTargetServer) -> None:
    account = {"name": "faculty", "object": "Account", "key_field": "Code__c", "key": "A/1", "fields": {"Name": "Arts"}}
    contact = {"object": "Contact", "key_field": "Bridge_Person_Key__c", "key": "p1", "fields": {"FirstName": "Ada"}}
    [outcome] = told(server, "upsert_together", {"records": [account, contact]})
    assert (outcome.verdict, outcome.reason) == (
        Verdict.PERMANENT,
        "a field is missing that the object needs (REQUIRED_FIELD_MISSING): LastName",
    )
    assert server.effects() == {"events": []}

    contact["fields"] = {"LastName": "Lovelace", "AccountId": "@{faculty.id}"}
    for _ in range(2):
        [outcome] = told(server, "upsert_together", {"records": [account, contact]})
        assert outcome.verdict is Verdict.OK
    effects = server.effects()
    assert [entry["Id"] for entry in effects["Account"]] == [entry["AccountId"] for entry in effects["Contact"]]


def test_a_record_finds_the_contact_that_came_just_before_it(server: SimulatedTargetServer) -> None:
    """By its external ID, which is no reference that Salesforce would see: nothing but the order makes it work."""
    contact = {
        "object": "Contact",
        "key_field": "Bridge_Person_Key__c",
        "key": "p1",
        "fields": {"LastName": "Lovelace"},
    }
    fields = {"Contact__r": {"Bridge_Person_Key__c": "p1"}, "Grade__c": "10"}
    grade = {"object": "Exam_Grade__c", "key_field": "Bridge_Key__c", "key": "e1/p1", "fields": fields}

    assert verdicts(told(server, "upsert_together", {"records": [contact, grade]})) == [Verdict.OK]
    effects = server.effects()
    assert effects["Exam_Grade__c"][0]["Contact__c"] == effects["Contact"][0]["Id"]


@pytest.mark.parametrize(("allowed", "verdict"), [(False, Verdict.PERMANENT), (True, Verdict.OK)])
def test_a_duplicate_rule_is_overruled_in_every_operation_or_in_none(
    server: SimulatedTargetServer, allowed: bool, verdict: Verdict
) -> None:
    org(server).similar = True
    record = {"object": "Contact", "key_field": "Bridge_Person_Key__c", "key": "t", "fields": {"LastName": "L"}}
    case = {"object": "Contact", "fields": {"LastName": "L"}}
    outcomes = [
        *told(server, "upsert_contact", {"key": "one", "fields": {"LastName": "L"}}, allow_duplicates=allowed),
        *told(server, "upsert_contact", *people(2), allow_duplicates=allowed),
        *told(server, "upsert_together", {"records": [record]}, allow_duplicates=allowed),
        *told(server, "create_record", case, allow_duplicates=allowed),
    ]
    assert verdicts(outcomes) == [verdict] * 5


def test_an_older_org_answers_an_update_with_nothing(server: SimulatedTargetServer) -> None:
    org(server).empty_updates = True
    assert verdicts([*told(server, "upsert_contact", *people(1)), *told(server, "upsert_contact", *people(1))]) == [
        Verdict.OK,
        Verdict.OK,
    ]


def test_an_org_without_calls_left_is_left_alone_for_a_quarter_of_an_hour(server: SimulatedTargetServer) -> None:
    org(server).daily_calls = 1
    told(server, "upsert_contact", *people(1))
    [outcome] = told(server, "upsert_contact", *people(1))
    assert (outcome.verdict, outcome.retry_after) == (Verdict.THROTTLED, 900.0)
