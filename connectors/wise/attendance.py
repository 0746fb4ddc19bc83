"""Reads a session's computed attendance: the webhook has ids only, the API has everybody's time.

`participants` holds who was in the meeting, teachers included, once the numbers are there: came means no teacher and a
duration above 0 (seen in clients, undocumented). `students` is who was expected, `attendees` has addresses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from bridge.core.errors import SourceUnavailable
from bridge.core.events import Event, child_id
from bridge.core.nouns import Attendance, Identifier, Person
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.core.signing import fingerprint
from bridge.core.source import SourceApi
from connectors.wise.asking import KEEP_SUBJECT, ask, session_path, settle
from connectors.wise.gaps import together
from connectors.wise.nouns import course, maybe_id, names, number, person, session

_PER_MINUTE: Final = {"ms": 60_000, "s": 60, "min": 1}
_RECOMPUTING: Final = 60.0
"""Seconds until it is worth asking again for attendance that is not recorded."""


def computed(event: Event, api: SourceApi) -> list[Event]:
    """One attendance.computed for each student of the session, or the event itself if there is none."""
    session_id = event.subject.removeprefix("attendance/")

    def read(data: Payload) -> list[Event]:
        return _computed(event, session_id, data, api)

    path = detail_path(session_id, api.settings)
    results = ask(event, api, path, read, keep=KEEP_SUBJECT, fresh=True, extra=False)
    if results is None:
        settle(event, api, "session")
        return [replace(event, enrichment="missing", observedat=api.now)]
    return results


def detail_path(session_id: str, settings: Settings) -> str:
    """A session with its people."""
    return session_path(session_id, dict.fromkeys(settings.options["session_flags"], "true"))


def computation(session_id: str, held: Payload, settings: Settings) -> str:
    """What tells one computing of a session's attendance from another: everybody's time, in whatever order."""
    times: dict[str, float | None] = {}
    for line in held.at("participants").items():
        key, _ = _participant(line, session_id, settings)
        times[key] = _sum(times.get(key), _minutes(line.at("duration"), settings))
    told = sorted(f"{key} {'' if minutes is None else round(minutes)}" for key, minutes in times.items())
    return fingerprint([session_id, *told])[:32]


def fact(event: Event) -> str | None:
    """A session and its computing; None where the API was not read."""
    return None if event.correlationid is None else f"{event.subject}|{event.correlationid}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Student:
    """Somebody of a session; `minutes` is None where the platform gave no time."""

    person: Person
    status: str
    minutes: float | None = None


def _computed(event: Event, session_id: str, held: Payload, api: SourceApi) -> list[Event]:
    if not held.at("participants").value and held.at("attendanceRecorded").maybe_flag() is False:
        raise SourceUnavailable("attendance is not recorded yet", retry_after=_RECOMPUTING)
    named = course(held.at("classId")) or event.data.course
    title = held.first("className", "classId.name").maybe_text()
    teacher, actor = person(held.at("userId"), api.settings, "instructor"), event.data.actor
    if actor is None or (teacher is not None and teacher.key == actor.key):
        actor = together(teacher, actor)
    planned = together(session(session_id, held), event.data.session)
    data = replace(event.data, actor=actor, session=planned, course=named and replace(named, title=title))
    one = computation(session_id, held, api.settings)
    parent = replace(event, enrichment="full", observedat=api.now, correlationid=one, data=data)
    students = _students(session_id, held, api.settings)
    return [_child(parent, key, student) for key, student in students.items()] or [parent]


def _child(parent: Event, key: str, student: _Student) -> Event:
    minutes = None if student.minutes is None else round(student.minutes)
    attendance = Attendance(status=student.status, minutes=minutes)
    data = replace(parent.data, person=student.person, attendance=attendance)
    return replace(parent, id=child_id(parent.id, key), causationid=parent.id, data=data)


def _students(session_id: str, held: Payload, settings: Settings) -> dict[str, _Student]:
    """Everybody who came or should have come, teachers left out, by person key."""
    found: dict[str, _Student] = {}
    teachers = {f"wise:{maybe_id(held.at('userId'))}"}
    for line in held.at("participants").items():
        key, who = _participant(line, session_id, settings)
        if line.at("isTeacher").maybe_flag():
            teachers.add(key)
        minutes = _sum(found[key].minutes if key in found else None, _minutes(line.at("duration"), settings))
        status = "unknown" if minutes is None else "present" if minutes > 0 else "absent"
        found[key] = _Student(person=who, status=status, minutes=minutes)
    expected = (("students", "absent"), ("attendees", settings.options["listed_without_time"]))
    for listed, status in expected:
        for entry in held.at(listed).items():
            known = person(entry, settings, "learner")
            if known is not None and known.key is not None:
                before = found.get(known.key, _Student(person=known, status=status))
                found[known.key] = replace(before, person=_merged(before.person, known))
    return {key: student for key, student in found.items() if key not in teachers}


def _participant(line: Payload, session_id: str, settings: Settings) -> tuple[str, Person]:
    """A line of `participants`. One without a Wise user is a guest: within the session, the name is all there is."""
    identifier = maybe_id(line.at("wiseUserId"))
    name = line.at("name").maybe_text()
    given, family = names(name, settings)
    key = f"wise:{identifier}" if identifier else f"wise:guest.{fingerprint([session_id, name or ''])[:16]}"
    identifiers = (Identifier(scheme="wise.userId", value=identifier),) if identifier else ()
    role = "learner" if identifier else None
    return key, Person(key=key, role=role, given_name=given, family_name=family, identifiers=identifiers)


def _minutes(duration: Payload, settings: Settings) -> float | None:
    if not duration.present:
        return None
    return max(float(number(duration)) / _PER_MINUTE[settings.options["duration_unit"]], 0.0)


def _sum(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else one + other


def _merged(person: Person, known: Person) -> Person:
    """The lists know different things about one person: a mere id, a name, an address."""
    named = person if person.given_name else known
    return replace(
        person,
        email=person.email or known.email,
        given_name=named.given_name,
        family_name=named.family_name,
        identifiers=max(person.identifiers, known.identifiers, key=len),
    )
