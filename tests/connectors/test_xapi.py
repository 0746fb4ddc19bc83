"""Statements over real HTTP: what is taken back is voided, what comes twice is there once, and what is newer stays."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from target_sending import TARGETS, Example, Way, way_to

from bridge.core.target import Message, Outcome, Verdict
from bridge.testing.simulated_target import SimulatedTargetServer
from bridge.testing.target_faults import Fault
from connectors.xapi import simulator
from connectors.xapi.simulated_validation import sound
from connectors.xapi.simulator import Store
from connectors.xapi.statements import same

ADA = {"key": "wiseflow:1", "email": "ada@example.org", "name": "Ada"}
EXAM = {"key": "wiseflow:9", "name": "Algorithms"}


@pytest.fixture
def server() -> Iterator[SimulatedTargetServer]:
    with SimulatedTargetServer(simulator) as made:
        yield made


@pytest.fixture
def way(server: SimulatedTargetServer, tmp_path: Path) -> Way:
    return way_to(server, TARGETS["xapi"], tmp_path)


def store(server: SimulatedTargetServer) -> Store:
    system = server.system
    assert isinstance(system, Store)
    return system


def example(
    operation: str, *params: Mapping[str, Any], at: str = "2026-06-05T09:30:00.000Z", attempt: int = 1, key: str = ""
) -> Example:
    messages = tuple(
        Message(
            key=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{operation} {at} {place} {key}")),
            mapping="m",
            mapping_version="1",
            target="xapi",
            operation=operation,
            params=dict(entry),
            event={"id": "e", "source": "urn:edu:wiseflow:1", "time": at},
            attempt=attempt,
            sent_at=datetime.now(UTC),
        )
        for place, entry in enumerate(params)
    )
    return Example(name=operation, messages=messages, settings={})


def grade(at: str, points: float, **more: Any) -> Example:
    return example("sync_grade", {"person": ADA, "assessment": EXAM, "score_given": points, "at": at, **more}, at=at)


def verdicts(outcomes: Sequence[Outcome]) -> list[Verdict]:
    return [outcome.verdict for outcome in outcomes]


def standing(server: SimulatedTargetServer) -> list[Any]:
    """The points of all grades that are not voided."""
    effects = server.effects()
    return [
        made["result"]["score"]["raw"]
        for name, made in effects["statements"].items()
        if name not in effects["voided"] and "result" in made
    ]


def test_a_revocation_voids_all_that_was_said_before_and_nothing_that_is_newer(
    server: SimulatedTargetServer, way: Way
) -> None:
    for at, points in (("2026-06-01T08:00:00Z", 50), ("2026-06-02T08:00:00Z", 60), ("2026-06-04T08:00:00Z", 70)):
        assert verdicts(way.send(grade(at, points))) == [Verdict.OK]
    revocation = grade("2026-06-03T08:00:00Z", 0, revoked=True)

    assert verdicts(way.send(revocation)) == [Verdict.OK]
    assert standing(server) == [70]
    once = server.effects()
    assert verdicts(way.send(revocation)) == [Verdict.DUPLICATE]
    assert server.effects() == once


def test_a_revocation_whose_answer_is_lost_voids_each_grade_once(server: SimulatedTargetServer, way: Way) -> None:
    for at, points in (("2026-06-01T08:00:00Z", 50), ("2026-06-02T08:00:00Z", 60)):
        way.send(grade(at, points))
    revocation = grade("2026-06-03T08:00:00Z", 0, revoked=True)

    server.fail(Fault(name="drop", after=1))  # the search is answered, the first void is taken and not answered
    assert verdicts(way.send(revocation)) == [Verdict.RETRY]
    server.fail()
    assert verdicts(way.send(revocation)) == [Verdict.OK]

    assert standing(server) == []
    assert len(server.effects()["statements"]) == 4


def test_another_person_and_another_exam_keep_their_grades(server: SimulatedTargetServer, way: Way) -> None:
    way.send(grade("2026-06-01T08:00:00Z", 50))
    for person, exam in (({"key": "wiseflow:2"}, EXAM), (ADA, {"key": "wiseflow:8"})):
        way.send(
            example("grade", {"person": person, "assessment": exam, "score_given": 1}, key=str(exam) + str(person))
        )

    way.send(grade("2026-06-06T08:00:00Z", 0, revoked=True))

    assert standing(server) == [1, 1]


def test_a_store_whose_searches_are_behind_is_asked_again(server: SimulatedTargetServer, way: Way) -> None:
    way.send(grade("2026-06-01T08:00:00Z", 50))
    store(server).behind = 3600.0
    revocation = grade("2026-06-03T08:00:00Z", 0, revoked=True)

    assert verdicts(way.send(revocation)) == [Verdict.RETRY]
    store(server).behind = 0.0
    assert verdicts(way.send(revocation)) == [Verdict.OK]
    assert standing(server) == []


@pytest.mark.parametrize("conflicts", [True, False])
def test_what_comes_twice_is_there_once(server: SimulatedTargetServer, way: Way, conflicts: bool) -> None:
    store(server).conflicts_on_equal = conflicts
    sent = grade("2026-06-01T08:00:00Z", 50)

    assert verdicts(way.send(sent)) == [Verdict.OK]
    assert verdicts(way.send(sent)) == [Verdict.DUPLICATE if conflicts else Verdict.OK]
    assert standing(server) == [50]


def test_another_statement_with_the_id_is_never_taken_for_ours(server: SimulatedTargetServer, way: Way) -> None:
    way.send(grade("2026-06-01T08:00:00Z", 50))

    [outcome] = way.send(grade("2026-06-01T08:00:00Z", 51))

    assert outcome.verdict is Verdict.PERMANENT
    assert standing(server) == [50]


def test_a_list_that_was_cut_off_is_there_once(server: SimulatedTargetServer, way: Way) -> None:
    papers = [{"person": {"key": f"w:{number}"}, "assessment": EXAM} for number in range(50)]
    sent = example("submission", *papers)

    server.fail(Fault(name="drop"))
    assert set(verdicts(way.send(sent))) == {Verdict.RETRY}
    server.fail()
    assert set(verdicts(way.send(sent))) == {Verdict.OK}

    assert len(server.effects()["statements"]) == 50


def test_a_list_that_comes_again_is_known_to_a_store_that_names_only_what_is_new(
    server: SimulatedTargetServer, way: Way
) -> None:
    """As Ralph does: github.com/openfun/ralph, src/ralph/api/routers/statements.py."""
    store(server).terse = True
    papers = [{"person": {"key": f"w:{number}"}, "assessment": EXAM} for number in range(5)]

    assert set(verdicts(way.send(example("submission", *papers[:3])))) == {Verdict.OK}
    assert set(verdicts(way.send(example("submission", *papers[:3])))) == {Verdict.DUPLICATE}
    assert set(verdicts(way.send(example("submission", *papers)))) == {Verdict.OK}
    assert len(server.effects()["statements"]) == 5


def test_a_store_that_shows_a_statement_as_a_list_is_understood(server: SimulatedTargetServer, way: Way) -> None:
    store(server).terse = True
    store(server).conflicts_on_equal = True
    sent = grade("2026-06-01T08:00:00Z", 50)

    assert verdicts(way.send(sent)) == [Verdict.OK]
    assert verdicts(way.send(sent)) == [Verdict.DUPLICATE]
    assert verdicts(way.send(grade("2026-06-01T08:00:00Z", 51))) == [Verdict.PERMANENT]


@pytest.mark.parametrize("once", [True, False])
def test_what_is_voided_already_stays_voided_at_every_store(
    server: SimulatedTargetServer, way: Way, once: bool
) -> None:
    """Some refuse the second time: github.com/adlnet/ADL_LRS, lrs/utils/req_validate.py."""
    store(server).voids_once = once
    way.send(grade("2026-06-01T08:00:00Z", 50))
    [name] = server.effects()["statements"]

    for key in ("first", "second"):
        assert verdicts(way.send(example("void", {"statement_id": name}, key=key))) == [Verdict.OK]
    assert server.effects()["voided"] == [name]
    [voiding, *_] = server.effects()["statements"].keys() - {name}
    assert verdicts(way.send(example("void", {"statement_id": voiding}))) == [Verdict.PERMANENT]


SOUND: dict[str, Any] = {
    "id": "6019ce76-b63e-52e2-a450-dc7b4dacb101",
    "actor": {"mbox": "mailto:ada@example.org"},
    "verb": {"id": "http://adlnet.gov/expapi/verbs/scored", "display": {"en": "scored"}},
    "object": {"objectType": "Activity", "id": "https://example.org/exam"},
}


@pytest.mark.parametrize(
    ("change", "taken"),
    [
        ({}, True),
        ({"result": {"score": {"raw": 83, "min": 0, "max": 100, "scaled": 0.83}}}, True),
        ({"result": {"extensions": {"https://example.org/x": None}}}, True),
        ({"actor": {"account": {"homePage": "https://example.org", "name": "1"}}}, True),
        ({"id": "6019ce76"}, False),
        ({"mood": "good"}, False),
        ({"timestamp": "2026-06-05 09:30:00Z"}, False),
        ({"timestamp": "2026-06-05T09:30:00-00:00"}, False),
        ({"timestamp": "2026-06-05T09:30:00"}, False),
        ({"actor": {"mbox": "ada@example.org"}}, False),
        ({"actor": {"mbox": "mailto:ada@example.org", "openid": "https://example.org/ada"}}, False),
        ({"actor": {"account": {"homePage": "example.org", "name": "1"}}}, False),
        ({"actor": {"account": {"homePage": "https://example.org", "name": ""}}}, False),
        ({"verb": {"id": "scored"}}, False),
        ({"verb": {"id": "http://adlnet.gov/expapi/verbs/scored", "display": {"a word": "scored"}}}, False),
        ({"verb": {"id": "http://adlnet.gov/expapi/verbs/voided"}}, False),
        ({"object": {"id": "exam 1"}}, False),
        ({"object": {"id": "https://example.org/exam", "definition": {"name": "Exam"}}}, False),
        ({"result": {"score": {"scaled": 1.2}}}, False),
        ({"result": {"score": {"raw": 101, "min": 0, "max": 100}}}, False),
        ({"result": {"score": {"raw": "83"}}}, False),
        ({"result": {"success": None}}, False),
        ({"result": {"extensions": {"grade": "B"}}}, False),
        ({"context": {"registration": "1"}}, False),
        ({"context": {"contextActivities": {"parent": [None]}}}, False),
        ({"object": {"objectType": "StatementRef", "id": SOUND["id"]}, "context": {"platform": "p"}}, False),
    ],
)
def test_the_simulated_store_takes_what_stores_take(change: Mapping[str, Any], taken: bool) -> None:
    """github.com/adlnet/lrs-conformance-test-suite asks every store for these refusals."""
    assert sound({**SOUND, **change}) is taken


@pytest.mark.parametrize(
    ("sent", "held", "equal"),
    [
        ({"a": 1}, {"a": 1, "stored": "x"}, True),
        ({"a": 1}, {"a": True}, True),
        ({"a": 1}, {}, False),
        ({"timestamp": "2026-06-05T09:30:00Z"}, {"timestamp": "2026-06-05T11:30:00.000+02:00"}, True),
        ({"timestamp": "2026-06-05T09:30:00Z"}, {"timestamp": "2026-06-05T09:30:01Z"}, False),
        ({"parent": {"id": "x"}}, {"parent": [{"id": "x"}]}, True),
        ({"parent": [{"id": "x"}]}, {"parent": [{"id": "x"}, {"id": "y"}]}, False),
        ({"object": {"id": "x", "definition": {"name": {"en": "A"}}}}, {"object": {"id": "x"}}, True),
        ({"object": {"id": "x"}}, {"object": {"id": "y"}}, False),
        ({"mbox": "m", "name": "Ada"}, {"mbox": "m", "name": "Ada L."}, True),
        ({"account": {"homePage": "h", "name": "1"}}, {"account": {"homePage": "h", "name": "2"}}, False),
    ],
)
def test_a_store_may_add_and_spell_but_not_change(sent: Any, held: Any, equal: bool) -> None:
    assert same(sent, held) is equal
