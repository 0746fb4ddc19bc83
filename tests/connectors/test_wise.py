"""Wise: what the fixtures and the conformance suite cannot say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bridge.config.connectors import source_connector
from bridge.core.errors import NotGenuine, PayloadError, SourceRefused, SourceUnavailable
from bridge.core.events import Event, Json
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.core.simulation import ApiCall, Call
from bridge.core.source import Inbound, Verified
from bridge.flow.process import enriched, events_of
from bridge.testing.offline import Offline
from connectors.wise import nouns, simulator, source
from connectors.wise.simulated_term import KINDS

WISE = source_connector(Path(source.__file__).parent, source, simulator)
VALID = jsonschema_rs.Draft202012Validator(
    json.loads(resources.files("bridge.core").joinpath("event.schema.json").read_text()), validate_formats=True
)
KEY = "9f86d081884c7d659a2feaa0c55ad015"
NOW = datetime(2026, 9, 14, 10, 5, tzinfo=UTC)
DEFAULTS = {name: entry.get("default") for name, entry in WISE.manifest.options["properties"].items()}
API = {name: entry.get("default") for name, entry in (WISE.manifest.api or {})["properties"].items()}


def settings_of(**options: Any) -> Settings:
    entry = simulator.settings(KEY, "http://127.0.0.1:9")
    return Settings(
        name="wise-main",
        secrets=tuple(entry["secrets"]),
        options=DEFAULTS | {"institute_id": entry["institute_id"]} | options,
        api=API | entry["api"],
    )


SETTINGS = settings_of()


def arrived(platform: simulator.WiseInstitute, call: Call, *, attempt: int = 1, at: datetime = NOW) -> Verified:
    signed = platform.sign(call, KEY, attempt=attempt, now=at)
    return source.verify(inbound(signed.body, signed.headers, at=at), SETTINGS)


def inbound(body: bytes, headers: Mapping[str, str] | None = None, at: datetime = NOW) -> Inbound:
    held = {"authorization": KEY} if headers is None else dict(headers)
    return Inbound(id="in-1", source="wise-main", received_at=at, headers=held, query={}, body=body)


def events(kind: str, payload: Json, at: datetime = NOW, settings: Settings = SETTINGS) -> list[Event]:
    body = json.dumps({"event": kind, "payload": payload}).encode()
    return events_of(WISE, source.verify(inbound(body, at=at), settings), settings)


@dataclass(kw_only=True)
class InProcess(Offline):
    """The simulated API without a wire, with the headers that `access` gives, at a time of its own."""

    platform: simulator.WiseInstitute
    settings: Settings = SETTINGS
    now: datetime = NOW

    def get(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        keep: float = 0,
        since: datetime | None = None,
        extra: bool = False,
    ) -> Payload | None:
        access = source.access(self.settings)
        assert access is not None
        split = urlsplit(path)
        asked = dict(query or parse_qsl(split.query))
        call = ApiCall(method="GET", path=split.path, query=asked, headers=access.headers, form={}, json=None)
        reply = self.platform.answer(call)
        if reply.status in (401, 403):
            raise SourceRefused(f"HTTP {reply.status}")
        return None if reply.status == 404 else Payload(json.loads(json.dumps(reply.json)))

    def post(self, path: str, body: Json, *, keep: float = 0, extra: bool = False) -> Payload | None:
        raise AssertionError("no recipe posts")


@dataclass(kw_only=True)
class Answering(Offline):
    """An API with one answer for everything."""

    answer: object
    settings: Settings = SETTINGS
    now: datetime = NOW

    def get(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        keep: float = 0,
        since: datetime | None = None,
        extra: bool = False,
    ) -> Payload | None:
        return None if self.answer is None else Payload(self.answer)

    def post(self, path: str, body: Json, *, keep: float = 0, extra: bool = False) -> Payload | None:
        raise AssertionError("no recipe posts")


def test_the_simulator_sends_exactly_the_kinds_of_the_manifest() -> None:
    assert set(WISE.manifest.kinds) == KINDS


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_simulated_call_of_every_kind_is_genuine_and_understood(kind: str) -> None:
    platform = simulator.platform(seed=3, people=30)
    call = platform.sample(kind)

    found = events_of(WISE, arrived(platform, call), SETTINGS)

    assert found
    for event in found:
        assert event.sourceevent == kind
        assert event.type in WISE.manifest.kinds[kind].types
        VALID.validate(event.to_json())


def test_an_unknown_kind_is_not_simulated() -> None:
    with pytest.raises(KeyError):
        simulator.platform().sample("PaperSubmittedEvent")


def test_equal_seeds_tell_equal_days_and_a_second_day_is_another() -> None:
    one, other = simulator.platform(seed=7, people=40), simulator.platform(seed=7, people=40)
    first = list(islice(one.day(), 300))

    assert first == list(islice(other.day(), 300))
    assert first != list(islice(one.day(), 300))
    assert first != list(islice(simulator.platform(seed=8, people=40).day(), 300))


def test_a_day_has_all_kinds_no_repeats_and_mostly_people_who_come_and_go() -> None:
    calls = list(islice(simulator.platform(seed=1, people=60).day(), 5000))
    kinds = [call.kind for call in calls]

    assert set(kinds) == KINDS
    assert len({json.dumps(call.body, sort_keys=True) for call in calls}) == len(calls)
    assert sum(kind.startswith("Participant") for kind in kinds) > len(kinds) / 2


def test_another_attempt_is_the_same_delivery_with_the_same_events() -> None:
    platform = simulator.platform(seed=5, people=30)
    with_own_name = {"MeetingStartedEvent", "SessionsCreatedEvent", "FeeInvoiceChargedEvent", "CertificateIssuedEvent"}
    for kind in sorted(KINDS):
        call = platform.sample(kind)
        first = arrived(platform, call)
        last = arrived(platform, call, attempt=9, at=NOW + timedelta(seconds=sum(simulator.RULE.retries)))

        assert first.dedupe_key == last.dedupe_key
        assert last.inbound.received_at - first.inbound.received_at < first.dedupe_window
        assert events_of(WISE, first, SETTINGS) == events_of(WISE, first, SETTINGS)
        if kind in with_own_name:
            ids = [[event.id for event in events_of(WISE, copy, SETTINGS)] for copy in (first, last)]
            assert ids[0] == ids[1]


def test_the_retries_are_those_of_the_published_table() -> None:
    offsets = [sum(simulator.RULE.retries[:count]) for count in range(9)]

    assert offsets == [0, 60, 180, 420, 900, 1860, 3780, 7620, 15300]
    assert 200 in simulator.RULE.success
    assert 202 not in simulator.RULE.success


def test_somebody_who_is_added_again_is_another_event() -> None:
    payload = {"classroom": {"_id": "c1"}, "student": {"_id": "s1", "name": "Ada"}}

    (before,) = events("StudentAddedToClassroomEvent", payload)
    (removed,) = events("StudentRemovedFromClassroomEvent", payload | {"remove": True}, at=NOW + timedelta(hours=3))
    (after,) = events("StudentAddedToClassroomEvent", payload, at=NOW + timedelta(hours=6))

    assert len({before.id, removed.id, after.id}) == 3
    assert before.state_key == removed.state_key == after.state_key
    assert before.time < removed.time < after.time


def test_a_late_retry_of_a_creation_is_older_than_the_update_before_it() -> None:
    session = {"_id": "s1", "classId": "c1", "createdAt": "2026-09-14T08:00:00.000Z", "title": "Algebra"}

    (moved,) = events("SessionsUpdatedEvent", {"sessions": [session | {"title": "Geometry"}]})
    (created,) = events("SessionsCreatedEvent", {"sessions": [session]}, at=NOW + timedelta(hours=2))
    (cancelled,) = events(
        "SessionsUpdatedEvent", {"sessions": [session | {"meetingStatus": "CANCELLED"}]}, at=NOW + timedelta(hours=3)
    )

    assert created.state_key == moved.state_key == cancelled.state_key
    assert created.time < moved.time < cancelled.time
    assert cancelled.type == "session.cancelled"


def test_a_time_that_lies_ahead_of_its_arrival_does_not_outrank_what_comes_later() -> None:
    session = {"_id": "s1", "createdAt": "9999-12-31T00:00:00.000Z"}

    (created,) = events("SessionsCreatedEvent", {"sessions": [session]})

    assert (created.time, created.timequality) == (NOW, "received")


def test_a_new_instalment_names_the_earlier_ones_again_and_not_others() -> None:
    def charged(index: int, at: str) -> Event:
        transaction = {
            "chargedAt": at,
            "amount": {"value": 100, "currency": "INR"},
            "metadata": {"classId": "c1", "installmentId": f"i{index}", "index": index},
        }
        payload = {"classroom": {"_id": "c1"}, "student": {"_id": "s1"}, "transaction": transaction}
        (event,) = events("FeeInvoiceChargedEvent", payload)
        return event

    first, again = charged(0, "2026-09-01T08:00:00.000Z"), charged(0, "2026-09-02T08:00:00.000Z")
    second, repeated = charged(1, "2026-09-02T08:00:00.000Z"), charged(1, "2026-09-02T08:00:00.000Z")

    assert first.id != again.id
    assert first.state_key == again.state_key
    assert second.id == repeated.id
    assert second.state_key != again.state_key


@pytest.mark.parametrize(
    ("value", "currency", "unit", "minor"),
    [
        (10000, "INR", "minor", 10000),
        ("10000", "INR", "minor", 10000),
        (100.5, "EUR", "major", 10050),
        (1.234, "KWD", "major", 1234),
        (500, "jpy", "major", 500),
        (50000, "JPY", "hundredth", 500),
        (50000, "EUR", "hundredth", 50000),
    ],
)
def test_amounts_become_minor_units(value: object, currency: str, unit: str, minor: int) -> None:
    amount = Payload({"value": value, "currency": currency})

    assert nouns.money(amount, settings_of(amount_unit=unit)) == (minor, currency.upper())


@pytest.mark.parametrize("value", [None, "", "ten", True, 0.5, float("inf"), "NaN", "1e999999999", 10**16, [1], {}])
def test_what_is_no_amount_is_refused(value: object) -> None:
    with pytest.raises(PayloadError):
        nouns.money(Payload({"value": value, "currency": "EUR"}), SETTINGS)


def test_decimal_places_of_a_currency_can_be_set() -> None:
    settings = settings_of(amount_unit="major", currency_exponents={"UGX": 2})

    assert nouns.money(Payload({"value": 7, "currency": "UGX"}), settings) == (700, "UGX")


def test_computed_attendance_agrees_with_who_came_and_went() -> None:
    platform = simulator.platform(seed=2, people=40)
    api = InProcess(platform=platform)
    stays: dict[tuple[str, str], float] = {}
    checked = 0
    for call in islice(platform.day(), 1500):
        for event in events_of(WISE, arrived(platform, call), SETTINGS):
            if event.type == "session.participant_joined":
                stays[(event.subject, full_name(event))] = -event.time.timestamp()
            if event.type == "session.participant_left":
                stays[(event.subject, full_name(event))] += event.time.timestamp()
            if event.type != "attendance.computed":
                continue
            children = enriched(WISE, event, api)
            checked += 1
            assert {child.causationid for child in children} == {event.id}
            assert len({child.id for child in children}) == len(children) == len({c.state_key for c in children})
            for child in children:
                VALID.validate(child.to_json())
                attendance = child.data.attendance
                assert attendance is not None
                assert child.enrichment == "full"
                assert child.observedat == NOW
                stay = stays.get((event.subject.replace("attendance", "session"), full_name(child)))
                if attendance.status == "present":
                    assert stay is not None
                assert attendance.status in ("present", "absent")
    assert checked > 5
    assert platform.calls["GET /user/session/{sessionId}"] == checked


def full_name(event: Event) -> str:
    assert event.data.person is not None
    return f"{event.data.person.given_name} {event.data.person.family_name}"


def computed(platform: simulator.WiseInstitute) -> Event:
    (event,) = events_of(WISE, arrived(platform, platform.sample("AttendanceComputedEvent")), SETTINGS)
    return event


def test_the_minutes_are_those_between_joining_and_leaving() -> None:
    platform = simulator.platform(seed=4, people=20)
    joined: dict[str, datetime] = {}
    expected: dict[str, int] = {}
    for call in islice(platform.day(), 400):
        for event in events_of(WISE, arrived(platform, call), SETTINGS):
            person = event.data.person
            if person is not None and person.email and event.type == "session.participant_joined":
                joined[f"{event.subject} {person.email}"] = event.time
            if person is not None and person.email and event.type == "session.participant_left":
                place = f"{event.subject} {person.email}"
                expected[place] = round((event.time - joined[place]).total_seconds() / 60)
            if event.type == "attendance.computed":
                subject = event.subject.replace("attendance", "session")
                came = {
                    f"{subject} {child.data.person.email}": child.data.attendance.minutes
                    for child in enriched(WISE, event, InProcess(platform=platform))
                    if child.data.person and child.data.person.email
                    if child.data.attendance and child.data.attendance.status == "present"
                }
                assert came
                assert came.items() <= expected.items()
                return
    pytest.fail("no attendance was computed")


SECONDS = {"wiseUserId": "u1", "name": "Ada Lovelace", "duration": 2926}


def attendance_of(*lines: Json, settings: Settings = SETTINGS, **more: object) -> list[tuple[str, str, int | None]]:
    """Address, status and minutes of everybody, as a session's answer with these participants comes to."""
    held = {"_id": "s1", "classId": "c1", "meetingStatus": "ENDED", "attendanceRecorded": True, "duration": 2926000}
    answer = {"status": 200, "message": "Success", "data": held | {"participants": list(lines)} | more}
    (event,) = events("AttendanceComputedEvent", {"session": {"_id": "s1", "classId": "c1"}})
    found = []
    for child in enriched(WISE, event, Answering(answer=answer, settings=settings)):
        assert child.data.person is not None
        assert child.data.attendance is not None
        attendance = child.data.attendance
        found.append((child.data.person.email or "", attendance.status or "", attendance.minutes))
    return found


def test_a_participants_time_is_in_seconds_while_the_sessions_own_is_in_milliseconds() -> None:
    assert attendance_of(SECONDS) == [("", "present", 49)]
    assert attendance_of(SECONDS, settings=settings_of(duration_unit="ms")) == [("", "present", 0)]


@pytest.mark.parametrize(
    "length",
    [
        {},
        {"duration": None, "start_time": "2026-03-02T09:00:00Z", "end_time": "2026-03-02T09:49:00Z"},
        {"duration": None, "scheduledStartTime": "2026-03-02T09:00:00Z", "scheduledEndTime": "2026-03-02T10:00:00Z"},
        {"duration": None},
    ],
)
def test_nobody_was_in_a_session_for_longer_than_it_was(length: Json) -> None:
    """Times in milliseconds are known by the one who was there longest, even where another was there for a moment."""
    whole, moment = SECONDS | {"duration": 2926000}, {"wiseUserId": "u2", "name": "Bob", "duration": 1500}
    assert attendance_of(whole, moment, **length) == [("", "present", 49), ("", "present", 0)]
    assert attendance_of(SECONDS, moment, **length) == [("", "present", 49), ("", "present", 25)]


def test_the_time_in_the_meeting_goes_before_the_other_one() -> None:
    assert attendance_of(SECONDS | {"inMeetingDuration": 1800}) == [("", "present", 30)]


def test_a_participants_line_has_the_address_of_the_zoom_account_and_the_attendees_have_that_of_wise() -> None:
    line = SECONDS | {"user_email": "ada@zoom.example"}

    assert attendance_of(line) == [("ada@zoom.example", "present", 49)]
    own = {"_id": "u1", "name": "Ada Lovelace", "email": "ada@wise.example"}
    assert attendance_of(line, attendees=[own]) == [("ada@wise.example", "present", 49)]


@pytest.mark.parametrize(
    ("line", "status", "minutes"),
    [
        ({"absolutePercentAttendance": 80}, "present", None),
        ({"absolutePercentAttendance": 0}, "absent", None),
        ({"absolutePercentAttendance": 100, "duration": 0}, "present", 0),
        ({"absolutePercentAttendance": 0, "duration": 0}, "absent", 0),
        ({}, "unknown", None),
    ],
)
def test_a_share_of_the_session_tells_who_came_where_no_time_does(line: Json, status: str, minutes: int | None) -> None:
    assert attendance_of({"wiseUserId": "u1", "name": "Ada"} | line) == [("", status, minutes)]


def test_who_is_expected_and_has_no_time_was_absent() -> None:
    """A session yet to come has `attendees` as well, so being in that list is no sign of having come."""
    assert attendance_of(attendees=[{"_id": "u2", "email": "bo@wise.example"}]) == [("bo@wise.example", "absent", None)]


@pytest.mark.parametrize(
    ("status", "held"), [("UPCOMING", False), ("CANCELLED", False), ("MISSED", False), ("ENDED", True), (None, True)]
)
def test_the_planned_start_of_a_session_that_is_not_held_is_no_start(status: str | None, held: bool) -> None:
    """Until a meeting begins, `start_time` is a copy of `scheduledStartTime`."""
    at = "2026-09-14T09:00:00.000Z"
    value = Payload({"meetingStatus": status, "scheduledStartTime": at, "start_time": at, "end_time": at})

    planned = nouns.session("s1", value)

    assert planned.scheduled_start == datetime(2026, 9, 14, 9, tzinfo=UTC)
    assert (planned.actual_start is not None) == (planned.actual_end is not None) == held


def test_the_first_parts_of_two_meetings_of_one_session_are_two_recordings() -> None:
    films = [{"partIndex": 1, "sessionIndex": index, "url": f"https://films.example/{index}"} for index in (1, 2)]

    keys = [
        event.data.artifact.key
        for event in events("RecordingCompletedEvent", {"sessionId": "s1", "recordings": films})
        if event.data.artifact is not None
    ]

    assert keys == ["wise:s1.1", "wise:s1.2.1"]


def test_attendance_that_is_not_recorded_yet_is_asked_for_again_in_a_minute() -> None:
    platform = simulator.platform(seed=6, people=30)
    platform.attendance_lag = 1
    event = computed(platform)

    with pytest.raises(SourceUnavailable) as early:
        enriched(WISE, event, InProcess(platform=platform))

    assert early.value.retry_after == 60
    assert {child.enrichment for child in enriched(WISE, event, InProcess(platform=platform))} == {"full"}


def test_a_session_that_the_api_does_not_know_is_waited_for_and_then_missed() -> None:
    platform = simulator.platform(seed=6, people=30)
    event = computed(platform)
    gone = replace(event, subject="attendance/66e5430a9b1c2d3e4f509999")

    with pytest.raises(SourceUnavailable):
        enriched(WISE, gone, InProcess(platform=platform, now=NOW + timedelta(seconds=5)))
    (missed,) = enriched(WISE, gone, InProcess(platform=platform, now=NOW + timedelta(seconds=31)))

    assert (missed.enrichment, missed.id) == ("missing", event.id)


def test_what_a_webhook_says_is_true_in_the_api() -> None:
    platform = simulator.platform(seed=9, people=60)
    api = InProcess(platform=platform)

    def asked(path: str) -> Payload:
        answer = api.get(path)
        assert answer is not None
        return answer.at("data")

    (added,) = events_of(WISE, arrived(platform, platform.sample("StudentAddedToClassroomEvent")), SETTINGS)
    assert added.data.course is not None
    assert added.data.person is not None
    class_id, user_id = added.subject.removeprefix("enrolment/").split(".")
    roster = [
        entry.at("_id").text() for entry in asked(f"/user/classes/{class_id}/participants").at("joinedRequest").items()
    ]
    assert user_id in roster
    assert asked(f"/user/v2/classes/{class_id}").at("name").text() == added.data.course.title
    assert asked(f"/institutes/{simulator.INSTITUTE}/participants/{user_id}").at("user", "_id").text() == user_id
    phone = asked(f"/institutes/{simulator.INSTITUTE}/participants/{user_id}").at("user", "phoneNumber").text()
    found = api.get("/vendors/userByIdentifier", {"provider": "PHONE_NUMBER", "identifier": phone})
    assert found is not None
    assert found.at("data", "user", "_id").text() == user_id

    (deleted,) = events_of(WISE, arrived(platform, platform.sample("SessionsDeletedEvent")), SETTINGS)
    assert api.get(f"/user/session/{deleted.subject.removeprefix('session/')}") is None
    (ended,) = events_of(WISE, arrived(platform, platform.sample("MeetingEndedEvent")), SETTINGS)
    session = asked(f"/user/session/{ended.subject.removeprefix('session/')}")
    assert session.at("meetingStatus").text() == "ENDED"
    assert session.at("mettingEnded").flag()


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("authorization", "Basic bm9ib2R5Om5vYm9keQ==", 401),
        ("x-api-key", "another", 401),
        ("x-wise-namespace", "another", 403),
        ("user-agent", "python-requests/2", 403),
        ("content-type", "text/plain", 400),
    ],
)
def test_the_simulated_api_insists_on_all_five_headers(header: str, value: str, status: int) -> None:
    access = source.access(SETTINGS)
    assert access is not None

    def asked(headers: Mapping[str, str]) -> int:
        call = ApiCall(method="GET", path="/user/getUser", query={}, headers=headers, form={}, json=None)
        return simulator.platform(people=5).answer(call).status

    assert asked(access.headers) == 200
    assert asked({**access.headers, header: value}) == status
    assert asked({name: entry for name, entry in access.headers.items() if name != header}) == status


def test_the_api_answers_many_threads_while_the_day_goes_on() -> None:
    platform = simulator.platform(seed=1, people=40)
    event = computed(platform)

    def ask(_: int) -> int:
        return len(enriched(WISE, event, InProcess(platform=platform)))

    with ThreadPoolExecutor(4) as pool:
        telling = pool.submit(lambda: list(islice(platform.day(), 2000)))
        sizes = set(pool.map(ask, range(50)))

    assert len(telling.result()) == 2000
    assert len(sizes) == 1


def test_the_proof_names_the_header_and_never_the_key() -> None:
    learning = settings_of(auth_header=None)
    held = {"host": "bridge.example.test", "x-wise-key": f"Bearer {KEY}"}

    proof = source.verify(inbound(b"{}", held), learning).proof

    assert "x-wise-key" in proof
    assert "secret 1" in proof
    assert KEY not in proof


@pytest.mark.parametrize("scheme", ["none", "bearer", "basic", "any"])
def test_an_empty_secret_never_matches_an_empty_header(scheme: str) -> None:
    settings = replace(settings_of(auth_scheme=scheme, auth_header=None), secrets=("", KEY))

    for value in ("", " ", "Bearer", "Bearer ", "Basic  "):
        with pytest.raises(NotGenuine):
            source.verify(inbound(b"{}", {"authorization": value}), settings)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [
    *("sessionId", "session", "sessions", "recordings", "payload", "object", "participant", "classroom", "student"),
    *("teacher", "certificate", "transaction", "metadata", "amount", "overDue", "value", "currency", "_id", "classId"),
    *("userId", "name", "email", "event_ts", "suspended", "index", "type", "installmentId", "chargedAt", "createdAt"),
    *("meetingStatus", "title", "participants", "students", "attendees", "duration", "wiseUserId", "isTeacher"),
    *("inMeetingDuration", "absolutePercentAttendance", "user_email", "partIndex", "sessionIndex"),
]
WISE_LIKE = st.recursive(
    JSON | st.sampled_from(["66aa10ada0ada0ada0ada001", "INR", "2026-09-14T09:00:00Z", 1, True]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=6),
    max_leaves=10,
)


@given(
    body=st.binary(max_size=200),
    headers=st.dictionaries(st.text(max_size=12), st.text(max_size=40), max_size=4),
    pinned=st.sampled_from([None, "authorization"]),
    scheme=st.sampled_from(["none", "bearer", "basic", "any"]),
)
def test_no_request_raises_anything_but_a_refusal(
    body: bytes, headers: dict[str, str], pinned: str | None, scheme: str
) -> None:
    settings = settings_of(auth_header=pinned, auth_scheme=scheme)

    with pytest.raises(NotGenuine):
        source.verify(inbound(body, headers | {"authorization": "Bearer wrong"}), settings)
    with suppress(PayloadError):
        list(source.parse(source.verify(inbound(body), SETTINGS), SETTINGS))


def with_one_part_changed(value: Any, where: int, other: Any) -> Any:
    """The same JSON with its n-th part (counted depth first, again from the start at the end) replaced."""
    places: list[tuple[Any, Any]] = []

    def walk(inner: Any) -> None:
        for key in list(inner) if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else ():
            places.append((inner, key))
            walk(inner[key])

    changed = json.loads(json.dumps(value))
    walk(changed)
    holder, key = places[where % len(places)]
    holder[key] = other
    return changed


SAMPLES = {kind: simulator.platform(seed=1, people=5).sample(kind).body["payload"] for kind in sorted(KINDS)}


@hypothesis_settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(sorted(KINDS)), where=st.integers(0, 60), other=WISE_LIKE)
def test_a_payload_with_one_part_of_another_shape_still_becomes_valid_events(kind: str, where: int, other: Any) -> None:
    payload = with_one_part_changed(SAMPLES[kind], where, other)
    body = json.dumps({"event": kind, "payload": payload}).encode("utf-8", "replace")

    found = events_of(WISE, source.verify(inbound(body), SETTINGS), SETTINGS)

    assert found
    for event in found:
        VALID.validate(event.to_json())


def any_answer() -> Any:
    platform = simulator.platform(seed=1, people=20)
    session_id = computed(platform).subject.removeprefix("attendance/")
    answer = InProcess(platform=platform).get(f"/user/session/{session_id}")
    assert answer is not None
    return answer.value


ANSWER = any_answer()


@hypothesis_settings(max_examples=150, deadline=None)
@given(where=st.integers(0, 400), other=WISE_LIKE)
def test_an_answer_with_one_part_of_another_shape_is_read_or_asked_for_again(where: int, other: Any) -> None:
    (event,) = events("AttendanceComputedEvent", {"session": {"_id": "s1", "classId": "c1"}})

    found: list[Event] = []
    with suppress(SourceUnavailable):
        found = enriched(WISE, event, Answering(answer=with_one_part_changed(ANSWER, where, other)))

    for child in found:
        VALID.validate(child.to_json())
    assert len({child.id for child in found}) == len(found)


def test_an_answer_without_data_is_asked_for_again_and_the_error_says_where() -> None:
    (event,) = events("AttendanceComputedEvent", {"session": {"_id": "s1", "classId": "c1"}})

    with pytest.raises(SourceUnavailable, match=r"unexpected shape at \$\.data"):
        enriched(WISE, event, Answering(answer={"status": 200, "message": "Success"}))
