"""Brightspace against a site that remembers: refresh tokens that are good once, teachers' comments, names, credits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from bridge.config.validation import with_defaults
from bridge.core.settings import Settings
from bridge.core.target import Message, Outcome, Verdict
from bridge.engine.talk import talk
from bridge.ledger.database import Ledger
from bridge.main import registry
from bridge.outbound.guard import NetworkPolicy
from bridge.outbound.target import target_sender
from bridge.outbound.tokens import TokenCache
from bridge.testing.simulated_target import SimulatedTargetServer
from bridge.testing.target_cases import messages_of
from bridge.testing.target_faults import Fault
from connectors.brightspace import simulator

CONNECTOR = registry().targets["brightspace"]
GRADE = {"course_code": "DM507-2026", "user": "S-100", "item_name": "Algorithms 2026"}
COMMENTED = {
    "GradeObjectType": 1,
    "PointsNumerator": 12,
    "Comments": {"Text": "See me", "Html": "<p>See <b>me</b></p>"},
    "PrivateComments": {"Text": "Plagiarism?", "Html": ""},
}


class Campus:
    """A simulated site and the ways to it; each way is a process with tokens of its own, all have one ledger."""

    def __init__(self, server: SimulatedTargetServer, ledger: Ledger) -> None:
        assert isinstance(server.system, simulator.Brightspace)
        self.server = server
        self.site = server.system
        self.ledger = ledger
        self._tokens = TokenCache(None)

    def restart(self) -> None:
        """Another process: no token is known any more."""
        self._tokens = TokenCache(None)

    def tell(self, message: Message, known: Mapping[str, Any] | None = None) -> Outcome:
        entry = {key: value for key, value in (known or self.server.settings()).items() if key != "connector"}
        settings = Settings(name="lms", options=with_defaults(CONNECTOR.manifest.options, entry))
        policy = NetworkPolicy(allow_hosts=frozenset({urlsplit(self.server.url).netloc}))
        send = target_sender(settings, policy, tokens=self._tokens, ledger=self.ledger)
        return talk(CONNECTOR, [message], settings, send).outcomes[0]

    def exchanges(self) -> int:
        return sum(1 for call in self.server.calls() if call.target == "/core/connect/token")

    def grade(self, item: str = "Algorithms 2026", user: str = "S-100") -> dict[str, Any]:
        found: dict[str, Any] = self.server.effects()["grades"][f"{item}/{user}"]
        return found


@pytest.fixture
def campus(tmp_path: Path) -> Iterator[Campus]:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    ledger.upgrade()
    with SimulatedTargetServer(simulator) as server:
        yield Campus(server, ledger)


def said(operation: str, **params: Any) -> Message:
    [message] = messages_of({"operation": operation, "with": {**GRADE, **params}}, {})
    return message


def enrolled(**params: Any) -> Message:
    [message] = messages_of({"operation": "enrol_user", "with": {"org_unit": 6606, "user": "S-100", **params}}, {})
    return message


# --- logging in -------------------------------------------------------------------------------------------------------


def test_a_refresh_token_is_exchanged_once_and_its_successor_after_a_restart(campus: Campus) -> None:
    for points in (1, 2):
        assert campus.tell(said("set_grade", points=points)).verdict is Verdict.OK
    assert campus.exchanges() == 1
    campus.restart()
    assert campus.tell(said("set_grade", points=3)).verdict is Verdict.OK
    assert campus.exchanges() == 2


def test_workers_that_log_in_together_use_no_refresh_token_twice(campus: Campus) -> None:
    def alone(points: int) -> Verdict:
        other = Campus(campus.server, campus.ledger)
        return other.tell(said("set_grade", points=points)).verdict

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(alone, range(4))) == {Verdict.OK}
    assert campus.tell(said("set_grade", points=9)).verdict is Verdict.OK


def test_a_service_user_needs_no_refresh_token(campus: Campus) -> None:
    known = simulator.service_user_settings(campus.server.url)
    assert campus.tell(said("set_grade", points=7), known).verdict is Verdict.OK
    assert campus.grade()["PointsNumerator"] == 7
    token_url = known["auth"]["token_url"]
    for different in ({"client_id": "somebody"}, {"key_id": "somebody's"}, {"audience": token_url}):
        campus.restart()
        wrong = known | {"auth": known["auth"] | different}
        assert campus.tell(said("set_grade", points=8), wrong).verdict is Verdict.AUTH


@pytest.mark.parametrize("kind", ["refresh token", "service user"])
def test_the_scope_is_enough_for_every_operation(campus: Campus, kind: str) -> None:
    known = simulator.service_user_settings(campus.server.url) if kind == "service user" else None
    course = {"course_code": "DM507-2026", "user": "S-100"}
    for operation, params in (
        ("set_grade", {**GRADE, "item_name": "New", "max_points": 10, "points": 5}),
        ("clear_grade", {**GRADE, "item_name": "New"}),
        ("enrol_user", {**course, "role": "learner"}),
        ("unenrol_user", course),
    ):
        [message] = messages_of({"operation": operation, "with": params}, {})
        assert campus.tell(message, known).verdict is Verdict.OK, operation


# --- grades -----------------------------------------------------------------------------------------------------------


def test_what_teachers_wrote_stays(campus: Campus) -> None:
    campus.site.values[301, 201] = dict(COMMENTED)
    assert campus.tell(said("set_grade", points=83.5)).verdict is Verdict.OK
    assert campus.grade() == {**COMMENTED, "PointsNumerator": 83.5}
    assert campus.tell(said("sync_grade", points=None)).verdict is Verdict.OK
    assert campus.grade() == {**COMMENTED, "PointsNumerator": None}


@pytest.mark.parametrize(
    ("item", "name", "given"), [("Passed", "pass", True), ("Passed", "pass", False), ("Letter", "value", "A")]
)
def test_a_grade_of_any_type_is_emptied_once(campus: Campus, item: str, name: str, given: Any) -> None:
    assert campus.tell(said("set_grade", item_name=item, **{name: given})).verdict is Verdict.OK
    assert campus.tell(said("sync_grade", item_name=item, **{name: None})).verdict is Verdict.OK
    assert campus.grade(item)[name.title()] is None
    assert campus.tell(said("clear_grade", item_name=item)).verdict is Verdict.DUPLICATE


def test_a_grade_of_another_type_than_its_item_is_refused(campus: Campus) -> None:
    assert campus.tell(said("set_grade", item_name="Passed", points=1)).verdict is Verdict.PERMANENT
    assert campus.server.effects()["grades"] == {}


def test_an_item_is_made_once_whoever_comes_first_and_whatever_its_name(campus: Campus) -> None:
    name = 'Exam 1/2: "Graphs" <50%> ' + "x" * 200
    messages = [
        replace(said("set_grade", item_name=name, max_points=20, points=number, user=f"S-10{number}"), key=f"k{number}")
        for number in range(3)
    ]
    campus.tell(said("set_grade", points=1))
    campus.server.fail(Fault(name="latency", seconds=0.05))
    with ThreadPoolExecutor(3) as pool:
        outcomes = [outcome.verdict for outcome in pool.map(campus.tell, messages)]
    assert outcomes == [Verdict.OK] * 3
    made = [item for item in campus.server.effects()["items"] if item["Name"].startswith("Exam 1 2: Graphs 50 ")]
    assert len(made) == 1
    assert len(made[0]["Name"]) == 128


def test_points_of_another_maximum_are_converted(campus: Campus) -> None:
    campus.tell(said("set_grade", points=15, points_maximum=20))
    assert campus.grade()["PointsNumerator"] == 75


@pytest.mark.parametrize("name", ["drop", "reset"])
def test_a_grade_whose_answer_was_lost_is_there_once(campus: Campus, name: str) -> None:
    campus.tell(said("set_grade", points=1, comment="Well done"))
    campus.server.fail(Fault(name=name, path="/values/", after=1, taken=True))
    assert campus.tell(said("set_grade", points=2)).verdict is Verdict.RETRY
    campus.server.fail()
    assert campus.tell(said("set_grade", points=2)).verdict is Verdict.OK
    assert campus.grade()["Comments"]["Text"] == "Well done"
    assert campus.grade()["PointsNumerator"] == 2


# --- enrolments and limits --------------------------------------------------------------------------------------------


def test_who_is_enrolled_again_gets_the_role(campus: Campus) -> None:
    assert campus.tell(enrolled(role="learner")).verdict is Verdict.OK
    assert campus.tell(enrolled(role="instructor")).verdict is Verdict.OK
    assert campus.server.effects()["enrolments"] == {"6606/S-100": 109}
    left = replace(enrolled(), operation="unenrol_user")
    assert campus.tell(left).verdict is Verdict.OK
    assert campus.tell(left).verdict is Verdict.DUPLICATE
    assert campus.server.effects()["enrolments"] == {}


def test_nobody_is_enrolled_for_somebody_else(campus: Campus) -> None:
    assert campus.tell(enrolled(user="S-1", role="learner")).verdict is Verdict.PERMANENT
    assert campus.server.effects()["enrolments"] == {}


def test_credits_that_are_used_up_pause_the_target_for_as_long_as_it_says(campus: Campus) -> None:
    campus.site.credits = 30
    outcome = campus.tell(said("set_grade", points=1))
    assert (outcome.verdict, outcome.retry_after) == (Verdict.THROTTLED, 20.0)
    assert campus.server.effects()["grades"] == {}


def test_a_version_that_the_site_does_not_have_is_said_to_be_missing(campus: Campus) -> None:
    outcome = campus.tell(said("set_grade", points=1), campus.server.settings() | {"lp_version": "0.1"})
    assert outcome.verdict is Verdict.PERMANENT
    assert "version" in outcome.reason
