"""Assignment and Grade Services against a gradebook that remembers: logins, pages, order, and effects that are one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any
from urllib.parse import urlsplit

import pytest

from bridge.config.validation import with_defaults
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
from connectors.lti_ags import simulator
from connectors.lti_ags.wire import next_page, score_url

CONNECTOR = registry().targets["lti_ags"]
START = datetime(2026, 6, 5, 9, 30, tzinfo=UTC)
GRADE = {"course": "101", "resource_id": "flow-123", "tag": "final", "label": "Algorithms", "user": "501"}


class Lms:
    """A simulated platform and the way to it, Moodle's or Canvas's."""

    def __init__(self, server: SimulatedTargetServer, *, canvas: bool = False) -> None:
        assert isinstance(server.system, simulator.Gradebook)
        self.server = server
        self.book = server.system
        self.book.canvas = canvas
        self._tokens = TokenCache(None)
        self._known = server.settings()
        if canvas:
            self._known |= {
                "platform": "canvas",
                "line_items": "/api/lti/courses/{course}/line_items",
                "members": "/api/lti/courses/{course}/names_and_roles",
            }

    def tell(self, message: Message, **more: Any) -> Outcome:
        entry = {key: value for key, value in {**self._known, **more}.items() if key != "connector"}
        settings = Settings(name="lms", options=with_defaults(CONNECTOR.manifest.options, entry))
        policy = NetworkPolicy(allow_hosts=frozenset({urlsplit(self.server.url).netloc}))
        send = target_sender(settings, policy, tokens=self._tokens)
        return talk(CONNECTOR, [message], settings, send).outcomes[0]

    def score(self, resource: str = "flow-123", user: str = "501") -> float | None:
        found: float | None = self.server.effects()["scores"][f"{resource}/{user}"]
        return found

    def calls(self, method: str, path: str = "") -> list[str]:
        return [call.target for call in self.server.calls() if call.method == method and path in call.target]


@pytest.fixture
def moodle() -> Iterator[Lms]:
    with SimulatedTargetServer(simulator) as server:
        yield Lms(server)


@pytest.fixture
def canvas() -> Iterator[Lms]:
    with SimulatedTargetServer(simulator) as server:
        yield Lms(server, canvas=True)


def said(operation: str, *, at: timedelta = timedelta(0), attempt: int = 1, **params: Any) -> Message:
    """A message about something that happened so long after START."""
    [message] = messages_of({"operation": operation, "with": {**GRADE, **params}}, {})
    event = {**message.event, "time": (START + at).isoformat()}
    return replace(message, event=event, sent_at=datetime.now(UTC), attempt=attempt)


def graded(points: float, **more: Any) -> Message:
    return said("post_score", score_given=points, score_maximum=100, **more)


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line_item", "url"),
    [
        ("https://lms.example.org/i/9", "https://lms.example.org/i/9/scores"),
        ("https://lms.example.org/i/9/", "https://lms.example.org/i/9/scores"),
        ("https://lms.example.org/i/9?type_id=2", "https://lms.example.org/i/9/scores?type_id=2"),
        ("https://lms.example.org/i?a=1&b=/x?y", "https://lms.example.org/i/scores?a=1&b=/x?y"),
    ],
)
def test_scores_are_posted_in_front_of_a_query(line_item: str, url: str) -> None:
    assert score_url(line_item) == url


@pytest.mark.parametrize(
    ("link", "page"),
    [
        ('<https://l.example/i?p=2>; rel="next"', "https://l.example/i?p=2"),
        ("</i?p=2>; rel=next", "/i?p=2"),
        (
            '<https://l.example/i?p=1>; rel="prev", <https://l.example/i?p=A,b;C>; rel="next"',
            "https://l.example/i?p=A,b;C",
        ),
        ('<https://l.example/i?p=2>; title="rel=last"; REL="Next last"', "https://l.example/i?p=2"),
        ('<https://l.example/i?next=1>; rel="first"', None),
        ('<https://l.example/1>; rel="first", <https://l.example/9>; rel="last"', None),
        # As Moodle writes it, once it has come over HTTP.
        (
            "<https://l.example/i?a=1&amp;from=2>; rel=“next”".encode().decode("latin-1"),
            "https://l.example/i?a=1&from=2",
        ),
        ("<https://l.example/i?a=1&amp;from=2>; rel=“next”", "https://l.example/i?a=1&from=2"),
        ('<https://l.example/i>; rel="next-archive"', None),
        ("", None),
    ],
)
def test_the_next_page_is_the_one_that_is_called_so(link: str, page: str | None) -> None:
    assert next_page(link) == page


# --- logging in -------------------------------------------------------------------------------------------------------


def test_one_assertion_is_enough_for_many_scores(moodle: Lms) -> None:
    for points in range(3):
        assert moodle.tell(graded(points, at=timedelta(minutes=points))).verdict is Verdict.OK
    assert len(moodle.calls("POST", "/mod/lti/token.php")) == 1


def test_a_platform_that_wants_another_audience_gets_it(moodle: Lms) -> None:
    moodle.book.registration.audience = "https://lms.example.org"
    auth = moodle.server.settings()["auth"]
    refused = moodle.tell(graded(1))
    assert refused.verdict is Verdict.AUTH
    assert "audience" in refused.reason or "private_key" in refused.reason
    again = {**auth, "audience": "https://lms.example.org", "assertion_seconds": 60}
    assert moodle.tell(graded(1), auth=again).verdict is Verdict.OK


@pytest.mark.parametrize("wrong", [{"key_id": "another"}, {"client_id": "another"}])
def test_a_key_that_is_not_registered_opens_nothing(moodle: Lms, wrong: Mapping[str, str]) -> None:
    auth = {**moodle.server.settings()["auth"], **wrong}
    assert moodle.tell(graded(1), auth=auth).verdict is Verdict.AUTH
    assert moodle.server.effects()["scores"] == {}


def test_a_tool_without_a_scope_waits_for_a_person(moodle: Lms) -> None:
    moodle.book.registration.granted = {scope for scope in moodle.book.registration.granted if "score" not in scope}
    assert moodle.tell(graded(1)).verdict is Verdict.AUTH


def test_a_tool_that_may_not_read_results_still_posts(moodle: Lms) -> None:
    moodle.book.registration.granted = {s for s in moodle.book.registration.granted if "result" not in s}
    assert moodle.tell(graded(80)).verdict is Verdict.OK
    assert moodle.tell(graded(70)).verdict is Verdict.SUPERSEDED
    assert moodle.score() == 80


# --- line items and people --------------------------------------------------------------------------------------------


def test_a_line_item_behind_many_pages_is_found_and_not_made_again(moodle: Lms) -> None:
    moodle.book.page = 2
    for number in range(7):
        made = said("ensure_line_item", resource_id=f"flow-{number}", tag=None, score_maximum=100)
        params = {name: value for name, value in made.params.items() if value is not None and name != "user"}
        assert moodle.tell(replace(made, params=params)).verdict is Verdict.OK
    before = moodle.server.effects()["line_items"]
    found = said("ensure_line_item", resource_id="flow-6", score_maximum=100)
    params = {name: value for name, value in found.params.items() if name not in ("user", "tag")}
    assert moodle.tell(replace(found, params=params)).verdict is Verdict.OK
    assert moodle.server.effects()["line_items"] == before


def test_the_scores_of_an_exam_that_come_together_share_one_line_item(moodle: Lms) -> None:
    messages = [replace(graded(50, user=user), key=f"key-{user}") for user in ("501", "502", "503")]
    moodle.server.fail(Fault(name="latency", seconds=0.05))
    with ThreadPoolExecutor(3) as pool:
        outcomes = list(pool.map(moodle.tell, messages))
    assert {outcome.verdict for outcome in outcomes} == {Verdict.OK}
    effects = moodle.server.effects()
    assert [item["resourceId"] for item in effects["line_items"] if item["course"] == "101"] == [
        "attendance",
        "flow-123",
    ]
    assert effects["scores"] == {"flow-123/501": 50, "flow-123/502": 50, "flow-123/503": 50}


def test_canvas_is_asked_at_the_address_of_the_settings_whatever_it_calls_itself(canvas: Lms) -> None:
    canvas.book.domain = "school.instructure.example"
    canvas.book.page = 1
    for points in (10, 20):
        assert canvas.tell(graded(points, at=timedelta(minutes=points))).verdict is Verdict.OK
    assert canvas.score() == 20
    assert len(canvas.server.effects()["line_items"]) == 3
    elsewhere = graded(30, at=timedelta(hours=1))
    params = {**elsewhere.params, "line_item": "https://evil.example/api/lti/courses/101/line_items/9"}
    del params["resource_id"]
    assert canvas.tell(replace(elsewhere, params=params)).verdict is Verdict.PERMANENT


def test_a_maximum_without_a_fraction_is_written_as_an_integer(moodle: Lms) -> None:
    assert moodle.tell(said("post_score", score_given=7.5, score_maximum=20.0)).verdict is Verdict.OK
    [body] = [call.body for call in moodle.server.calls() if call.method == "POST" and b"label" in call.body]
    assert b'"scoreMaximum":20,' in body


def test_people_are_found_by_number_or_address_on_any_page(moodle: Lms) -> None:
    moodle.book.page = 1
    for user, points in (({"sourced_id": "S-102"}, 10), ({"sourced_id": None, "email": "GRACE@example.test"}, 20)):
        params = {name: value for name, value in {**graded(points).params, **user}.items() if name != "user"}
        assert moodle.tell(replace(graded(points), params=params)).verdict is Verdict.OK
    assert moodle.server.effects()["scores"] == {"flow-123/503": 10, "flow-123/502": 20}


@pytest.mark.parametrize("platform", ["moodle", "canvas"])
def test_somebody_who_is_not_in_the_course_is_nobodys_grade(platform: str, request: pytest.FixtureRequest) -> None:
    lms: Lms = request.getfixturevalue(platform)
    assert lms.tell(graded(1, user="999")).verdict is Verdict.PERMANENT
    assert lms.server.effects()["scores"] == {}


def test_a_score_is_converted_to_the_line_items_own_maximum(moodle: Lms) -> None:
    moodle.tell(said("post_score", score_given=50, score_maximum=100))
    moodle.tell(said("post_score", score_given=15, score_maximum=20, at=timedelta(minutes=1)))
    assert moodle.score() == 75
    assert moodle.tell(said("post_score", score_given=15, score_maximum=20)).verdict is Verdict.DUPLICATE


# --- order ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("platform", ["moodle", "canvas"])
def test_an_older_score_is_superseded_and_no_failure(platform: str, request: pytest.FixtureRequest) -> None:
    lms: Lms = request.getfixturevalue(platform)
    assert lms.tell(graded(90, at=timedelta(seconds=5))).verdict is Verdict.OK
    assert lms.tell(graded(70)).verdict is Verdict.SUPERSEDED
    assert lms.tell(graded(70), stale="trust").verdict is Verdict.SUPERSEDED
    assert lms.score() == 90


@pytest.mark.parametrize("platform", ["moodle", "canvas"])
def test_two_scores_of_one_second_end_with_the_later_one(platform: str, request: pytest.FixtureRequest) -> None:
    lms: Lms = request.getfixturevalue(platform)
    assert lms.tell(graded(70, at=timedelta(milliseconds=100))).verdict is Verdict.OK
    assert lms.tell(graded(90, at=timedelta(milliseconds=900))).verdict is Verdict.OK
    assert lms.score() == 90
    assert lms.tell(graded(90, at=timedelta(milliseconds=900))).verdict in (
        Verdict.OK,
        Verdict.DUPLICATE,
    )
    assert lms.score() == 90


@pytest.mark.parametrize("platform", ["moodle", "canvas"])
def test_a_grade_is_given_revoked_and_given_again_though_all_of_it_comes_late(
    platform: str, request: pytest.FixtureRequest
) -> None:
    lms: Lms = request.getfixturevalue(platform)
    story: Sequence[tuple[Message, float | None]] = [
        (said("sync_score", at=timedelta(minutes=minute), score_given=points, score_maximum=100), points)
        for minute, points in enumerate((70, None, 80, 85, None, 90))
    ]
    for message, expected in story:
        for _ in range(2):
            assert lms.tell(replace(message, sent_at=datetime.now(UTC))).verdict in (Verdict.OK, Verdict.DUPLICATE)
            assert lms.score() == expected


def test_a_platform_whose_clock_is_ahead_is_waited_for(moodle: Lms) -> None:
    moodle.book.clock = timedelta(minutes=2)
    moodle.tell(graded(70))
    moodle.tell(said("clear_score", at=timedelta(minutes=1)))
    again = said("sync_score", at=timedelta(minutes=2), score_given=80, score_maximum=100)
    assert moodle.tell(again).verdict is Verdict.RETRY
    later = replace(again, sent_at=datetime.now(UTC) + timedelta(minutes=3), attempt=2)
    assert moodle.tell(later).verdict is Verdict.OK
    assert moodle.score() == 80


def test_progress_that_comes_late_never_empties_a_mark(moodle: Lms) -> None:
    moodle.tell(said("sync_score", at=timedelta(minutes=1), score_given=80, score_maximum=100))
    late = said("report_progress", activity="Submitted", grading="PendingManual")
    assert moodle.tell(late).verdict is Verdict.SUPERSEDED
    assert moodle.score() == 80


def test_a_mark_is_given_though_moodle_dates_the_hand_in_later(moodle: Lms) -> None:
    moodle.tell(said("report_progress", activity="Submitted", grading="PendingManual", score_maximum=100))
    mark = said("sync_score", at=timedelta(minutes=1), score_given=80, score_maximum=100)
    assert moodle.tell(mark).verdict is Verdict.OK
    assert moodle.score() == 80


def test_a_platform_keeps_the_newest_in_every_order_of_delivery() -> None:
    story = [graded(points, at=timedelta(minutes=points)) for points in (10, 20, 30)]
    for order in permutations(story):
        with SimulatedTargetServer(simulator) as server:
            lms = Lms(server)
            for message in (*order, *order):
                assert lms.tell(message).verdict is not Verdict.PERMANENT
            assert lms.score() == 30


# --- one effect -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["drop", "break_off"])
def test_a_comment_is_added_once_though_the_answer_was_lost(canvas: Lms, name: str) -> None:
    canvas.tell(graded(1))
    canvas.server.fail(Fault(name=name, path="/scores$"))
    message = graded(80, comment="Well done", at=timedelta(minutes=1))
    assert canvas.tell(message).verdict is Verdict.RETRY
    canvas.server.fail()
    assert canvas.tell(replace(message, attempt=2)).verdict is Verdict.DUPLICATE
    assert [comment["comment"] for comment in canvas.server.effects()["comments"]] == ["Well done"]


def test_a_score_is_no_new_submission_and_a_hand_in_is_one(canvas: Lms) -> None:
    canvas.tell(said("report_submission", score_maximum=100))
    canvas.tell(graded(80, at=timedelta(minutes=1)))
    assert canvas.server.effects()["submissions"] == [{"item": 11, "user": "501"}]


def test_a_hand_in_empties_a_mark_at_canvas_unless_told_not_to(canvas: Lms) -> None:
    canvas.tell(graded(80))
    kept = said("report_submission", at=timedelta(minutes=1), score_maximum=100, keep_mark=True)
    assert canvas.tell(kept).verdict is Verdict.OK
    assert canvas.score() == 80
    canvas.tell(said("report_submission", at=timedelta(minutes=2), score_maximum=100))
    assert canvas.score() is None


def test_a_throttle_is_no_refusal(canvas: Lms) -> None:
    canvas.tell(graded(1))
    canvas.book.limited = True
    outcome = canvas.tell(graded(80, at=timedelta(minutes=1)))
    assert (outcome.verdict, outcome.retry_after) == (Verdict.THROTTLED, 15.0)


def test_media_types_are_those_that_the_platform_insists_on(canvas: Lms, moodle: Lms) -> None:
    for lms in (canvas, moodle):
        lms.tell(graded(1))
        types = {call.target.partition("?")[0].rsplit("/", 1)[-1]: dict(call.headers) for call in lms.server.calls()}
        assert types["scores"]["content-type"] == "application/vnd.ims.lis.v1.score+json"
    assert lms.calls("GET", "/lineitems")
