"""Marks as the API shows them now: which one counts, what it is on its scale, and what became of one that is gone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from bridge.core.events import Enrichment, Event
from bridge.core.nouns import Grade, Person, Submission
from bridge.core.payload import Payload
from bridge.core.source import SourceApi
from connectors.wiseflow.calls import (
    ASSESSMENT,
    FLOW_KEPT,
    FLOW_SCALE,
    SCALES,
    SCALES_KEPT,
    SUBMISSION,
    ask,
    known_id,
    readable,
    settle,
)
from connectors.wiseflow.exams import exam
from connectors.wiseflow.marks import Mark, passes, read_mark, spelling
from connectors.wiseflow.people import person

_OUT: Final = ("grade.published", "grade.updated")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownMark:
    """A mark as it is spelled. `text` ones may be labels or stored values, the others are whole numbers: stored."""

    raw: str
    kind: str
    published_at: datetime | None
    text: bool


def shown(assessed: Payload) -> ShownMark | None:
    """What an assessment shows. An administrative mark beats the assessor's: a reading of the fields, undocumented."""
    for key, date, kind in (("adminGrade", "adminGradeDate", "administrative"), ("grade", "date", "final")):
        raw = spelling(assessed.at(key))
        if raw is not None:
            return ShownMark(raw=raw, kind=kind, published_at=assessed.at(date).maybe_time(), text=True)
    return None


def final_mark(event: Event, api: SourceApi) -> Event:
    """The submission is asked only where the assessment shows no mark: no list has its marks: a call for each."""
    assessed = ask(api, event, ASSESSMENT)
    mark = shown(assessed) if assessed else None
    submission = None
    entry = None
    if mark is None:
        submission = ask(api, event, SUBMISSION, extra=True, whole=True)
        entry = own_entry(submission, known_id(event, "participantId")) if submission else None
        mark = _stored(entry) if entry else None
    known = assessed is not None or entry is not None
    type = _type(event, mark) if known else event.type
    revoked = [name == "grade.revoked" for name in (type, event.type)]
    settle(event, api, there=known, agrees=revoked[0] == revoked[1])
    if submission is not None:
        event = replace(event, data=replace(event.data, submission=handed_in(event, submission)))
    grade, scale_known = _grade(event, api, mark, status=type.partition(".")[2])
    someone, person_known = person(event, api)
    told, exam_known = exam(replace(event, data=replace(event.data, person=someone, grade=grade)), api)
    # The assessment alone says that there is a mark; that there is none any more, both have to say.
    answered = assessed is not None and (mark is not None or entry is not None)
    state: Enrichment = "full" if answered and scale_known and person_known and exam_known else "partial"
    return replace(told, type=type, enrichment=state if known else "missing", observedat=api.now)


def recorded(event: Event, api: SourceApi) -> Event:
    """An assessor's assessment: the mark is shown as provisional, since only final.mark says that one is out."""
    assessed = ask(api, event, ASSESSMENT)
    named = known_id(event, "participantId") is not None
    settle(event, api, there=assessed is not None or not named, agrees=True)
    mark = shown(assessed) if assessed else None
    grade, scale_known = _grade(event, api, mark, status="provisional") if mark else (None, True)
    someone, person_known = person(event, api)
    told, exam_known = exam(replace(event, data=replace(event.data, person=someone, grade=grade)), api)
    state: Enrichment = "full" if scale_known and person_known and exam_known else "partial"
    return replace(told, enrichment="missing" if named and assessed is None else state, observedat=api.now)


def own_entry(submission: Payload, participant: str | None) -> Payload | None:
    """The participant's own entry of a submission; several share a group's. The OpenAPI description 1.34 lists the
    number as `id` and requires `participantId` (flow-participant-info): whichever is there.
    """
    members = submission.at("participants").items()
    return next((entry for entry in members if entry.first("participantId", "id").maybe_text() == participant), None)


def handed_in(event: Event, submission: Payload) -> Submission:
    """What GET /flows/{flowId}/submissions/{submissionId} says beside the marks."""
    before = event.data.submission or Submission()
    members = list(submission.at("participants").items())
    handed = submission.at("status", "handedIn").maybe_flag()
    return replace(
        before,
        submitted_at=submission.at("status", "handedInDate").maybe_time() if handed else None,
        is_group=len(members) > 1 if members else None,  # a group's paper is one submission of several participants
    )


def _stored(entry: Payload) -> ShownMark | None:
    """The submission's own figure: a whole number and so, most likely, the value that the scale stores."""
    raw = spelling(entry.at("finalGrade", "grade"))
    if raw is None:
        return None
    return ShownMark(raw=raw, kind="final", published_at=entry.at("finalGrade", "date").maybe_time(), text=False)


def _type(event: Event, mark: ShownMark | None) -> str:
    """The type that fits what is there now: no mark any more is revoked, a mark in spite of a revocation is out again.

    That a revoked mark leaves no grade behind is the reading of the API's description, which has no flag for it.
    """
    if mark is None:
        return "grade.revoked"
    return "grade.published" if event.type == "grade.revoked" else event.type


def _grade(event: Event, api: SourceApi, mark: ShownMark | None, *, status: str) -> tuple[Grade, bool]:
    """The grade on its scale, and whether the scale is known."""
    if mark is None:
        return Grade(kind="final", status=status, published_at=_taken_back(event, api)), True
    options = api.settings.options
    scale = readable(lambda: _scale(event, api), None)
    value_first = options["grade_lookup"] == "value-first" or not mark.text
    stored_bounds = options["input_scale_bounds"] == "stored"
    read = readable(
        lambda: read_mark(mark.raw, scale, value_first=value_first, stored_bounds=stored_bounds),
        Mark(value=mark.raw, label=mark.raw),
    )
    grade = Grade(
        kind=mark.kind,
        status=status,
        published_at=mark.published_at,
        value=read.value,
        label=read.label,
        scale=read.scale,
        score_given=read.score,
        score_maximum=read.maximum,
        passed=passes(read, options["passing_grades"]),
    )
    return grade, scale is not None


def _taken_back(event: Event, api: SourceApi) -> datetime | None:
    """When the mark that is gone had been published, as far as this bridge knows: the platform forgets it."""
    last = api.known(event.subject)
    if last is None or last.data.grade is None or last.type not in (*_OUT, "grade.revoked"):
        return None
    return last.data.grade.published_at if _key(last.data.person) == _key(event.data.person) else None


def _key(someone: Person | None) -> str | None:
    return someone.key if someone else None


def _scale(event: Event, api: SourceApi) -> Payload | None:
    chosen = ask(api, event, FLOW_SCALE, keep=FLOW_KEPT, extra=True)
    wanted = chosen.at("gradingScaleId").maybe_text() if chosen else None
    scales = ask(api, event, SCALES, keep=SCALES_KEPT, extra=True) if wanted else None
    entries = scales.items() if scales else iter(())
    return next((scale for scale in entries if scale.at("id").maybe_text() == wanted), None)
