"""Makes of what Wise's API shows the bodies of the webhooks that should have told it, and names the facts of both.

A session has one start and one end in the lists, so a meeting that is begun again is no other fact. An update is known
by the plan that it left; one that leads back to a plan of before is told apart by the update between, as long as that
is the newest thing known of the session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from bridge.core.events import Event, Json, stamp
from bridge.core.nouns import Session
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.core.signing import fingerprint
from bridge.core.source import Found
from connectors.wise import attendance, enrolling
from connectors.wise.nouns import began, ended, is_cancelled, maybe_id, recording_name, session, wise_id
from connectors.wise.paying import class_of, student_of
from connectors.wise.readings import invoice_reference


def fact(event: Event) -> str | None:
    """What a completed event is about; None for what no list shows and for an update whose plan is not known."""
    tell = _FACTS.get(event.sourceevent)
    return None if tell is None else tell(event)


def returns(event: Event) -> bool:
    """A plan has no date; a place in a class has that of the feed."""
    return event.sourceevent == "SessionsUpdatedEvent"


def _of_update(event: Event) -> str | None:
    if event.enrichment != "full" or event.data.session is None:
        return None
    return _plan(event.subject, event.data.session, cancelled=event.type == "session.cancelled")


def _of_recording(event: Event) -> str | None:
    film = event.data.artifact
    return None if film is None or film.key is None else f"recording/{film.key.removeprefix('wise:')}"


def _of_invoice(event: Event) -> str | None:
    return None if event.data.payment is None else _charge(event.subject, event.data.payment.charged_at)


_FACTS: Final[Mapping[str, Callable[[Event], str | None]]] = {
    "MeetingStartedEvent": lambda event: f"{event.subject}|started",
    "MeetingEndedEvent": lambda event: f"{event.subject}|ended",
    "RecordingCompletedEvent": _of_recording,
    "AttendanceComputedEvent": attendance.fact,
    "StudentAddedToClassroomEvent": enrolling.fact,
    "TeacherAddedToClassroomEvent": enrolling.fact,
    "StudentRemovedFromClassroomEvent": enrolling.fact,
    "TeacherRemovedFromClassroomEvent": enrolling.fact,
    "StudentSuspensionUpdatedEvent": enrolling.fact,
    "FeePaymentCompletedEvent": lambda event: event.subject,
    "FeeInvoiceChargedEvent": _of_invoice,
    "SessionsCreatedEvent": lambda event: f"{event.subject}|created",
    "SessionsUpdatedEvent": _of_update,
    "SessionsDeletedEvent": lambda event: f"{event.subject}|deleted",
}


def _plan(subject: str, planned: Session, *, cancelled: bool) -> str:
    times = (planned.scheduled_start, planned.scheduled_end)
    told = [planned.title or "", *("" if time is None else stamp(time) for time in times), str(cancelled)]
    return f"{subject}|plan|{fingerprint(told)[:32]}"


def _charge(subject: str, charged_at: datetime | None) -> str:
    return f"{subject}|{'' if charged_at is None else stamp(charged_at)}"


# --- sessions ---------------------------------------------------------------------------------------------------------


def created(session_id: str, held: Payload, at: datetime) -> Found:
    """A session that was planned, as it stands now."""
    body = _call("SessionsCreatedEvent", {"sessions": [_whole(session_id, held)]})
    return Found(kind="SessionsCreatedEvent", body=body, occurred_at=at, fact=f"session/{session_id}|created")


def updated(session_id: str, held: Payload, at: datetime, settings: Settings, last: Event | None = None) -> Found:
    """A session whose plan changed, as it stands now; `last` is the newest that this bridge knows of it."""
    planned = session(session_id, held)
    plan = _plan(f"session/{session_id}", planned, cancelled=is_cancelled(planned.status, settings))
    body = _call("SessionsUpdatedEvent", {"sessions": [_whole(session_id, held)]})
    other = last is not None and returns(last) and last.time < at and _of_update(last) not in (plan, None)
    after = last.id if last is not None and other else None
    return Found(kind="SessionsUpdatedEvent", body=body, occurred_at=at, fact=plan, after=after)


def deleted(session_id: str, class_id: str | None, told: Payload, known: Event | None, at: datetime) -> Found:
    """A session that is gone: what the feed still says of it, and what this bridge knew."""
    before = (known.data.session if known is not None else None) or Session()
    teacher = known.data.actor.key if known is not None and known.data.actor is not None else None
    gone = {
        "_id": session_id,
        "classId": class_id,
        "userId": None if teacher is None else teacher.removeprefix("wise:"),
        "title": told.at("title").maybe_text() or before.title,
        "scheduledStartTime": _stamp(told.at("scheduledStartTime").maybe_time() or before.scheduled_start),
        "scheduledEndTime": _stamp(told.at("scheduledEndTime").maybe_time() or before.scheduled_end),
        "meetingStatus": "CANCELLED",
    }
    body = _call("SessionsDeletedEvent", {"sessions": [_present(gone)]})
    return Found(kind="SessionsDeletedEvent", body=body, occurred_at=at, fact=f"session/{session_id}|deleted")


def _stamp(moment: datetime | None) -> str | None:
    return None if moment is None else stamp(moment)


def _whole(session_id: str, held: Payload) -> Json:
    """A session as its webhooks have it: class and teacher as ids."""
    names = ("createdAt", "meetingStatus", "type", "title", "scheduledStartTime", "scheduledEndTime")
    ids = {"_id": session_id, "classId": maybe_id(held.at("classId")), "userId": maybe_id(held.at("userId"))}
    return _present(ids | {name: held.at(name).value for name in names})


def taken_place(session_id: str, held: Payload, told_at: datetime | None, settings: Settings) -> Iterator[Found]:
    """What a session shows when it was held: its meeting, its recordings, its attendance.

    All of it happened when the feed tells of it, or else when the meeting began and ended, which is all that is known.
    Nobody meets in Zoom for a session in a room, whose start and end therefore have no webhook (inferred).
    """
    start, end = began(held), ended(held)
    if held.at("type").value != "OFFLINE":
        for kind, word, moment in (("MeetingStartedEvent", "started", start), ("MeetingEndedEvent", "ended", end)):
            if moment is not None:
                body = _meeting(kind, word, session_id, held, moment)
                yield Found(kind=kind, body=body, occurred_at=told_at or moment, fact=f"session/{session_id}|{word}")
    at = told_at or end or start
    if at is None:
        return
    class_id, teacher = maybe_id(held.at("classId")), maybe_id(held.at("userId"))
    for film in held.at("recordings").items():
        name = recording_name(session_id, film)
        if name is not None:
            about = _present({"sessionId": session_id, "classId": class_id, "userId": teacher})
            body = _call("RecordingCompletedEvent", about | {"recordings": [film.value]})
            yield Found(kind="RecordingCompletedEvent", body=body, occurred_at=at, fact=f"recording/{name}")
    if held.at("attendanceRecorded").maybe_flag():
        ids = _present({"_id": session_id, "classId": class_id, "userId": teacher})
        one = attendance.computation(session_id, held, settings)
        body = _call("AttendanceComputedEvent", {"session": ids})
        yield Found(kind="AttendanceComputedEvent", body=body, occurred_at=at, fact=f"attendance/{session_id}|{one}")


def _meeting(kind: str, word: str, session_id: str, held: Payload, moment: datetime) -> Json:
    """Zoom's webhook in Wise's, with the one time that is known of it."""
    zoom = {"topic": held.at("title").maybe_text(), "start_time" if word == "started" else "end_time": stamp(moment)}
    about = {"event": f"meeting.{word}", "event_ts": int(moment.timestamp() * 1000), "sessionId": session_id}
    return _call(kind, about | {"classId": maybe_id(held.at("classId")), "payload": {"object": _present(zoom)}})


# --- people and money -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Somebody's place in a class as the class has it now, and the newest entry of the feed about it."""

    entry: str
    at: datetime
    room: Json
    who: Json
    status: str

    @property
    def subject(self) -> str:
        return f"enrolment/{self.room['_id']}.{self.who['_id']}"


def membership(place: Place, known: Event | None) -> Found:
    """A place in a class. One that this bridge knows already keeps the name that it has there.

    The feed's time makes "suspended again" another fact than "suspended"; a webhook has none and takes it over.
    """
    role = "teacher" if place.entry.startswith("Teacher") else "student"
    suspension = place.status == "suspended" or (place.status == "active" and "uspended" in place.entry)
    action = "RemovedFromClassroomEvent" if place.status == "removed" else "AddedToClassroomEvent"
    kind = "StudentSuspensionUpdatedEvent" if suspension else f"{role.capitalize()}{action}"
    payload: Json = {"classroom": _present(place.room), role: _present(place.who), "eventTimestamp": stamp(place.at)}
    payload |= {"suspended": place.status == "suspended"} if suspension else {}
    payload |= {"remove": True} if place.status == "removed" else {}
    same = known is not None and known.data.enrolment is not None and known.data.enrolment.status == place.status
    told = enrolling.fact(known) if known is not None and same else None
    anew = f"{place.subject}|{place.status}|{stamp(place.at)}"
    return Found(kind=kind, body=_call(kind, payload), occurred_at=place.at, fact=told or anew)


# Others are TUTOR_PAYOUT and WISE_PREMIUM: what a teacher gets and what the institute owes Wise stand in the same list
# and have no webhook (transactions of the API as Wise's own request collection "Wise APIs" shows them).
_OF_STUDENTS: Final = "FEE_COLLECTION"


def charged(entry: Payload) -> Found | None:
    """A transaction as the webhook about it; None for those that have none, or no name.

    It happened when it was last touched: what was paid by hand is entered later, what was pending is confirmed later.
    """
    times = (entry.at(name).maybe_time() for name in ("chargedAt", "createdAt", "updatedAt"))
    at = max((time for time in times if time is not None), default=None)
    student, class_id = student_of(entry), maybe_id(class_of(entry))
    if at is None or entry.at("status").value != "CHARGED" or maybe_id(student) is None:
        return None
    if entry.first("transactionType", "metadata.invoiceType").maybe_text() not in (None, _OF_STUDENTS):
        return None
    room = _present({"_id": class_id, "name": entry.at("classroom", "name").maybe_text()})
    who = _present({"_id": wise_id(student), "name": student.at("name").maybe_text()})
    names = ("type", "status", "amount", "note", "chargedAt", "metadata")
    transaction = _present({name: entry.at(name).value for name in names})
    about: Json = ({"classroom": room} if class_id else {}) | {"student": who}
    if entry.at("type").value == "INVOICE":
        if class_id is None:
            return None
        name = invoice_reference(entry, class_of(entry), student)
        known = _charge(f"invoice/{name}", entry.at("chargedAt").maybe_time())
        body = _call("FeeInvoiceChargedEvent", about | {"transaction": transaction})
        return Found(kind="FeeInvoiceChargedEvent", body=body, occurred_at=at, fact=known) if name else None
    offline = {"type": "OFFLINE"} if entry.at("type").value == "OFFLINE_PAYMENT" else {}
    identifier = wise_id(entry)
    body = _call("FeePaymentCompletedEvent", offline | about | {"transaction": transaction | {"_id": identifier}})
    return Found(kind="FeePaymentCompletedEvent", body=body, occurred_at=at, fact=f"payment/{identifier}")


def _call(kind: str, payload: Json) -> Json:
    return {"event": kind, "payload": payload}


def _present(values: Json) -> Json:
    return {name: value for name, value in values.items() if value not in (None, "")}
