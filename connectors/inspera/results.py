"""What Inspera's API answers about people, tests and results, read into the canonical nouns.

Results: https://inspera.atlassian.net/wiki/spaces/KB/pages/1562214548. The whole test comes as a file whose root is
`{"candidates": […]}` with the same model per candidate (seen in clients, undocumented); a bare list is read as well.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from bridge.core.errors import PayloadError
from bridge.core.nouns import Assessment, Grade, Identifier, Person
from bridge.core.payload import Payload

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")
_DECIMAL: Final = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalGrade:
    """One candidate's final grade in the evaluation round that decides; `run` is the test it was given in, if said."""

    user: str
    candidate: str | None
    external: tuple[tuple[str, str], ...]
    run: str | None
    title: str | None
    starts_at: datetime | None
    ends_at: datetime | None
    value: str
    score: float | None
    round: int


def identifier(value: Payload) -> str:
    """An id as text. The platform's are numbers; nothing that could change an address of the API is let through."""
    text = value.text()
    if _ID.fullmatch(text) is None:
        raise PayloadError(value.path, "an id")
    return text


def final_grades(export: Payload) -> tuple[list[FinalGrade], int]:
    """The final grades of an `AllResults` file, and how many of its candidates could not be read.

    A candidate without a final grade is left out: not every paper of a confirmed test has one (absence, withdrawal).
    A parent test's file holds the children's candidates too, so one user may be there for several tests.
    """
    bare = isinstance(export.value, list)
    candidates = export if bare else export.at("candidates")
    if not isinstance(candidates.value, list) or (bare and not export.value):
        raise PayloadError(candidates.path, "a list of candidates")
    found: dict[tuple[str | None, str], FinalGrade] = {}
    unreadable = 0
    for candidate in candidates.items():
        try:
            grade = _final_grade(candidate)
        except PayloadError:
            unreadable += 1
            continue
        if grade is None:
            continue
        known = found.get((grade.run, grade.user))
        if known is None or grade.round >= known.round:
            found[grade.run, grade.user] = grade
    return list(found.values()), unreadable


def final_grade_of(results: Payload, run: str, user: str) -> FinalGrade | None:
    """One candidate's final grade in a test, from `/v1/candidates/allResults/{testId}/{userId}`: the model itself, or,
    for a parent test, whose children are included (in which form is not printed), the one of several that fits."""
    answer = results if isinstance(results.value, list) else unwrapped(results)
    several = isinstance(answer.value, list) or isinstance(answer.at("candidates").value, list)
    grades = final_grades(answer)[0] if several else [grade for grade in (_final_grade(answer),) if grade is not None]
    fitting = [grade for grade in grades if grade.user == user]
    own = [grade for grade in fitting if grade.run in (None, run)]
    return next(iter(own or fitting), None)


def _final_grade(candidate: Payload) -> FinalGrade | None:
    decided: tuple[int, Payload] | None = None
    for position, entry in enumerate(candidate.at("evaluationRounds").items()):
        grade = entry.first("finalGrade", "gradeValue")  # `gradeValue` in older revisions of the API
        number = entry.at("roundId").maybe_integer()
        number = position if number is None else number
        # Not stated, but rounds replace each other (appeal, second assessment): the highest one with a grade counts.
        if grade.present and (decided is None or number >= decided[0]):
            decided = (number, grade)
    if decided is None:
        return None
    value, score = spelled(decided[1])
    run = candidate.at("assessmentRunId")
    # Before there was a userId the candidateId was the user's: https://inspera.atlassian.net/wiki/pages/
    # viewpage.action?pageId=1737883660 ("Inspera's internal id of the testtaker"), renamed in pageId=1729397402.
    named = candidate.at("userId").present
    return FinalGrade(
        user=identifier(candidate.first("userId", "candidateId")),
        candidate=candidate.at("candidateId").maybe_text() if named else None,
        external=external_ids(candidate),
        run=identifier(run) if run.present else None,
        title=candidate.at("assessmentRunTitle").maybe_text(),
        starts_at=candidate.at("assessmentRunStartTime").maybe_time(),
        ends_at=candidate.at("assessmentRunEndTime").maybe_time(),
        value=value,
        score=score,
        round=decided[0],
    )


def spelled(grade: Payload) -> tuple[str, float | None]:
    """A grade in the platform's spelling, and as a number when it is one. Documented as a decimal, perhaps quoted."""
    if isinstance(grade.value, float) and math.isfinite(grade.value):
        return repr(grade.value), grade.value
    text = grade.text()
    return text, float(text) if _DECIMAL.fullmatch(text) else None


def published(grade: FinalGrade, options: Mapping[str, Any], at: datetime) -> Grade:
    """The canonical grade. The API gives no maximum for a final grade, so none is made up."""
    labels: Mapping[str, str] = options["grade_labels"]
    return Grade(
        value=grade.value,
        label=label_of(grade.value, labels),
        scale=options["grade_scale"],
        score_given=grade.score,
        kind="final",
        status="published",
        published_at=at,
    )


def label_of(value: str, labels: Mapping[str, str]) -> str:
    """The word for a grade; 5.0, 5 and 5.00 are one number."""
    if value in labels:
        return labels[value]
    same = (labels[key] for key in labels if _DECIMAL.fullmatch(key) and float(key) == float(value))
    return next(same, value) if _DECIMAL.fullmatch(value) else value


def external_ids(holder: Payload) -> tuple[tuple[str, str], ...]:
    """Pairs of authentication system and id, as `FEIDE` and `ada@feide.example`; results and users spell them apart."""
    pairs = []
    for name in ("externalUserIds", "externalIds"):
        for entry in holder.at(name).items():
            system, value = entry.at("authType"), entry.first("externalUserId", "externalId")
            if system.present and value.present:
                pairs.append((system.text(), value.text()))
    return tuple(pairs)


def person(
    user: str,
    *,
    options: Mapping[str, Any],
    details: Payload | None = None,
    candidate: str | None = None,
    external: Iterable[tuple[str, str]] = (),
    role: str | None = None,
) -> Person:
    """Somebody by user id. `details` is the answer of `GET /v1/users/{userId}` (its fields were seen in clients)."""
    details = Payload({}) if details is None else unwrapped(details)
    schemes: Mapping[str, str] = options["external_id_schemes"]
    username = details.at("username").maybe_text()
    identifiers = [Identifier(scheme="inspera.userId", value=user)]
    if candidate:
        identifiers.append(Identifier(scheme="inspera.candidateId", value=candidate))
    if username:
        identifiers.append(Identifier(scheme="inspera.username", value=username))
    identifiers += [
        Identifier(scheme=schemes.get(system, f"inspera.{system}"), value=value)
        for system, value in (*external, *external_ids(details))
    ]
    return Person(
        key=f"inspera:{user}",
        role=role,
        email=details.at("email").maybe_text(),
        given_name=details.at("firstName").maybe_text(),
        family_name=details.at("lastName").maybe_text(),
        identifiers=tuple(dict.fromkeys(identifiers)),
    )


def recognised(told: Person, before: Person) -> Person:
    """Somebody as the API tells, with the kinds of ids that only the event had, a candidate's number for instance."""
    schemes = {entry.scheme for entry in told.identifiers}
    others = [entry for entry in before.identifiers if entry.scheme not in schemes]
    return replace(told, identifiers=(*told.identifiers, *others))


def assessment(run: str, details: Payload | None = None) -> Assessment:
    """A test by its id. `details` is the answer of `GET /v1/test/{testId}`, whose full list of fields is not public:
    clients read `name`; `title`, `startTime`, `endTime` and `externalTestId` are what tests are made with, and the
    search calls them `assessmentRunTitle` and `externalId`
    (https://inspera.atlassian.net/wiki/spaces/KB/pages/3105259521/Search+test+API)."""
    details = Payload({}) if details is None else unwrapped(details)
    identifiers = [Identifier(scheme="inspera.assessmentRunId", value=run)]
    external = details.first("externalTestId", "externalId").maybe_text()
    if external:
        identifiers.append(Identifier(scheme="inspera.externalTestId", value=external))
    return Assessment(
        key=f"inspera:{run}",
        title=details.first("name", "title", "assessmentRunTitle").maybe_text(),
        starts_at=details.at("startTime").maybe_time(),
        ends_at=details.at("endTime").maybe_time(),
        identifiers=tuple(identifiers),
    )


def unwrapped(answer: Payload) -> Payload:
    """Some answers come inside `result` (seen in clients)."""
    inner = answer.at("result")
    return inner if isinstance(inner.value, Mapping) else answer.object()
