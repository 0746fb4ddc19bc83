"""Canvas beyond its tests.yaml: what the simulated system holds after conversations over HTTP that went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from target_sending import TARGETS, Example, Way, way_to

from bridge.core.target import Message, Verdict
from bridge.testing.simulated_target import SimulatedTargetServer
from bridge.testing.target_cases import messages_of
from bridge.testing.target_faults import Fault
from connectors.canvas import simulator
from connectors.canvas.simulator import SimulatedCanvas

CANVAS = TARGETS["canvas"]
EXAM = {"course": "sis_course_id:DM507", "assignment": "sis_assignment_id:exam", "user": "sis_user_id:S-100"}
ADA = {"course": "sis_course_id:DM507", "user": "sis_user_id:S-100"}


@pytest.fixture
def server() -> Iterator[SimulatedTargetServer]:
    with SimulatedTargetServer(simulator) as running:
        yield running


@pytest.fixture
def way(server: SimulatedTargetServer, tmp_path: Path) -> Way:
    return way_to(server, CANVAS, tmp_path)


def canvas(server: SimulatedTargetServer) -> SimulatedCanvas:
    assert isinstance(server.system, SimulatedCanvas)
    return server.system


def saying(operation: str, key: str = "a message", /, **params: Any) -> Example:
    """A message; those with the same `key` have the same idempotency key."""
    messages: tuple[Message, ...] = tuple(messages_of({"operation": operation, "with": params}, {}))
    return Example(name=operation, messages=messages, settings={}).keyed(key)


def verdict(way: Way, operation: str, key: str = "a message", /, **params: Any) -> Verdict:
    [outcome] = way.send(saying(operation, key, **params))
    return outcome.verdict


def state_of(server: SimulatedTargetServer) -> list[str]:
    return [entry[3] for entry in server.effects()["enrollments"].values()]


def test_a_comment_whose_answer_was_lost_is_not_said_twice(server: SimulatedTargetServer, way: Way) -> None:
    server.fail(Fault(name="drop", after=1, calls=1))

    assert verdict(way, "set_grade", **EXAM, grade=13.5, comment="Good") is Verdict.RETRY
    assert verdict(way, "set_grade", **EXAM, grade=13.5, comment="Good") is Verdict.OK
    assert len(server.effects()["comments"]["exam/S-100"]) == 1
    assert server.effects()["scores"] == {"exam/S-100": 13.5}


def test_two_messages_with_the_same_words_are_two_comments(server: SimulatedTargetServer, way: Way) -> None:
    for name in ("first", "second", "first", "second"):
        verdict(way, "add_comment", name, **EXAM, comment="Handed in")

    assert len(server.effects()["comments"]["exam/S-100"]) == 2


def test_a_grade_that_is_taken_back_leaves_neither_grade_nor_score(server: SimulatedTargetServer, way: Way) -> None:
    verdict(way, "set_grade", **EXAM, grade="A-")
    assert server.effects()["scores"] == {"exam/S-100": 93.0}

    verdict(way, "clear_grade", **EXAM)

    assert (server.effects()["grades"], server.effects()["scores"]) == ({}, {})


def test_grading_one_of_a_group_grades_them_all(server: SimulatedTargetServer, way: Way) -> None:
    canvas(server).groups["exam"] = ("S-100", "S-101")

    verdict(way, "set_grade", **EXAM, grade="40%")

    assert server.effects()["grades"] == {"exam/S-100": "40%", "exam/S-101": "40%"}


def test_what_is_no_grade_takes_the_grade_away_and_needs_a_person(server: SimulatedTargetServer, way: Way) -> None:
    assert verdict(way, "set_grade", "one", **EXAM, grade="A-") is Verdict.OK
    assert verdict(way, "set_grade", "two", **EXAM, grade="12 of 13") is Verdict.PERMANENT
    assert server.effects()["grades"] == {}

    assert verdict(way, "set_grade", "three", **EXAM, grade="12") is Verdict.OK
    assert verdict(way, "clear_grade", "four", **EXAM) is Verdict.OK


@pytest.mark.parametrize("sis", ["read", ""])
def test_what_canvas_makes_without_its_sis_id_needs_a_person(server: SimulatedTargetServer, way: Way, sis: str) -> None:
    canvas(server).missing.add("S-1")
    exam = {"course": "7", "sis_assignment_id": "exam", "name": "Algorithms"}
    assert verdict(way, "upsert_assignment", **exam) is Verdict.OK
    canvas(server).sis = sis

    assert verdict(way, "upsert_assignment", **exam) is Verdict.OK
    assert verdict(way, "upsert_assignment", **{**exam, "sis_assignment_id": "resit"}) is Verdict.PERMANENT
    assert verdict(way, "upsert_user", sis_user_id="S-1", name="Ada", login="ada") is Verdict.PERMANENT


def test_somebody_who_was_deleted_is_brought_back_only_when_asked_for(server: SimulatedTargetServer, way: Way) -> None:
    canvas(server).missing.add("S-1")
    canvas(server).deleted.add("S-1")
    ada = {"sis_user_id": "S-1", "name": "Ada", "email": "ada@example.org"}

    assert verdict(way, "upsert_user", **ada) is Verdict.PERMANENT
    assert verdict(way, "upsert_user", **ada, reactivate=True) is Verdict.OK
    assert verdict(way, "upsert_user", **ada) is Verdict.OK
    assert [user["sis_user_id"] for user in server.effects()["users"].values()] == ["S-1"]


def test_who_is_active_can_be_put_on_the_list_and_kept_out(server: SimulatedTargetServer, way: Way) -> None:
    assert verdict(way, "enroll_user", **ADA) is Verdict.OK
    assert verdict(way, "enroll_user", **ADA, state="inactive") is Verdict.OK
    assert state_of(server) == ["inactive"]


def test_what_is_no_grade_and_who_is_not_assigned_need_a_person(server: SimulatedTargetServer, way: Way) -> None:
    assert verdict(way, "set_grade", **EXAM, grade="excellent") is Verdict.PERMANENT
    canvas(server).unassigned.add("S-100")
    assert verdict(way, "set_grade", **EXAM, grade="A") is Verdict.PERMANENT
    canvas(server).missing.add("S-100")
    assert verdict(way, "enroll_user", **ADA) is Verdict.PERMANENT
    assert server.effects()["grades"] == {}


@pytest.mark.parametrize("status", [403, 429])
def test_a_token_whose_quota_is_used_up_waits(server: SimulatedTargetServer, way: Way, status: int) -> None:
    system = canvas(server)
    system.throttled_status, system.level, system.leak = status, 601.0, 0.0

    [outcome] = way.send(saying("set_grade", **EXAM, grade="A"))
    assert (outcome.verdict, outcome.retry_after) == (Verdict.THROTTLED, 15.0)

    system.level = 0.0
    assert verdict(way, "set_grade", **EXAM, grade="A") is Verdict.OK


@pytest.mark.parametrize("status", [401, 403])
def test_a_bad_token_and_a_forbidden_deed_are_told_apart(
    server: SimulatedTargetServer, way: Way, tmp_path: Path, status: int
) -> None:
    canvas(server).forbidden, canvas(server).refusal = True, status
    assert verdict(way, "clear_grade", **EXAM) is Verdict.PERMANENT

    stranger = Way(CANVAS, server.url, {**server.settings(), "auth": {"kind": "bearer", "token": "old"}}, tmp_path)
    assert verdict(stranger, "clear_grade", **EXAM) is Verdict.AUTH


def test_a_refresh_token_is_good_for_more_than_one_token(server: SimulatedTargetServer, tmp_path: Path) -> None:
    auth = {
        "kind": "oauth2_refresh_token",
        "token_url": f"{server.url}/login/oauth2/token",
        "client_id": "1",
        "client_secret": "s3cret",
        "refresh_token": "canvas-refresh",
    }
    for grade in ("A", "B"):
        way = Way(CANVAS, server.url, {**server.settings(), "auth": auth}, tmp_path)
        assert verdict(way, "set_grade", grade, **EXAM, grade=grade) is Verdict.OK
        canvas(server).tokens.clear()

    assert server.effects()["grades"] == {"exam/S-100": "B"}
    assert sum(call.target == "/login/oauth2/token" for call in server.calls()) == 2


def test_an_enrolment_goes_through_all_its_states(server: SimulatedTargetServer, way: Way) -> None:
    seen = []
    for operation in (
        "enroll_user",
        "deactivate_enrollment",
        "reactivate_enrollment",
        "conclude_enrollment",
        "enroll_user",
        "delete_enrollment",
        "delete_enrollment",
        "enroll_user",
    ):
        assert verdict(way, operation, **ADA) in (Verdict.OK, Verdict.DUPLICATE)
        seen += state_of(server)

    assert seen == ["active", "inactive", "active", "completed", "active", "deleted", "deleted", "active"]
    assert verdict(way, "reactivate_enrollment", **ADA) is Verdict.DUPLICATE
    assert verdict(way, "reactivate_enrollment", **{**ADA, "user": "sis_user_id:S-2"}) is Verdict.PERMANENT


def test_all_pages_are_read_before_an_address_is_given_up(server: SimulatedTargetServer, way: Way) -> None:
    for number in range(7):
        student, address = f"S-{number}", "ada@example.org" if number == 6 else f"ada@example.org.{number}"
        canvas(server).missing.add(student)
        params = {"sis_user_id": student, "name": student, "email": address}
        assert verdict(way, "upsert_user", student, **params) is Verdict.OK

    message = saying("enroll_user", course="7", user="email:Ada@Example.org")
    [outcome] = way.send(replace(message, settings={"page_size": 3}))

    assert outcome.verdict is Verdict.OK
    assert [entry[0] for entry in server.effects()["enrollments"].values()] == ["S-6"]
    assert sum("search_term" in call.target for call in server.calls()) == 3


def test_sis_ids_keep_their_slashes_on_the_wire(server: SimulatedTargetServer, way: Way) -> None:
    assert verdict(way, "enroll_user", course="sis_course_id:CS/101.11é", user="sis_user_id:S-100") is Verdict.OK

    [call] = server.calls()
    # A dot and %2E are the same to every reader of URLs (RFC 3986, 2.3); a slash and %2F are not.
    assert call.target == "/api/v1/courses/sis_course_id:CS%2F101.11%C3%A9/enrollments"
    assert call.headers["accept"] == "application/json+canvas-string-ids"
    assert [entry[1] for entry in server.effects()["enrollments"].values()] == ["CS/101.11é"]


def test_a_login_that_somebody_has_makes_nobody(server: SimulatedTargetServer, way: Way) -> None:
    canvas(server).missing |= {"S-1", "S-2"}
    ada = {"name": "Ada", "email": "ada@example.org"}
    assert verdict(way, "upsert_user", sis_user_id="S-1", **ada) is Verdict.OK
    assert verdict(way, "upsert_user", sis_user_id="S-1", **ada) is Verdict.OK

    assert verdict(way, "upsert_user", sis_user_id="S-2", **ada) is Verdict.PERMANENT
    assert [user["sis_user_id"] for user in server.effects()["users"].values()] == ["S-1"]
