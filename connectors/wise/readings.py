"""What each of Wise's events says, as canonical type, subject and data.

Every key of a payload may be missing; a reader insists only on the ids without which its event would say nothing.
"""

from __future__ import annotations

from bridge.core.errors import PayloadError
from bridge.core.nouns import Artifact, Change, Data, Enrolment, Identifier, Payment, Person, Session
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from connectors.wise.nouns import course, is_cancelled, maybe_id, money, names, person, recording_name, session, wise_id

Reading = tuple[str, str, Data]
"""Canonical type, subject, data."""


def unknown(payload: Payload, settings: Settings) -> Reading:
    raise PayloadError(payload.path, "a known event")


def meeting(type_: str, payload: Payload, settings: Settings) -> Reading:
    """Zoom's webhook is wrapped with the session's id, which alone is Wise's own."""
    session_id = wise_id(payload.at("sessionId"))
    zoom = payload.first("payload.object", "object")
    shared = zoom.at("participant", "sharing_details", "content").maybe_text()
    data = Data(
        person=_attendee(zoom.at("participant"), session_id, settings),
        course=course(payload.at("classId")),
        session=Session(
            key=f"wise:{session_id}",
            title=zoom.at("topic").maybe_text(),
            actual_start=zoom.at("start_time").maybe_time(),
            actual_end=zoom.at("end_time").maybe_time(),
        ),
        change=Change(field="sharing", new=shared) if shared else None,
    )
    return type_, f"session/{session_id}", data


def _attendee(participant: Payload, session_id: str, settings: Settings) -> Person | None:
    """A participant has Zoom's ids only: participant_uuid names one stay, user_id somebody within one meeting."""
    if not participant.keys():
        return None
    ids = {
        "zoom.participantUuid": participant.at("participant_uuid").maybe_text(),
        "zoom.userId": participant.at("user_id").maybe_text(),
        "zoom.participantUserId": participant.first("participant_user_id", "id").maybe_text(),
    }
    here = ids["zoom.userId"] or ids["zoom.participantUserId"]
    known = ids["zoom.participantUuid"] or (f"{session_id}.{here}" if here else None)
    given, family = names(participant.at("user_name").maybe_text(), settings)
    return Person(
        key=f"wise:zoom.{known}" if known else None,
        email=participant.at("email").maybe_text(),
        given_name=given,
        family_name=family,
        identifiers=tuple(Identifier(scheme=scheme, value=value) for scheme, value in ids.items() if value),
    )


def recording(payload: Payload, settings: Settings) -> Reading:
    session_id = wise_id(payload.at("sessionId"))
    file = payload.at("recording")
    known = recording_name(session_id, file)
    data = Data(
        actor=person(payload.at("userId"), settings),  # the teacher? The page does not say.
        course=course(payload.at("classId")),
        session=Session(key=f"wise:{session_id}"),
        artifact=Artifact(
            key=f"wise:{known}" if known else None,
            kind="recording",
            url=file.at("url").maybe_text(),
            title=file.at("type").maybe_text(),
        ),
    )
    return "session.recording_completed", f"session/{session_id}", data


def attendance(payload: Payload, settings: Settings) -> Reading:
    """Ids only; the numbers come by enrichment."""
    held = payload.first("session", "sessionId")
    data = Data(
        actor=person(held.at("userId"), settings),
        course=course(held.at("classId")),
        session=Session(key=f"wise:{wise_id(held)}"),
    )
    return "attendance.computed", f"attendance/{wise_id(held)}", data


def certificate(payload: Payload, settings: Settings) -> Reading:
    issued = payload.at("certificate")
    identifier = wise_id(issued)
    data = Data(
        person=person(payload.at("student"), settings, "learner"),
        course=course(payload.at("classroom")),
        artifact=Artifact(
            key=f"wise:{identifier}",
            kind="certificate",
            url=issued.at("url").maybe_text(),
            title=issued.at("certificateNumber").maybe_text(),
        ),
    )
    return "certificate.issued", f"certificate/{identifier}", data


def _member(payload: Payload, who: str) -> str:
    return f"{wise_id(payload.at('classroom'))}.{wise_id(payload.at(who))}"


def enrolment(type_: str, who: str, payload: Payload, settings: Settings) -> Reading:
    role = "learner" if who == "student" else "instructor"
    status = "active" if type_ == "enrolment.added" else "removed"
    data = Data(
        person=person(payload.at(who), settings, role),
        course=course(payload.at("classroom")),
        enrolment=Enrolment(role=role, status=status),
    )
    return type_, f"enrolment/{_member(payload, who)}", data


def suspension(payload: Payload, settings: Settings) -> Reading:
    """One name for both directions; overDue is there when it is about fees."""
    suspended = payload.at("suspended").flag()
    amount, currency = money(payload.at("overDue"), settings)
    data = Data(
        person=person(payload.at("student"), settings, "learner"),
        actor=person(payload.at("teacher"), settings, "instructor"),
        course=course(payload.at("classroom")),
        enrolment=Enrolment(
            role="learner",
            status="suspended" if suspended else "active",
            reason=payload.at("reason").maybe_text(),
        ),
        payment=Payment(amount_minor=amount, currency=currency, status="overdue") if currency else None,
    )
    type_ = "enrolment.suspended" if suspended else "enrolment.reinstated"
    return type_, f"enrolment/{_member(payload, 'student')}", data


def fee(kind: str, payload: Payload, settings: Settings) -> Reading:
    """A payment has an id. The published invoice has none: there, student, class and instalment are its name."""
    transaction = payload.at("transaction")
    details = transaction.at("metadata")
    student, classroom = payload.at("student"), payload.at("classroom")
    instalment = details.at("index").maybe_integer()
    reference = maybe_id(transaction)
    if reference is None and kind == "invoice":
        reference = invoice_reference(transaction, classroom, student)
    if reference is None:
        raise PayloadError(transaction.at("_id").path, "an id")
    amount, currency = money(transaction.at("amount"), settings)
    data = Data(
        person=person(student, settings, "learner"),
        course=course(classroom) or course(details.at("classId")),
        payment=Payment(
            kind=kind,
            amount_minor=amount,
            currency=currency,
            status=transaction.at("status").maybe_text(),
            charged_at=transaction.at("chargedAt").maybe_time(),
            instalment=instalment,
            reference=reference,
        ),
    )
    return ("payment.completed" if kind == "payment" else "invoice.charged"), f"{kind}/{reference}", data


def invoice_reference(transaction: Payload, classroom: Payload, student: Payload) -> str | None:
    """What an invoice is for: student, class and instalment, or without a plan the time of the charge."""
    details = transaction.at("metadata")
    plan, charged = maybe_id(details.at("installmentId")), transaction.at("chargedAt").maybe_text()
    own = f"{plan}.{details.at('index').maybe_integer()}" if plan else charged
    return f"{wise_id(classroom)}.{wise_id(student)}.{own}" if own else None


def scheduled(type_: str, payload: Payload, settings: Settings) -> Reading:
    """A cancellation comes as an update whose meetingStatus says so, a deletion as an event of its own."""
    identifier = wise_id(payload)
    planned = session(identifier, payload)
    if type_ == "session.rescheduled" and is_cancelled(planned.status, settings):
        type_ = "session.cancelled"
    data = Data(
        actor=person(payload.at("userId"), settings),  # the teacher? The page does not say.
        course=course(payload.at("classId")),
        session=planned,
    )
    return type_, f"session/{identifier}", data
