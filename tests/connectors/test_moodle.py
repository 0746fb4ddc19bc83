"""Moodle beyond its tests.yaml: what the simulated site holds after conversations over HTTP that went wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
import requests
from target_sending import TARGETS, Example, Way, way_to

from bridge.core.target import Message, Outcome, Verdict
from bridge.testing.simulated_target import SimulatedTargetServer
from bridge.testing.target_cases import messages_of
from bridge.testing.target_faults import Fault
from connectors.moodle import simulator
from connectors.moodle.simulator import SimulatedMoodle

MOODLE = TARGETS["moodle"]
FORM = "application/x-www-form-urlencoded"
ADA = {"idnumber": "S-100", "username": "Ada.L", "email": "ada@example.org", "firstname": "Ada", "lastname": "King"}
WHO = {"idnumber": "S-100"}
EXAM = {"user": WHO, "assignment": {"cmid": "1012"}}


@pytest.fixture
def server() -> Iterator[SimulatedTargetServer]:
    with SimulatedTargetServer(simulator) as running:
        yield running


@pytest.fixture
def way(server: SimulatedTargetServer, tmp_path: Path) -> Way:
    return way_to(server, MOODLE, tmp_path)


def moodle(server: SimulatedTargetServer) -> SimulatedMoodle:
    assert isinstance(server.system, SimulatedMoodle)
    return server.system


def outcome(way: Way, operation: str, /, **params: Any) -> Outcome:
    messages: tuple[Message, ...] = tuple(messages_of({"operation": operation, "with": params}, {}))
    [found] = way.send(Example(name=operation, messages=messages, settings={}).keyed("a message"))
    return found


def verdict(way: Way, operation: str, /, **params: Any) -> Verdict:
    return outcome(way, operation, **params).verdict


def called(server: SimulatedTargetServer) -> list[str]:
    return [dict(parse_qsl(call.body.decode()))["wsfunction"] for call in server.calls()]


def asked(server: SimulatedTargetServer, body: str, kind: str) -> requests.Response:
    url = f"{server.url}/webservice/rest/server.php"
    return requests.post(url, data=body, headers={"Content-Type": kind}, timeout=10)


@pytest.mark.parametrize("debug", [True, False])
def test_a_person_whose_making_went_unanswered_is_there_once(
    server: SimulatedTargetServer, way: Way, debug: bool
) -> None:
    moodle(server).debug = debug
    server.fail(Fault(name="drop", after=3, calls=1))

    assert verdict(way, "upsert_user", **ADA) is Verdict.RETRY
    assert verdict(way, "upsert_user", **{**ADA, "lastname": "Lovelace"}) is Verdict.OK

    [person] = server.effects()["users"].values()
    assert (person["username"], person["lastname"], person["idnumber"]) == ("ada.l", "Lovelace", "S-100")
    assert called(server)[-2:] == ["core_user_get_users_by_field", "core_user_update_users"]


def test_somebody_else_keeps_the_account(server: SimulatedTargetServer, way: Way) -> None:
    assert verdict(way, "upsert_user", **ADA) is Verdict.OK

    found = outcome(way, "upsert_user", **{**ADA, "idnumber": "S-101"})

    assert found.verdict is Verdict.PERMANENT
    assert "idnumber" in found.reason
    assert "S-10" not in found.reason
    assert [person["idnumber"] for person in server.effects()["users"].values()] == ["S-100"]


def test_the_token_is_in_the_body_and_in_no_address(server: SimulatedTargetServer, way: Way) -> None:
    assert verdict(way, "site_info") is Verdict.OK

    [call] = server.calls()
    assert (call.method, call.target) == ("POST", "/webservice/rest/server.php")
    assert call.headers["content-type"] == FORM
    assert call.body == b"wsfunction=core_webservice_get_site_info&moodlewsrestformat=json&wstoken=moodle-token"


def test_a_wrong_token_waits_for_a_person(server: SimulatedTargetServer, tmp_path: Path) -> None:
    auth = {"kind": "form", "token": "old"}
    stranger = Way(MOODLE, server.url, {**server.settings(), "auth": auth}, tmp_path)

    assert verdict(stranger, "upsert_user", **ADA) is Verdict.AUTH
    assert server.effects()["users"] == {}


def test_functions_that_the_service_lacks_are_named(server: SimulatedTargetServer, way: Way) -> None:
    moodle(server).functions.discard("mod_assign_save_grade")

    found = outcome(way, "site_info")

    assert (found.verdict, "mod_assign_save_grade" in found.reason) == (Verdict.PERMANENT, True)
    assert verdict(way, "save_assignment_grade", user={"id": "5"}, assignment={"id": "1"}, grade=1) is Verdict.AUTH


@pytest.mark.parametrize("namespaced", [True, False])
@pytest.mark.parametrize(("errorcode", "expected"), [("sitemaintenance", "retry"), ("nopermissions", "permanent")])
def test_a_failure_is_known_by_its_code_whatever_its_class(
    server: SimulatedTargetServer, way: Way, namespaced: bool, errorcode: str, expected: str
) -> None:
    moodle(server).namespaced, moodle(server).failing = namespaced, errorcode

    assert verdict(way, "upsert_user", **ADA).value == expected
    assert server.effects()["users"] == {}


def test_a_page_in_place_of_an_answer_is_asked_again(server: SimulatedTargetServer, way: Way) -> None:
    moodle(server).page = "<!DOCTYPE html><html><title>Log in to the site</title></html>"
    assert verdict(way, "upsert_user", **ADA) is Verdict.RETRY

    moodle(server).page = None
    assert verdict(way, "upsert_user", **ADA) is Verdict.OK


def test_an_enrolment_is_suspended_renewed_and_ended(server: SimulatedTargetServer, way: Way) -> None:
    verdict(way, "upsert_user", **ADA)
    course = {"shortname": "DM507"}
    seen = []
    for operation in ("enrol_user", "suspend_enrolment", "enrol_user", "unenrol_user", "unenrol_user"):
        assert verdict(way, operation, user=WHO, course=course) is Verdict.OK
        seen.append([entry["status"] for entry in server.effects()["enrolments"].values()])

    assert seen == [["active"], ["suspended"], ["active"], [], []]


def test_nobody_and_nowhere_need_a_person(server: SimulatedTargetServer, way: Way) -> None:
    assert verdict(way, "enrol_user", user=WHO, course={"id": "7"}) is Verdict.PERMANENT
    verdict(way, "upsert_user", **ADA)
    moodle(server).missing.add("DM508")
    assert verdict(way, "enrol_user", user=WHO, course={"idnumber": "DM508"}) is Verdict.PERMANENT
    assert server.effects()["enrolments"] == {}


def test_a_grade_is_given_changed_and_taken_back(server: SimulatedTargetServer, way: Way) -> None:
    verdict(way, "upsert_user", **ADA)
    seen = []
    for operation, params in (
        ("save_assignment_grade", {"grade": 83.5, "feedback": "<p>Good</p>"}),
        ("save_assignment_grade", {"grade": 84, "workflow_state": "released"}),
        ("clear_assignment_grade", {}),
    ):
        assert verdict(way, operation, **EXAM, **params) is Verdict.OK
        seen.append(server.effects()["assignments"]["12/5"])

    assert seen == [
        {"grade": 83.5, "feedback": "<p>Good</p>", "state": ""},
        {"grade": 84.0, "feedback": "<p>Good</p>", "state": "released"},
        {"grade": None, "feedback": "<p>Good</p>", "state": "notmarked"},
    ]


def test_a_whole_group_with_feedback_waits_for_feedback(server: SimulatedTargetServer, way: Way) -> None:
    verdict(way, "upsert_user", **ADA)
    assert verdict(way, "save_assignment_grade", **EXAM, grade=10, feedback="Good") is Verdict.OK

    assert verdict(way, "save_assignment_grade", **EXAM, grade=11, whole_group=True) is Verdict.RETRY
    assert verdict(way, "save_assignment_grade", **EXAM, grade=11, whole_group=True, feedback="Fair") is Verdict.OK
    assert server.effects()["assignments"]["12/5"] == {"grade": 11.0, "feedback": "Fair", "state": ""}


def test_a_grade_that_moodle_would_drop_without_a_word_needs_a_person(server: SimulatedTargetServer, way: Way) -> None:
    verdict(way, "upsert_user", **ADA)
    assert verdict(way, "save_assignment_grade", **EXAM, grade=100) is Verdict.OK
    assert verdict(way, "save_assignment_grade", **EXAM, grade=100.5) is Verdict.PERMANENT

    moodle(server).rubric = True
    assert verdict(way, "save_assignment_grade", **EXAM, grade=50) is Verdict.PERMANENT
    assert server.effects()["assignments"]["12/5"]["grade"] == 100.0


def test_people_keep_apart_what_only_one_of_them_can_have(server: SimulatedTargetServer, way: Way) -> None:
    bob = {"idnumber": "S-101", "username": "bob", "email": "bob@example.org", "firstname": "Bob", "lastname": "Roy"}
    assert verdict(way, "upsert_user", **ADA) is Verdict.OK
    assert verdict(way, "upsert_user", **bob) is Verdict.OK

    assert verdict(way, "upsert_user", **{**bob, "username": "ada.l"}) is Verdict.PERMANENT
    assert verdict(way, "upsert_user", **{**bob, "email": "ADA@example.org"}) is Verdict.PERMANENT
    assert [user["username"] for user in server.effects()["users"].values()] == ["ada.l", "bob"]


def test_an_address_is_found_in_small_letters(server: SimulatedTargetServer, way: Way) -> None:
    verdict(way, "upsert_user", **ADA)

    found = outcome(way, "enrol_user", user={"email": "Ada@Example.org"}, course={"id": "7"})

    assert found.verdict is Verdict.OK
    assert list(server.effects()["enrolments"]) == ["7/5"]


@pytest.mark.parametrize(
    "wrong",
    [
        "enrolments[0][roleid]=5&enrolments[0][userid]=5",
        "enrolments[0][roleid]=5&enrolments[0][userid]=5&enrolments[0][courseid]=7.0",
        "enrolments[0][roleid]=5&enrolments[0][userid]=5&enrolments[0][courseid]=7&enrolments[0][status]=1",
        "enrolments[roleid]=5",
        "enrolments=5",
    ],
)
def test_the_simulated_site_refuses_what_a_function_does_not_take(server: SimulatedTargetServer, wrong: str) -> None:
    call = f"wstoken=moodle-token&wsfunction=enrol_manual_enrol_users&moodlewsrestformat=json&{wrong}"

    assert asked(server, call, FORM).json()["errorcode"] == "invalidparameter"


def test_a_number_says_what_the_gradebook_did(server: SimulatedTargetServer, way: Way) -> None:
    verdict(way, "upsert_user", **ADA)
    grade = {"user": WHO, "course": {"idnumber": "DM507"}, "grade": 83.5}

    assert verdict(way, "update_gradebook", **grade, activity="1012") is Verdict.OK
    assert server.effects()["gradebook"] == {"1012/5": 83.5}

    moodle(server).locked.add("1012")
    assert "locked" in outcome(way, "update_gradebook", **grade, activity="1012").reason
    assert verdict(way, "update_gradebook", **grade, activity="12") is Verdict.PERMANENT
    assert server.effects()["gradebook"] == {"1012/5": 83.5}


def test_a_quiz_gets_no_assignment_grade(server: SimulatedTargetServer, way: Way) -> None:
    verdict(way, "upsert_user", **ADA)

    found = outcome(way, "save_assignment_grade", user=WHO, assignment={"cmid": "2012"}, grade=1)

    assert (found.verdict, server.effects()["assignments"]) == (Verdict.PERMANENT, {})


def test_the_simulated_site_reads_forms_only_and_speaks_xml_unless_told(server: SimulatedTargetServer) -> None:
    fields = {"wstoken": "moodle-token", "wsfunction": "core_webservice_get_site_info", "moodlewsrestformat": "json"}

    assert asked(server, urlencode(fields), FORM).json()["sitename"] == "Simulated Moodle"
    assert "<ERRORCODE>invalidtoken</ERRORCODE>" in asked(server, json.dumps(fields), "application/json").text
    xml = asked(server, urlencode({**fields, "moodlewsrestformat": ""}), FORM)
    assert (xml.headers["Content-Type"], xml.text[:5]) == ("application/xml; charset=utf-8", "<?xml")


def test_the_simulated_site_takes_all_people_of_a_call_or_none(server: SimulatedTargetServer) -> None:
    people = {
        f"users[{number}][{field}]": value
        for number, username in enumerate(("ada", "ADA"))
        for field, value in (
            ("username", username),
            ("email", f"{number}@example.org"),
            ("firstname", "A"),
            ("lastname", "L"),
            ("createpassword", "1"),
        )
    }
    fields = {"wstoken": "moodle-token", "wsfunction": "core_user_create_users", "moodlewsrestformat": "json", **people}

    answer = asked(server, urlencode(fields), FORM)

    assert answer.json()["errorcode"] == "invalidparameter"
    assert server.effects()["users"] == {}
