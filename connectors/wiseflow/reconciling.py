"""What WISEflow's lists say has happened, to find the webhooks that never came.

Hand-ins and marks have a time in their lists. What is taken back leaves none: it shows only against what this bridge
knows. Alternative grades, justifications, assignments and periods are in no list with a time, and cannot be found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from bridge.core.errors import PayloadError
from bridge.core.events import Event, Json, stamp
from bridge.core.payload import Payload
from bridge.core.source import Found, SourceApi
from connectors.wiseflow.calls import ASSESSMENTS, LICENCE, PARTICIPANTS, SEARCH, SUBMISSIONS, known_id, odd, unwrap
from connectors.wiseflow.exams import state_label
from connectors.wiseflow.grading import shown
from connectors.wiseflow.lists import ASSESSMENTS_PAGE, PAGE, Listing, entries_of, pages

# The search's words for the numbers that webhooks and GET /flow/{flowId} have (OpenAPI description 1.34).
_STATES: Final = {
    "NOT_ACTIVATED": 0,
    "ACTIVATED": 1,
    "PARTICIPATION_STARTED": 2,
    "PARTICIPATION_ENDED": 3,
    "CONCLUDED": 4,
    "ARCHIVED": 5,
}
_SEARCHED: Final = ["ACTIVATED", "PARTICIPATION_STARTED", "PARTICIPATION_ENDED", "CONCLUDED"]
_OPEN: Final = (2, 3, 4)
# Which date of a flow brings it into a state: a flow moves by its dates.
_MOVED_BY: Final = {2: ("participation", "start"), 3: ("participation", "end"), 4: ("marking", "end")}
_STILL: Final = timedelta(days=30)
"""Flows are said to be archived 30 days after their marking ends; nothing is expected of them any more."""
_OUT: Final = ("grade.published", "grade.updated")
_LOOKED_AT: Final = 100
"""Papers of a flow of which one may have been heard of: the licence's id is in no answer."""


def happened(since: datetime, api: SourceApi) -> Iterator[Found]:
    """Hand-ins, marks and states of all flows since a time, flow by flow, each in the order of time.

    What is held at a time are the participants and the findings of one flow. Raises SourceUnavailable.
    """
    try:
        licence = _licence(api)
        for flow in _flows(api):
            licence = licence or _licence_heard_of(f"flow/{flow.at('flowId').maybe_text()}", api)
            yield from sorted(_of_flow(flow, since, api, licence), key=lambda found: found.occurred_at)
    except PayloadError as error:
        raise odd(error) from None


def fact(event: Event) -> str | None:
    """What a completed event says has happened, in the words of `happened`; None for what is in no list."""
    data = event.data
    if event.sourceevent == "paper.submission" and data.submission and data.submission.submitted_at:
        return _paper_fact(event.subject, event.type == "submission.submitted", data.submission.submitted_at)
    participant = known_id(event, "participantId")
    if event.sourceevent == "final.mark" and data.grade and data.grade.published_at and participant:
        kind = "revoked" if event.type == "grade.revoked" else data.grade.kind
        return _mark_fact(event.subject, participant, kind or "final", data.grade.published_at)
    if event.sourceevent == "flow.state" and data.change and data.change.new:
        return f"{event.subject}|state|{data.change.new}"
    return None


def returns(event: Event) -> bool:
    """A flow can be moved back and forth; hand-ins and marks have dates."""
    return event.sourceevent == "flow.state"


def _paper_fact(subject: str, handed_in: bool, at: datetime) -> str:
    """A withdrawal is named by the hand-in that it takes back; it has no time of its own."""
    return f"{subject}|{'submitted' if handed_in else 'withdrawn'}|{stamp(at)}"


def _mark_fact(subject: str, participant: str, kind: str, at: datetime) -> str:
    """To the second: assessments have no more, submissions do. The mark is not named: a new one has a new time."""
    return f"{subject}|participant/{participant}|{kind}|{stamp(at.replace(microsecond=0))}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flow:
    id: str
    state: int | None
    found: Payload
    licence: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    """One participant: the user, and the submission that they share or have to themselves."""

    participant: str
    user: str | None
    submission: str | None


def _licence(api: SourceApi) -> str | None:
    """The licence's id, as webhooks carry it: the configured one, or what /license/info may have. The OpenAPI
    description 1.34 (license-info) has none in it.
    """
    configured = (api.settings.api or {}).get("license_id")
    if configured:
        return str(configured)
    answer = api.get(LICENCE)
    found = unwrap(Payload(answer.value, f"GET {LICENCE} $")) if answer is not None else None
    number = found.first("id", "licenseId").maybe_integer() if found is not None else None
    return None if number is None else str(number)


def _licence_heard_of(subject: str, api: SourceApi) -> str | None:
    """The licence of an earlier event, for all that one set of credentials can see belongs to one licence."""
    last = api.known(subject)
    told, _, number = last.source.rpartition(":")[2].partition("-") if last is not None else ("", "", "")
    return number if told == "lic" else None


def _flows(api: SourceApi) -> Iterator[Payload]:
    """All flows that are neither drafts nor archived; the search knows no time of a change."""
    offset = 0
    while True:
        path = f"{SEARCH}?offset={offset}&limit={PAGE}"
        answer = api.post(path, {"metadata": {"states": _SEARCHED}})
        entries = entries_of(Payload(answer.value, f"POST {SEARCH} $")) if answer is not None else []
        yield from (Payload(entry, f"POST {SEARCH} $.data") for entry in entries)
        offset += len(entries)
        total = answer.at("pagination", "total").maybe_integer() if answer is not None else 0
        if not entries or (offset >= total if total is not None else len(entries) < PAGE):
            return


def _of_flow(found: Payload, since: datetime, api: SourceApi, licence: str | None) -> Iterator[Found]:
    state = found.at("state").maybe_text() or ""
    number = int(state) if state.isascii() and state.isdigit() else _STATES.get(state)
    flow = _Flow(id=str(found.at("flowId").integer()), state=number, found=found, licence=licence)
    marking_ends = found.at("marking", "end").maybe_time()
    if marking_ends is not None and marking_ends + _STILL < since:
        return
    if number is not None:
        yield from _moved(flow, number, since, api)
    if number is None or number in _OPEN:
        yield from _handed_in_and_marked(flow, since, api)


def _moved(flow: _Flow, state: int, since: datetime, api: SourceApi) -> Iterator[Found]:
    subject = f"flow/{flow.id}"
    at = flow.found.at(*_MOVED_BY[state]).maybe_time() if state in _MOVED_BY else None
    last = api.known(subject)
    shown_last = last.data.assessment.state if last is not None and last.data.assessment is not None else None
    if shown_last == state_label(api, str(state)):
        return
    if shown_last is None and (at is None or at < since):  # nothing to compare with, and nothing says that it is new
        return
    moment = at if at is not None and at >= since else api.now
    if last is not None and shown_last is not None and moment <= last.time:
        if api.now <= last.time:  # what is known is newer than what is compared
            return
        moment = api.now
    # The number alone is what the fact says: a flow that is opened again was in that state before.
    after = last.id if last is not None and shown_last is not None else None
    payload, name = {"state": state, "flowId": int(flow.id)}, f"{subject}|state|{state}"
    yield _found(flow, ("flow.state", "updated"), payload, moment, name, after=after)


def _handed_in_and_marked(flow: _Flow, since: datetime, api: SourceApi) -> Iterator[Found]:
    """The list of submissions has no users and that of assessments no submissions: the participants tie them."""
    members = list(_members(flow, api))
    if flow.licence is None:
        told = (_licence_heard_of(f"submission/{member.submission}", api) for member in members[:_LOOKED_AT])
        flow = replace(flow, licence=next(filter(None, told), None))
    first = {member.submission: member for member in reversed(members) if member.submission is not None}
    for entry in _entries(api, flow, SUBMISSIONS, PAGE):
        member = first.get(str(entry.at("id").integer()))
        if member is not None:
            yield from _paper(flow, entry, member, since, api)
    by_number = {member.participant: member for member in members if member.submission is not None}
    for entry in _entries(api, flow, ASSESSMENTS, ASSESSMENTS_PAGE):
        member = by_number.get(entry.at("participantId").text())
        if member is not None:
            yield from _mark(flow, entry, member, since, api)


def _paper(flow: _Flow, entry: Payload, member: _Member, since: datetime, api: SourceApi) -> Iterator[Found]:
    subject = f"submission/{member.submission}"
    handed_in = entry.at("status", "handedIn").maybe_flag() is True
    at = entry.at("status", "handedInDate").maybe_time() if handed_in else None
    if handed_in and at is not None and at >= since:
        payload = _payload(flow, member) | {"isHandedIn": True}
        yield _found(flow, ("paper.submission", "created"), payload, at, _paper_fact(subject, True, at))
    if handed_in:
        return
    last = api.known(subject)
    if last is not None and last.type == "submission.submitted" and last.data.submission is not None:
        handed_in_at = last.data.submission.submitted_at
        if handed_in_at is not None:
            payload = _payload(flow, member) | {"isHandedIn": False}
            name = _paper_fact(subject, False, handed_in_at)
            yield _found(flow, ("paper.submission", "updated"), payload, api.now, name)


def _mark(flow: _Flow, entry: Payload, member: _Member, since: datetime, api: SourceApi) -> Iterator[Found]:
    subject = f"submission/{member.submission}"
    mark = shown(entry)
    if mark is not None:
        at = mark.published_at
        if at is not None and at >= since:
            name = _mark_fact(subject, member.participant, mark.kind, at)
            yield _found(flow, ("final.mark", _action(api, subject, member)), _payload(flow, member), at, name)
        return
    published = _last_published(api, subject, member)
    if published is not None:
        name = _mark_fact(subject, member.participant, "revoked", published)
        yield _found(flow, ("final.mark", "deleted"), _payload(flow, member), api.now, name)


def _action(api: SourceApi, subject: str, member: _Member) -> str:
    return "created" if _last_published(api, subject, member) is None else "updated"


def _last_published(api: SourceApi, subject: str, member: _Member) -> datetime | None:
    """When the participant's mark was published, if the newest that this bridge knows is that one is out."""
    last = api.known(subject)
    if last is None or last.type not in _OUT or known_id(last, "participantId") != member.participant:
        return None
    return last.data.grade.published_at if last.data.grade is not None else None


def _payload(flow: _Flow, member: _Member) -> Json:
    ids = {"submissionId": member.submission, "flowId": flow.id, "userId": member.user}
    numbers = {name: int(value) for name, value in ids.items() if value is not None}
    return {**numbers, "participantId": int(member.participant)}


def _found(
    flow: _Flow, call: tuple[str, str], payload: Json, at: datetime, name: str, *, after: str | None = None
) -> Found:
    """As WISEflow would have called (kind and action); for the unknown sequence number stands the fact."""
    kind, action = call
    body: Json = {
        "action": action,
        "event": kind,
        "eventPayload": payload,
        "callTime": int(at.timestamp() * 1000),
        "sequenceNumber": name if after is None else f"{name}|after {after}",
    }
    if flow.licence is not None:
        body["licenseId"] = int(flow.licence) if flow.licence.isdigit() else flow.licence
    return Found(kind=kind, body=body, occurred_at=at, fact=name, after=after)


def _members(flow: _Flow, api: SourceApi) -> Iterator[_Member]:
    for entry in _entries(api, flow, PARTICIPANTS, PAGE):
        user, submission = entry.first("userId", "user.id").maybe_integer(), entry.at("submissionId").maybe_integer()
        yield _Member(
            participant=str(entry.at("participantId").integer()),
            user=None if user is None else str(user),
            submission=None if submission is None else str(submission),
        )


def _entries(api: SourceApi, flow: _Flow, path: str, page: int) -> Iterator[Payload]:
    listing = Listing(path=path.format_map({"flowId": flow.id}), page=page)
    for entries in pages(api, listing):
        entry: Mapping[str, Any]
        for entry in entries:
            yield Payload(entry, f"GET {path} $")
