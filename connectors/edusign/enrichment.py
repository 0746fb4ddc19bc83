"""What Edusign's API adds to a signature: the sheet with the signer's row, and the person.

HTTP 200 does not mean success, the envelope's `status` does (developers.edusign.com/docs/requests-and-responses).
`GET /v1/course/lock/{id}` LOCKS a sheet although it is a GET: paths are made here from plain ids only, never from what
a body says.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Final

from bridge.core.contracts import Settings, SourceApi
from bridge.core.errors import PayloadError, SourceUnavailable
from bridge.core.events import Enrichment, Event
from bridge.core.nouns import Person, Session
from bridge.core.payload import Payload
from connectors.edusign.shapes import attendance_of, course_of, has_signed, person_of, session_of, soft_flag, soft_text

SHEET: Final = "/v1/course/{courseId}"
STUDENT: Final = "/v1/student/{studentId}"

_PLAIN_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KEEP_SHEET: Final = 30
_KEEP_PERSON: Final = 600


def enriched(event: Event, api: SourceApi) -> list[Event]:
    """A signature with the session's title and times, the signer's name, and whether and when they signed.

    `full` when sheet, row and person are there, `partial` when some are, `missing` when none is.
    """
    try:
        return [_signature(event, api)]
    except PayloadError as error:
        raise SourceUnavailable(f"an answer of Edusign's API has an unexpected shape: {error}") from None


def _signature(event: Event, api: SourceApi) -> Event:
    data = event.data
    course_id, student_id = _id_of(data.session), _id_of(data.person)
    young = api.now - event.recordedtime < timedelta(seconds=api.settings.options["settling_seconds"])
    sheet = _ask(api, SHEET, course_id, keep=_KEEP_SHEET)
    row = _row(sheet, student_id)
    if sheet is not None and not _signed(row):
        # The sheet may have been kept since before this signature: one more look at the present one.
        sheet = _ask(api, SHEET, course_id)
        row = _row(sheet, student_id)
    if course_id and young and (sheet is None or not _signed(row)):
        raise SourceUnavailable(f"GET {SHEET} does not show the signature yet")
    student = _ask(api, STUDENT, student_id, keep=_KEEP_PERSON)

    if sheet is not None and course_id:
        data = replace(
            data,
            session=session_of(course_id, _status_of(sheet), sheet, api.settings),
            course=course_of(sheet) or data.course,
        )
    if row is not None:
        data = replace(data, attendance=attendance_of(row, api.settings))
    if student is not None and student_id:
        data = replace(data, person=person_of(student_id, "learner", student, api.settings))
    found = [sheet is not None and row is not None] * (course_id is not None) + [student is not None]
    grade: Enrichment = "full" if all(found) else "partial" if sheet is not None or any(found) else "missing"
    return replace(event, data=data, enrichment=grade, observedat=api.now)


def _id_of(noun: Session | Person | None) -> str | None:
    return noun.key.removeprefix("edusign:") if noun is not None and noun.key else None


def _row(sheet: Payload | None, student: str | None) -> Payload | None:
    """The signer's row of a sheet; in STUDENTS, alone among the columns, the keys are camel case."""
    if sheet is None or student is None:
        return None
    return next((row for row in sheet.at("STUDENTS").items() if soft_text(row.at("studentId")) == student), None)


def _signed(row: Payload | None) -> bool:
    return row is not None and has_signed(row)


def _status_of(sheet: Payload) -> str | None:
    return "locked" if soft_flag(sheet.at("LOCKED")) else None


def _ask(api: SourceApi, template: str, id: str | None, *, keep: float = 0) -> Payload | None:
    """An object by its id; None when there is none. Raises SourceUnavailable for a refusal that may pass."""
    if id is None or not _PLAIN_ID.fullmatch(id):
        return None
    path = template[: template.index("{")] + id
    answer = api.get(path, keep=keep)
    if answer is not None and answer.at("status").value != "success" and keep:
        answer = api.get(path)  # a refusal must not be kept as long as a person's name
    if answer is None:
        return None
    if answer.at("status").value == "success":
        result = answer.at("result")
        return result.object() if result.present and result.value != [] else None
    if _says_gone(answer, api.settings):
        return None
    raise SourceUnavailable(f"GET {template} answered 200 with a status other than success")


def _says_gone(answer: Payload, settings: Settings) -> bool:
    """`message` is a text, or a list of them for validation errors; its words are nowhere documented."""
    message = answer.at("message")
    said = [message] if isinstance(message.value, str) else list(message.items())
    words = " ".join(soft_text(part) or "" for part in said).casefold()
    return any(sign.casefold() in words for sign in settings.options["not_found_messages"])
