"""Per native kind: its canonical type, and how subject and data are read from either style of body.

Only the body of `on_course_created` is published (developers.edusign.com/docs/webhooks-documentation), and
`course.ID` / `student.ID` of a school's `on_student_sign` stand in the vendor's Moodle plugin. Where other ids stand is
inferred from the keys of the actions' `context`; the `…_id_paths` options list the candidates, first hit wins.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from bridge.core.errors import PayloadError
from bridge.core.nouns import Artifact, Attendance, Change, Data, Group
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.core.signing import fingerprint
from bridge.core.source import Notice
from connectors.edusign.shapes import Role, course_of, key_of, person_of, session_of, soft_flag, soft_text

Reader = Callable[[Notice, Settings], tuple[str, Data]]
"""Gives subject and data of a notice; raises PayloadError where the id is missing that the event is about."""

_ID: Final = re.compile(r"\S{1,128}")
_NOUNS: Final[Mapping[Role, str]] = {"learner": "student", "instructor": "teacher"}
_RECORDS: Final[Mapping[Role, tuple[str, ...]]] = {"learner": ("student",), "instructor": ("professor", "teacher")}


def _id(notice: Notice, settings: Settings, *nouns: str) -> str:
    """The first id found of these nouns. Raises PayloadError with the place that was looked at."""
    found = notice.payload.first(*(path for noun in nouns for path in settings.options[f"{noun}_id_paths"]))
    if not _ID.fullmatch(found.text()):
        raise PayloadError(found.path, "an id without blanks, of at most 128 characters")
    return found.text()


def _maybe_id(notice: Notice, settings: Settings, noun: str) -> str | None:
    id = soft_text(notice.payload.first(*settings.options[f"{noun}_id_paths"]))
    return id if id and _ID.fullmatch(id) else None


def _record(notice: Notice, *names: str) -> Payload:
    """The nested object of a school's webhook; missing in an app's."""
    return notice.payload.first(*names)


def _school(notice: Notice, settings: Settings) -> tuple[str, Data]:
    return f"school/{notice.tenant}", Data()


def _parameters(notice: Notice, settings: Settings) -> tuple[str, Data]:
    return f"school/{notice.tenant}", Data(change=Change(field="appParameters"))


def _session(status: str | None, notice: Notice, settings: Settings) -> tuple[str, Data]:
    id, record = _id(notice, settings, "course"), _record(notice, "course")
    return f"session/{id}", Data(session=session_of(id, status, record, settings), course=course_of(record))


def _meeting(notice: Notice, settings: Settings) -> tuple[str, Data]:
    id, record = _id(notice, settings, "course"), _record(notice, "course")
    url = soft_text(notice.payload.first(*settings.options["meeting_url_paths"]))
    session = replace(session_of(id, None, record, settings), join_url=url)
    return f"session/{id}", Data(session=session, course=course_of(record))


def _signature(role: Role, notice: Notice, settings: Settings) -> tuple[str, Data]:
    """Who signs was there, and enrichment says whether in time.

    The guide speaks of signing "a document"; without a sheet's id `session` is None, so that mappings can tell.
    """
    course, person = (_maybe_id(notice, settings, noun) for noun in ("course", _NOUNS[role]))
    data = Data(
        person=person_of(person, role, _record(notice, *_RECORDS[role]), settings),
        course=course_of(_record(notice, "course")),
        session=session_of(course, None, _record(notice, "course"), settings) if course else None,
        attendance=Attendance(status="present"),
    )
    return f"attendance/{_id(notice, settings, 'course', 'document', _NOUNS[role])}", data


def _absence_report(notice: Notice, settings: Settings) -> tuple[str, Data]:
    course, report = _maybe_id(notice, settings, "course"), _maybe_id(notice, settings, "absence")
    url = soft_text(notice.payload.first(*settings.options["report_url_paths"]))
    data = Data(
        session=session_of(course, None, _record(notice, "course"), settings) if course else None,
        attendance=Attendance(report_ref=report),
        artifact=Artifact(key=key_of(report) if report else None, kind="report", url=url),
    )
    return f"absence/{_id(notice, settings, 'course', 'absence')}", data


def _absence(status: str, notice: Notice, settings: Settings) -> tuple[str, Data]:
    course, student = (_maybe_id(notice, settings, noun) for noun in ("course", "student"))
    data = Data(
        person=person_of(student, "learner", _record(notice, "student"), settings),
        session=session_of(course, None, _record(notice, "course"), settings) if course else None,
        attendance=Attendance(status=status, report_ref=_maybe_id(notice, settings, "absence")),
    )
    return f"absence/{_id(notice, settings, 'absence', 'course', 'student')}", data


def _person(role: Role, notice: Notice, settings: Settings) -> tuple[str, Data]:
    id = _id(notice, settings, _NOUNS[role])
    return f"person/{id}", Data(person=person_of(id, role, _record(notice, *_RECORDS[role]), settings))


def _email(notice: Notice, settings: Settings) -> tuple[str, Data]:
    """What the body holds is unknown: the address, somebody's id, or both. An address alone never becomes a subject."""
    student, teacher = (_maybe_id(notice, settings, noun) for noun in ("student", "teacher"))
    role: Role | None = "learner" if student else "instructor" if teacher else None
    id = student or teacher
    address = notice.payload.first(*settings.options["email_paths"])
    email = soft_text(address) if id else address.text()
    person = person_of(id, role, _record(notice, *(_RECORDS[role] if role else ("person",))), settings)
    subject = id or "email-" + fingerprint([(email or "").strip().lower()])[:16]
    return f"person/{subject}", Data(person=replace(person, email=email or person.email))


def _group(action: str, notice: Notice, settings: Settings) -> tuple[str, Data]:
    id, record = _id(notice, settings, "group"), _record(notice, "group")
    return f"group/{id}", Data(group=Group(key=key_of(id), name=soft_text(record.at("NAME")), action=action))


def _document(notice: Notice, settings: Settings) -> tuple[str, Data]:
    """Its columns hold links that open it for whoever has them (DOCUMENT_URL, PDF_URL, tokens): none is taken over."""
    id, record = _id(notice, settings, "document"), _record(notice, "document")
    return f"document/{id}", Data(
        artifact=Artifact(key=key_of(id), kind="document", title=soft_text(record.at("NAME"))),
    )


def _survey(notice: Notice, settings: Settings) -> tuple[str, Data]:
    """A thin body cannot say that a survey is anonymous, so nobody is named unless the operator knows better."""
    id, record = _id(notice, settings, "survey"), _record(notice, "survey")
    student = _maybe_id(notice, settings, "student")
    named = settings.options["name_survey_people"] and not soft_flag(record.at("ANONYMOUS"))
    return f"survey/{id}", Data(
        person=person_of(student, "learner", _record(notice, "student"), settings) if student and named else None,
        artifact=Artifact(key=key_of(id), kind="survey", title=soft_text(record.at("NAME"))),
    )


RULES: Final[Mapping[str, tuple[str, Reader]]] = {
    "cron_midnight": ("source.tick", _school),
    "on_course_created": ("session.scheduled", partial(_session, "scheduled")),
    "on_course_start": ("session.started", partial(_session, "started")),
    "on_course_edited": ("session.rescheduled", partial(_session, "scheduled")),
    "on_course_end": ("session.ended", partial(_session, "ended")),
    "on_course_deleted": ("session.cancelled", partial(_session, "cancelled")),
    "on_course_locked": ("session.locked", partial(_session, "locked")),
    "on_abscence_report_generated": ("attendance.absence_report_generated", _absence_report),  # their spelling
    "on_justified_absence": ("attendance.absence_justified", partial(_absence, "excused")),
    "on_request_justified_absence": ("attendance.absence_justification_requested", partial(_absence, "absent")),
    "on_zoom_meeting_created": ("session.meeting_created", _meeting),
    "on_student_sign": ("attendance.signed", partial(_signature, "learner")),
    "on_student_created": ("person.created", partial(_person, "learner")),
    "on_student_edited": ("person.updated", partial(_person, "learner")),
    "on_student_deleted": ("person.deleted", partial(_person, "learner")),
    "on_student_unremoved": ("person.restored", partial(_person, "learner")),
    "on_teacher_sign": ("attendance.signed", partial(_signature, "instructor")),
    "on_teacher_created": ("person.created", partial(_person, "instructor")),
    "on_teacher_edited": ("person.updated", partial(_person, "instructor")),
    "on_teacher_deleted": ("person.deleted", partial(_person, "instructor")),
    "on_teacher_unremoved": ("person.restored", partial(_person, "instructor")),
    "on_group_created": ("group.created", partial(_group, "created")),
    "on_group_edited": ("group.updated", partial(_group, "updated")),
    "on_group_deleted": ("group.deleted", partial(_group, "deleted")),
    "on_group_unremoved": ("group.restored", partial(_group, "restored")),
    "on_document_completed": ("document.completed", _document),
    "on_survey_answer": ("survey.answered", _survey),
    "on_email_invalid": ("person.email_invalid", _email),
    "on_app_parameters_changed": ("source.configuration_changed", _parameters),
}
