"""Few calls for many events: students by their ids, and the sheets of a day 40 a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Final

from bridge.core.events import Event
from bridge.core.payload import Payload
from bridge.core.source import SourceApi
from connectors.edusign import asking, shapes
from connectors.edusign.asking import pages
from connectors.edusign.completing import people_wanted
from connectors.edusign.shapes import soft_text

AT_ONCE: Final = 100
"""Students in one question; how many are allowed is not documented."""
_FEW_STUDENTS: Final = 3
_FEW_SHEETS: Final = 8
_KEEP_PAGES: Final = 60
"""Seconds: long enough for the batches that wait behind this one; a later event has it read anew."""
_LISTED_BY: Final[Mapping[str, str]] = {
    "on_course_created": "dateCreated",
    "on_course_edited": "dateUpdated",
    "on_course_locked": "dateUpdated",
    "on_course_start": "start",
    "on_course_end": "start",
}
"""By which date the sheets of a kind are found: a timetable comes in at once, and its lessons start at one o'clock."""


def gather(events: Sequence[Event], api: SourceApi, waiting: int) -> None:
    """Offer what several events of a batch need. One event costs what it costs alone. Raises SourceUnavailable."""
    if len(events) < min(_FEW_STUDENTS, _FEW_SHEETS):
        return
    _sheets(events, api, waiting)
    _students(events, api)


def _students(events: Sequence[Event], api: SourceApi) -> None:
    """`POST /v1/student/by-ids` only asks. The name of its list is that of the reference; nobody was seen using it."""
    wanted = sorted(
        {
            shapes.id_of(event.data.person.key)
            for event in events
            if event.data.person is not None and event.data.person.key and event.data.person.role == "learner"
            if event.data.artifact is None  # a survey may be anonymous: its people are asked for when it is known
        }
    )
    wanted = [id for id in wanted if asking.path_of(asking.STUDENT, id)]
    if len(wanted) < _FEW_STUDENTS or not people_wanted(api):
        return
    for first in range(0, len(wanted), AT_ONCE):
        some = wanted[first : first + AT_ONCE]
        answer = api.post(asking.STUDENTS_BY_ID, {"studentIds": some})
        if answer is None or not isinstance(answer.at("result").value, list):
            return
        _offer(api, asking.STUDENT, answer.at("result").items(), set(some))


def _sheets(events: Sequence[Event], api: SourceApi, waiting: int) -> None:
    """Pages are read until all are found, at most half as many as there are sheets, or more while many events wait."""
    for by in ("dateCreated", "dateUpdated", "start"):
        mine = [event for event in events if _LISTED_BY.get(event.sourceevent) == by and event.data.session]
        wanted = {
            shapes.id_of(event.data.session.key) for event in mine if event.data.session and event.data.session.key
        }
        if len(wanted) < _FEW_SHEETS:
            continue
        newest = max(event.recordedtime for event in mine)
        first = f"{min(event.recordedtime for event in mine):%Y-%m-%d}"
        last = f"{newest + timedelta(days=1):%Y-%m-%d}"
        query = {"start": first, "end": last} if by == "start" else {by: f"{first},{last}"}
        left = max(len(wanted) // 2, min(waiting // 4, 250))
        for page in pages(api, asking.SHEETS, query, keep=_KEEP_PAGES, since=newest):
            _offer(api, asking.SHEET, page, wanted)
            left -= 1
            if not wanted or left <= 0:
                break


def _offer(api: SourceApi, template: str, entries: Iterable[Payload], wanted: set[str]) -> None:
    """Offer those entries that are wanted, in the envelope of a single answer, and want them no more."""
    for entry in entries:
        id = soft_text(entry.at("ID"))
        path = asking.path_of(template, id) if id in wanted else None
        if id is not None and path is not None and (template != asking.SHEET or entry.at("STUDENTS").exists):
            api.offer(path, Payload({"status": "success", "result": entry.value}))
            wanted.discard(id)
