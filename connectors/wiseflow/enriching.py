"""Completes hand-ins and marks over WISEflow's REST API, as its OpenAPI description 1.34 has it.

What the API shows now wins over what the webhook said: a hand-in withdrawn since goes on as a withdrawal, a mark that
is gone as a revocation. Nothing corrects that later, so an event that has only just come waits a little first.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from bridge.core.contracts import SourceApi
from bridge.core.errors import PayloadError, SourceUnavailable
from bridge.core.events import Enrichment, Event
from bridge.core.nouns import Assessment, Grade, Identifier, Person, Submission
from bridge.core.payload import Payload
from connectors.wiseflow.marks import Mark, passes, read_mark, spelling

FLOW: Final = "/flow/{flowId}"
PARTICIPANT: Final = "/flows/{flowId}/participants/{participantId}"
SUBMISSION: Final = "/flows/{flowId}/submissions/{submissionId}"
ASSESSMENT: Final = "/flow/{flowId}/assessments/{participantId}"
USER: Final = "/user/{userId}/info"
EMAILS: Final = "/users/{userId}/emails"
FLOW_SCALE: Final = "/flows/{flowId}/grading-scale"
SCALES: Final = "/license/grading-scales"

_FLOW_KEPT: Final = 300.0
_PEOPLE_KEPT: Final = 600.0


def complete(event: Event, api: SourceApi) -> Event:
    """The event with what the API knows. Raises SourceUnavailable also for answers of an unexpected shape."""
    try:
        return _mark(event, api) if event.sourceevent == "final.mark" else _paper(event, api)
    except PayloadError as error:
        raise SourceUnavailable(f"an answer of the API has an unexpected shape: {error}") from None


def unwrap(answer: Payload) -> Payload:
    """Newer endpoints wrap their answer in success, data and error, older ones do not, and some of both do both."""
    if not {"success", "data"} <= set(answer.keys()):
        return answer
    if answer.at("success").maybe_flag() is False:  # a 2xx can still carry success: false
        raise PayloadError(f"{answer.path}.success", "true")
    return answer.at("data")


def _paper(event: Event, api: SourceApi) -> Event:
    found = _ask(api, SUBMISSION, event)
    if found is None and _unsettled(event, api):
        raise SourceUnavailable("the API does not know the submission yet")
    handed_in = found.at("status", "handedIn").maybe_flag() if found else None
    type = event.type if handed_in is None else f"submission.{'submitted' if handed_in else 'withdrawn'}"
    if type != event.type and _unsettled(event, api):
        raise SourceUnavailable("the API does not show what the webhook said yet")
    status = type.partition(".")[2]
    submission = replace(event.data.submission or Submission(), status=status)
    if found is not None:
        members = list(found.at("participants").items())
        submission = replace(
            submission,
            submitted_at=found.at("status", "handedInDate").maybe_time() if handed_in else None,
            is_group=len(members) > 1 if members else None,  # a group's paper is one submission of several participants
        )
    person, person_known = _person(event, api, with_participant=True)
    assessment, flow_known = _assessment(event, api)
    state: Enrichment = "full" if handed_in is not None and person_known and flow_known else "partial"
    return replace(
        event,
        type=type,
        enrichment="missing" if found is None else state,
        observedat=api.now,
        data=replace(event.data, person=person, assessment=assessment, submission=submission),
    )


def _mark(event: Event, api: SourceApi) -> Event:
    assessed = _ask(api, ASSESSMENT, event)
    submission = _ask(api, SUBMISSION, event)
    entry = _entry(submission, _id(event, "participantId")) if submission else None
    # The administrative mark beats the assessor's for display: a reading of the API's fields, not documented.
    admin = _spelled(assessed, "adminGrade")
    normal = _spelled(assessed, "grade")
    final = _spelled(entry, "finalGrade", "grade")
    raw = admin or normal or final
    if raw is None and assessed is None and entry is None:
        if _unsettled(event, api):
            raise SourceUnavailable("the API does not know the mark yet")
        type, known = event.type, False
    else:
        type, known = _shown(event, raw), True
        if (type == "grade.revoked") != (event.type == "grade.revoked") and _unsettled(event, api):
            raise SourceUnavailable("the API does not show what the webhook said yet")
    grade = Grade(kind="administrative" if admin else "final", status=type.partition(".")[2])
    scale_known = True
    if raw is not None:
        scale = _scale(event, api)
        scale_known = scale is not None
        # finalGrade is a whole number and so, most likely, the stored value; of the texts nobody knows.
        options = api.settings.options
        value_first = options["grade_lookup"] == "value-first" or not (admin or normal)
        mark = read_mark(raw, scale, value_first=value_first, stored_bounds=options["input_scale_bounds"] == "stored")
        grade = _graded(grade, mark, options["passing_grades"])
        times = (
            assessed.at("adminGradeDate" if admin else "date") if assessed else None,
            entry.at("finalGrade", "date") if entry and not admin else None,
        )
        published = (time.maybe_time() for time in times if time is not None)
        grade = replace(grade, published_at=next((time for time in published if time), None))
    person, person_known = _person(event, api, entry=entry)
    assessment, flow_known = _assessment(event, api)
    # Without a mark, a missing assessment is the answer that was asked for and not a gap.
    answered = submission is not None and (assessed is not None or raw is None)
    state: Enrichment = "full" if answered and scale_known and person_known and flow_known else "partial"
    return replace(
        event,
        type=type,
        enrichment=state if known else "missing",
        observedat=api.now,
        data=replace(event.data, person=person, assessment=assessment, grade=grade),
    )


def _shown(event: Event, raw: str | None) -> str:
    """The type that fits what is there now: no mark any more is revoked, a mark in spite of a revocation is out again.

    That a revoked mark leaves no grade behind is the reading of the API's description, which has no flag for it.
    """
    if raw is None:
        return "grade.revoked"
    return "grade.published" if event.type == "grade.revoked" else event.type


def _entry(submission: Payload, participant: str | None) -> Payload | None:
    """The participant's own entry of a submission; several share a group's."""
    members = submission.at("participants").items()
    return next((entry for entry in members if entry.at("id").maybe_text() == participant), None)


def _graded(grade: Grade, mark: Mark, passing: dict[str, list[str]] | None) -> Grade:
    return replace(
        grade,
        value=mark.value,
        label=mark.label,
        scale=mark.scale,
        score_given=mark.score,
        score_maximum=mark.maximum,
        passed=passes(mark, passing),
    )


def _scale(event: Event, api: SourceApi) -> Payload | None:
    chosen = _ask(api, FLOW_SCALE, event, keep=_FLOW_KEPT)
    wanted = chosen.at("gradingScaleId").maybe_text() if chosen else None
    scales = _ask(api, SCALES, event, keep=_PEOPLE_KEPT) if wanted else None
    entries = scales.items() if scales else iter(())
    return next((scale for scale in entries if scale.at("id").maybe_text() == wanted), None)


def _person(
    event: Event, api: SourceApi, *, with_participant: bool = False, entry: Payload | None = None
) -> tuple[Person | None, bool]:
    """The participant with name, e-mail and the external ids that may go on, and whether all of it answered."""
    person = event.data.person or Person(role="learner")
    options = api.settings.options
    participant = None
    if with_participant and options["person_details"]:
        participant = _ask(api, PARTICIPANT, event, keep=_PEOPLE_KEPT)
    if person.key is None:
        user_id = participant.at("userId").maybe_integer() if participant else None
        user_id = entry.at("userId").maybe_integer() if user_id is None and entry else user_id
        if user_id is not None:
            known = (Identifier(scheme="wiseflow.userId", value=str(user_id)), *person.identifiers)
            person = replace(person, key=f"wiseflow:{user_id}", identifiers=known)
    if not options["person_details"]:
        return person, True
    named = replace(event, data=replace(event.data, person=person))
    user = _ask(api, USER, named, keep=_PEOPLE_KEPT)
    sources = [found for found in (user, participant.at("user") if participant else None) if found is not None]
    schemes = {name.casefold(): scheme for name, scheme in options["identifier_schemes"].items()}
    identifiers = {(entry.scheme, entry.value): entry for entry in person.identifiers}
    for source in sources:
        for external in source.at("externalIds").items():
            scheme = schemes.get((external.at("name").maybe_text() or "").casefold())
            value = external.at("value").maybe_text()
            if scheme and value:
                identifiers.setdefault((scheme, value), Identifier(scheme=scheme, value=value))
    person = replace(
        person,
        email=_email(user, named, api) if user else None,
        given_name=next((name for found in sources if (name := found.at("firstName").maybe_text())), None),
        family_name=next((name for found in sources if (name := found.at("lastName").maybe_text())), None),
        identifiers=tuple(identifiers.values()),
    )
    return person, user is not None and (participant is not None or not with_participant)


def _email(user: Payload, event: Event, api: SourceApi) -> str | None:
    """The one address, or the primary of several: the user's info lists them without saying which is."""
    addresses = [entry.text() for entry in user.at("emails").items() if entry.present]
    if len(addresses) > 1 and (entries := _ask(api, EMAILS, event, keep=_PEOPLE_KEPT)):
        primary = (entry.at("email").maybe_text() for entry in entries.items() if entry.at("primary").maybe_flag())
        return next(primary, None) or addresses[0]
    return addresses[0] if addresses else None


def _assessment(event: Event, api: SourceApi) -> tuple[Assessment | None, bool]:
    before = event.data.assessment or Assessment()
    flow = _ask(api, FLOW, event, keep=_FLOW_KEPT)
    if flow is None:
        return before, False
    state = flow.at("state").maybe_text()
    codes = [code for entry in flow.at("sisInformation").items() if (code := entry.at("code").maybe_text())]
    return replace(
        before,
        title=flow.at("name").maybe_text(),
        state=api.settings.options["flow_state_labels"].get(state, state),
        starts_at=flow.at("participantStartDate").maybe_time(),
        ends_at=flow.at("participantEndDate").maybe_time(),
        identifiers=(*before.identifiers, *(Identifier(scheme="sis.flowCode", value=code) for code in codes)),
    ), True


def _unsettled(event: Event, api: SourceApi) -> bool:
    """Whether the event came so recently that the API may still lag behind it."""
    return api.now - event.recordedtime < timedelta(seconds=api.settings.options["settle_seconds"])


def _ask(api: SourceApi, path: str, event: Event, *, keep: float = 0) -> Payload | None:
    """The unwrapped answer, or None if there is none. Paths of errors begin with the call, without its ids."""
    names = [name for name in ("flowId", "participantId", "submissionId", "userId") if f"{{{name}}}" in path]
    ids = {name: _id(event, name) for name in names}
    answer = None if None in ids.values() else api.get(path.format_map(ids), keep=keep)
    if answer is None:
        return None
    found = unwrap(Payload(answer.value, f"GET {path} $"))
    return found if found.present else None


def _id(event: Event, name: str) -> str | None:
    """One of WISEflow's ids out of the event's nouns; they hold what the webhook said."""
    data = event.data
    if name == "submissionId":
        return data.submission.key.removeprefix("wiseflow:") if data.submission and data.submission.key else None
    noun = data.assessment if name == "flowId" else data.person
    known = noun.identifiers if noun else ()
    return next((entry.value for entry in known if entry.scheme == f"wiseflow.{name}"), None)


def _spelled(found: Payload | None, *keys: str) -> str | None:
    return spelling(found.at(*keys)) if found else None
