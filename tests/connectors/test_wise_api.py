"""Wise's API: what enrichment, gathering and reconciliation make of it, over the real client."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import pytest

from bridge.config.connectors import source_connector
from bridge.core.errors import SourceUnavailable
from bridge.core.events import Event, Json, stamp
from bridge.core.nouns import Course, Enrolment, Person, Session
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.core.simulation import Call
from bridge.core.source import Found, Verified
from bridge.flow.process import enriched, events_of
from bridge.flow.receive import verify
from bridge.flow.reconcile import delivery_of, marked
from bridge.outbound.source_api import Context
from bridge.testing.conforming_simulator import MADE_UP, as_inbound, simulated_settings
from bridge.testing.simulated_api import always, simulated_api
from connectors.wise import asking, simulator, source
from connectors.wise.enrolling import roster
from connectors.wise.gaps import together

WISE = source_connector(Path(source.__file__).parent, source, simulator)
SETTINGS = simulated_settings(WISE)
LONG_AGO = timedelta(minutes=20)
DETAIL = "GET /user/session/{sessionId}"
ROSTER = "GET /user/classes/{classId}/participants"
ACCOUNT = "GET /vendors/userByIdentifier"
TRANSACTIONS = "GET /institutes/{instituteId}/fees/transactions"
FEED = "GET /institutes/{instituteId}/events"


class Bridge:
    """What a bridge remembers: the newest event about each subject."""

    def __init__(self, platform: simulator.WiseInstitute, settings: Settings = SETTINGS) -> None:
        self.platform = platform
        self.settings = settings
        self.newest: dict[str, Event] = {}
        self.facts: set[str] = set()
        self.api, self.sender = simulated_api(WISE, platform, settings, Context(known=self.newest.get))

    def events(self, call: Call, *, age: timedelta = timedelta(0)) -> list[Event]:
        now = datetime.now(UTC)
        signed = self.platform.sign(call, MADE_UP, attempt=1, now=now)
        proven = verify(WISE, as_inbound(signed, self.settings.name, now - age), self.settings)
        assert isinstance(proven, Verified)
        return events_of(WISE, proven, self.settings)

    def take(self, call: Call, *, age: timedelta = timedelta(0)) -> list[Event]:
        """A webhook, completed and remembered."""
        return self.keep(self.events(call, age=age))

    def take_found(self, found: Found) -> list[Event]:
        """Something that a list showed, in the way of the engine."""
        now = datetime.now(UTC)
        made = delivery_of(found, id="made", source=self.settings.name, dedupe_key="made", now=now)
        return self.keep(list(marked(events_of(WISE, made, self.settings), made)))

    def keep(self, events: Sequence[Event]) -> list[Event]:
        completed = [result for event in events for result in enriched(WISE, event, self.api)]
        for event in completed:
            self.newest[event.subject] = event
            told = source.fact(event)
            if told is not None:
                self.facts.add(told)
        return completed

    def happened(self, since: datetime | None = None) -> list[Found]:
        return list(source.happened(since or datetime.now(UTC) - timedelta(hours=1), self.api))


@pytest.fixture
def bridge() -> Bridge:
    return Bridge(simulator.platform(seed=3, people=40))


# --- one kind after the other -----------------------------------------------------------------------------------------


def test_who_came_in_is_the_account_with_that_address_in_the_role_that_the_session_gives(bridge: Bridge) -> None:
    events = [bridge.take(bridge.platform.sample("ParticipantJoinedMeetingEvent"))[0] for _ in range(8)]

    roles = Counter(event.data.person.role for event in events if event.data.person)
    assert roles["instructor"] >= 1
    assert roles["learner"] >= 4
    for event in events:
        assert event.enrichment == "full"
        assert event.data.course is not None
        assert event.data.session is not None
        assert event.data.course.title
        assert event.data.session.scheduled_start is not None
        person = event.data.person
        assert person is not None
        if person.email is not None:
            schemes = {identifier.scheme for identifier in person.identifiers}
            assert {"wise.userId", "zoom.participantUuid", "zoom.userId"} <= schemes
            assert person.key == f"wise:{next(i.value for i in person.identifiers if i.scheme == 'wise.userId')}"


def test_the_session_of_those_who_come_is_asked_for_once(bridge: Bridge) -> None:
    joined = [bridge.platform.sample("ParticipantJoinedMeetingEvent") for _ in range(20)]

    for call in joined:
        bridge.take(call)

    assert bridge.platform.calls[DETAIL] == len({call.body["payload"]["sessionId"] for call in joined})


def test_an_address_of_nobody_leaves_the_guest_and_marks_it_partial(bridge: Bridge) -> None:
    call = joined_with_address(bridge)
    call.body["payload"]["payload"]["object"]["participant"]["email"] = "guest@elsewhere.example"

    (event,) = bridge.take(call, age=LONG_AGO)

    assert event.enrichment == "partial"
    assert event.data.person is not None
    assert event.data.person.key is not None
    assert event.data.person.key.startswith("wise:zoom.")
    assert event.data.course is not None


def joined_with_address(bridge: Bridge) -> Call:
    calls = (bridge.platform.sample("ParticipantJoinedMeetingEvent") for _ in range(20))
    return next(call for call in calls if call.body["payload"]["payload"]["object"]["participant"]["email"])


def test_nobody_is_looked_up_when_no_mapping_reads_who_it_is(bridge: Bridge) -> None:
    call = joined_with_address(bridge)
    narrow = bridge.api.platform.client(Context(wants=lambda field: field == "data.person.email"))

    (event,) = [result for event in bridge.events(call) for result in enriched(WISE, event, narrow)]

    assert event.enrichment == "full"
    assert bridge.platform.calls[ACCOUNT] == 0


def test_a_sparse_update_becomes_the_whole_plan(bridge: Bridge) -> None:
    for _ in range(6):
        call = bridge.platform.sample("SessionsUpdatedEvent")
        (said,) = call.body["payload"]["sessions"]
        held = bridge.platform.world.session(said["_id"])
        assert held is not None

        (event,) = bridge.take(call)

        assert event.enrichment == "full"
        assert event.data.session is not None
        assert event.data.course is not None
        assert event.data.actor is not None
        assert event.data.session.title == held["title"]
        assert event.data.session.status == held["meetingStatus"]
        assert event.data.session.scheduled_start == datetime.fromisoformat(held["scheduledStartTime"])
        assert event.data.session.scheduled_end == datetime.fromisoformat(held["scheduledEndTime"])
        assert event.data.course.title == held["className"]
        assert (event.type == "session.cancelled") == (held["meetingStatus"] == "CANCELLED")


def test_an_update_that_comes_late_says_what_is_so_by_then(bridge: Bridge) -> None:
    call = bridge.platform.sample("SessionsUpdatedEvent")
    (said,) = call.body["payload"]["sessions"]
    bridge.platform.world.sessions[said["_id"]] |= {"title": "Moved again", "meetingStatus": "CANCELLED"}

    (event,) = bridge.take(call, age=LONG_AGO)

    assert event.type == "session.cancelled"
    assert event.data.session is not None
    assert event.data.session.title == "Moved again"
    assert event.observedat is not None
    assert event.observedat > event.time


def test_an_update_whose_session_cannot_be_read_is_completed_from_what_was_known(bridge: Bridge) -> None:
    created = bridge.take(planned_call("s1"), age=LONG_AGO)[0]  # the simulated institute has no such session
    assert created.enrichment == "partial"
    full = replace(created, data=replace(created.data, course=Course(key="wise:c1", title="Algebra 1")))
    bridge.newest[created.subject] = full
    sparse = {"_id": "s1", "classId": "c1", "title": "Geometry"}

    (event,) = bridge.take(body_of("SessionsUpdatedEvent", {"sessions": [sparse]}), age=LONG_AGO)

    assert event.enrichment == "partial"
    assert event.data.session is not None
    assert event.data.course is not None
    assert event.data.course.title == "Algebra 1"
    assert event.data.session.title == "Geometry"
    assert event.data.session.scheduled_start == datetime(2026, 9, 14, 9, tzinfo=UTC)


def planned_call(session_id: str) -> Call:
    plan = {
        "_id": session_id,
        "classId": "c1",
        "title": "Algebra",
        "scheduledStartTime": "2026-09-14T09:00:00.000Z",
        "scheduledEndTime": "2026-09-14T10:00:00.000Z",
    }
    return body_of("SessionsCreatedEvent", {"sessions": [plan]})


def body_of(kind: str, payload: Json) -> Call:
    return Call(kind=kind, body={"event": kind, "payload": payload})


def test_a_late_update_does_not_bring_back_a_session_that_is_known_to_be_deleted(bridge: Bridge) -> None:
    deleted = bridge.platform.sample("SessionsDeletedEvent")
    (gone,) = bridge.take(deleted)
    (said,) = deleted.body["payload"]["sessions"]

    late = body_of("SessionsUpdatedEvent", {"sessions": [{"_id": said["_id"], "title": "Too late"}]})
    (event,) = bridge.take(late, age=LONG_AGO)

    assert gone.type == event.type == "session.cancelled"


def test_a_deletion_is_completed_from_its_class_and_from_the_last_copy(bridge: Bridge) -> None:
    call = bridge.platform.sample("SessionsDeletedEvent")
    (said,) = call.body["payload"]["sessions"]
    teacher = Person(key=f"wise:{said['userId']}", role="instructor", given_name="Ada")
    before = bridge.events(call)[0]
    bridge.newest[before.subject] = replace(before, data=replace(before.data, actor=teacher))

    (event,) = bridge.take(call)

    assert (event.type, event.enrichment) == ("session.cancelled", "full")
    assert event.data.course is not None
    assert event.data.course.title
    assert event.data.actor is not None
    assert event.data.actor.given_name == "Ada"
    assert bridge.platform.calls[DETAIL] == 0  # it is gone: nobody asks


def test_a_class_decides_what_an_event_about_somebody_in_it_comes_to(bridge: Bridge) -> None:
    added = bridge.platform.sample("StudentAddedToClassroomEvent")
    class_id, user_id = added.body["payload"]["classroom"]["_id"], added.body["payload"]["student"]["_id"]
    room = bridge.platform.world.classes[class_id]

    assert Bridge(bridge.platform).take(added)[0].type == "enrolment.added"
    room["suspendedStudents"].append(user_id)
    assert Bridge(bridge.platform).take(added, age=LONG_AGO)[0].type == "enrolment.suspended"
    room["suspendedStudents"].remove(user_id)
    room["students"].remove(user_id)
    (event,) = Bridge(bridge.platform).take(added, age=LONG_AGO)

    assert event.type == "enrolment.removed"
    assert event.data.enrolment == Enrolment(role="learner", status="removed")


@pytest.mark.parametrize(
    "entry",
    ["u1", {"userId": "u1", "reason": "FEE_DELAY"}, {"userId": {"_id": "u1"}, "reason": "SUSPEND"}, {"_id": "u1"}],
)
def test_a_suspended_student_is_named_by_the_suspension(entry: object) -> None:
    """The list holds suspensions, which have no `_id`, and not students."""
    data = Payload({"_id": "c1", "joinedRequest": [{"_id": "u1"}, {"_id": "u2"}], "suspendedStudents": [entry]})

    held = roster(data, SETTINGS)

    assert (held.status("u1"), held.status("u2")) == ("suspended", "active")


def test_a_class_that_contradicts_a_young_event_is_asked_again(bridge: Bridge) -> None:
    added = bridge.platform.sample("StudentAddedToClassroomEvent")
    payload = added.body["payload"]
    bridge.platform.world.classes[payload["classroom"]["_id"]]["students"].remove(payload["student"]["_id"])

    with pytest.raises(SourceUnavailable):
        bridge.take(added)


def test_a_payment_gets_its_status_and_time_from_the_list(bridge: Bridge) -> None:
    (event,) = bridge.take(bridge.platform.sample("FeePaymentCompletedEvent"))

    assert event.enrichment == "full"
    assert event.data.payment is not None
    assert event.data.payment.status == "CHARGED"
    assert event.data.payment.charged_at is not None


def test_a_payment_that_bears_an_old_date_is_found_in_its_month(bridge: Bridge) -> None:
    call = bridge.platform.sample("FeePaymentCompletedEvent")
    entry = bridge.platform.world.transactions[-1]
    entry["createdAt"] = entry["chargedAt"] = (datetime.now(UTC) - timedelta(days=9)).isoformat(timespec="milliseconds")

    with pytest.raises(SourceUnavailable):
        bridge.take(call)  # it may not be in the list yet
    (event,) = bridge.take(call, age=timedelta(minutes=1))

    assert event.enrichment == "full"


def test_a_transaction_on_a_later_page_is_found(bridge: Bridge) -> None:
    call = bridge.platform.sample("FeePaymentCompletedEvent")
    (wanted,) = bridge.platform.world.transactions[-1:]
    others = [wanted | {"_id": f"{number:024x}"} for number in range(120)]
    bridge.platform.world.transactions.extend(others)

    (event,) = bridge.take(call)

    assert event.enrichment == "full"
    assert bridge.platform.calls[TRANSACTIONS] == 3


def test_without_an_institute_what_is_kept_by_institute_stays_partial() -> None:
    platform = simulator.platform(seed=3, people=20)
    nobody = replace(SETTINGS, options={**SETTINGS.options, "institute_id": None})
    bridge = Bridge(platform, nobody)

    (event,) = bridge.take(platform.sample("FeePaymentCompletedEvent"), age=LONG_AGO)

    assert event.enrichment == "partial"
    with pytest.raises(SourceUnavailable, match="institute_id"):
        bridge.happened()


def test_an_error_inside_a_200_is_an_error(bridge: Bridge) -> None:
    call = bridge.platform.sample("MeetingStartedEvent")
    body = json.dumps({"status": 500, "message": "Something went wrong", "data": None}).encode()
    bridge.sender.faults[DETAIL] = always(200, body)

    with pytest.raises(SourceUnavailable, match=r"\$\.status"):
        bridge.take(call)


def test_the_two_sides_of_a_noun_fill_each_others_gaps() -> None:
    said, held = Session(key="wise:s", title="New"), Session(key="wise:s", title="Old", status="UPCOMING")

    assert together(said, held) == Session(key="wise:s", title="New", status="UPCOMING")
    assert together(None, held) == held
    assert together(said, None) == said


# --- a limit ----------------------------------------------------------------------------------------------------------


def test_calls_beyond_the_limit_are_refused_and_counted() -> None:
    bridge = Bridge(simulator.platform(seed=3, people=20))
    bridge.platform.limit = 3

    for _ in range(3):
        bridge.api.get("/user/getUser")
    with pytest.raises(SourceUnavailable, match="429"):
        bridge.api.get("/user/getUser")

    assert bridge.platform.refused == 1
    assert bridge.platform.most_in_a_minute == 3


# --- lists that save calls --------------------------------------------------------------------------------------------


def test_one_list_of_a_class_serves_everybody_who_comes() -> None:
    bridge = Bridge(simulator.platform(seed=5, people=100))
    calls = [call for call in islice(bridge.platform.day(), 300) if call.kind == "ParticipantJoinedMeetingEvent"]
    events = [event for call in calls for event in bridge.events(call)]

    source.gather(events, bridge.api, len(events))
    for event in events:
        enriched(WISE, event, bridge.api)

    classes = len(bridge.platform.world.classes)
    assert len(events) > 80
    assert bridge.platform.calls[ROSTER] <= classes
    assert bridge.platform.calls[ACCOUNT] <= classes  # teachers are not among the participants


def test_a_series_is_read_from_its_class_and_comes_to_the_same() -> None:
    bridge = Bridge(simulator.platform(seed=5, people=20))
    series = [planned_series(bridge, number) for number in range(60)]
    events = [event for call in series for event in bridge.events(call)]
    alone = [enriched(WISE, event, Bridge(bridge.platform).api) for event in events]
    bridge.platform.calls.clear()

    source.gather(events, bridge.api, len(events))
    gathered = [enriched(WISE, event, bridge.api) for event in events]

    assert [undated(found) for found in gathered] == [undated(found) for found in alone]
    assert bridge.platform.calls.total() == 2


def planned_series(bridge: Bridge, number: int) -> Call:
    """One more session like one that the institute has planned."""
    world = bridge.platform.world
    if not world.sessions:
        bridge.platform.sample("SessionsCreatedEvent")
    like = next(iter(world.sessions.values()))
    session_id = f"{number + 1:024x}"
    world.sessions[session_id] = like | {"_id": session_id, "title": f"Part {number}"}
    world.touched[session_id] = datetime.now(UTC)
    plan = {"_id": session_id, "classId": like["classId"]}
    return body_of("SessionsUpdatedEvent", {"sessions": [plan]})


def undated(events: list[Event]) -> list[Event]:
    return [replace(event, observedat=None) for event in events]


def test_a_single_event_reads_no_list() -> None:
    bridge = Bridge(simulator.platform(seed=5, people=20))
    for kind in ("SessionsUpdatedEvent", "ParticipantJoinedMeetingEvent", "FeePaymentCompletedEvent"):
        events = bridge.events(bridge.platform.sample(kind))
        bridge.platform.calls.clear()

        source.gather(events[:1], bridge.api, 1)

        assert bridge.platform.calls.keys() <= {DETAIL}


# --- what has happened ------------------------------------------------------------------------------------------------


def test_a_day_that_was_received_has_no_gaps() -> None:
    bridge = Bridge(simulator.platform(seed=2, people=60))
    for call in islice(bridge.platform.day(), 900):
        bridge.take(call)

    found = bridge.happened()

    kinds = Counter(entry.kind for entry in found)
    assert {entry.fact for entry in found} <= bridge.facts
    assert len(kinds) >= 9
    assert len({entry.fact for entry in found}) == len(found)


def test_what_nobody_heard_of_is_found_and_becomes_what_its_webhook_would_have() -> None:
    heard, deaf = (Bridge(simulator.platform(seed=2, people=60)) for _ in range(2))
    for call in islice(heard.platform.day(), 900):
        heard.take(call)
    for _ in islice(deaf.platform.day(), 900):
        pass

    found = deaf.happened()

    states: dict[str, set[str]] = {}
    for entry in found:
        events = deaf.take_found(entry)
        assert events
        assert {event.sourceevent for event in events} == {entry.kind}
        assert {source.fact(event) for event in events} == {entry.fact}
        assert {event.origin for event in events} == {"reconciled"}
        assert {event.enrichment for event in events} == {"full"}
        states.setdefault(entry.kind, set()).update(event.subject for event in events)
    assert len(states) >= 9
    told = {entry.fact for entry in found}
    gone = {fact.partition("|")[0] for fact in told if fact.endswith("|deleted")}
    # Of a state there is the last only, of a deleted session its end, of a meeting that goes on nothing yet.
    passing = ("|plan|", "|active", "|suspended", "|removed", "|started")
    listed = {fact for fact in heard.facts if not any(word in fact for word in passing)}
    assert {fact for fact in listed if fact.partition("|")[0] not in gone} <= told


@pytest.mark.parametrize(
    "kind",
    [
        "StudentAddedToClassroomEvent",
        "StudentRemovedFromClassroomEvent",
        "TeacherAddedToClassroomEvent",
        "StudentSuspensionUpdatedEvent",
    ],
)
def test_a_webhook_that_comes_after_the_feed_is_the_same_fact(kind: str) -> None:
    bridge = Bridge(simulator.platform(seed=4, people=40))
    call = bridge.platform.sample(kind)
    subject = bridge.events(call)[0].subject
    (found,) = [entry for entry in bridge.happened() if subject_of(bridge, entry) == subject]

    (reconciled,) = bridge.take_found(found)
    (late,) = bridge.take(call, age=LONG_AGO)

    assert source.fact(reconciled) == source.fact(late) == found.fact
    assert late.type == reconciled.type


def subject_of(bridge: Bridge, found: Found) -> str:
    now = datetime.now(UTC)
    made = delivery_of(found, id="made", source=bridge.settings.name, dedupe_key="made", now=now)
    return events_of(WISE, made, bridge.settings)[0].subject


def test_somebody_who_is_suspended_again_unheard_is_found_again() -> None:
    bridge = Bridge(simulator.platform(seed=4, people=40))
    call = bridge.platform.sample("StudentSuspensionUpdatedEvent")
    while not call.body["payload"]["suspended"]:
        call = bridge.platform.sample("StudentSuspensionUpdatedEvent")
    (first,) = bridge.take(call)
    lifted = body_of(call.kind, call.body["payload"] | {"suspended": False})
    suspended = bridge.platform.world.classes[call.body["payload"]["classroom"]["_id"]]["suspendedStudents"]
    suspended.remove(call.body["payload"]["student"]["_id"])
    bridge.take(lifted)
    suspended.append(call.body["payload"]["student"]["_id"])
    now = {"eventTimestamp": stamp(datetime.now(UTC))}
    last = next(entry for entry in reversed(bridge.platform.world.feed) if "Suspended" in entry["event"]["eventName"])
    bridge.platform.world.feed.append(last | {"event": last["event"] | now})

    (again,) = [entry for entry in bridge.happened() if subject_of(bridge, entry) == first.subject]

    assert again.fact not in bridge.facts
    assert bridge.take_found(again)[0].type == "enrolment.suspended"


def test_a_plan_that_is_as_it_was_before_comes_after_the_one_between() -> None:
    bridge = Bridge(simulator.platform(seed=4, people=40))
    (first, *_) = bridge.take(bridge.platform.sample("SessionsUpdatedEvent"))
    held = bridge.platform.world.sessions[first.subject.removeprefix("session/")]
    last = next(entry for entry in reversed(bridge.platform.world.feed) if "Updated" in entry["event"]["eventName"])

    def changed(title: str) -> Found:
        held["title"] = title
        now = {"eventTimestamp": stamp(datetime.now(UTC))}
        bridge.platform.world.feed.append(last | {"event": last["event"] | now})
        (found,) = [each for each in bridge.happened() if each.fact.startswith(f"{first.subject}|plan|")]
        return found

    before = held["title"]
    (between,) = bridge.take_found(changed("Another title"))
    back = changed(before)

    assert (back.fact, back.after) == (source.fact(first), between.id)
    (again,) = bridge.take_found(back)
    assert source.returns(again)
    assert again.id not in (first.id, between.id)
    (known,) = [each for each in bridge.happened() if each.fact.startswith(f"{first.subject}|plan|")]
    assert (known.fact, known.after) == (source.fact(again), None)


def test_attendance_that_is_computed_anew_is_another_fact(bridge: Bridge) -> None:
    call = bridge.platform.sample("AttendanceComputedEvent")
    first = {source.fact(event) for event in bridge.take(call)}
    session_id = call.body["payload"]["session"]["_id"]
    lines = bridge.platform.world.sessions[session_id]["participants"]
    bridge.platform.world.sessions[session_id]["participants"] = [line | {"inMeetingDuration": 60} for line in lines]

    second = {source.fact(event) for event in bridge.take(call)}

    assert len(first) == len(second) == 1
    assert first != second


def test_a_session_that_is_planned_for_today_has_not_begun(bridge: Bridge) -> None:
    """Its `start_time` is the planned one until its meeting begins; nobody is asked about it, and nothing is told."""
    bridge.platform.sample("SessionsCreatedEvent")
    bridge.platform.world.feed.clear()
    soon = stamp(datetime.now(UTC) + timedelta(hours=2))
    for held in bridge.platform.world.sessions.values():
        held |= {"scheduledStartTime": soon, "start_time": soon}
    bridge.platform.calls.clear()

    found = bridge.happened()

    assert {entry.kind for entry in found} <= {"SessionsCreatedEvent"}
    assert bridge.platform.calls[DETAIL] == 0


def test_a_session_of_the_feed_that_was_missed_has_no_meeting(bridge: Bridge) -> None:
    call = bridge.platform.sample("AttendanceComputedEvent")
    held = bridge.platform.world.sessions[call.body["payload"]["session"]["_id"]]
    held |= {"meetingStatus": "MISSED", "end_time": None, "endTime": None}

    kinds = {entry.kind for entry in bridge.happened() if held["_id"] in json.dumps(entry.body)}

    assert not kinds & {"MeetingStartedEvent", "MeetingEndedEvent"}
    assert "AttendanceComputedEvent" in kinds


def test_a_meeting_is_found_that_was_held_where_it_is_tomorrow_already(bridge: Bridge) -> None:
    """The days of the list are those of the institute's zone, and the last one does not count."""
    call = bridge.platform.sample("MeetingEndedEvent")
    session_id = call.body["payload"]["sessionId"]
    now = datetime.now(UTC)
    bridge.platform.world.feed.clear()
    bridge.platform.world.sessions[session_id] |= {"start_time": stamp(now), "end_time": stamp(now)}
    bridge.platform.world.touched[session_id] = now + timedelta(days=1)

    facts = {entry.fact for entry in bridge.happened()}

    assert f"session/{session_id}|ended" in facts


@pytest.mark.parametrize(
    ("about", "told"),
    [
        ({"transactionType": "FEE_COLLECTION"}, True),
        ({"transactionType": "TUTOR_PAYOUT"}, False),
        ({"transactionType": None, "metadata": {"invoiceType": "WISE_PREMIUM"}}, False),
        ({"transactionType": None, "metadata": {"invoiceType": "FEE_COLLECTION"}}, True),
        ({"transactionType": None}, True),
    ],
)
def test_what_a_teacher_gets_or_the_institute_owes_is_no_students_payment(
    bridge: Bridge, about: Mapping[str, object], told: bool
) -> None:
    bridge.platform.sample("FeePaymentCompletedEvent")
    entry = bridge.platform.world.transactions[-1]
    entry |= about

    facts = {found.fact for found in bridge.happened()}

    assert (f"payment/{entry['_id']}" in facts) == told


def test_what_was_read_in_the_millisecond_of_an_entry_may_be_older_than_the_entry(bridge: Bridge) -> None:
    bridge.platform.sample("StudentAddedToClassroomEvent")
    last = next(entry for entry in reversed(bridge.platform.world.feed) if "participant" in entry)
    path = asking.roster_path(last["classroom"]["_id"])
    reads = set()
    for _ in range(20):  # now and then the read below falls into the next millisecond
        before = datetime.now(UTC)
        bridge.api.get(path, keep=30, since=before)
        bridge.platform.world.feed[:] = [last | {"event": last["event"] | {"eventTimestamp": stamp(before)}}]
        bridge.platform.calls.clear()
        bridge.happened()
        reads.add(bridge.platform.calls[ROSTER])

    assert 1 in reads


def test_somebody_in_the_feed_may_be_a_participant_of_its_payload(bridge: Bridge) -> None:
    bridge.platform.sample("StudentAddedToClassroomEvent")
    last = next(entry for entry in reversed(bridge.platform.world.feed) if "participant" in entry)
    who = last.pop("participant")
    last["event"]["payload"] = {"participant": {"id": who["_id"], "profile": "student"}}
    bridge.platform.world.feed[:] = [last]

    (found,) = [entry for entry in bridge.happened() if entry.kind == "StudentAddedToClassroomEvent"]

    assert who["_id"] in found.fact


def test_the_feed_is_read_no_further_back_than_asked() -> None:
    bridge = Bridge(simulator.platform(seed=2, people=60))
    for _ in islice(bridge.platform.day(), 900):
        pass
    feed = bridge.platform.world.feed
    old = {"eventTimestamp": "2020-01-01T00:00:00.000Z"}
    feed[:-20] = [feed[0] | {"event": feed[0]["event"] | old}] * 500

    bridge.happened()

    assert bridge.platform.calls[FEED] == 2  # the first page holds newer entries, the second none


def test_entries_of_the_feed_that_say_little_are_passed_over(bridge: Bridge) -> None:
    now = datetime.now(UTC).isoformat()
    odd: list[Mapping[str, object]] = [
        {},
        {"event": {"eventName": "SessionUpdatedEvent"}},
        {"event": {"eventName": "SessionUpdatedEvent", "eventTimestamp": now}},
        {"event": {"eventName": "StudentSuspendedEvent", "eventTimestamp": now}, "classroom": {"_id": "c1"}},
        {"event": {"eventName": "TutorPayoutInvoiceCreatedEvent", "eventTimestamp": now, "payload": []}},
    ]
    bridge.platform.world.feed.extend(dict(entry) for entry in odd)

    assert bridge.happened() == []


ODD_LISTS = b'{"status": 200, "data": {"events": 7, "sessions": 7, "transactions": 7}}'


@pytest.mark.parametrize("list_", [FEED, TRANSACTIONS, "GET /institutes/{instituteId}/sessions"])
def test_a_list_that_cannot_be_read_stops_the_comparison(bridge: Bridge, list_: str) -> None:
    bridge.sender.faults[list_] = always(200, ODD_LISTS)

    with pytest.raises(SourceUnavailable, match="unexpected shape"):
        bridge.happened()
