"""Edusign's own objects (upper-case columns, nested ones in camel case) as nouns of the canonical event.

One reading for both places where they turn up: nested in the bodies of school webhooks, and in answers of the API.
Columns are picked one by one: PASSWORD, PIN, login tokens, signature images and IP addresses are in these objects too
(developers.edusign.com/reference), and nothing that is not named here can reach an event.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bridge.core.contracts import Settings
from bridge.core.errors import PayloadError
from bridge.core.nouns import Attendance, Course, Identifier, Person, Session
from bridge.core.payload import Payload

Role = Literal["learner", "instructor"]

_ID_SCHEMES: Final = {"learner": "edusign.studentId", "instructor": "edusign.professorId"}


def key_of(id: str) -> str:
    return f"edusign:{id}"


def person_of(id: str | None, role: Role | None, record: Payload, settings: Settings) -> Person:
    """Somebody by their id, with what a STUDENT or PROFESSOR record (which may be missing) adds."""
    identifiers = [Identifier(scheme=_ID_SCHEMES[role], value=id)] if id and role else []
    for column, scheme in settings.options["identifier_fields"].items():
        value = soft_text(record.at(column))
        if value is not None:
            identifiers.append(Identifier(scheme=scheme, value=value))
    return Person(
        key=key_of(id) if id else None,
        role=role,
        email=soft_text(record.at("EMAIL")),
        given_name=soft_text(record.at("FIRSTNAME")),
        family_name=soft_text(record.at("LASTNAME")),
        identifiers=tuple(identifiers),
    )


def session_of(id: str, status: str | None, record: Payload, settings: Settings) -> Session:
    """A class session by the id of its "course" (Edusign's word for one attendance sheet)."""
    return Session(
        key=key_of(id),
        title=soft_text(record.at("NAME")),
        scheduled_start=moment(record.at("START"), settings),
        scheduled_end=moment(record.at("END"), settings),
        status=status,
    )


def course_of(record: Payload) -> Course | None:
    """The programme ("training") that a sheet belongs to."""
    training = soft_text(record.at("TRAINING_ID"))
    if training is None:
        return None
    return Course(key=key_of(training), identifiers=(Identifier(scheme="edusign.trainingId", value=training),))


def has_signed(row: Payload) -> bool:
    """Edusign's own Moodle plugin goes by the signature alone (github.com/Edusign/moodle-mod_edusign, locallib.php).

    A row that the platform calls present and dates counts too: may a key without the right to see signatures get them
    empty? Unknown.
    """
    return row.at("signature").present or (row.at("timestamp").present and soft_flag(row.at("state")))


def attendance_of(row: Payload, settings: Settings) -> Attendance:
    """A row of a sheet's STUDENTS: present or late when signed, else excused, unknown (a mail is out) or absent."""
    mailed = row.at("signatureEmail").present
    if not has_signed(row):
        excused, waiting = row.at("absenceId").present, mailed
        return Attendance(status="excused" if excused else "unknown" if waiting else "absent")
    return Attendance(
        status="late" if _minutes(row.at("delay")) > 0 else "present",
        signed_at=moment(row.at("timestamp"), settings),
        method="email" if mailed else "sheet",
    )


def moment(value: Payload, settings: Settings) -> datetime | None:
    """An aware UTC time; naive ones are read in `naive_timezone`, because integrators disagree on what they mean.

    None for anything that is no time. Raises PayloadError when the option names no known time zone.
    """
    found = value.maybe_time()
    if found is None or not isinstance(value.value, str) or _is_aware(value.value):
        return found
    try:
        return found.replace(tzinfo=_zone(settings.options["naive_timezone"])).astimezone(UTC)
    except OverflowError:
        return None


def soft_text(value: Payload) -> str | None:
    """A text that is welcome but not needed: another shape counts as missing."""
    try:
        return value.maybe_text()
    except PayloadError:
        return None


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise PayloadError("option naive_timezone", "the IANA name of a time zone") from None


def _is_aware(text: str) -> bool:
    try:
        return datetime.fromisoformat(text.strip()).tzinfo is not None
    except ValueError:
        return True


def soft_flag(value: Payload) -> bool:
    try:
        return bool(value.maybe_flag())
    except PayloadError:
        return False


def _minutes(value: Payload) -> float:
    try:
        return value.maybe_integer() or 0
    except PayloadError:
        return 0
