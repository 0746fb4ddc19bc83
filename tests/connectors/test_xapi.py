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
