"""Edusign's own objects (upper-case columns, nested ones in camel case) as nouns of the canonical event.

One reading for both places where they turn up: nested in the bodies of school webhooks, and in answers of the API.
Columns are picked one by one: PASSWORD, PIN, login tokens, signature images and IP addresses are in these objects too
(developers.edusign.com/reference), and nothing that is not named here can reach an event.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bridge.core.errors import PayloadError
from bridge.core.nouns import Artifact, Attendance, Course, Identifier, Person, Session
from bridge.core.payload import Payload
from bridge.core.settings import Settings

Role = Literal["learner", "instructor"]

_ID_SCHEMES: Final = {"learner": "edusign.studentId", "instructor": "edusign.professorId"}


def key_of(id: str) -> str:
    return f"edusign:{id}"


def id_of(key: str) -> str:
    return key.removeprefix("edusign:")


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


def names_people(survey: Payload) -> bool:
    """Whether a survey says that it is not anonymous; one that says nothing readable counts as anonymous."""
    try:
        return survey.at("ANONYMOUS").maybe_flag() is False
    except PayloadError:
        return False


def proof_of(absence: Payload, id: str) -> Artifact | None:
    """That somebody sent in a proof of their absence. Not its FILE_URL, TYPE or COMMENT: those may speak of illness."""
    return Artifact(key=key_of(id), kind="document") if absence.at("FILE_URL").present else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Somebody on a sheet. `late` is in minutes; `stay` is where the times of the row stand."""

    signed: bool
    at: Payload
    excused: bool = False
    mailed: bool = False
    late: float = 0
    stay: Payload = field(default_factory=lambda: Payload(None))


def rows(sheet: Payload) -> Iterator[tuple[str, Row]]:
    """The students of a sheet; in STUDENTS, alone among the columns, the keys are camel case.

    Edusign's own Moodle plugin goes by the signature alone (github.com/Edusign/moodle-mod_edusign, locallib.php). A row
    that the platform calls present and dates counts too: lists show states only, and may a key without the right to
    see signatures get them empty? Unknown.
    """
    for row in sheet.at("STUDENTS").items():
        id = soft_text(row.at("studentId"))
        if id is not None:
            yield (
                id,
                Row(
                    signed=row.at("signature").present or (row.at("timestamp").present and soft_flag(row.at("state"))),
                    at=row.at("timestamp"),
                    excused=row.at("absenceId").present,
                    mailed=row.at("signatureEmail").present,
                    late=_minutes(row.at("delay")),
                    stay=row,
                ),
            )


def teacher_rows(sheet: Payload) -> Iterator[tuple[str, Row]]:
    """The teachers of a sheet: they have signed when PROFESSOR_SIGNATURE(_n) is not empty (seen in clients).

    The columns of their times are inferred from the one that the reference names, PROFESSOR_SIGNATURE_TIMESTAMP.
    """
    for slot in ("", "_2", "_3"):
        id = soft_text(sheet.at(f"PROFESSOR{slot}"))
        if id is not None:
            at = sheet.first(f"PROFESSOR_SIGNATURE_TIMESTAMP{slot}", f"PROFESSOR_SIGNATURE{slot}_TIMESTAMP")
            yield id, Row(signed=sheet.at(f"PROFESSOR_SIGNATURE{slot}").present, at=at)


def row_of(sheet: Payload | None, role: Role, id: str | None) -> Row | None:
    """Somebody's row of a sheet."""
    if sheet is None or id is None:
        return None
    return dict(rows(sheet) if role == "learner" else teacher_rows(sheet)).get(id)


def attendance_of(row: Row, settings: Settings) -> Attendance:
    """A row as attendance: present or late when signed, else excused, unknown (a mail is out) or absent."""
    if not row.signed:
        return Attendance(status="excused" if row.excused else "unknown" if row.mailed else "absent")
    return Attendance(
        status="late" if row.late > 0 else "present",
        signed_at=moment(row.at, settings),
        method="email" if row.mailed else "sheet",
        minutes=_stayed(row, settings),
    )


def _stayed(row: Row, settings: Settings) -> int | None:
    """Minutes in class of somebody who went, or was sent, before the end; None where no row says so."""
    start, left = moment(row.stay.at("start"), settings), moment(row.stay.first("earlyDeparture", "excluded"), settings)
    if start is None or left is None:
        return None
    return max(0, int((left - start).total_seconds() / 60 - row.late))


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


def is_hidden(record: Payload) -> bool:
    """Whether somebody or a group is archived: HIDDEN is 0 or 1, and of teachers a list of schools."""
    hidden = record.at("HIDDEN")
    return bool(hidden.value) if isinstance(hidden.value, list) else soft_flag(hidden)


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
