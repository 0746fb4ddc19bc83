"""Blackboard against a site that remembers: its token, its accounts, columns that many want at once, its calls."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest

from bridge.config.validation import validator, with_defaults
from bridge.core.settings import Settings
from bridge.core.target import Message, Outcome, Verdict
from bridge.engine.talk import talk
from bridge.main import registry
from bridge.outbound.guard import NetworkPolicy
from bridge.outbound.target import target_sender
from bridge.outbound.tokens import TokenCache
from bridge.testing.simulated_target import SimulatedTargetServer
from bridge.testing.target_cases import messages_of
from bridge.testing.target_faults import Fault
from connectors.blackboard import simulator

CONNECTOR = registry().targets["blackboard"]
GRADE = {"course": "DM507", "column": "wiseflow:7", "user": "S-100", "name": "Algorithms", "possible": 100}
PERSON = {"external_id": "S-200", "user_name": "new", "given_name": "Neu", "family_name": "Mann"}


class Site:
    """A simulated site and the way to it."""

    def __init__(self, server: SimulatedTargetServer) -> None:
        assert isinstance(server.system, simulator.Learn)
        self.server = server
        self.learn = server.system
        self._tokens = TokenCache(None)

    def tell(self, message: Message, **more: Any) -> Outcome:
        entry = {key: value for key, value in {**self.server.settings(), **more}.items() if key != "connector"}
        settings = Settings(name="lms", options=with_defaults(CONNECTOR.manifest.options, entry))
        policy = NetworkPolicy(allow_hosts=frozenset({urlsplit(self.server.url).netloc}))
        send = target_sender(settings, policy, tokens=self._tokens)
        return talk(CONNECTOR, [message], settings, send).outcomes[0]


@pytest.fixture
def site() -> Iterator[Site]:
    with SimulatedTargetServer(simulator) as server:
        yield Site(server)


def said(operation: str, **params: Any) -> Message:
    [message] = messages_of({"operation": operation, "with": params}, {})
    return message


def test_the_site_is_told_who_calls_by_basic_and_asked_once(site: Site) -> None:
    for score in range(3):
        assert site.tell(said("set_grade", **GRADE, score=score)).verdict is Verdict.OK
    logins = [call for call in site.server.calls() if call.target.endswith("/oauth2/token")]
    assert len(logins) == 1
    assert logins[0].headers["authorization"].startswith("Basic ")
    assert logins[0].body == b"grant_type=client_credentials"


def test_another_process_is_told_the_same_token_with_what_is_left_of_its_life(site: Site) -> None:
    for score in range(2):
        assert Site(site.server).tell(said("set_grade", **GRADE, score=score)).verdict is Verdict.OK
    calls = [call for call in site.server.calls() if not call.target.endswith("/oauth2/token")]
    assert len({call.headers["authorization"] for call in calls}) == 1


def test_the_first_grades_of_an_exam_share_one_column(site: Site) -> None:
    messages = [
        replace(said("set_grade", **{**GRADE, "user": user}, score=50), key=user)
        for user in ("S-100", "S-101", "S-102")
    ]
    site.server.fail(Fault(name="latency", seconds=0.05))
    with ThreadPoolExecutor(3) as pool:
        outcomes = [outcome.verdict for outcome in pool.map(site.tell, messages)]
    assert outcomes == [Verdict.OK] * 3
    effects = site.server.effects()
    assert [column["externalId"] for column in effects["columns"]] == ["wiseflow:7"]
    assert {name: grade["score"] for name, grade in effects["grades"].items()} == dict.fromkeys(
        ("wiseflow:7/S-100", "wiseflow:7/S-101", "wiseflow:7/S-102"), 50
    )


def test_a_grade_is_given_revoked_and_given_again(site: Site) -> None:
    for score in (70, None, 0, None, 90):
        message = said("sync_grade", **GRADE, score=score, feedback="Well done")
        for _ in range(2):
            assert site.tell(message).verdict is Verdict.OK
            assert site.server.effects()["grades"]["wiseflow:7/S-100"]["score"] == score
    assert site.server.effects()["grades"]["wiseflow:7/S-100"]["feedback"] == "Well done"


def test_a_mark_without_a_number_is_written_as_text_and_never_taken_for_a_revocation(site: Site) -> None:
    site.tell(said("sync_grade", **GRADE, score=70))
    assert site.tell(said("sync_grade", **GRADE, score=None, text="A")).verdict is Verdict.OK
    assert site.server.effects()["grades"]["wiseflow:7/S-100"] == {"score": 70, "text": "A"}


def test_an_account_is_made_once_and_then_brought_up_to_date(site: Site) -> None:
    assert site.tell(said("upsert_user", **PERSON)).verdict is Verdict.OK
    made = next(call for call in site.server.calls() if call.method == "POST" and call.target.endswith("/users"))
    assert site.tell(said("upsert_user", **PERSON, email="new@example.org")).verdict is Verdict.OK
    account = site.server.effects()["users"]["S-200"]
    assert (account["userName"], account["contact"]) == ("new", {"email": "new@example.org"})
    assert b"app-secret" not in made.body


def test_passwords_of_new_accounts_hang_on_the_person_and_the_applications_secret(site: Site) -> None:
    for number in (201, 202):
        site.tell(said("upsert_user", **{**PERSON, "external_id": f"S-{number}", "user_name": f"n{number}"}))
    made = [call.body for call in site.server.calls() if call.method == "POST" and call.target.endswith("/users")]
    passwords = [body.partition(b'"password":"')[2].partition(b'"')[0] for body in made]
    assert len(set(passwords)) == 2
    assert all(len(password) > 40 for password in passwords)


def test_two_workers_with_one_new_person_make_one_account(site: Site) -> None:
    site.server.fail(Fault(name="latency", seconds=0.05))
    messages = [replace(said("upsert_user", **PERSON), key=f"k{number}") for number in range(3)]
    with ThreadPoolExecutor(3) as pool:
        outcomes = [outcome.verdict for outcome in pool.map(site.tell, messages)]
    assert outcomes == [Verdict.OK] * 3
    assert len(site.server.effects()["users"]) == 4


def test_a_user_name_that_is_taken_is_a_mistake_and_nobodys_account_changes(site: Site) -> None:
    before = site.server.effects()
    assert site.tell(said("upsert_user", **{**PERSON, "user_name": "ada"})).verdict is Verdict.PERMANENT
    assert site.server.effects() == before


def test_a_suspension_keeps_somebody_in_the_course(site: Site) -> None:
    where = {"course": "DM507", "user": "S-100"}
    assert site.tell(said("enrol_user", **where)).verdict is Verdict.DUPLICATE
    assert site.tell(said("change_enrolment", **where, available=False)).verdict is Verdict.OK
    enrolment = site.server.effects()["enrolments"]["DM507/S-100"]
    assert enrolment == {"courseRoleId": "Student", "availability": {"available": "No"}}
    assert site.tell(said("unenrol_user", **where)).verdict is Verdict.OK
    assert site.tell(said("change_enrolment", **where, available=True)).verdict is Verdict.PERMANENT


def test_a_day_without_calls_pauses_the_target_until_it_begins_anew(site: Site) -> None:
    site.learn.calls_left = 0
    site.learn.reset = int(time.time()) + 3600
    outcome = site.tell(replace(said("set_grade", **GRADE, score=1), sent_at=datetime.now(UTC)))
    assert outcome.verdict is Verdict.THROTTLED
    assert outcome.retry_after is not None
    assert 3500 < outcome.retry_after <= 3600


def test_limits_that_have_been_moved_say_how_long_to_wait(site: Site) -> None:
    site.learn.calls_left, site.learn.retry_after = 0, 120
    outcome = site.tell(said("set_grade", **GRADE, score=1))
    assert (outcome.verdict, outcome.retry_after) == (Verdict.THROTTLED, 120.0)


@pytest.mark.parametrize("operation", ["set_grade", "sync_grade"])
@pytest.mark.parametrize(("text", "fits"), [("-", False), ("", False), ("A-", True), ("--", True), ("-3", True)])
def test_a_text_that_would_empty_the_grade_is_no_text(operation: str, text: str, *, fits: bool) -> None:
    params = CONNECTOR.manifest.operations[operation].params
    assert validator(params).is_valid({**GRADE, "score": 1, "text": text}) is fits
