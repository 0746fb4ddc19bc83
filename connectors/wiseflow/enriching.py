"""Completes WISEflow's events over its REST API.

What the API shows now wins over what the webhook said: a hand-in withdrawn since goes on as a withdrawal, a mark that
is gone as a revocation. Nothing corrects that later, so an event that has only just come waits a little first.

Each recipe has one call without which nothing is known; it raises, and the event waits. All others are extra: without
them the event goes on as partial in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from bridge.core.errors import PayloadError
from bridge.core.events import Enrichment, Event
from bridge.core.nouns import Artifact, Assessment, Change, Grade, Person, Submission
from bridge.core.payload import Payload
from bridge.core.source import SourceApi
from connectors.wiseflow.calls import (
    ASSIGNMENTS,
    DATES,
    EXPLANATION,
    EXTERNAL_SOURCES,
    FLOW,
    PARTICIPANT,
    SUBMISSION,
    ask,
    known_id,
    odd,
    readable,
    settle,
)
from connectors.wiseflow.exams import course, exam, flow_told, state_label
from connectors.wiseflow.grading import final_mark, handed_in, own_entry, recorded
from connectors.wiseflow.people import actor, described, person, person_of

# OpenAPI description 1.34: 0 requested, 1 accepted and assigned, 2 answered by the assessor, 3 the answer accepted.
_EXPLANATIONS: Final = {"0": "REQUESTED", "1": "ASSIGNED", "2": "ANSWERED", "3": "ACCEPTED"}
_LINK_LIVES: Final = timedelta(hours=25)
"""How long an assignment's address works after it was given out (OpenAPI description 1.34)."""


def complete(event: Event, api: SourceApi) -> Event:
    """The event with what the API knows. Raises SourceUnavailable also for answers of an unexpected shape."""
    try:
        return _RECIPES[event.sourceevent](event, api)
    except PayloadError as error:
        raise odd(error) from None


def _paper(event: Event, api: SourceApi) -> Event:
    found = ask(api, event, SUBMISSION)
    handed = found.at("status", "handedIn").maybe_flag() if found else None
    type = event.type if handed is None else f"submission.{'submitted' if handed else 'withdrawn'}"
    settle(event, api, there=found is not None, agrees=type == event.type)
    submission = handed_in(event, found) if found else event.data.submission or Submission()
    if type == "submission.withdrawn":
        submission = replace(submission, submitted_at=_taken_back(event, api))
    submission = replace(submission, status=type.partition(".")[2])
    someone, person_known = person(event, api)
    told, exam_known = exam(replace(event, data=replace(event.data, person=someone, submission=submission)), api)
    return _ended(
        replace(told, type=type), api, found=found is not None, rest=handed is not None and person_known and exam_known
    )


def _alternative(event: Event, api: SourceApi) -> Event:
    """There is no call for alternative grades: the participant names the submission, and that has them."""
    participant = ask(api, event, PARTICIPANT, whole=True)
    settle(event, api, there=participant is not None, agrees=True)
    number = participant.at("submissionId").maybe_integer() if participant else None
    submission = None if number is None else _submission_of(event, api, number)
    entry = own_entry(submission, known_id(event, "participantId")) if submission else None
    given = entry.at("alternativeGrade", "grade").maybe_text() if entry else None
    type = event.type if entry is None else _alternative_type(event, given)
    settle(event, api, there=entry is not None or number is None, agrees=type == event.type)
    status = {"added": "published", "changed": "updated", "removed": "revoked"}[type.rpartition("_")[2]]
    # A short code of the licence (absence, illness …) that stands for itself: value and label are one.
    grade = Grade(kind="alternative", status=status, value=given, label=given)
    if entry is not None and given is not None:
        grade = replace(grade, published_at=entry.at("alternativeGrade", "date").maybe_time())
    someone, person_known = person_of(event, api, participant) if participant else person(event, api)
    by, actor_known = actor(event, api)
    told, exam_known = exam(replace(event, data=replace(event.data, person=someone, actor=by, grade=grade)), api)
    rest = entry is not None and person_known and actor_known and exam_known
    return _ended(replace(told, type=type), api, found=participant is not None, rest=rest)


def _submission_of(event: Event, api: SourceApi, number: int) -> Payload | None:
    named = replace(event.data, submission=Submission(key=f"wiseflow:{number}"))
    return ask(api, replace(event, data=named), SUBMISSION, extra=True, whole=True)


def _alternative_type(event: Event, given: str | None) -> str:
    if given is None:
        return "grade.alternative_removed"
    return "grade.alternative_changed" if event.type == "grade.alternative_removed" else event.type


def _justification(event: Event, api: SourceApi) -> Event:
    found = ask(api, event, EXPLANATION)
    state = found.at("state").maybe_text() if found else None
    type = event.type
    if state in _EXPLANATIONS:
        type = "grade.justification_answered" if state in ("2", "3") else "grade.justification_requested"
    settle(event, api, there=found is not None, agrees=type == event.type)
    change = event.data.change if state is None else Change(field="state", new=state, label=_EXPLANATIONS.get(state))
    assigned = found.at("assignedAssessor") if found else None
    by = readable(lambda: _assessor(event, api, assigned), event.data.actor)
    someone, person_known = person(event, api)
    told, exam_known = exam(replace(event, data=replace(event.data, person=someone, actor=by, change=change)), api)
    return _ended(replace(told, type=type), api, found=found is not None, rest=person_known and exam_known)


def _assessor(event: Event, api: SourceApi, assigned: Payload | None) -> Person | None:
    """The assessor with a name, where an explanation request has one. Is an assessorId a user's id? Not documented."""
    if assigned is None or not assigned.at("user").present or not api.settings.options["person_details"]:
        return event.data.actor
    number = assigned.first("user.id", "user.userId").maybe_integer()
    before = event.data.actor or Person(role="instructor")
    return described(before if number is None else replace(before, key=f"wiseflow:{number}"), assigned.at("user"), api)


def _assignment(event: Event, api: SourceApi) -> Event:
    """There is no call for one assignment: the flow's few are listed, and one that is not there was taken off."""
    entries = ask(api, event, ASSIGNMENTS)
    number = event.subject.partition("/")[2]
    mine = [entry for entry in entries.items() if entry.at("id").maybe_text() == number] if entries else []
    type = event.type
    if entries is not None and (event.type == "assignment.removed") == bool(mine):
        type = "assignment.updated" if mine else "assignment.removed"
    settle(event, api, there=entries is not None, agrees=type == event.type)
    before = event.data.artifact or Artifact(kind="assignment")
    artifact = _artifact(before, mine[0], api) if mine else _last_known(event, before, api)
    told, exam_known = exam(replace(event, data=replace(event.data, artifact=artifact)), api)
    return _ended(replace(told, type=type), api, found=entries is not None, rest=exam_known)


def _artifact(before: Artifact, entry: Payload, api: SourceApi) -> Artifact:
    file = entry.at("assignment")
    url = file.at("url").maybe_text()
    return replace(
        before,
        title=file.at("name").maybe_text() or entry.at("publishedReference").maybe_text() or before.title,
        url=url,
        # Rounded down to the hour: what is read twice is told alike, and never too late.
        url_expires_at=(api.now + _LINK_LIVES).replace(minute=0, second=0, microsecond=0) if url else None,
        media_type=file.first("content-type", "contentType").maybe_text(),
    )


def _last_known(event: Event, before: Artifact, api: SourceApi) -> Artifact:
    """What is gone is told as it last was; its address works no more."""
    last = api.known(event.subject)
    if last is None or last.data.artifact is None:
        return before
    return replace(before, title=last.data.artifact.title or before.title, media_type=last.data.artifact.media_type)


def _state(event: Event, api: SourceApi) -> Event:
    found = ask(api, event, FLOW)
    state = found.at("state").maybe_text() if found else None
    said = event.data.change.new if event.data.change else None
    settle(event, api, there=found is not None, agrees=state == said)
    if found is None or state is None:
        return _ended(event, api, found=False, rest=False)
    label = state_label(api, state)
    known_label = label if label != state else None
    told = flow_told(event, api, found)
    told = replace(told, data=replace(told.data, change=Change(field="state", new=state, label=known_label)))
    with_course, course_known = course(told, api)
    return _ended(with_course, api, found=True, rest=course_known)


def _external_source(event: Event, api: SourceApi) -> Event:
    """The sources that the webhook names by id or reference, with references and states; all, if it names none."""
    found = ask(api, event, EXTERNAL_SOURCES)
    settle(event, api, there=found is not None, agrees=True)
    change = event.data.change or Change(field="externalSources")
    named = set(change.new.split(", ")) if change.new else None
    told = (
        [(entry.at("id").maybe_text(), entry.at("reference").maybe_text(), entry) for entry in found.items()]
        if found
        else []
    )
    mine = [
        (reference or number, entry) for number, reference, entry in told if not named or {number, reference} & named
    ]
    states = [f"{name}: {state}" for name, entry in mine if (state := entry.at("state").maybe_text())]
    if mine:
        change = replace(change, new=", ".join(name for name, _ in mine if name), label=", ".join(states) or None)
    with_exam, exam_known = exam(replace(event, data=replace(event.data, change=change)), api)
    return _ended(with_exam, api, found=found is not None, rest=exam_known and bool(mine))


def _period(event: Event, api: SourceApi) -> Event:
    found = ask(api, event, DATES)
    settle(event, api, there=found is not None, agrees=True)
    told, exam_known = exam(event, api)
    if found is not None:  # fresher than the flow, which is kept
        dates = replace(
            told.data.assessment or Assessment(),
            starts_at=found.at("participation", "start").maybe_time(),
            ends_at=found.at("participation", "end").maybe_time(),
        )
        told = replace(told, data=replace(told.data, assessment=dates))
    return _ended(told, api, found=found is not None, rest=exam_known)


def _taken_back(event: Event, api: SourceApi) -> datetime | None:
    """When the paper that was withdrawn had been handed in, as far as this bridge knows: the platform forgets it."""
    last = api.known(event.subject)
    return last.data.submission.submitted_at if last is not None and last.data.submission is not None else None


def _ended(event: Event, api: SourceApi, *, found: bool, rest: bool) -> Event:
    state: Enrichment = "full" if rest else "partial"
    return replace(event, enrichment=state if found else "missing", observedat=api.now)


_RECIPES: Final[Mapping[str, Callable[[Event, SourceApi], Event]]] = {
    "paper.submission": _paper,
    "final.mark": final_mark,
    "alternative.grade": _alternative,
    "grade.justification": _justification,
    "assignment.added": _assignment,
    "flow.state": _state,
    "flow.external.source": _external_source,
    "flow.period": _period,
    "assessment": recorded,
}
