"""Completes every kind of event of which Wise's API knows more than the webhook says.

A webhook of Wise is unsigned and may come four hours late: where both speak of a present state, the API is right. Where
a webhook tells what happened (somebody came, a meeting began), the API only adds what it leaves open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from bridge.core.errors import PayloadError, SourceUnavailable
from bridge.core.events import Event
from bridge.core.nouns import Course, Data, Person, Session
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.core.source import SourceApi
from connectors.wise import asking
from connectors.wise.asking import KEEP_CLASS, KEEP_PERSON, KEEP_PLAN, KEEP_STAFF, KEEP_SUBJECT, ask, settle
from connectors.wise.attendance import computed
from connectors.wise.enrolling import membership
from connectors.wise.gaps import together
from connectors.wise.nouns import course, is_cancelled, maybe_id, person, session
from connectors.wise.paying import transaction_of

Recipe = Callable[[Event, SourceApi], list[Event]]


def enrich(event: Event, api: SourceApi) -> list[Event]:
    """The event completed, or one for each student of a computed attendance. Raises SourceUnavailable."""
    recipe = _RECIPES.get(event.sourceevent)
    if recipe is None:
        return [event]
    try:
        return recipe(event, api)
    except PayloadError as error:
        raise SourceUnavailable(f"the answer has an unexpected shape at {error.path}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldSession:
    """A session as the API holds it; `expected` are the ids of its students, None where it does not say."""

    course: Course | None
    session: Session
    teacher: Person | None
    cancelled: bool
    expected: frozenset[str] | None


def held_session(data: Payload, session_id: str, settings: Settings) -> HeldSession:
    """From a session's own answer or a list's entry: class and teacher are ids in one, objects in the other."""
    room, title = course(data.at("classId")), data.first("className", "classId.name").maybe_text()
    planned = session(session_id, data)
    expected = [maybe_id(entry) for entry in data.at("students").items()] if data.at("students").exists else None
    return HeldSession(
        course=room and replace(room, title=title),
        session=planned,
        teacher=person(data.at("userId"), settings, "instructor"),
        cancelled=is_cancelled(planned.status, settings),
        expected=None if expected is None else frozenset(entry for entry in expected if entry),
    )


def _session_of(event: Event, api: SourceApi, *, keep: float, fresh: bool) -> HeldSession | None:
    identifier = _own_id(event.data.session)
    if identifier is None:
        return None

    def read(data: Payload) -> HeldSession:
        return held_session(data, identifier, api.settings)

    held = ask(event, api, asking.session_path(identifier), read, keep=keep, fresh=fresh)
    if held is None:
        settle(event, api, "session")
    return held


def _own_id(noun: Course | Person | Session | None) -> str | None:
    return None if noun is None or noun.key is None else noun.key.removeprefix("wise:")


def _answered(event: Event, api: SourceApi, data: Data, *, complete: bool) -> Event:
    return replace(event, data=data, enrichment="full" if complete else "partial", observedat=api.now)


# --- a session while it runs ------------------------------------------------------------------------------------------


def _placed(data: Data, held: HeldSession) -> Data:
    """An occurrence in its session: what it says itself stays, only the session's status is that of now."""
    told = data.session or held.session
    return replace(
        data,
        course=together(held.course, data.course),
        session=together(replace(told, status=held.session.status), held.session),
    )


def _ran(event: Event, api: SourceApi) -> list[Event]:
    """A meeting began or ended, or its recordings are ready: the teacher is whose session it is."""
    held = _session_of(event, api, keep=KEEP_SUBJECT, fresh=True)
    if held is None:
        return [_answered(event, api, event.data, complete=False)]
    data = _placed(event.data, held)
    return [_answered(event, api, replace(data, actor=_known_actor(data.actor, held)), complete=True)]


def _known_actor(actor: Person | None, held: HeldSession) -> Person | None:
    """The teacher under the name that the session gives; somebody else stays who it was."""
    same = actor is None or (held.teacher is not None and actor.key == held.teacher.key)
    return together(held.teacher, actor) if same else actor


def _shared(event: Event, api: SourceApi) -> list[Event]:
    """Sharing comes with Zoom's ids and no address: who it was stays open, where it was does not."""
    held = _session_of(event, api, keep=KEEP_PLAN, fresh=False)
    data = event.data if held is None else _placed(event.data, held)
    return [_answered(event, api, data, complete=held is not None)]


def _came_or_went(event: Event, api: SourceApi) -> list[Event]:
    """Zoom's ids mean nothing to anybody: whoever has an address is looked up by it."""
    held = _session_of(event, api, keep=KEEP_PLAN, fresh=False)
    data = event.data if held is None else _placed(event.data, held)
    who = data.person
    if who is None or who.email is None or not _matters(api, "key", "role", "identifiers"):
        return [_answered(event, api, data, complete=held is not None)]

    def read(answer: Payload) -> Person | None:
        return person(answer.at("user"), api.settings)

    known = ask(event, api, asking.account_path(who.email), read, keep=KEEP_PERSON, fresh=False)
    if known is not None:
        data = replace(data, person=together(replace(known, role=_role(known, held), email=who.email), who))
    return [_answered(event, api, data, complete=held is not None and known is not None)]


def _matters(api: SourceApi, *fields: str) -> bool:
    return any(api.wants(f"data.person.{field}") for field in fields)


def _role(who: Person, held: HeldSession | None) -> str | None:
    if held is None:
        return None
    if held.teacher is not None and held.teacher.key == who.key:
        return "instructor"
    return "learner" if held.expected is not None and _own_id(who) in held.expected else None


# --- a session as it is planned ---------------------------------------------------------------------------------------


def _planned(event: Event, api: SourceApi) -> list[Event]:
    """The whole plan as it stands now, also where an update names one changed key: no earlier event is needed."""
    held = _session_of(event, api, keep=KEEP_SUBJECT, fresh=True)
    if held is None:
        return [_answered(_unless_deleted(event, api), api, _remembered(event, api), complete=False)]
    data = replace(
        event.data,
        course=together(held.course, event.data.course),
        session=together(held.session, event.data.session),
        actor=_known_actor(event.data.actor, held),
    )
    plain = "session.scheduled" if event.sourceevent == "SessionsCreatedEvent" else "session.rescheduled"
    now = "session.cancelled" if held.cancelled else plain
    return [_answered(replace(event, type=now), api, data, complete=True)]


def _unless_deleted(event: Event, api: SourceApi) -> Event:
    """A late update of a session that this bridge knows to be called off does not bring it back."""
    known = api.known(event.subject)
    return replace(event, type=known.type) if known is not None and known.type == "session.cancelled" else event


def _deleted(event: Event, api: SourceApi) -> list[Event]:
    """A deleted session is not in the API any more: it is completed from its class and from our last copy."""
    data, class_id = _remembered(event, api), _own_id(event.data.course)
    if class_id is None:
        return [_answered(event, api, data, complete=False)]

    def read(answer: Payload) -> Course | None:
        return course(answer)

    room = ask(event, api, asking.class_path(class_id), read, keep=KEEP_CLASS, fresh=False)
    return [_answered(event, api, replace(data, course=together(room, data.course)), complete=room is not None)]


def _remembered(event: Event, api: SourceApi) -> Data:
    """What the event leaves open, as this bridge knew it last."""
    known = api.known(event.subject)
    if known is None:
        return event.data
    told, before = event.data, known.data
    same = told.actor is None or (before.actor is not None and before.actor.key == told.actor.key)
    return replace(
        told,
        course=together(told.course, before.course),
        session=together(told.session, before.session),
        actor=together(told.actor, before.actor) if same else told.actor,
    )


# --- people, certificates and money -----------------------------------------------------------------------------------


def _student(event: Event, api: SourceApi) -> tuple[Person | None, bool]:
    """The event's student as the institute knows them, and whether it does."""
    owner, user_id = asking.institute(api.settings), _own_id(event.data.person)
    if owner is None or user_id is None:
        return event.data.person, False

    def read(answer: Payload) -> Person | None:
        return person(answer.at("user"), api.settings, "learner")

    known = ask(event, api, asking.student_path(owner, user_id), read, keep=KEEP_CLASS, fresh=False)
    return together(known, event.data.person), known is not None


def _certified(event: Event, api: SourceApi) -> list[Event]:
    """No endpoint gives certificates; the student's name and address are those of now."""
    who, known = _student(event, api)
    return [_answered(event, api, replace(event.data, person=who), complete=known)]


def _charged(event: Event, api: SourceApi) -> list[Event]:
    """A payment or an invoice out of the list of transactions; the student only where no address came along."""
    found = transaction_of(event, api)
    data = event.data if found is None else found
    lacks = data.person is not None and data.person.email is None and _matters(api, "email")
    who, known = _student(event, api) if lacks else (data.person, True)
    return [_answered(event, api, replace(data, person=who), complete=found is not None and known)]


def _enrolled(event: Event, api: SourceApi) -> list[Event]:
    """The place in the class as it is now; of whoever suspended a student, the address as well."""
    completed, known = membership(event, api)
    actor, owner = completed.data.actor, asking.institute(api.settings)
    if actor is None or actor.email is not None or not api.wants("data.actor.email"):
        return [_answered(completed, api, completed.data, complete=known)]
    if owner is None:
        return [_answered(completed, api, completed.data, complete=False)]

    def read(answer: Payload) -> Mapping[str, Person]:
        everybody = (person(entry.at("userId"), api.settings, "instructor") for entry in answer.at("teachers").items())
        return {who.key: who for who in everybody if who is not None and who.key is not None}

    staff = ask(event, api, asking.teachers_path(owner), read, keep=KEEP_STAFF, fresh=False)
    teacher = None if staff is None else staff.get(actor.key or "")
    data = replace(completed.data, actor=together(teacher, actor))
    return [_answered(completed, api, data, complete=known and staff is not None)]


_RECIPES: Final[Mapping[str, Recipe]] = {
    "ParticipantJoinedMeetingEvent": _came_or_went,
    "ParticipantLeftMeetingEvent": _came_or_went,
    "SharingStaredInMeetingEvent": _shared,
    "SharingEndedInMeetingEvent": _shared,
    "MeetingStartedEvent": _ran,
    "MeetingEndedEvent": _ran,
    "RecordingCompletedEvent": _ran,
    "CertificateIssuedEvent": _certified,
    "AttendanceComputedEvent": computed,
    "StudentAddedToClassroomEvent": _enrolled,
    "TeacherAddedToClassroomEvent": _enrolled,
    "StudentRemovedFromClassroomEvent": _enrolled,
    "TeacherRemovedFromClassroomEvent": _enrolled,
    "StudentSuspensionUpdatedEvent": _enrolled,
    "FeePaymentCompletedEvent": _charged,
    "FeeInvoiceChargedEvent": _charged,
    "SessionsCreatedEvent": _planned,
    "SessionsUpdatedEvent": _planned,
    "SessionsDeletedEvent": _deleted,
}
