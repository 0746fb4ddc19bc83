"""Asks Wise's API what has happened since a time.

The audit feed names what changed; it is newest first as far as is known, and heeds no dates (seen in clients,
undocumented). Its names are not those of the webhooks. It has no meetings: those are in the lists of sessions. Money is
in the transactions. Certificates, and who came and went in a meeting, are in no list.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from bridge.core.errors import PayloadError, SourceUnavailable
from bridge.core.events import Json
from bridge.core.payload import Payload
from bridge.core.source import Found, SourceApi
from connectors.wise import telling
from connectors.wise.asking import KEEP_SUBJECT, data_of, institute, pages, roster_path
from connectors.wise.attendance import detail_path
from connectors.wise.enrolling import roster
from connectors.wise.nouns import began, ended, maybe_id
from connectors.wise.paying import INVOICES, PAYMENTS, transactions_query
from connectors.wise.telling import fact, returns

__all__ = ["fact", "happened", "returns"]

_DAY: Final = timedelta(days=1)
"""Dates without a time are days of an unknown zone: a day more on each side holds them all."""

_TICK: Final = timedelta(milliseconds=1)
"""The feed's times are whole milliseconds: what was read in the one that an entry names may be older than the entry."""

_OF_SESSIONS: Final = {
    "SessionCreatedEvent": "created",
    "SessionUpdatedEvent": "updated",
    "SessionCancelledEvent": "updated",
    "SessionDeletedEvent": "deleted",
    "AttendanceCalculatedEvent": "held",
    "RecordingCompletedEvent": "held",
}
# The first two are named nowhere, but are a teacher's, which is (seen in a client), with another word.
_OF_PEOPLE: Final = frozenset(
    {
        "StudentAddedToClassroomEvent",
        "StudentRemovedFromClassroomEvent",
        "TeacherAddedToClassroomEvent",
        "TeacherRemovedFromClassroomEvent",
        "StudentSuspendedEvent",
        "StudentUnsuspendedEvent",
    }
)


def happened(since: datetime, api: SourceApi) -> Iterator[Found]:
    """Everything that a list shows, newest first within each list. Raises SourceUnavailable.

    Of what is a state (a plan, a place in a class) there is the newest only, once.
    """
    owner = institute(api.settings)
    if owner is None:
        raise SourceUnavailable("the option institute_id is not set: nothing can be listed without it")
    seen: set[str] = set()
    try:
        yield from _of_feed(since, api, owner, seen)
        yield from _of_sessions(since, api, owner, seen)
        yield from _of_transactions(since, api, owner)
    except PayloadError as error:
        raise SourceUnavailable(f"a list has an unexpected shape at {error.path}") from None


def _of_feed(since: datetime, api: SourceApi, owner: str, seen: set[str]) -> Iterator[Found]:
    """Entries that come while the pages are read push others back: they are seen twice, and none is missed."""
    for page in pages(api, f"/institutes/{owner}/events", {}, "events"):
        times = [entry.at("event", "eventTimestamp").maybe_time() for entry in page]
        for entry, at in zip(page, times, strict=True):
            name = entry.at("event", "eventName").maybe_text() or ""
            if at is None or at < since:
                continue
            if name in _OF_SESSIONS:
                yield from _session(entry, _OF_SESSIONS[name], at, api, seen)
            elif name in _OF_PEOPLE:
                yield from _member(entry, name, at, api, seen)
        if all(at is not None and at < since for at in times):
            return


def _session(entry: Payload, what: str, at: datetime, api: SourceApi, seen: set[str]) -> Iterator[Found]:
    told = entry.at("event", "payload", "session")
    session_id = maybe_id(told.first("id", "_id"))
    if session_id is None or f"{what} {session_id}" in seen:
        return
    seen.add(f"{what} {session_id}")
    class_id = maybe_id(entry.first("classroom", "event.payload.class.id"))
    if what == "deleted":
        yield telling.deleted(session_id, class_id, told, api.known(f"session/{session_id}"), at)
        return
    detail = _detail(session_id, at, api)
    if detail is None:
        return  # gone since: its deletion is in the feed as well
    if what == "created":
        yield telling.created(session_id, detail, at)
    elif what == "updated":
        yield telling.updated(session_id, detail, at, api.settings, api.known(f"session/{session_id}"))
    else:
        yield from telling.taken_place(session_id, detail, at, api.settings)


def _detail(session_id: str, at: datetime, api: SourceApi) -> Payload | None:
    """A session with its people, read after what is told of it."""
    answer = api.get(detail_path(session_id, api.settings), keep=KEEP_SUBJECT, since=at + _TICK)
    return None if answer is None else data_of(answer)


def _member(entry: Payload, name: str, at: datetime, api: SourceApi, seen: set[str]) -> Iterator[Found]:
    """Whom an entry is about stands in `participant`, or in its payload under one of three names: all are read."""
    payload = entry.at("event", "payload")
    class_id = maybe_id(entry.first("classroom", "event.payload.class.id"))
    places = (entry.at("participant"), *(payload.at(name) for name in ("student", "teacher", "participant")))
    whom = next((one for one in places if one.present), None)
    user_id = None if whom is None else maybe_id(whom.first("_id", "id"))
    if whom is None or class_id is None or user_id is None or f"member {class_id}.{user_id}" in seen:
        return
    seen.add(f"member {class_id}.{user_id}")
    answer = api.get(roster_path(class_id), keep=KEEP_SUBJECT, since=at + _TICK)
    data = None if answer is None else data_of(answer)
    status = None if data is None else roster(data, api.settings).status(user_id)
    if status is None:
        return
    who: Json = {"_id": user_id, "name": whom.at("name").maybe_text(), "email": whom.at("email").maybe_text()}
    room: Json = {"_id": class_id, "name": entry.at("classroom", "name").maybe_text()}
    place = telling.Place(entry=name, at=at, room=room, who=who, status=status)
    yield telling.membership(place, api.known(place.subject))


def _of_sessions(since: datetime, api: SourceApi, owner: str, seen: set[str]) -> Iterator[Found]:
    """Sessions of these days whose meeting began or ended since then; without `status` the list is empty.

    Days are those of the institute's zone, and the last one does not count (seen in clients, undocumented): it is
    the one after tomorrow, because in some zones it is tomorrow already.
    """
    query = {
        "paginateBy": "DATE",
        "startDate": (since - _DAY).date().isoformat(),
        "endDate": (api.now + 2 * _DAY).date().isoformat(),
    }
    for status in ("PAST", "FUTURE"):
        for page in pages(api, f"/institutes/{owner}/sessions", query | {"status": status}, "sessions"):
            for entry in page:
                session_id = maybe_id(entry)
                times = [began(entry), ended(entry), entry.at("createdAt").maybe_time()]
                starts, ends, planned = (time is not None and time >= since for time in times)
                if session_id is None:
                    continue
                if planned and times[2] is not None and f"created {session_id}" not in seen:
                    seen.add(f"created {session_id}")
                    yield telling.created(session_id, entry, times[2])
                if (starts or ends) and f"held {session_id}" not in seen:
                    seen.add(f"held {session_id}")
                    detail = _detail(session_id, times[1] or times[0] or since, api)
                    if detail is not None:
                        yield from telling.taken_place(session_id, detail, None, api.settings)


def _of_transactions(since: datetime, api: SourceApi, owner: str) -> Iterator[Found]:
    query = transactions_query(f"{PAYMENTS},{INVOICES}", since - _DAY, api.now + _DAY)
    for page in pages(api, f"/institutes/{owner}/fees/transactions", query, "transactions"):
        for entry in page:
            found = telling.charged(entry)
            if found is not None and found.occurred_at >= since:
                yield found
