"""One question to Wise's API: where it is put, how long its answer is good, and what an odd answer means.

Every answer is `{"status", "message", "data"}`; pages are counted from 1 and hold 50 (docs.wise.live, and the public
request collection "Wise APIs"). What an error looks like inside is published nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final, TypeVar
from urllib.parse import urlencode

from bridge.core.errors import PayloadError, SourceUnavailable
from bridge.core.events import Event
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.core.source import SourceApi

KEEP_SUBJECT: Final = 30.0
"""Seconds. What an event is about is never older than the event; one read serves all that waited for it."""
KEEP_PLAN: Final = 300.0
"""Seconds, for the session that somebody comes into or leaves: its class and plan hardly change while it runs."""
KEEP_CLASS: Final = 600.0
"""Seconds: the name of a class as good as never changes."""
KEEP_PERSON: Final = 86_400.0
"""Seconds: who has which address is asked once a day and address at most."""
KEEP_STAFF: Final = 3600.0
"""Seconds: all teachers come in one answer without pages, which is as big as the institute."""

SETTLING: Final = timedelta(seconds=30)
"""How long what the API does not show yet may still turn up."""
CONTRADICTED: Final = timedelta(seconds=5)
"""How long a class may still show what an event says is over; after that the class is right."""
LEFT_OUT: Final = timedelta(minutes=15)
"""After so long a secondary answer that cannot be read is left out: it is no outage that passes."""

PAGE: Final = 50
_NOT_FOUND: Final = 404
_FIRST_ERROR: Final = 400

T = TypeVar("T")


def ask(
    event: Event,
    api: SourceApi,
    path: str,
    read: Callable[[Payload], T],
    *,
    keep: float,
    fresh: bool,
    extra: bool = True,
) -> T | None:
    """What `read` makes of an answer's `data`; None for a 404, and for what an `extra` call does not get in the end.

    A `fresh` answer is not older than the event. Raises SourceUnavailable.
    """
    answer = api.get(path, keep=keep, since=event.recordedtime if fresh else None, extra=extra)
    try:
        data = None if answer is None else data_of(answer)
        return None if data is None else read(data)
    except PayloadError as error:
        reason = f"the answer has an unexpected shape at {error.path}"
        if not extra:
            raise SourceUnavailable(reason) from None
    api.lack(reason, for_good=api.now - event.recordedtime >= LEFT_OUT)
    return None


def data_of(answer: Payload) -> Payload | None:
    """The object of an envelope, None where it says 404 itself; PayloadError for anything else."""
    status = answer.at("status").maybe_integer()
    if status == _NOT_FOUND:
        return None
    if status is not None and status >= _FIRST_ERROR:
        raise PayloadError(answer.at("status").path, "success")
    return answer.at("data").object()


def settle(event: Event, api: SourceApi, what: str, within: timedelta = SETTLING) -> None:
    """Raise SourceUnavailable while an event is so young that the API may not have caught up."""
    if api.now - event.recordedtime < within:
        raise SourceUnavailable(f"the {what} is not in the API yet")


def institute(settings: Settings) -> str | None:
    """The institute's id; what Wise keeps by institute cannot be asked for without it."""
    value: str | None = settings.options["institute_id"]
    return value or None


def session_path(session_id: str, flags: Mapping[str, str] | None = None) -> str:
    """A session by its id alone; `flags` are the parts of it that are asked for."""
    return f"/user/session/{session_id}" + (f"?{urlencode(flags)}" if flags else "")


def class_path(class_id: str) -> str:
    return f"/user/v2/classes/{class_id}?full=true"


def roster_path(class_id: str) -> str:
    return f"/user/classes/{class_id}/participants?showCoTeachers=true"


def account_path(email: str) -> str:
    return f"/vendors/userByIdentifier?{urlencode({'provider': 'EMAIL', 'identifier': email})}"


def student_path(institute_id: str, user_id: str) -> str:
    return f"/institutes/{institute_id}/participants/{user_id}"


def teachers_path(institute_id: str) -> str:
    return f"/institutes/{institute_id}/teachers"


def pages(
    api: SourceApi,
    path: str,
    query: Mapping[str, str],
    name: str,
    *,
    keep: float = 0,
    since: datetime | None = None,
    extra: bool = False,
) -> Iterator[list[Payload]]:
    """The pages of a list, whose entries stand under `name`, until one is empty or the last by its own count.

    Raises SourceUnavailable, also for an answer of another shape.
    """
    number, last = 1, None
    while last is None or number <= last:
        asked = {**query, "page_number": str(number), "page_size": str(PAGE)}
        answer = api.get(f"{path}?{urlencode(asked)}", keep=keep, since=since, extra=extra)
        try:
            data = None if answer is None else data_of(answer)
            if data is None:
                return
            entries = list(data.at(name).items())
            last = data.at("page_count").maybe_integer()
        except PayloadError as error:
            reason = f"a list has an unexpected shape at {error.path}"
            if not extra:
                raise SourceUnavailable(reason) from None
            api.lack(reason)
            return
        if entries:
            yield entries
        if len(entries) < PAGE:
            return
        number += 1
