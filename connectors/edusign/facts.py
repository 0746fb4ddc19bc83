"""What a happening is called, whether a webhook told of it or a list did, and the body that tells of a listed one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from bridge.core.events import Event, Json, stamp
from bridge.core.settings import Settings
from bridge.core.source import Found

DATE: Final = "happenedAt"
"""A key of ours in the bodies of what was found in lists: Edusign's own bodies have no time."""

_ONCE: Final[Mapping[str, str]] = {
    "on_course_created": "created",
    "on_course_deleted": "deleted",
    "on_course_locked": "locked",
    "on_student_created": "created",
    "on_teacher_created": "created",
    "on_group_created": "created",
    "on_document_completed": "completed",
}
"""What happens to an object once: its name needs no date, and so no answer of the API."""

_DATED: Final[Mapping[str, str]] = {
    "on_course_edited": "edited",
    **{
        f"on_{noun}_{what}": name
        for noun in ("student", "teacher", "group")
        for what, name in (("edited", "edited"), ("deleted", "deleted"), ("unremoved", "restored"))
    },
}
"""What happens again and again is told apart by the platform's date of update."""

_ABSENCES: Final[Mapping[str, str]] = {"on_justified_absence": "justified", "on_request_justified_absence": "requested"}


def fact(event: Event) -> str | None:
    """A happening in stable words: subject, what, and when by the platform. None for what no list can show."""
    kind, session = event.sourceevent, event.data.session
    if kind in _ONCE:
        return once(event.subject, kind)
    if kind in _DATED and event.timequality == "source":
        return dated(event.subject, kind, event.time)
    if kind == "on_course_start" and session is not None and session.scheduled_start is not None:
        return run(event.subject, kind, session.scheduled_start)
    if kind == "on_course_end" and session is not None and session.scheduled_end is not None:
        return run(event.subject, kind, session.scheduled_end)
    if kind in _ABSENCES and event.data.attendance is not None and event.data.attendance.report_ref is not None:
        return absence(event.data.attendance.report_ref, kind)
    return _signature(event)


def _signature(event: Event) -> str | None:
    """Only of a sheet that was read: without it nobody knows which of a sheet's signatures this is."""
    person, session, attendance = event.data.person, event.data.session, event.data.attendance
    if event.type != "attendance.signed" or person is None or person.key is None or attendance is None:
        return None
    if session is None or session.key is None or attendance.method is None:
        return None
    return signed(session.key.removeprefix("edusign:"), person.key.removeprefix("edusign:"), attendance.signed_at)


def once(subject: str, kind: str) -> str:
    return f"{subject}|{_ONCE[kind]}"


def dated(subject: str, kind: str, at: datetime) -> str:
    return f"{subject}|{_DATED[kind]}|{stamp(at)}"


def run(subject: str, kind: str, planned: datetime) -> str:
    """A start or an end by its planned time: the clock brings it about."""
    return f"{subject}|{'started' if kind == 'on_course_start' else 'ended'}|{stamp(planned)}"


def absence(id: str, kind: str) -> str:
    return f"absence/{id}|{_ABSENCES[kind]}"


def signed(sheet: str, person: str, at: datetime | None) -> str:
    return f"attendance/{sheet}|{person}|signed|{stamp(at) if at else 'undated'}"


def found(
    settings: Settings, kind: str, name: str, at: datetime, ids: Mapping[str, str], *, dates: bool = True
) -> Found:
    """A happening as its webhook would tell it: ids where this source expects them (`<noun>_id_paths`).

    Without `dates` the moment is only a guess, and the event has none.
    """
    body: Json = {"type": kind}
    for noun, id in ids.items():
        *steps, last = settings.options[f"{noun}_id_paths"][0].split(".")
        place: dict[str, Any] = body
        for step in steps:
            place = place.setdefault(step, {})
        place[last] = id
    if dates:
        body[DATE] = stamp(at)
    return Found(kind=kind, body=body, occurred_at=at, fact=name)
