"""The simulated institute's term, told hour by hour.

An hour holds what happens in all classes, merged by time: people who come and go outnumber the rest, and every kind of
event comes up every few hours. Times are those of the term, whatever the clock says.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from bridge.core.events import Json, stamp
from bridge.core.simulation import Call
from connectors.wise.simulated_lessons import lesson
from connectors.wise.simulated_lists import record
from connectors.wise.simulated_world import Step, Story, World, new_id, step

KINDS: Final = frozenset(
    {
        "ParticipantJoinedMeetingEvent",
        "ParticipantLeftMeetingEvent",
        "SharingStaredInMeetingEvent",
        "SharingEndedInMeetingEvent",
        "MeetingStartedEvent",
        "MeetingEndedEvent",
        "RecordingCompletedEvent",
        "CertificateIssuedEvent",
        "AttendanceComputedEvent",
        "StudentAddedToClassroomEvent",
        "TeacherAddedToClassroomEvent",
        "StudentRemovedFromClassroomEvent",
        "TeacherRemovedFromClassroomEvent",
        "StudentSuspensionUpdatedEvent",
        "FeePaymentCompletedEvent",
        "FeeInvoiceChargedEvent",
        "SessionsCreatedEvent",
        "SessionsUpdatedEvent",
        "SessionsDeletedEvent",
    }
)

_MINUTE: Final = timedelta(minutes=1)


def hours(world: World, rng: random.Random, term: datetime) -> Iterator[Call]:
    """Eight teaching hours on five days a week, for ever."""
    story = Story(world=world, rng=rng)
    number = 0
    while True:
        week, rest = divmod(number, 40)
        begin = term + timedelta(weeks=week, days=rest // 8, hours=rest % 8)
        steps = [
            happening
            for classroom in world.classes.values()
            for told in (lesson, _members, _fees)
            for happening in told(story, classroom, begin)
        ]
        for happening in sorted(steps, key=lambda happening: happening.at):
            with world.lock:
                happening.effect()
                record(world, happening)
            yield happening.call
        number += 1


def _members(story: Story, classroom: Json, begin: datetime) -> Iterator[Step]:
    """Who joins and leaves the class; nobody twice, because equal bodies look like repeats."""
    rng, world = story.rng, story.world
    room = {key: classroom[key] for key in ("_id", "name", "subject", "classNumber")}
    students, teachers = classroom["students"], classroom["coTeachers"]
    at, old = begin + rng.randrange(1, 50) * _MINUTE, ""
    if rng.random() < 0.15:
        new = world.register(rng)
        payload: Json = {"classroom": room, "student": _brief(world, new["_id"])}
        yield step(at, "StudentAddedToClassroomEvent", payload, lambda: students.append(new["_id"]))
    if len(students) > 3 and rng.random() < 0.15:
        old = rng.choice(students)
        payload = {"classroom": room, "student": _brief(world, old), "remove": True}
        yield step(at + _MINUTE, "StudentRemovedFromClassroomEvent", payload, lambda: _leave(classroom, old))
    if rng.random() < 0.05:
        assistant = world.register(rng)
        payload = {"classroom": room, "teacher": _brief(world, assistant["_id"])}
        yield step(at, "TeacherAddedToClassroomEvent", payload, lambda: teachers.append(assistant["_id"]))
    if teachers and rng.random() < 0.3:
        leaver = teachers[0]
        payload = {"classroom": room, "teacher": _brief(world, leaver), "remove": True}
        yield step(at, "TeacherRemovedFromClassroomEvent", payload, lambda: _drop(teachers, leaver))
    if students and rng.random() < 0.1:
        who = world.shown(rng.choice(students))
        number = f"NB-{rng.getrandbits(32):08x}"
        issued = {"_id": new_id(rng), "certificateNumber": number, "issuedOn": stamp(at)}
        issued["url"] = f"https://certificates.example.test/{number}"
        yield step(at, "CertificateIssuedEvent", {"classroom": room, "student": who, "certificate": issued})
    fresh = [
        user_id for user_id in students if user_id != old and f"{classroom['_id']}.{user_id}" not in story.suspended
    ]
    if fresh and rng.random() < 0.1:
        yield from _suspension(story, classroom, rng.choice(fresh), at)


def _suspension(story: Story, classroom: Json, user_id: str, at: datetime) -> Iterator[Step]:
    rng, world, suspended = story.rng, story.world, classroom["suspendedStudents"]
    story.suspended.add(f"{classroom['_id']}.{user_id}")
    about = {
        "classroom": {key: classroom[key] for key in ("_id", "name", "subject", "classNumber")},
        "student": world.shown(user_id),
        "teacher": {key: world.people[classroom["teacher"]][key] for key in ("_id", "name")},
    }
    owed: Json = {"reason": "FEE_DELAY", "overDue": {"value": rng.randrange(1, 400) * 500, "currency": "INR"}}
    why: Json = owed if rng.random() < 0.7 else {"reason": "SUSPEND"}
    kind = "StudentSuspensionUpdatedEvent"
    yield step(at, kind, why | {"suspended": True} | about, lambda: suspended.append(user_id))
    if rng.random() < 0.7:
        back = {"reason": why["reason"], "suspended": False} | about
        yield step(at + 5 * _MINUTE, kind, back, lambda: _drop(suspended, user_id))


def _fees(story: Story, classroom: Json, begin: datetime) -> Iterator[Step]:
    """A new instalment fires one event for each that the student has (docs.wise.live, Fee Invoice Charged Event)."""
    rng = story.rng
    if not classroom["students"] or rng.random() > 0.25:
        return
    user_id = rng.choice(classroom["students"])
    room = {key: classroom[key] for key in ("_id", "name", "subject", "classNumber")}
    about = {"classroom": room, "student": story.world.shown(user_id)}
    plan = story.instalments.setdefault(f"{classroom['_id']}.{user_id}", [])
    plan.append({"installmentId": new_id(rng), "value": rng.randrange(20, 900) * 100, "index": len(plan)})
    at = begin + rng.randrange(1, 40) * _MINUTE
    for entry in plan[-4:]:
        charged = at + timedelta(milliseconds=rng.randrange(1000))
        yield step(charged, "FeeInvoiceChargedEvent", about | {"transaction": _invoice(room, user_id, entry, charged)})
    if rng.random() < 0.8:
        amount = {"value": plan[-1]["value"], "currency": "INR"}
        paid: Json = {"type": rng.choice(("OFFLINE", "ONLINE"))} | about
        paid["transaction"] = {"_id": new_id(rng), "amount": amount}
        yield step(at + 3 * _MINUTE, "FeePaymentCompletedEvent", paid)


def _invoice(room: Json, user_id: str, entry: Json, charged: datetime) -> Json:
    return {
        "status": "CHARGED",
        "type": "INVOICE",
        "senderId": user_id,
        "receiverId": room["_id"],
        "chargedAt": stamp(charged),
        "amount": {"value": entry["value"], "currency": "INR"},
        "note": f"Invoice for Installment {entry['index']}",
        "metadata": {
            "classId": room["_id"],
            "dueOn": stamp(charged + timedelta(days=30)),
            "dueAfterDays": 30,
            "paid": False,
            "index": entry["index"],
            "paymentOptionId": "",
            "installmentId": entry["installmentId"],
            "feeType": "INSTALLMENT",
            "feeAssignedManually": True,
        },
    }


def _brief(world: World, user_id: str) -> Json:
    person = world.shown(user_id)
    return {key: person[key] for key in ("_id", "name", "email") if key in person}


def _leave(classroom: Json, user_id: str) -> None:
    _drop(classroom["students"], user_id)
    _drop(classroom["suspendedStudents"], user_id)


def _drop(ids: list[str], user_id: str) -> None:
    if user_id in ids:
        ids.remove(user_id)
