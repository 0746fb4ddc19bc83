"""What the recipes of all kinds share: an event's own object, people it mentions, sheets, last known copies, times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from bridge.core.errors import SourceUnavailable
from bridge.core.events import Enrichment, Event
from bridge.core.nouns import Course, Data, Group, Person, Session
from bridge.core.payload import Payload
from bridge.core.source import SourceApi
from connectors.edusign import asking, shapes
from connectors.edusign.asking import ask, is_young
from connectors.edusign.shapes import Role, soft_flag, soft_text

DELIVERED_WITHIN: Final = timedelta(minutes=10)
"""on_course_start and on_course_end may be 5 minutes late (developers.edusign.com/docs/webhooks-documentation)."""

_CLOCKS_DIFFER: Final = timedelta(minutes=5)

PEOPLE: Final[Mapping[Role, str]] = {"learner": asking.STUDENT, "instructor": asking.PROFESSOR}

Noun = TypeVar("Noun", Person, Session, Group)


def own(event: Event, api: SourceApi, template: str, id: str | None, *, gone_is_news: bool = False) -> Payload | None:
    """What the event is about. What is not there may still come, unless its end is what the event tells."""
    record = ask(event, api, template, id, keep=asking.KEEP_SUBJECT, fresh=True)
    if (
        record is None
        and not gone_is_news
        and asking.path_of(template, id)
        and is_young(event, api, at_most=asking.MADE_WITHIN)
    ):
        raise SourceUnavailable(f"GET {template} does not show it yet")
    return record


def named(event: Event, api: SourceApi, role: Role, id: str | None) -> tuple[Person | None, bool]:
    """Somebody whom the event mentions, and whether their record was had; not asked for where nobody looks at it."""
    if not people_wanted(api):
        return None, True
    record = ask(event, api, PEOPLE[role], id, keep=asking.KEEP_PERSON, extra=True)
    return (None, False) if record is None else (shapes.person_of(id, role, record, api.settings), True)


def people_wanted(api: SourceApi) -> bool:
    """Whether anybody looks at more of a person than their id."""
    return any(api.wants(f"data.person.{field}") for field in ("email", "givenName", "familyName", "identifiers"))


def remembered(event: Event, api: SourceApi) -> Event:
    """The event with what this bridge last knew of its subject, where the platform shows nothing any more.

    After that nothing more can be known of what is gone, and its end is the news: `full`. Anything else should still
    be there: `partial` with the last known copy, `missing` without one.
    """
    known = api.known(event.subject)
    data = event.data
    if known is not None:
        old = known.data
        data = replace(
            data,
            person=_filled(data.person, old.person),
            session=_filled(data.session, old.session),
            group=_filled(data.group, old.group),
            course=data.course or old.course,
        )
    if event.type in ("session.cancelled", "person.deleted", "group.deleted"):
        return replace(event, data=data, enrichment="full")
    return replace(event, data=data, enrichment="partial" if data != event.data else "missing")


def _filled(mine: Noun | None, known: Noun | None) -> Noun | None:
    """What is said now, and, where it says nothing, what was known."""
    if mine is None or known is None or mine.key != known.key:
        return mine
    lacking: dict[str, Any] = {
        field.name: getattr(known, field.name) for field in fields(mine) if getattr(mine, field.name) is None
    }
    if isinstance(mine, Person) and isinstance(known, Person) and len(known.identifiers) > len(mine.identifiers):
        lacking["identifiers"] = known.identifiers
    return replace(mine, **lacking)


def dated(event: Event, api: SourceApi, data: Data, grade: Enrichment, at: datetime | None) -> Event:
    """The event with the platform's own time, where it can be the time of this happening.

    A date from long before the delivery is that of an earlier change: what happened now did not touch it. One further
    ahead than clocks differ is no date: it would outrank all later states.
    """
    done = replace(event, data=data, enrichment=grade)
    if at is None or at > api.now + _CLOCKS_DIFFER:
        return done
    if event.timequality == "received" and at < event.recordedtime - DELIVERED_WITHIN:
        return done
    return replace(done, time=at, timequality="source")


def moment(record: Payload, column: str | None, api: SourceApi) -> datetime | None:
    return shapes.moment(record.at(column), api.settings) if column else None


def id_of(noun: Any) -> str | None:
    return shapes.id_of(noun.key) if noun is not None and noun.key else None


def with_sheet(event: Event, api: SourceApi, sheet: Payload, id: str) -> tuple[Data, bool]:
    """The event's data with the sheet's session, its programme and its group; False where the programme is not had."""
    old = event.data.session
    status = old.status if old else None
    if status != "cancelled" and soft_flag(sheet.at("LOCKED")):
        status = "locked"
    session = shapes.session_of(id, status, sheet, api.settings)
    course, titled = course_of(event, api, sheet)
    join_url = old.join_url if old else None
    return replace(event.data, session=replace(session, join_url=join_url), course=course or event.data.course), titled


def course_of(event: Event, api: SourceApi, record: Payload) -> tuple[Course | None, bool]:
    course = shapes.course_of(record)
    if course is None or course.key is None or not api.wants("data.course.title"):
        return course, True
    training = ask(
        event, api, asking.TRAINING, shapes.id_of(course.key), keep=asking.KEEP_TRAINING, extra=True
    )  # fmt: skip
    if training is None:
        return course, False
    return replace(course, title=soft_text(training.at("NAME"))), True
