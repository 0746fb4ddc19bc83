"""One question to Edusign's API: a plain id in a known path, and an envelope whose `status` says what HTTP does not.

HTTP 200 does not mean success, the envelope's `status` does (developers.edusign.com/docs/requests-and-responses).
`GET /v1/course/lock/{id}` LOCKS a sheet although it is a GET, and `GET /v1/student/restore/{id}` brings an archived
student back (seen in a client): paths are made here from plain ids only, never from what a body says.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from bridge.core.errors import PayloadError, SourceUnavailable
from bridge.core.events import Event
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.core.source import SourceApi
from connectors.edusign.shapes import soft_text

SHEET: Final = "/v1/course/{courseId}"
STUDENT: Final = "/v1/student/{studentId}"
PROFESSOR: Final = "/v1/professor/{professorId}"
GROUP: Final = "/v1/group/{groupId}"
TRAINING: Final = "/v1/trainings/{trainingId}"
DOCUMENT: Final = "/v2/documents/{documentId}"
SURVEY: Final = "/v1/surveys/{surveyId}"
SHEETS: Final = "/v1/course"
STUDENTS: Final = "/v1/student"
STUDENTS_BY_ID: Final = "/v1/student/by-ids"
PROFESSORS: Final = "/v1/professor"
GROUPS: Final = "/v1/group"
DOCUMENTS: Final = "/v2/documents"
ABSENCES: Final = "/v1/justified-absence"

KEEP_SUBJECT: Final = 30
"""Seconds. What an event is about is never older than the event; one read serves all events that waited for it."""
KEEP_PERSON: Final = 600
"""Seconds, for somebody whom an event only mentions: names seldom change, and a change has its own webhook."""
KEEP_TRAINING: Final = 3600
"""Seconds: the title of a programme is as good as constant."""

MADE_WITHIN: Final = 10
"""Seconds. An object that is said not to exist is more likely to be deleted again than still to come."""

REFUSED_FOR: Final = timedelta(minutes=15)
"""A refusal in words is no outage: after so long a secondary call that gets one is left out."""

_PLAIN_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ROUTES: Final = frozenset(
    {
        *("lock", "unlock", "pin", "timestamps", "get-id", "by-email", "by-ids", "absence-reason", "restore"),
        *("attendance", "send-sign-emails", "get-signature-links", "get-professors-signature-links", "white-label"),
    }
)
"""Words that stand in Edusign's paths where an id may stand."""


def ask(
    event: Event,
    api: SourceApi,
    template: str,
    id: str | None,
    *,
    keep: float,
    fresh: bool = False,
    extra: bool = False,
    patience: timedelta = REFUSED_FOR,
) -> Payload | None:
    """An object by its id; None when there is none, and for an `extra` one also when it cannot be had.

    A `fresh` answer is not older than the event; `patience` is with refusals of `extra` ones. Raises SourceUnavailable
    for a refusal that may pass, of an `extra` one not on the last try; with no patience at all, never for what was
    answered.
    """
    path = path_of(template, id)
    if path is None:
        return None
    answer = api.get(path, keep=keep, since=event.recordedtime if fresh else None, extra=extra)
    if answer is not None and answer.at("status").value != "success":
        # A refusal must not be kept as long as a person's name.
        answer = api.get(path, keep=keep, since=api.now, extra=extra)
    return _result(event, api, answer, template, patience if extra else None)


def ask_list(event: Event, api: SourceApi, path: str, query: Mapping[str, str], *, keep: float) -> list[Payload]:
    """A page of a list that is not older than the event; empty when it cannot be had on the last try."""
    answer = api.get(path, query, keep=keep, since=event.recordedtime, extra=True)
    result = _result(event, api, answer, path, REFUSED_FOR, shape=list)
    return [] if result is None else list(result.items())


def pages(
    api: SourceApi,
    path: str,
    query: Mapping[str, str],
    *,
    parameter: str = "page",
    keep: float = 0,
    since: datetime | None = None,
) -> Iterator[list[Payload]]:
    """The pages of a list, counted from 0, until one is empty.

    A short page is not the end, because the documented sizes may change. A page that begins like the one before it is:
    then the parameter is not heeded. Raises SourceUnavailable.
    """
    began: str | None = None
    number = 0
    while True:
        answer = api.get(path, {parameter: str(number), **query}, keep=keep, since=since)
        if answer is None or answer.at("status").value != "success":
            if answer is not None and number and says_gone(answer, api.settings):
                return
            raise SourceUnavailable(f"GET {path} answered with no list")
        try:
            result = answer.at("result")
            entries = list((result.at("documents") if isinstance(result.value, dict) else result).items())
        except PayloadError as error:
            raise SourceUnavailable(f"GET {path} answered with an unexpected shape: {error}") from None
        first = soft_text(entries[0].at("ID")) if entries else None
        if not entries or (first is not None and first == began):
            return
        yield entries
        began = first
        number += 1


def path_of(template: str, id: str | None) -> str | None:
    """The path of an object, or None for what is no plain id."""
    if id is None or not _PLAIN_ID.fullmatch(id) or id in _ROUTES:
        return None
    return template[: template.index("{")] + id


def is_young(event: Event, api: SourceApi, *, at_most: float = math.inf) -> bool:
    """Whether what the API does not show yet may still come; `at_most` are seconds."""
    seconds = min(api.settings.options["settling_seconds"], at_most)
    return api.now - event.recordedtime < timedelta(seconds=seconds)


def says_gone(answer: Payload, settings: Settings) -> bool:
    """`message` is a text, or a list of them for validation errors; its words are nowhere documented.

    Of a sheet it is "No course with this ID found" (seen in github.com/lewagon/edusign, lib/edusign/client.rb).
    """
    message = answer.at("message")
    try:
        said = [message] if isinstance(message.value, str) else list(message.items())
    except PayloadError:
        return False
    words = " ".join(soft_text(part) or "" for part in said).casefold()
    return any(sign.casefold() in words for sign in settings.options["not_found_messages"])


def _result(
    event: Event,
    api: SourceApi,
    answer: Payload | None,
    template: str,
    patience: timedelta | None,
    *,
    shape: type = dict,
) -> Payload | None:
    """What an answer holds. One of another shape is an outage, and waits; a refusal in words is one for a while.

    `patience` is None for what an event cannot do without. The reason for going on without the rest is kept.
    """
    if answer is None or says_gone(answer, api.settings):
        return None
    succeeded, result = answer.at("status").value == "success", answer.at("result")
    if succeeded and (not result.present or result.value == []):
        return None
    if succeeded and isinstance(result.value, shape):
        return result
    refused = answer.at("status").present and not succeeded
    reason = f"GET {template} answered 200 with a status other than success"
    if succeeded:
        expected = "an object" if shape is dict else "a list"
        reason = f"GET {template} answered with an unexpected shape: {result.path}: expected {expected}"
    if patience is None:
        raise SourceUnavailable(reason)
    api.lack(reason, for_good=(refused or not patience) and api.now - event.recordedtime >= patience)
    return None
