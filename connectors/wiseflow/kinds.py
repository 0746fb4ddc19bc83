"""What each of WISEflow's events becomes: canonical type, subject and data, before anything is asked of the API.

Payload keys are those of the help page's section "Available webhooks" and of the article on grade justifications; two
kinds (flow.period, assessment) are known from the subscription API alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from bridge.core.errors import PayloadError
from bridge.core.nouns import Artifact, Assessment, Change, Data, Grade, Identifier, Person, Submission
from bridge.core.settings import Settings
from bridge.core.source import Notice

_VERBS: Final = {"added": "created", "changed": "updated", "removed": "deleted"}
_ROLES: Final = {"assessor": "instructor", "reviewer": "instructor"}
_MARKS: Final = {
    "created": ("grade.published", "published"),
    "updated": ("grade.updated", "updated"),
    "deleted": ("grade.revoked", "revoked"),
}

Normal = tuple[str, str, Data]


def _paper(notice: Notice, settings: Settings) -> Normal:
    handed_in = notice.payload.at("isHandedIn").flag()
    submission = _id(notice, "submissionId")
    status = "submitted" if handed_in else "withdrawn"
    data = Data(
        person=_person(notice),
        assessment=_flow(notice),
        submission=Submission(key=f"wiseflow:{submission}", status=status),
    )
    return f"submission.{status}", f"submission/{submission}", data


def _mark(notice: Notice, settings: Settings) -> Normal:
    verb = _verb(notice, notice.action)
    type, status = _MARKS[verb]
    submission = _id(notice, "submissionId")
    data = Data(
        person=_person(notice),
        assessment=_flow(notice),
        submission=Submission(key=f"wiseflow:{submission}"),
        grade=Grade(kind="final", status=status),
    )
    return type, f"submission/{submission}", data


def _alternative(notice: Notice, settings: Settings) -> Normal:
    verb = _verb(notice, notice.payload.at("action").maybe_text() or notice.action)
    type, status = {
        "created": ("grade.alternative_added", "published"),
        "updated": ("grade.alternative_changed", "updated"),
        "deleted": ("grade.alternative_removed", "revoked"),
    }[verb]
    # asRole is documented as "manager" only; that others are called assessor or reviewer is a guess.
    role = notice.payload.at("asRole").maybe_text()
    actor = notice.payload.at("updatedBy").maybe_integer()
    data = Data(
        person=_person(notice),
        actor=None if actor is None else _somebody("userId", actor, role=_ROLES.get(role or "", role)),
        assessment=_flow(notice),
        grade=Grade(kind="alternative", status=status),
    )
    return type, _participant(notice), data


def _justification(notice: Notice, settings: Settings) -> Normal:
    # Both samples carry an assessorId, so only the action tells a request from an answer.
    verb = _verb(notice, notice.action)
    if verb == "deleted":
        raise PayloadError("$.action", "created or updated")
    answered = verb == "updated"
    assessor = notice.payload.at("assessorId").maybe_integer()
    data = Data(
        person=_person(notice),
        actor=_somebody("assessorId", assessor, role="instructor") if answered and assessor is not None else None,
        assessment=_flow(notice),
    )
    type = "grade.justification_answered" if answered else "grade.justification_requested"
    return type, f"justification/{_id(notice, 'explanationRequestId')}", data


def _assignment(notice: Notice, settings: Settings) -> Normal:
    verb = _verb(notice, notice.action)
    key = _id(notice, "assignmentId")
    title = notice.payload.at("assignmentReference").maybe_text()
    data = Data(assessment=_flow(notice), artifact=Artifact(key=f"wiseflow:{key}", kind="assignment", title=title))
    return f"assignment.{'removed' if verb == 'deleted' else verb}", f"assignment/{key}", data


def _state(notice: Notice, settings: Settings) -> Normal:
    state = notice.payload.at("state").text()
    label = settings.options["flow_state_labels"].get(state)
    data = Data(assessment=_flow(notice, state=label or state), change=Change(field="state", new=state, label=label))
    return "assessment.state_changed", f"flow/{_id(notice, 'flowId')}", data


def _external_source(notice: Notice, settings: Settings) -> Normal:
    # The shape of the elements is not documented: texts, numbers, or objects as the REST API has them?
    elements = notice.payload.at("externalSources").items()
    names = [(entry.first("reference", "id") if entry.keys() else entry).text() for entry in elements]
    change = Change(field="externalSources", new=", ".join(names) or None)
    return "sync.requested", f"flow/{_id(notice, 'flowId')}", Data(assessment=_flow(notice), change=change)


def _period(notice: Notice, settings: Settings) -> Normal:
    # Known from the subscription API only, its payload is not documented. Is there the id of a period in it?
    period = notice.payload.first("periodId", "period.id").maybe_integer()
    change = Change(field="period", new=None if period is None else str(period))
    return "assessment.period_changed", f"flow/{_id(notice, 'flowId')}", Data(assessment=_flow(notice), change=change)


def _assessed(notice: Notice, settings: Settings) -> Normal:
    # Known from the subscription API only, its payload is not documented: the most exact subject that it names.
    payload = notice.payload
    submission = payload.at("submissionId").maybe_integer()
    subject = f"flow/{_id(notice, 'flowId')}"
    if submission is not None:
        subject = f"submission/{submission}"
    elif payload.at("participantId").present:
        subject = _participant(notice)
    data = Data(
        person=_person(notice) if payload.first("userId", "participantId").present else None,
        assessment=_flow(notice),
        submission=None if submission is None else Submission(key=f"wiseflow:{submission}"),
    )
    return "grade.assessment_recorded", subject, data


def _test(notice: Notice, settings: Settings) -> Normal:
    return "source.verification", f"license/{notice.tenant}", Data()


def _verb(notice: Notice, word: str | None) -> str:
    verb = (word or "").strip().lower()
    verb = _VERBS.get(verb, verb)
    if verb not in ("created", "updated", "deleted"):
        raise PayloadError("$.action", "created, updated or deleted")
    return verb


def _id(notice: Notice, name: str) -> str:
    """An id as text. All of WISEflow's are whole numbers, sometimes quoted; anything else never gets into a path."""
    return str(notice.payload.at(name).integer())


def _participant(notice: Notice) -> str:
    return f"participant/{_id(notice, 'flowId')}.{_id(notice, 'participantId')}"


def _person(notice: Notice) -> Person:
    """The participant. A user is one for the whole licence, a participant one per flow; group papers name a member."""
    user = notice.payload.at("userId").maybe_integer()
    participant = notice.payload.at("participantId").maybe_integer()
    ids = (("wiseflow.userId", user), ("wiseflow.participantId", participant))
    return Person(
        key=None if user is None else f"wiseflow:{user}",
        role="learner",
        identifiers=tuple(Identifier(scheme=scheme, value=str(value)) for scheme, value in ids if value is not None),
    )


def _somebody(name: str, number: int, *, role: str | None) -> Person:
    """A user by id; is an assessorId a user's id? Not documented, so only a userId becomes a key."""
    key = f"wiseflow:{number}" if name == "userId" else None
    return Person(key=key, role=role, identifiers=(Identifier(scheme=f"wiseflow.{name}", value=str(number)),))


def _flow(notice: Notice, state: str | None = None) -> Assessment:
    flow = _id(notice, "flowId")
    return Assessment(
        key=f"wiseflow:{flow}", state=state, identifiers=(Identifier(scheme="wiseflow.flowId", value=flow),)
    )


KINDS: Final[Mapping[str, Callable[[Notice, Settings], Normal]]] = {
    "paper.submission": _paper,
    "final.mark": _mark,
    "grade.justification": _justification,
    "alternative.grade": _alternative,
    "assignment.added": _assignment,
    "flow.state": _state,
    "flow.external.source": _external_source,
    "flow.period": _period,
    "assessment": _assessed,
    "webhook.test": _test,
}
