"""What is asked of Inspera's API to complete an event."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from bridge.core.errors import SourceUnavailable
from bridge.core.events import Enrichment, Event, child_id
from bridge.core.nouns import Assessment, Data, Person, Submission
from bridge.core.payload import Payload
from bridge.core.source import SourceApi
from connectors.inspera.exports import all_results, exported
from connectors.inspera.results import (
    FinalGrade,
    assessment,
    final_grade_of,
    final_grades,
    identifier,
    person,
    published,
    recognised,
)

TEST_SECONDS: Final = 600
"""A sitting's title and times: hundreds of papers come in within minutes, and what changes them sends an event."""

USER_SECONDS: Final = 3600
"""Names and addresses: somebody's papers and grades come within hours, and a change sends an event."""

SETTLES_WITHIN: Final = timedelta(seconds=30)
"""How long a 404 is taken for "not yet"."""

_FRESH: Final = frozenset({"person.created", "person.updated", "assessment.period_changed", "assessment.state_changed"})
"""Events that say that the platform's copy has changed: one that was read before is of no use."""


def completed(event: Event, api: SourceApi) -> list[Event]:
    """The event with what the API knows. Raises SourceUnavailable and PayloadError."""
    match event.type:
        case "grade.confirmed":
            return with_grades(event, api)
        case "grade.published":
            return [with_grade(event, api)]
        case "person.deleted":
            return [with_last_known(event, api)]
        case _:
            return [with_names(event, api)]


def with_names(event: Event, api: SourceApi) -> Event:
    """The event with its test, its person and whoever did it."""
    data = event.data
    since = event.recordedtime if event.type in _FRESH else None
    # A date that changed or a user that was made says nothing without the object itself; the others say something.
    changed = since is not None
    own: list[bool] = []
    exam, who = data.assessment, data.person
    if exam is not None:
        run = _own_id(exam)
        test = _test(run, api, since=since, extra=not changed)
        own.append(test is not None)
        exam = assessment(run, test)
    if who is not None and who.key and _reads(api, "person"):
        user = _user(_own_id(who), api, since=since, extra=not changed)
        own.append(user is not None)
        who = who if user is None else _named(who, user, api)
    actor, actor_found = _actor(data.actor, api)
    found = [*own, *([] if actor_found is None else [actor_found])]
    level: Enrichment = "full" if all(found) else "partial"
    if own and not any(own) and data.artifact is None:
        _settle(event, api, "test" if data.assessment is not None else "user")
        level = "missing"
    return replace(
        event,
        data=replace(data, person=who, actor=actor, assessment=exam),
        enrichment=level,
        observedat=api.now if found else None,
    )


def with_last_known(event: Event, api: SourceApi) -> Event:
    """A deleted user. Whether the API still shows one is not documented; if not, as this bridge last knew them."""
    who, data = event.data.person, event.data
    if who is None:
        return replace(event, enrichment="full")
    asked = _reads(api, "person")
    user = _user(_own_id(who), api, since=event.recordedtime, extra=True) if asked else None
    if user is not None:
        who = _named(who, user, api)
    else:
        known = api.known(event.subject)
        if known is not None and known.data.person is not None and known.data.person.key == who.key:
            who = replace(known.data.person, role=who.role)
    actor, actor_found = _actor(data.actor, api)
    read_at = api.now if asked or actor_found is not None else None
    return replace(event, data=replace(data, person=who, actor=actor), enrichment="full", observedat=read_at)


def with_grades(event: Event, api: SourceApi) -> list[Event]:
    """The confirmation and one `grade.published` per graded candidate."""
    run = _own_id(event.data.assessment)
    export = exported(api, all_results(run, event.id))
    if export is None:
        _settle(event, api, "test")
        return [replace(event, enrichment="missing", observedat=api.now)]
    test = _test(run, api, extra=True)
    actor, actor_found = _actor(event.data.actor, api)
    data = replace(event.data, assessment=assessment(run, test), actor=actor)
    grades, unreadable = final_grades(export)
    # Confirmed, and yet nobody has a grade, or some could not be read: somebody should look.
    complete = test is not None and actor_found is not False and bool(grades) and not unreadable
    parent = replace(event, data=data, enrichment="full" if complete else "partial", observedat=api.now)
    return [parent, *(_child(parent, grade, test, run, api) for grade in grades)]


def with_grade(event: Event, api: SourceApi) -> Event:
    """One candidate's confirmed grade, from that candidate's results: no file has to be made for it."""
    if event.data.person is None or not event.data.person.key:
        return replace(event, enrichment="missing")  # a candidate's number that is no user's id says who to nobody
    run, user = _own_id(event.data.assessment), _own_id(event.data.person)
    results = api.get(f"/v1/candidates/allResults/{run}/{user}")
    grade = None if results is None else final_grade_of(results, run, user)
    if grade is None:
        _settle(event, api, "candidate's grade")
        return replace(event, enrichment="missing", observedat=api.now)  # confirmed, and yet there is none
    test = _test(run, api, extra=True)
    actor, actor_found = _actor(event.data.actor, api)
    own = replace(event, data=replace(event.data, actor=actor))
    data, complete = _graded(own, grade, run, test, api)
    level: Enrichment = "full" if complete and test is not None and actor_found is not False else "partial"
    return replace(event, data=data, enrichment=level, observedat=api.now)


def _child(parent: Event, grade: FinalGrade, test: Payload | None, confirmed: str, api: SourceApi) -> Event:
    run = grade.run or confirmed
    own = test if run == confirmed else _test(run, api, extra=True)  # a parent test's file has the children's grades
    data, complete = _graded(parent, grade, run, own, api)
    paper = f"{run}.{grade.user}"
    return replace(
        parent,
        id=child_id(parent.id, paper),
        type="grade.published",
        subject=f"submission/{paper}",
        causationid=parent.id,
        enrichment="full" if complete and own is not None else "partial",
        data=data,
    )


def _graded(event: Event, grade: FinalGrade, run: str, test: Payload | None, api: SourceApi) -> tuple[Data, bool]:
    """All nouns of a candidate's grade, and whether the user behind it was found or need not be."""
    asked = _reads(api, "person", identified=bool(grade.external))
    user = _user(grade.user, api, extra=True) if asked else None
    exam = assessment(run, test)
    learner = person(
        grade.user,
        options=api.settings.options,
        details=user,
        candidate=grade.candidate,
        external=grade.external,
        role="learner",
    )
    data = Data(
        person=learner,
        actor=event.data.actor,
        assessment=replace(
            exam,
            title=exam.title or grade.title,
            starts_at=exam.starts_at or grade.starts_at,
            ends_at=exam.ends_at or grade.ends_at,
        ),
        submission=Submission(key=f"inspera:{run}.{grade.user}"),
        grade=published(grade, api.settings.options, event.time),
    )
    return data, user is not None or not asked


def _actor(actor: Person | None, api: SourceApi) -> tuple[Person | None, bool | None]:
    """Whoever did it by hand, with a name; and whether one was found, None when nobody was asked."""
    if actor is None or not actor.key or not _reads(api, "actor"):
        return actor, None
    user = _user(_own_id(actor), api, extra=True)
    return (actor, False) if user is None else (_named(actor, user, api), True)


def _named(who: Person, user: Payload, api: SourceApi) -> Person:
    return recognised(person(_own_id(who), options=api.settings.options, details=user, role=who.role), who)


def _test(run: str, api: SourceApi, *, since: datetime | None = None, extra: bool) -> Payload | None:
    return _object(f"/v1/test/{run}", api, keep=TEST_SECONDS, since=since, extra=extra)


def _user(user: str, api: SourceApi, *, since: datetime | None = None, extra: bool) -> Payload | None:
    return _object(f"/v1/users/{user}", api, keep=USER_SECONDS, since=since, extra=extra)


def _object(path: str, api: SourceApi, *, keep: float, since: datetime | None, extra: bool) -> Payload | None:
    """What an error in a 200 looks like is published nowhere: what is no object is none."""
    answer = api.get(path, keep=keep, since=since, extra=extra)
    if answer is None or isinstance(answer.value, dict):
        return answer
    reason = f"an answer of Inspera's API has an unexpected shape: {answer.path}: expected an object"
    if not extra:
        raise SourceUnavailable(reason)
    api.lack(reason)
    return None


def _settle(event: Event, api: SourceApi, what: str) -> None:
    if api.now - event.recordedtime < SETTLES_WITHIN:
        raise SourceUnavailable(f"the API does not know the {what} yet")


def _reads(api: SourceApi, noun: str, *, identified: bool = False) -> bool:
    """Whether users may be read, and anybody looks at what that would fill; ids do not count where some are known.

    Reading users takes a User Administrator, which an integration that works with ids alone does not need.
    """
    fields = ("email", "givenName", "familyName") if identified else ("email", "givenName", "familyName", "identifiers")
    allowed = bool(api.settings.api and api.settings.api["read_users"])
    return allowed and any(api.wants(f"data.{noun}.{field}") for field in fields)


def _own_id(noun: Person | Assessment | None) -> str:
    """The platform's id of a noun; it becomes a part of an address, so it is looked at once more."""
    key = (noun.key or "" if noun else "").removeprefix("inspera:")
    return identifier(Payload(key, "$.key"))
