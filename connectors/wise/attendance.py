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
_SPAN: Final = (("start_time", "startTime", "scheduledStartTime"), ("end_time", "endTime", "scheduledEndTime"))
_DAY: Final = 86_400.0
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
    told = sorted(f"{key} {_told(student)}" for key, student in _came(session_id, held, settings).items())
    return fingerprint([session_id, *told])[:32]


def _told(student: _Student) -> str:
    if student.minutes is None:
        return "" if student.status == "unknown" else student.status
    return str(round(student.minutes))


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
    found = _came(session_id, held, settings)
    teachers = {f"wise:{maybe_id(held.at('userId'))}"}
    for line in held.at("participants").items():
        if line.at("isTeacher").maybe_flag():
            teachers.add(_participant(line, session_id, settings)[0])
    expected = (("students", "absent"), ("attendees", settings.options["listed_without_time"]))
    for listed, status in expected:
        for entry in held.at(listed).items():
            known = person(entry, settings, "learner")
            if known is not None and known.key is not None:
                before = found.get(known.key, _Student(person=known, status=status))
                found[known.key] = replace(before, person=_merged(before.person, known))
    return {key: student for key, student in found.items() if key not in teachers}


def _came(session_id: str, held: Payload, settings: Settings) -> dict[str, _Student]:
    """Everybody with a line in `participants`, by person key; somebody with several lines was there for all of them.

    A share of the session (`absolutePercentAttendance`, seen in answers) is a sign of presence as good as a time.
    """
    found: dict[str, _Student] = {}
    per_minute = _PER_MINUTE[_unit(held, settings)]
    for line in held.at("participants").items():
        key, who = _participant(line, session_id, settings)
        before = found.get(key, _Student(person=who, status="unknown"))
        time, share = _time(line), line.at("absolutePercentAttendance")
        minutes = _sum(before.minutes, None if time is None else time / per_minute)
        status = before.status
        if (minutes or 0) > 0 or (share.present and number(share) > 0):
            status = "present"
        elif status == "unknown" and (minutes is not None or share.present):
            status = "absent"
        found[key] = _Student(person=_merged(before.person, who), status=status, minutes=minutes)
    return found


def _participant(line: Payload, session_id: str, settings: Settings) -> tuple[str, Person]:
    """A line of `participants`. One without a Wise user is a guest: within the session, the name is what tells one
    from another. The address is that of the Zoom account, in `user_email` (seen in answers, undocumented)."""
    identifier = maybe_id(line.at("wiseUserId"))
    name = line.at("name").maybe_text()
    given, family = names(name, settings)
    key = f"wise:{identifier}" if identifier else f"wise:guest.{fingerprint([session_id, name or ''])[:16]}"
    identifiers = (Identifier(scheme="wise.userId", value=identifier),) if identifier else ()
    role = "learner" if identifier else None
    email = line.first("user_email", "email").maybe_text()
    who = Person(key=key, role=role, email=email, given_name=given, family_name=family, identifiers=identifiers)
    return key, who


def _unit(held: Payload, settings: Settings) -> str:
    """The unit of participants' times. It is not documented: seen as seconds where a session's own duration is in ms.

    Unless it is set, it is seconds, or ms if seconds would keep somebody there for twice as long as the session was.
    """
    unit = str(settings.options["duration_unit"])
    if unit != "auto":
        return unit
    longest = max((_time(line) or 0.0 for line in held.at("participants").items()), default=0.0)
    return "ms" if longest > 2 * _seconds(held) else "s"


def _seconds(held: Payload) -> float:
    """How long a session was, or was planned to be; a day where that is not told."""
    start, end = (held.first(*names).maybe_time() for names in _SPAN)
    if start and end and end > start:
        return (end - start).total_seconds()
    duration = held.at("duration")
    return float(number(duration)) / 1000 if duration.present else _DAY


def _time(line: Payload) -> float | None:
    """Clients take `inMeetingDuration` where a line has it, and else `duration`; both count alike (undocumented)."""
    duration = line.first("inMeetingDuration", "duration")
    return max(float(number(duration)), 0.0) if duration.present else None


def _sum(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else one + other


def _merged(person: Person, known: Person) -> Person:
    """The lists know different things about one person: a mere id, a name, an address. The last one has Wise's own."""
    named = person if person.given_name else known
    return replace(
        person,
        email=known.email or person.email,
        given_name=named.given_name,
        family_name=named.family_name,
        identifiers=max(person.identifiers, known.identifiers, key=len),
    )
