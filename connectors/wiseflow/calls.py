"""The endpoints of WISEflow's REST API that are asked (OpenAPI description 1.34), how long an answer is good, and how
one is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from bridge.core.errors import PayloadError, SourceUnavailable
from bridge.core.events import Event
from bridge.core.payload import Payload
from bridge.core.source import SourceApi

FLOW: Final = "/flow/{flowId}"
METADATA: Final = "/flows/{flowId}/metadata"
DATES: Final = "/flows/{flowId}/dates"
PARTICIPANTS: Final = "/flows/{flowId}/participants"
PARTICIPANT: Final = "/flows/{flowId}/participants/{participantId}"
SUBMISSIONS: Final = "/flows/{flowId}/submissions"
SUBMISSION: Final = "/flows/{flowId}/submissions/{submissionId}"
ASSESSMENTS: Final = "/flow/{flowId}/assessments"
ASSESSMENT: Final = "/flow/{flowId}/assessments/{participantId}"
EXPLANATION: Final = "/flow/{flowId}/explanation/request/{explanationRequestId}"
ASSIGNMENTS: Final = "/flow/{flowId}/assignments"
EXTERNAL_SOURCES: Final = "/flows/{flowId}/external-sources"
FLOW_SCALE: Final = "/flows/{flowId}/grading-scale"
SCALES: Final = "/license/grading-scales"
LICENCE: Final = "/license/info"
USER: Final = "/user/{userId}/info"
EMAILS: Final = "/users/{userId}/emails"
SEARCH: Final = "/flows/search"

# What an event is about (a submission, a mark, a state) is never taken from memory: it has just changed. What
# surrounds it changes seldom, and is asked for once for many events.
FLOW_KEPT: Final = 300.0
"""An exam's title, dates and scale are set before it begins; five minutes bound how old a moved date can be."""
PEOPLE_KEPT: Final = 600.0
"""Names come from the registry's nightly import; ten minutes are an exam's burst of hand-ins."""
SCALES_KEPT: Final = 3600.0
"""Grading scales belong to the licence and are made once a year."""
EMAILS_KEPT: Final = 86400.0
"""There is no list of addresses: one call per user, and a day is how long an old address may go on."""
LIST_KEPT: Final = 60.0
"""A list's pages serve all who read them within a minute, but no event that came after the page."""
ROSTER_KEPT: Final = 300.0
"""Participants change less than what they hand in; for an event that came later they are read again all the same."""

_T = TypeVar("_T")


def ask(
    api: SourceApi,
    event: Event,
    path: str,
    *,
    keep: float = 0,
    extra: bool = False,
    whole: bool = False,
    user: str | None = None,
) -> Payload | None:
    """The unwrapped answer, or None if there is none, and for an `extra` one in the end also where it is an error.

    Paths of errors begin with the call, without its ids.

    With `whole` an entry of a list will not do: lists of submissions have no marks. `user` is a user other than the
    event's person.
    """
    ids = {name: known_id(event, name) for name in _NAMES if f"{{{name}}}" in path}
    if user is not None:
        ids["userId"] = user
    if None in ids.values():
        return None
    # Offered entries stand for a path without a query; the same call with an empty one is always a call.
    answer = api.get(path.format_map(ids), {} if whole else None, keep=keep, extra=extra)
    try:
        return None if answer is None else _told(answer, path)
    except SourceUnavailable as error:
        if not extra:
            raise
        reason = error.reason
    api.lack(reason)
    return None


def _told(answer: Payload, path: str) -> Payload | None:
    # Scales are described as wrapped, beside /license/info, which is not: both are read, but every licence has some.
    if isinstance(answer.value, list) and (path in _WRAPPED_LISTS or (path == SCALES and not answer.value)):
        raise odd(PayloadError(f"GET {path} $", "an object"))
    found = unwrap(Payload(answer.value, f"GET {path} $"))
    if found is not None and not isinstance(found.value, list if path in _LISTS else dict):
        raise odd(PayloadError(found.path, "a list" if path in _LISTS else "an object"))
    return found


def unwrap(answer: Payload) -> Payload | None:
    """Newer endpoints wrap their answer in success, data and error, older ones do not, and some of both do both.

    Raises SourceUnavailable for a 2xx that carries `success: false`: it is an error.
    """
    found = answer
    if {"success", "data"} <= set(answer.keys()):
        if answer.at("success").value is not True:
            raise odd(PayloadError(f"{answer.path}.success", "true"))
        found = answer.at("data")
    return found if found.present else None


def odd(error: PayloadError) -> SourceUnavailable:
    """An answer that is none: it counts as a call that failed."""
    return SourceUnavailable(f"an answer of the API has an unexpected shape: {error}")


def readable(part: Callable[[], _T], otherwise: _T) -> _T:
    """What a secondary answer tells, or `otherwise` where something in it has an unexpected shape.

    That does not heal by waiting: an exam's odd title must not hold up the marks of all its participants.
    """
    try:
        return part()
    except PayloadError:
        return otherwise


def known_id(event: Event, name: str) -> str | None:
    """One of WISEflow's ids out of the event's nouns; they hold what the webhook said, all digits."""
    data = event.data
    if name == "submissionId":
        return data.submission.key.removeprefix("wiseflow:") if data.submission and data.submission.key else None
    if name == "explanationRequestId":
        noun_name, _, number = event.subject.partition("/")
        return number if noun_name == "justification" else None
    noun = data.assessment if name == "flowId" else data.person
    known = noun.identifiers if noun else ()
    return next((entry.value for entry in known if entry.scheme == f"wiseflow.{name}"), None)


def settle(event: Event, api: SourceApi, *, there: bool, agrees: bool) -> None:
    """Raise SourceUnavailable for an event so new that the API may still lag behind it: what it is about is not there
    yet, or not as the webhook said.
    """
    options, age = api.settings.options, (api.now - event.recordedtime).total_seconds()
    if not there and age < options["absent_seconds"]:
        raise SourceUnavailable("the API does not know what the webhook is about yet")
    if there and not agrees and age < options["settle_seconds"]:
        raise SourceUnavailable("the API does not show what the webhook said yet")


_WRAPPED_LISTS: Final = frozenset({EMAILS, EXTERNAL_SOURCES})
_LISTS: Final = _WRAPPED_LISTS | {SCALES, ASSIGNMENTS}
_NAMES: Final = ("flowId", "participantId", "submissionId", "userId", "explanationRequestId")
