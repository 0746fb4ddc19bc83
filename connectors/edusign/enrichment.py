"""What Edusign's API adds to a thin body, kind by kind: the sheet with the signer's row, people, groups, documents.

Times of an event: Edusign's webhooks have none, its objects have DATE_CREATED and DATE_UPDATED. They are taken over
where they fit the delivery, which follows within minutes, as nothing is ever sent twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Final

from bridge.core.errors import PayloadError, SourceUnavailable
from bridge.core.events import Enrichment, Event
from bridge.core.nouns import Group, Person, Session
from bridge.core.payload import Payload
from bridge.core.source import SourceApi
from connectors.edusign import asking, shapes
from connectors.edusign.asking import ask, is_young
from connectors.edusign.completing import (
    PEOPLE,
    course_of,
    dated,
    id_of,
    moment,
    named,
    own,
    remembered,
    with_sheet,
)
from connectors.edusign.shapes import Role, soft_text

Recipe = Callable[[Event, SourceApi], Event]

_ABSENCE_PAGES: Final = 5
"""How far the list of justified absences is read for one of them; in what order it comes is not documented."""


def enriched(event: Event, api: SourceApi) -> list[Event]:
    """The event completed: `full`, `partial` or `missing`, as the manifest says of each call.

    Raises SourceUnavailable for what may be there later.
    """
    try:
        return [replace(RECIPES[event.sourceevent](event, api), observedat=api.now)]
    except PayloadError as error:
        raise SourceUnavailable(f"an answer of Edusign's API has an unexpected shape: {error}") from None


# --- sheets -----------------------------------------------------------------------------------------------------------


def _session(event: Event, api: SourceApi, *, when: str | None = None) -> Event:
    """The sheet that an event is about, or the last known one where it is gone."""
    id = id_of(event.data.session)
    sheet = own(event, api, asking.SHEET, id, gone_is_news=event.type == "session.cancelled")
    if sheet is None or id is None:
        return remembered(event, api)
    data, complete = with_sheet(event, api, sheet, id)
    return dated(event, api, data, "full" if complete else "partial", moment(sheet, when, api))


def _signature(role: Role, event: Event, api: SourceApi) -> Event:
    """A signature with the session's title and times, the signer's name, and whether and when they signed."""
    data = event.data
    sheet_id, person_id = id_of(data.session), id_of(data.person)
    sheet = ask(event, api, asking.SHEET, sheet_id, keep=asking.KEEP_SUBJECT, fresh=True, extra=True)
    row = shapes.row_of(sheet, role, person_id)
    path = asking.path_of(asking.SHEET, sheet_id)
    if path and sheet is not None and not (row and row.signed):
        # The kept sheet may be from before this signature.
        sheet = ask(event, api, asking.SHEET, sheet_id, keep=0, extra=True)
        row = shapes.row_of(sheet, role, person_id)
    if path and is_young(event, api) and not (row and row.signed):
        raise SourceUnavailable(f"GET {asking.SHEET} does not show the signature yet")
    person, had = named(event, api, role, person_id)
    titled = True
    if sheet is not None and sheet_id:
        data, titled = with_sheet(event, api, sheet, sheet_id)
    signed_at = None
    if row is not None:
        data = replace(data, attendance=shapes.attendance_of(row, api.settings))
        signed_at = data.attendance.signed_at if data.attendance else None
    if person is not None:
        data = replace(data, person=person)
    found = [row is not None] * (sheet_id is not None) + [had]
    grade: Enrichment = "full" if all(found) and titled else "partial" if sheet is not None or any(found) else "missing"
    return dated(event, api, data, grade, signed_at)


def _absence(event: Event, api: SourceApi) -> Event:
    """An absence: whose it is and since when, by the list of justifications, and the sheet and row it is about.

    One that was declared by the API is declared for a sheet, in COURSE_ID (github.com/lewagon/edusign,
    lib/edusign/client.rb); that the list gives it back is inferred.
    """
    data, attendance = event.data, event.data.attendance
    report = attendance.report_ref if attendance else None
    entry = _justification(event, api, report) if report else None
    if entry is None and report and is_young(event, api):
        raise SourceUnavailable(f"GET {asking.ABSENCES} does not show the absence yet")
    person_id = id_of(data.person) or (soft_text(entry.at("STUDENT_ID")) if entry else None)
    person, had = named(event, api, "learner", person_id)
    found = [had, *([entry is not None] if report else [])]
    if person is not None:
        data = replace(data, person=person)
    elif person_id:
        data = replace(data, person=shapes.person_of(person_id, "learner", Payload(None), api.settings))
    if entry is not None and report:
        data = replace(data, artifact=shapes.proof_of(entry, report))
    sheet_id = id_of(data.session) or (soft_text(entry.at("COURSE_ID")) if entry else None)
    if sheet_id:
        sheet = ask(event, api, asking.SHEET, sheet_id, keep=asking.KEEP_SUBJECT, fresh=True, extra=True)
        found.append(sheet is not None)
        if sheet is not None:
            data, titled = with_sheet(replace(event, data=data), api, sheet, sheet_id)
            found.append(titled)
    grade: Enrichment = "full" if all(found) else "partial" if any(found) else "missing"
    column = "REQUEST_DATE" if event.sourceevent == "on_request_justified_absence" else "DATE_CREATION"
    return dated(event, api, data, grade, moment(entry, column, api) if entry else None)


def _justification(event: Event, api: SourceApi, id: str) -> Payload | None:
    """One justified absence. No page tells how to ask for a single one; clients read the list."""
    for number in range(_ABSENCE_PAGES):
        entries = asking.ask_list(event, api, asking.ABSENCES, {"page": str(number)}, keep=asking.KEEP_SUBJECT)
        found = next((entry for entry in entries if soft_text(entry.at("ID")) == id), None)
        if found is not None or not entries:
            return found
    return None


# --- people and groups ------------------------------------------------------------------------------------------------


def _person(role: Role, event: Event, api: SourceApi, *, when: str) -> Event:
    """Somebody whom an event is about. Edusign archives: a deleted one is still shown, as HIDDEN, or not any more."""
    id = id_of(event.data.person)
    record = own(event, api, PEOPLE[role], id, gone_is_news=event.type == "person.deleted")
    if record is None or id is None:
        return remembered(event, api)
    data = replace(event.data, person=shapes.person_of(id, role, record, api.settings))
    return dated(event, api, data, "full", moment(record, when, api))


def _email(event: Event, api: SourceApi) -> Event:
    """Whose address does not work. The address that came back stays, whatever the record says by now.

    An address alone is looked for among the students by `search`: it never becomes part of a path, which is shown.
    """
    person = event.data.person or Person()
    role: Role = "instructor" if person.role == "instructor" else "learner"
    id, address = id_of(person), person.email
    record: Payload | None
    if id:
        record = own(event, api, PEOPLE[role], id)
    else:
        query = {"page": "0", "search": address or ""}
        entries = asking.ask_list(event, api, asking.STUDENTS, query, keep=asking.KEEP_SUBJECT) if address else []
        same = (entry for entry in entries if _folded(soft_text(entry.at("EMAIL"))) == _folded(address))
        record = next(same, None)
        id = soft_text(record.at("ID")) if record else None
    if record is None or id is None:
        return remembered(event, api)
    found = shapes.person_of(id, role, record, api.settings)
    return replace(
        event, data=replace(event.data, person=replace(found, email=address or found.email)), enrichment="full"
    )


def _group(event: Event, api: SourceApi, *, when: str) -> Event:
    group = event.data.group or Group()
    record = own(event, api, asking.GROUP, id_of(group), gone_is_news=event.type == "group.deleted")
    if record is None:
        return remembered(event, api)
    data = replace(event.data, group=replace(group, name=soft_text(record.at("NAME"))))
    return dated(event, api, data, "full", moment(record, when, api))


# --- documents and surveys --------------------------------------------------------------------------------------------


def _document(event: Event, api: SourceApi) -> Event:
    """Title, owner and programme. Its links open it for whoever has them (DOCUMENT_URL, PDF_URL): none is taken."""
    data, artifact = event.data, event.data.artifact
    record = own(event, api, asking.DOCUMENT, id_of(artifact))
    if record is None or artifact is None:
        return remembered(event, api)
    student, professor = soft_text(record.at("STUDENT_ID")), soft_text(record.at("PROFESSOR_ID"))
    person, had = None, True
    if student or professor:
        role: Role = "learner" if student else "instructor"
        person, had = named(event, api, role, student or professor)
        person = person or shapes.person_of(student or professor, role, Payload(None), api.settings)
    course, titled = course_of(event, api, record)
    data = replace(data, artifact=replace(artifact, title=soft_text(record.at("NAME"))), person=person, course=course)
    return dated(event, api, data, "full" if had and titled else "partial", moment(record, "DATE_UPDATED", api))


def _survey(event: Event, api: SourceApi) -> Event:
    """Title, session and programme of a survey; who answered only where the API itself says that it is not anonymous.

    Whatever goes wrong, an event never goes on with a person whom the API has not cleared. One that came with somebody
    is therefore not given up with an error on its last try, as it would go on as it came.
    """
    bare = replace(event, data=replace(event.data, person=None), enrichment="missing")
    artifact, id = event.data.artifact, id_of(event.data.artifact)
    patience = asking.REFUSED_FOR if event.data.person is None else timedelta(0)
    record = ask(
        event, api, asking.SURVEY, id, keep=asking.KEEP_SUBJECT, fresh=True, extra=True, patience=patience
    )  # fmt: skip
    if record is None or artifact is None:
        if asking.path_of(asking.SURVEY, id) and is_young(event, api):
            raise SourceUnavailable(f"GET {asking.SURVEY} does not show the survey yet")
        return bare
    course, titled = course_of(event, api, record)
    sheet = soft_text(record.at("COURSE_ID"))
    data = replace(
        bare.data,
        artifact=replace(artifact, title=soft_text(record.at("NAME"))),
        course=course,
        session=Session(key=shapes.key_of(sheet)) if sheet else None,
    )
    had = True
    if event.data.person is not None and shapes.names_people(record):
        person, had = named(event, api, "learner", id_of(event.data.person))
        data = replace(data, person=person or event.data.person)
    return replace(event, data=data, enrichment="full" if had and titled else "partial")


def _folded(address: str | None) -> str | None:
    return address.strip().casefold() if address else None


_CREATED, _UPDATED = "DATE_CREATED", "DATE_UPDATED"
_ROLES: Final[Mapping[str, Role]] = {"student": "learner", "teacher": "instructor"}

RECIPES: Final[Mapping[str, Recipe]] = {
    "on_course_created": partial(_session, when=_CREATED),
    "on_course_edited": partial(_session, when=_UPDATED),
    **dict.fromkeys(("on_course_start", "on_course_end", "on_course_deleted", "on_course_locked"), _session),
    **dict.fromkeys(("on_zoom_meeting_created", "on_abscence_report_generated"), _session),
    **dict.fromkeys(("on_justified_absence", "on_request_justified_absence"), _absence),
    "on_student_sign": partial(_signature, "learner"),
    "on_teacher_sign": partial(_signature, "instructor"),
    **{
        f"on_{noun}_{what}": partial(_person, role, when=_CREATED if what == "created" else _UPDATED)
        for noun, role in _ROLES.items()
        for what in ("created", "edited", "deleted", "unremoved")
    },
    **{
        f"on_group_{what}": partial(_group, when=_CREATED if what == "created" else _UPDATED)
        for what in ("created", "edited", "deleted", "unremoved")
    },
    "on_email_invalid": _email,
    "on_document_completed": _document,
    "on_survey_answer": _survey,
}
"""Only what has an endpoint behind it: cron_midnight and on_app_parameters_changed say all they have to say."""
