"""Caliper, OneRoster, Slack and Teams over real HTTP: their own limits and refusals, and what is taken back."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from target_sending import TARGETS, Example, Way, way_to

from bridge.core.target import Message, Outcome, Verdict
from bridge.flow.filters import slack_escape
from bridge.testing.simulated_target import SimulatedTargetServer
from bridge.testing.target_faults import Fault

ADA = {"key": "inspera:7"}
EXAM = {"key": "inspera:9"}
RESULT = {"line_item": "exam-1", "student": "S-100", "score": 83.5}
LINE_ITEM = {
    "line_item": "exam-1", "title": "Logic", "class": "c", "school": "s", "category": "x", "due_date": "2026-06-30",
}  # fmt: skip
FIRST: dict[str, tuple[str, Mapping[str, Any]]] = {
    "caliper": ("grade", {"person": ADA, "assessment": EXAM, "score_given": 1, "score_maximum": 2}),
    "oneroster": ("put_result", RESULT),
    "slack": ("post", {"text": "hello"}),
    "teams": ("post", {"title": "hello"}),
}


class Talk:
    """A simulated system with states of its own, and the way to it."""

    def __init__(self, name: str, server: SimulatedTargetServer, way: Way) -> None:
        self.name = name
        self.server = server
        self._way = way

    def set(self, **states: Any) -> None:
        for state, value in states.items():
            assert hasattr(self.server.system, state)
            setattr(self.server.system, state, value)

    def say(
        self, operation: str, *params: Mapping[str, Any], settings: Mapping[str, Any] | None = None
    ) -> list[Outcome]:
        messages = tuple(
            Message(
                key=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{operation} {place}")),
                mapping="m",
                mapping_version="1",
                target=self.name,
                operation=operation,
                params=dict(entry),
                event={"id": "e", "source": "urn:edu:inspera:1", "time": "2026-06-05T09:30:00.000Z"},
                attempt=1,
                sent_at=datetime.now(UTC),
            )
            for place, entry in enumerate(params)
        )
        return list(self._way.send(Example(name=operation, messages=messages, settings=settings or {})))

    def first(self, **settings: Any) -> Outcome:
        operation, params = FIRST[self.name]
        return self.say(operation, params, settings=settings)[0]


@contextmanager
def talking(name: str, folder: Path) -> Iterator[Talk]:
    connector = TARGETS[name]
    assert connector.simulator is not None
    with SimulatedTargetServer(connector.simulator) as server:
        yield Talk(name, server, way_to(server, connector, folder))


@pytest.mark.parametrize(
    ("name", "states", "verdict", "wait"),
    [
        ("caliper", {"limit_on": True}, Verdict.THROTTLED, 10),
        ("caliper", {"version": "http://purl.imsglobal.org/ctx/caliper/v1p2"}, Verdict.PERMANENT, None),
        ("oneroster", {"busy": True}, Verdict.THROTTLED, 30),
        ("oneroster", {"read_only": True}, Verdict.PERMANENT, None),
        ("oneroster", {"strict": True}, Verdict.PERMANENT, None),
        ("slack", {"limit_on": True}, Verdict.THROTTLED, 30),
        ("slack", {"state": "channel_is_archived"}, Verdict.GONE, None),
        ("slack", {"state": "no_service"}, Verdict.GONE, None),
        ("slack", {"state": "invalid_token"}, Verdict.GONE, None),
        ("slack", {"state": "action_prohibited"}, Verdict.AUTH, None),
        ("slack", {"state": "rollup_error"}, Verdict.RETRY, None),
        ("teams", {"limit_on": True}, Verdict.THROTTLED, 20),
        ("teams", {"owner_left": True}, Verdict.GONE, None),
        ("teams", {"hiding": True, "limit_on": True}, Verdict.THROTTLED, 60),
    ],
)
def test_what_the_system_says_of_itself(
    name: str, states: dict[str, Any], verdict: Verdict, wait: float | None, tmp_path: Path
) -> None:
    with talking(name, tmp_path) as talk:
        before = talk.server.effects()
        talk.set(**states)
        outcome = talk.first()

        assert (outcome.verdict, outcome.retry_after) == (verdict, wait)
        assert talk.server.effects() == before


@pytest.mark.parametrize("version", ["1.1", "1.2"])
def test_events_are_of_the_version_that_the_endpoint_speaks(version: str, tmp_path: Path) -> None:
    with talking("caliper", tmp_path) as talk:
        talk.set(version=f"http://purl.imsglobal.org/ctx/caliper/v{version.replace('.', 'p')}")

        assert talk.first(version=version).verdict is Verdict.OK
        [event] = talk.server.effects()["events"].values()
        assert event.get("profile") == ("GradingProfile" if version == "1.2" else None)


@pytest.mark.parametrize(
    ("operation", "params", "verdict"),
    [
        ("record", {"action": "Restarted", "object": {"type": "Session", "key": "s"}}, Verdict.OK),
        ("record", {"action": "Withdrawn", "object": {"type": "Session", "key": "s"}}, Verdict.PERMANENT),
        ("enrolment", {"person": ADA, "course": {"key": "c"}, "change": "added", "role": "instructor"}, Verdict.OK),
        ("enrolment", {"person": ADA, "course": {"key": "c"}, "change": "added", "role": "janitor"}, Verdict.PERMANENT),
        ("event", {"event": {"type": "Event", "action": "Viewed", "actor": "x:1", "object": "x:2"}}, Verdict.OK),
        (
            "event",
            {
                "event": {
                    "@context": ["https://schema.org/", "http://purl.imsglobal.org/ctx/caliper/v1p1"],
                    "type": "Event",
                    "action": "Viewed",
                    "actor": "x:1",
                    "object": "x:2",
                }
            },
            Verdict.OK,
        ),
        ("event", {"event": {"type": "Event", "action": "Viewed", "actor": "ada", "object": "x:2"}}, Verdict.PERMANENT),
        (
            "event",
            {"event": {"type": "Event", "action": "Viewed", "actor": "x:1", "object": "x:2", "mood": 1}},
            Verdict.PERMANENT,
        ),
        (
            "event",
            {"event": {"type": "GradeEvent", "action": "Viewed", "actor": "x:1", "object": "x:2"}},
            Verdict.PERMANENT,
        ),
    ],
)
def test_an_endpoint_takes_the_words_of_caliper_only(
    operation: str, params: Mapping[str, Any], verdict: Verdict, tmp_path: Path
) -> None:
    """github.com/1EdTech/caliper-spec, model/caliper_v1p2.lines."""
    with talking("caliper", tmp_path) as talk:
        assert talk.say(operation, params)[0].verdict is verdict


def test_an_envelope_that_was_cut_off_counts_once(tmp_path: Path) -> None:
    papers = [{"person": {"key": f"w:{number}"}, "assessment": EXAM} for number in range(20)]
    with talking("caliper", tmp_path) as talk:
        talk.server.fail(Fault(name="drop"))
        assert {outcome.verdict for outcome in talk.say("submission", *papers)} == {Verdict.RETRY}
        talk.server.fail()
        assert {outcome.verdict for outcome in talk.say("submission", *papers)} == {Verdict.OK}

        assert len(talk.server.effects()["events"]) == 20


def test_a_result_is_overwritten_and_taken_back_by_what_it_is_about(tmp_path: Path) -> None:
    with talking("oneroster", tmp_path) as talk:
        talk.set(strict=True)
        assert talk.say("put_line_item", LINE_ITEM)[0].verdict is Verdict.OK
        for score in (50, 83.5):
            assert talk.say("sync_result", {**RESULT, "score": score})[0].verdict is Verdict.OK
        [held] = talk.server.effects()["results"].values()
        assert (held["score"], held["scoreStatus"]) == (83.5, "fully graded")

        revoked = {**RESULT, "revoked": True}
        assert talk.say("sync_result", revoked)[0].verdict is Verdict.OK
        assert talk.say("sync_result", revoked)[0].verdict is Verdict.DUPLICATE
        assert talk.server.effects()["results"] == {}


def test_what_others_wrote_calls_nobody_once_it_is_escaped(tmp_path: Path) -> None:
    with talking("slack", tmp_path) as talk:
        for text in ("<!channel> & co", slack_escape("<!channel> & co")):
            assert talk.say("post", {"text": text})[0].verdict is Verdict.OK

        shown = [message["text"] for message in talk.server.effects()["messages"]]
        assert shown == ["@channel (everybody is called) & co", "<!channel> & co"]


def test_a_card_that_teams_would_lose_never_gets_there(tmp_path: Path) -> None:
    with talking("teams", tmp_path) as talk:
        [outcome] = talk.say("post", {"title": "long", "text": "x" * 30_000})

        assert outcome.verdict is Verdict.PERMANENT
        assert talk.server.effects() == {"posts": [], "failed_runs": []}
        [outcome] = talk.say("post", {"title": "long", "text": "x" * 30_000}, settings={"most_bytes": 100_000})
        assert outcome.verdict is Verdict.OK
        assert talk.server.effects()["failed_runs"] == ["RequestEntityTooLarge"]
