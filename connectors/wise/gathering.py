"""Reads a list where several events would each ask for one of its entries; what is not in it is asked for as ever."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Final

from bridge.core.errors import PayloadError, SourceUnavailable
from bridge.core.events import Event
from bridge.core.nouns import Course, Session
from bridge.core.payload import Payload
from bridge.core.source import SourceApi
from connectors.wise import asking
from connectors.wise.asking import KEEP_PLAN, KEEP_SUBJECT
from connectors.wise.nouns import maybe_id
from connectors.wise.paying import transactions, windows

_WORTH: Final = 3
"""From so many entries on, a list is asked for: it may hold none of them, and then costs one call more."""

_CAME_OR_WENT: Final = frozenset({"ParticipantJoinedMeetingEvent", "ParticipantLeftMeetingEvent"})
_PLANNED: Final = frozenset({"SessionsCreatedEvent", "SessionsUpdatedEvent"})


def listed_with(event: Event) -> str:
    """All together: one list may tell of several classes."""
    return ""


def gather(events: Sequence[Event], api: SourceApi, waiting: int) -> None:
    """Offer what this batch will ask for. `waiting` changes nothing: a list is read for the events that are here.

    Raises SourceUnavailable.
    """
    try:
        _plans([event for event in events if event.sourceevent in _PLANNED], api)
        _accounts([event for event in events if event.sourceevent in _CAME_OR_WENT], api)
        _rosters([event for event in events if event.subject.startswith("enrolment/")], api)
        _transactions([event for event in events if event.subject.startswith(("payment/", "invoice/"))], api)
    except PayloadError as error:
        raise SourceUnavailable(f"a list has an unexpected shape at {error.path}") from None


def _plans(events: Sequence[Event], api: SourceApi) -> None:
    """A series is planned and moved as one: its class's coming sessions hold them all, 50 a page."""
    owner = asking.institute(api.settings)
    if owner is None:
        return
    for class_id, those in _by_class(events).items():
        wanted = {identifier for event in those if (identifier := _own_id(event.data.session))}
        if len(wanted) < _WORTH:
            continue
        query = {"paginateBy": "COUNT", "status": "FUTURE", "classId": class_id}
        path = f"/institutes/{owner}/sessions"
        listed = asking.pages(api, path, query, "sessions", keep=KEEP_SUBJECT, since=_newest(those))
        for page in islice(listed, len(wanted) - 1):  # so that the list never costs more than its entries would
            for entry in page:
                identifier = maybe_id(entry)
                if identifier in wanted:
                    wanted.discard(identifier)
                    api.offer(asking.session_path(identifier), _envelope(entry.value))
            if not wanted:
                break


def _accounts(events: Sequence[Event], api: SourceApi) -> None:
    """Who comes into a session is mostly of its class, whose participants have their addresses."""
    emails: dict[str, set[str]] = defaultdict(set)
    for session_id, those in _by_session(events).items():
        answer = api.get(asking.session_path(session_id), keep=KEEP_PLAN)
        class_id = None if answer is None else maybe_id(answer.at("data", "classId"))
        if class_id is not None:
            told = (event.data.person.email for event in those if event.data.person is not None)
            emails[class_id] |= {email for email in told if email is not None}
    for class_id, wanted in emails.items():
        if len(wanted) < _WORTH:
            continue
        answer = api.get(asking.roster_path(class_id), keep=KEEP_PLAN)
        if answer is None:
            continue
        listed = {
            (entry.at("email").maybe_text() or "").casefold(): entry.value
            for name in ("joinedRequest", "coTeachers")
            for entry in answer.at("data", name).items()
        }
        for email in wanted:
            if email.casefold() in listed:
                api.offer(asking.account_path(email), _envelope({"user": listed[email.casefold()]}))


def _rosters(events: Sequence[Event], api: SourceApi) -> None:
    """A class's participants, once for all events that have come by now."""
    for class_id, those in _by_class(events).items():
        if len(those) > 1:
            api.get(asking.roster_path(class_id), keep=KEEP_SUBJECT, since=_newest(those))


def _transactions(events: Sequence[Event], api: SourceApi) -> None:
    """The pages of an hour's transactions, once for all events of that hour."""
    if len(events) < _WORTH:
        return
    hours: dict[tuple[str, datetime], list[Event]] = defaultdict(list)
    for event in events:
        kind, _, _ = event.subject.partition("/")
        hours[kind, event.time.replace(minute=0, second=0, microsecond=0)].append(event)
    for those in hours.values():
        newest = max(those, key=lambda event: event.recordedtime)
        for _ in islice(transactions(newest, api, windows(newest.time)[0]), len(those) - 1):
            """Kept for whoever asks next."""


def _by_class(events: Iterable[Event]) -> Mapping[str, list[Event]]:
    found: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        class_id = _own_id(event.data.course)
        if class_id is not None:
            found[class_id].append(event)
    return found


def _by_session(events: Iterable[Event]) -> Mapping[str, list[Event]]:
    found: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        session_id = _own_id(event.data.session)
        if session_id is not None:
            found[session_id].append(event)
    return found


def _own_id(noun: Course | Session | None) -> str | None:
    return None if noun is None or noun.key is None else noun.key.removeprefix("wise:")


def _newest(events: Iterable[Event]) -> datetime:
    return max(event.recordedtime for event in events)


def _envelope(data: object) -> Payload:
    return Payload({"status": 200, "message": "Success", "data": data})
