"""What Inspera says has happened: papers from the event logs of tests, grades from the exports of their submissions.

No list of tests is documented, so the tests to look at are a setting. Both files are ordered and take their time;
ordering them sends no webhook, for what the API's user does itself is not sent to its own subscriptions (documented).
Event log: https://inspera.atlassian.net/wiki/spaces/KB/pages/2520547581/Test+events+export+API
Submissions: https://inspera.atlassian.net/wiki/spaces/KB/pages/222790166 (fields), .../185434233/Submissions+API
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from bridge.core.errors import PayloadError, SourceUnavailable
from bridge.core.events import Event, Json, stamp
from bridge.core.payload import Payload
from bridge.core.source import Found, SourceApi
from connectors.inspera.exports import NotYet, Order, exported, made, number, placed
from connectors.inspera.kinds import DELIVERED, GRADED, kind_of
from connectors.inspera.results import identifier, label_of, spelled, unwrapped

_Reader = Callable[[Payload, str, Json, Mapping[str, Any]], Iterator[Found]]
FILE_SECONDS: Final = 900
"""How old a file may be. A file knows nothing of what came after it, so it has to be younger than what comparisons look
at twice; and whoever asks for a file in vain comes back within seconds, and has this long."""


def happened(since: datetime, api: SourceApi) -> Iterator[Found]:
    """Delivered papers and confirmed grades of the tests in `reconcile_tests`, test by test, each oldest first.

    Raises SourceUnavailable with the time to wait while a file is being made, before anything is told: the next try
    asks for the same files. A file that cannot be had is complained about at the end, after all others.
    """
    runs = [str(run) for run in (api.settings.api or {}).get("reconcile_tests", ())]
    method = str((api.settings.api or {}).get("test_export_method", "POST"))
    orders = [(run, read, _order(run, what, method)) for run in runs for what, read in _FILES.items()]
    orders = [each for each in orders if _there(api, each[2])]  # all are ordered before any is asked for
    _wait_for(api, [order for _, _, order in orders])
    failed: SourceUnavailable | None = None
    for run, read, order in orders:
        try:
            found = _read(api, run, read, order)
        except SourceUnavailable as error:
            failed = error
            continue
        yield from (_perhaps_again(each, api) for each in found if each.occurred_at >= since)
    if failed is not None:
        raise failed


def _there(api: SourceApi, order: Order) -> bool:
    """Whether there is anything to export; a test may be there no more, or not yet."""
    try:
        return placed(api, order) is not None
    except SourceUnavailable:
        return True  # who reads it will see, when the others have been read


def _wait_for(api: SourceApi, orders: list[Order]) -> None:
    """Raise NotYet unless all files are made: none is fetched in vain while another one takes its time."""
    late: NotYet | None = None
    for order in orders:
        try:
            made(api, order)
        except NotYet as error:
            late = error
        except (SourceUnavailable, PayloadError):
            continue  # the same
    if late is not None:
        raise late


def _read(api: SourceApi, run: str, read: _Reader, order: Order) -> list[Found]:
    try:
        file = exported(api, order)
        found = [] if file is None else list(read(file, run, _tenant(run, api), api.settings.options))
    except PayloadError as error:
        raise SourceUnavailable(f"an export has an unexpected shape at {error.path}") from None
    return sorted(found, key=lambda each: each.occurred_at)


def fact(event: Event) -> str | None:
    """A paper by when it was delivered, a grade by its value.

    The files do not say in which round of an evaluation a grade was given, nor do webhooks say on which day: a grade
    that is changed and then given again as it was has the same words, and is told apart by the one between.
    """
    if event.type == "submission.submitted" and event.timequality == "source":
        return _paper(event.subject, event.time)
    if event.type == "grade.published" and event.data.grade is not None and event.data.grade.value:
        return _grade(event.subject, event.data.grade.label or event.data.grade.value)
    return None


def returns(event: Event) -> bool:
    """A grade has no date in its fact; a paper has."""
    return event.type == "grade.published"


def _perhaps_again(found: Found, api: SourceApi) -> Found:
    """A grade that is younger than the other one that this bridge knows; not if something else was heard since."""
    if found.kind != GRADED:
        return found
    last = api.known(found.fact.partition("|")[0])
    if last is None or last.type != "grade.published" or last.time >= found.occurred_at:
        return found
    return found if fact(last) in (found.fact, None) else replace(found, after=last.id)


def _paper(subject: str, at: datetime) -> str:
    return f"{subject}|submitted|{stamp(at)}"


def _grade(subject: str, value: str) -> str:
    """The grade as a number if it is one: 7.5 in one file is "7.50" in the other.

    Results have a decimal, submissions a text (https://inspera.atlassian.net/wiki/spaces/KB/pages/1562214548 and
    .../222790166). Where that is a letter, `grade_labels` has to say which number it is, or no two are ever the same.
    """
    try:
        word = format(Decimal(value).normalize(), "f")
    except InvalidOperation:
        word = value
    return f"{subject}|final grade|{word}"


def _order(run: str, what: str, method: str) -> Order:
    path = f"/v1/test/{identifier(Payload(run))}/{what}"
    return Order(path=path, name="reconcile", keep=FILE_SECONDS, method=method, under_test=True)


def _papers(file: Payload, run: str, tenant: Json, options: Mapping[str, Any]) -> Iterator[Found]:
    """`{candidates: [{userId, candidateId, events: [{event, timeStamp, …}]}]}`, those events that are deliveries.

    Whether the log spells events as webhooks do is not printed: `aliases` and `delivered_event` hold for both.
    """
    for candidate in _listed(unwrapped(file).at("candidates")):
        for entry in candidate.at("events").items():
            native, at = entry.at("event").maybe_text(), entry.at("timeStamp").maybe_time()
            if native is None or at is None or kind_of(Payload({"event": native}), options) != DELIVERED:
                continue
            at = at.replace(microsecond=0)  # a webhook's times are whole seconds
            who, about = _associated(candidate, options)
            body = _body(native, run, at) | tenant | about
            yield Found(kind=DELIVERED, body=body, occurred_at=at, fact=_paper(f"submission/{run}.{who}", at))


def _grades(file: Payload, run: str, tenant: Json, options: Mapping[str, Any]) -> Iterator[Found]:
    """`{ext_inspera_candidates: [{result: {…}}]}`, those that have a final grade and its date.

    That `student.sourcedId` is the user's id follows from the shape; is it so in every tenant? And are there final
    grades that are not confirmed yet?
    """
    for candidate in _listed(unwrapped(file).at("ext_inspera_candidates")):
        result = candidate.first("result") if candidate.at("result").present else candidate
        grade, date = result.at("ext_inspera_finalGrade"), result.first("ext_inspera_finalGradeDate", "date")
        value, at = spelled(grade)[0] if grade.present else None, date.maybe_time()
        if value is None or at is None:
            continue
        user = identifier(result.at("student", "sourcedId"))
        at = at.replace(microsecond=0)
        about = {"associatedObjectId": number(user), "associatedObjectType": "USER"}
        body = _body(GRADED, run, at) | tenant | about
        word = label_of(value, options["grade_labels"])
        yield Found(kind=GRADED, body=body, occurred_at=at, fact=_grade(f"submission/{run}.{user}", word))


_FILES: Final[Mapping[str, _Reader]] = {
    "events": _papers,
    "submissions": _grades,
}
"""What is ordered under a test, and who reads it."""


def _associated(candidate: Payload, options: Mapping[str, Any]) -> tuple[str, Json]:
    """A paper's second half of its subject, and the fields of the body that come to it, as in a genuine webhook."""
    if "CANDIDATE" in options["user_object_types"]:
        user = identifier(candidate.at("userId"))
        return user, {"associatedObjectId": number(user), "associatedObjectType": "CANDIDATE"}
    seat = identifier(candidate.at("candidateId"))
    return f"candidate-{seat}", {"associatedObjectId": number(seat), "associatedObjectType": "CANDIDATE"}


def _tenant(run: str, api: SourceApi) -> Json:
    """The tenant's number is in none of the files, but perhaps in the settings, and in what came before."""
    known = None if api.settings.options["marketplace_id"] else api.known(f"test/{run}")
    return {} if known is None else {"marketplaceId": number(known.source.rpartition(":")[2])}


def _body(native: str, run: str, at: datetime) -> Json:
    timestamp = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "event": native,
        "contextObjectId": number(run),
        "contextObjectType": "ASSESSMENT_RUN",
        "timestamp": timestamp,
    }


def _listed(candidates: Payload) -> Iterator[Payload]:
    if not isinstance(candidates.value, list):
        raise PayloadError(candidates.path, "a list of candidates")
    return candidates.items()
