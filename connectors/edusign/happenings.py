"""What Edusign's lists say has happened: the only way to learn of what was lost, as no webhook is ever sent twice.

Sheets by their dates of creation and of update, signatures by the rows of the sheets, students by `updatedAfter`,
teachers and groups by reading all of them, justified absences, and documents that were completed.

What no list can show: an edit that a later one overtook, a survey's answers, meetings, reports, mail that came back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Final, Protocol, runtime_checkable

from bridge.core.events import Event, stamp
from bridge.core.payload import Payload
from bridge.core.source import Found, SourceApi
from connectors.edusign import asking, facts
from connectors.edusign.asking import pages
from connectors.edusign.facts import found
from connectors.edusign.shapes import is_hidden, moment, rows, session_of, soft_flag, soft_text, teacher_rows

_DAY: Final = timedelta(days=1)
_SPAN: Final = timedelta(days=89)
"""`start` and `end` of a list of sheets may be 90 days apart (developers.edusign.com/reference)."""
_REMEMBERED_FOR: Final = timedelta(days=400)
"""How long ago a sheet may have been planned that is looked for among those that are there: a school year and more."""
_SLOW_DOCUMENTS: Final = timedelta(days=60)
"""Documents are listed by creation; one is looked for so long after it was sent out for signing."""


@runtime_checkable
class Remembering(Protocol):
    """An API that also tells what this bridge knows: deleted sheets are in no list, so they are missed by name."""

    def newest(self, noun: str, since: datetime) -> Iterable[Event]:
        """The newest event of each subject `<noun>/…` about which something was heard since."""


def happened(since: datetime, api: SourceApi) -> Iterator[Found]:
    """Everything since a time that lists can show, page by page. Raises SourceUnavailable."""
    yield from _created(since, api)
    yield from _edited(since, api)
    yield from _cancelled(since, api)
    yield from _people(since, api, asking.STUDENTS, "student", {"limit": "100", "updatedAfter": stamp(since)})
    yield from _people(since, api, asking.PROFESSORS, "teacher", {})
    yield from _people(since, api, asking.GROUPS, "group", {})
    asked_for: set[str] = set()
    yield from _requests(since, api, asked_for.add)
    yield from _on_sheets(since, api, asked_for)
    yield from _documents(since, api)


# --- sheets -----------------------------------------------------------------------------------------------------------


def _created(since: datetime, api: SourceApi) -> Iterator[Found]:
    for sheet in _sheets(api, {"dateCreated": _days(since, api)}):
        id, at = soft_text(sheet.at("ID")), _at(sheet, "DATE_CREATED", api)
        if id is not None and (at is None or at >= since):
            name = facts.once(f"session/{id}", "on_course_created")
            yield found(api.settings, "on_course_created", name, at or since, {"course": id}, dates=at is not None)


def _edited(since: datetime, api: SourceApi) -> Iterator[Found]:
    """Sheets changed since. Is DATE_UPDATED moved by a lock or a signature, too? Unknown: `edits_found_by` decides."""
    by_content = api.settings.options["edits_found_by"] == "content"
    for sheet in _sheets(api, {"dateUpdated": _days(since, api)}):
        id, at, made = soft_text(sheet.at("ID")), _at(sheet, "DATE_UPDATED", api), _at(sheet, "DATE_CREATED", api)
        if id is None or at is None or at < since or at == made:
            continue
        if by_content and not _differs(sheet, id, api):
            continue
        name = facts.dated(f"session/{id}", "on_course_edited", at)
        yield found(api.settings, "on_course_edited", name, at, {"course": id})


def _differs(sheet: Payload, id: str, api: SourceApi) -> bool:
    known = api.known(f"session/{id}")
    old = known.data.session if known else None
    new = session_of(id, None, sheet, api.settings)
    return old is None or (old.title, old.scheduled_start, old.scheduled_end) != (
        new.title,
        new.scheduled_start,
        new.scheduled_end,
    )


def _cancelled(since: datetime, api: SourceApi) -> Iterator[Found]:
    """Sheets that this bridge knows to be planned and that are in no list any more, each asked for once more."""
    if not isinstance(api, Remembering):
        return
    missed: set[str] = set()
    last = since
    for event in api.newest("session", api.now - _REMEMBERED_FOR):
        session = event.data.session
        if event.type == "session.cancelled" or session is None or session.scheduled_end is None:
            continue
        if session.scheduled_end >= since:
            missed.add(event.subject.removeprefix("session/"))
            last = max(last, session.scheduled_end)
    for sheet in _planned(since - _DAY, last + _DAY, api) if missed else ():
        missed.discard(soft_text(sheet.at("ID")) or "")
    for id in sorted(missed):
        path = asking.path_of(asking.SHEET, id)
        answer = api.get(path) if path else None
        if path and (answer is None or asking.says_gone(answer, api.settings)):
            name = facts.once(f"session/{id}", "on_course_deleted")
            yield found(api.settings, "on_course_deleted", name, api.now, {"course": id}, dates=False)


def _on_sheets(since: datetime, api: SourceApi, asked_for: set[str]) -> Iterator[Found]:
    """Starts, ends, locks, signatures and excuses of the sheets around the time, some days of late signing included."""
    late = timedelta(days=api.settings.options["late_signing_days"])
    for sheet in _planned(since - late, api.now + _DAY, api):
        id = soft_text(sheet.at("ID"))
        if id is None:
            continue
        whole = _whole(sheet, id, api)
        yield from _run(since, api, id, whole)
        yield from _signatures(since, api, id, whole)
        yield from _excuses(api, id, whole, asked_for)


def _whole(sheet: Payload, id: str, api: SourceApi) -> Payload:
    """The sheet with its rows. Lists have been seen with them; one without is asked for by itself."""
    path = asking.path_of(asking.SHEET, id)
    if sheet.at("STUDENTS").exists or path is None:
        return sheet
    answer = api.get(path)
    return answer.at("result") if answer is not None and answer.at("result").present else sheet


def _run(since: datetime, api: SourceApi, id: str, sheet: Payload) -> Iterator[Found]:
    for kind, column in (("on_course_start", "START"), ("on_course_end", "END")):
        at = _at(sheet, column, api)
        if at is not None and since <= at <= api.now:
            yield found(api.settings, kind, facts.run(f"session/{id}", kind, at), at, {"course": id})
    touched = _touched(sheet, api)
    if soft_flag(sheet.at("LOCKED")) and touched is not None and touched >= since:
        name = facts.once(f"session/{id}", "on_course_locked")
        yield found(api.settings, "on_course_locked", name, touched, {"course": id}, dates=False)


def _signatures(since: datetime, api: SourceApi, id: str, sheet: Payload) -> Iterator[Found]:
    touched = _touched(sheet, api)
    for kind, noun, signers in (
        ("on_student_sign", "student", rows(sheet)),
        ("on_teacher_sign", "teacher", teacher_rows(sheet)),
    ):
        for person, row in signers:
            at = moment(row.at, api.settings)
            when = at or touched
            if row.signed and when is not None and when >= since:
                name = facts.signed(id, person, at)
                ids = {"course": id, noun: person}
                yield found(api.settings, kind, name, when, ids, dates=at is not None)


def _excuses(api: SourceApi, id: str, sheet: Payload, asked_for: set[str]) -> Iterator[Found]:
    """Rows with an absence that was asked for since, or that this bridge knows to be asked for and not yet excused."""
    for row in sheet.at("STUDENTS").items():
        absence, student = soft_text(row.at("absenceId")), soft_text(row.at("studentId"))
        if absence is None or student is None:
            continue
        known = api.known(f"absence/{absence}")
        if absence in asked_for or (known and known.type == "attendance.absence_justification_requested"):
            name = facts.absence(absence, "on_justified_absence")
            ids = {"absence": absence, "course": id, "student": student}
            yield found(api.settings, "on_justified_absence", name, api.now, ids, dates=False)


def _touched(sheet: Payload, api: SourceApi) -> datetime | None:
    """When something without a date of its own may have happened to a sheet, at the latest as far as anybody says."""
    dates = [_at(sheet, column, api) for column in ("DATE_UPDATED", "END")]
    past = [at for at in dates if at is not None and at <= api.now]
    return max(past, default=None)


# --- people, groups, absences, documents ------------------------------------------------------------------------------


def _people(since: datetime, api: SourceApi, path: str, noun: str, query: dict[str, str]) -> Iterator[Found]:
    """Who was created, edited, archived or restored, groups as well. One that is both old and edited shows the newest.

    Restored ones look like edited ones: this bridge must know that they were archived.
    """
    subjects = "group" if noun == "group" else "person"
    for record in (record for page in pages(api, path, query) for record in page):
        id, made, at = soft_text(record.at("ID")), _at(record, "DATE_CREATED", api), _at(record, "DATE_UPDATED", api)
        if id is None:
            continue
        subject = f"{subjects}/{id}"
        if made is not None and made >= since:
            kind = f"on_{noun}_created"
            yield found(api.settings, kind, facts.once(subject, kind), made, {noun: id})
        if at is not None and at >= since and at != made:
            kind = f"on_{noun}_{_change(noun, subject, record, at, api)}"
            yield found(api.settings, kind, facts.dated(subject, kind, at), at, {noun: id})


def _change(noun: str, subject: str, record: Payload, at: datetime, api: SourceApi) -> str:
    """What the newest change of somebody was: as a webhook told of this very moment, or as their record looks."""
    known = api.known(subject)
    told = known.sourceevent.removeprefix(f"on_{noun}_") if known and stamp(known.time) == stamp(at) else ""
    if told in ("edited", "deleted", "unremoved"):
        return told
    if is_hidden(record):
        return "deleted"
    return "unremoved" if known and known.type.endswith(".deleted") else "edited"


def _requests(since: datetime, api: SourceApi, note: Callable[[str], None]) -> Iterator[Found]:
    """Absences that somebody asked to be excused. Whether the list also has those that nobody asked for: unknown."""
    for entry in (entry for page in pages(api, asking.ABSENCES, {}) for entry in page):
        id, student = soft_text(entry.at("ID")), soft_text(entry.at("STUDENT_ID"))
        asked, made = _at(entry, "REQUEST_DATE", api), _at(entry, "DATE_CREATION", api)
        at = asked or made
        if id is None or at is None or at < since:
            continue
        note(id)
        if asked is not None:
            name = facts.absence(id, "on_request_justified_absence")
            ids = {"absence": id} | ({"student": student} if student else {})
            yield found(api.settings, "on_request_justified_absence", name, asked, ids)


def _documents(since: datetime, api: SourceApi) -> Iterator[Found]:
    """`offset` counts pages (developers.edusign.com/reference); without getHTML=false each comes with its text."""
    query = {
        "limit": "100",
        "state": "completed",
        "createdAfter": stamp(since - _SLOW_DOCUMENTS),
        "getHTML": "false",
    }
    for record in (record for page in pages(api, asking.DOCUMENTS, query, parameter="offset") for record in page):
        id, at = soft_text(record.at("ID")), _at(record, "DATE_UPDATED", api)
        if id is not None and at is not None and at >= since:
            name = facts.once(f"document/{id}", "on_document_completed")
            yield found(api.settings, "on_document_completed", name, at, {"document": id})


# --- lists ------------------------------------------------------------------------------------------------------------


def _sheets(api: SourceApi, query: dict[str, str]) -> Iterator[Payload]:
    for page in pages(api, asking.SHEETS, query):
        yield from page


def _planned(start: datetime, end: datetime, api: SourceApi) -> Iterator[Payload]:
    while start < end:
        until = min(start + _SPAN, end)
        yield from _sheets(api, {"start": f"{start:%Y-%m-%d}", "end": f"{until:%Y-%m-%d}"})
        start = until


def _days(since: datetime, api: SourceApi) -> str:
    """Two days around a time: whether the last one counts, and in whose time zone, is not documented."""
    return f"{since - _DAY:%Y-%m-%d},{api.now + _DAY:%Y-%m-%d}"


def _at(record: Payload, column: str, api: SourceApi) -> datetime | None:
    return moment(record.at(column), api.settings)
