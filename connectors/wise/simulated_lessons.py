"""The simulated institute's lessons: a session from its plan to its attendance, or to its cancellation."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Final

from bridge.core.events import Json, stamp
from connectors.wise.simulated_world import Step, Story, World, new_id, nothing, step

_MINUTE: Final = timedelta(minutes=1)


def lesson(story: Story, classroom: Json, begin: datetime) -> Iterator[Step]:
    """A session from its plan to its attendance, or to its cancellation."""
    rng, world = story.rng, story.world
    queue = story.planned.setdefault(classroom["_id"], [])
    if not queue:
        made = begin - rng.randrange(31, 59) * _MINUTE
        series = [_plan(rng, classroom, made, begin + timedelta(hours=later)) for later in range(rng.randrange(1, 5))]
        queue.extend(series)
        records = {plan["_id"]: _record(world, classroom, plan) for plan in series}
        yield step(made, "SessionsCreatedEvent", {"sessions": series}, lambda: world.sessions.update(records))
    plan = queue.pop(0)
    session_id, soon = plan["_id"], begin - rng.randrange(10, 30) * _MINUTE
    sparse = {key: plan[key] for key in ("_id", "classId", "createdAt")}
    fate = rng.random()
    if fate < 0.08:
        cancelled = {"meetingStatus": "CANCELLED"}
        effect = _change(world, session_id, cancelled)
        yield step(soon, "SessionsUpdatedEvent", {"sessions": [sparse | cancelled]}, effect)
        return
    if fate < 0.12:
        gone = plan | {"meetingStatus": "CANCELLED", "title": f"{plan['title']} (Cancelled)"}
        yield step(soon, "SessionsDeletedEvent", {"sessions": [gone]}, lambda: world.sessions.pop(session_id, None))
        return
    if fate < 0.25:
        changed = {"title": f"{plan['title']}, room {rng.randrange(1, 40)}"}
        if rng.random() < 0.5:
            changed = {"scheduledEndTime": stamp(begin + rng.randrange(61, 90) * _MINUTE)}
        effect = _change(world, session_id, changed)
        yield step(soon, "SessionsUpdatedEvent", {"sessions": [sparse | changed]}, effect)
    yield from _meeting(story, classroom, plan, begin)


def _plan(rng: random.Random, classroom: Json, made: datetime, start: datetime) -> Json:
    return {
        "_id": new_id(rng),
        "classId": classroom["_id"],
        "userId": classroom["teacher"],
        "createdAt": stamp(made),
        "meetingStatus": "UPCOMING",
        "type": "SCHEDULED",
        "title": f"{classroom['subject']}: live session",
        "scheduledStartTime": stamp(start),
        "scheduledEndTime": stamp(start + timedelta(hours=1)),
    }


def _record(world: World, classroom: Json, plan: Json) -> Json:
    """A planned session as the API shows it."""
    return plan | {
        "start_time": plan["scheduledStartTime"],  # until it begins
        "end_time": None,
        "className": classroom["name"],
        "classSubject": classroom["subject"],
        "classNumber": classroom["classNumber"],
        "classType": "LIVE",
        "userId": {key: world.people[classroom["teacher"]][key] for key in ("_id", "name")},
        "attendanceRecorded": False,
        "mettingEnded": False,
        "students": list(classroom["students"]),
        "attendees": [],
        "participants": [],
        "recordings": [],
    }


def _change(world: World, session_id: str, change: Json) -> Callable[[], object]:
    return lambda: world.sessions[session_id].update(change)


def _meeting(story: Story, classroom: Json, plan: Json, begin: datetime) -> Iterator[Step]:
    rng, world, session_id = story.rng, story.world, plan["_id"]
    started = begin + timedelta(seconds=rng.randrange(0, 150))
    ended = begin + 55 * _MINUTE + timedelta(seconds=rng.randrange(0, 600))
    meeting = {
        "uuid": f"{rng.getrandbits(64):016x}==",
        "id": str(rng.randrange(91_000_000_000, 92_000_000_000)),
        "host_id": f"host{rng.getrandbits(48):012x}",
        "topic": plan["title"],
        "type": 2,
        "start_time": _zulu(started),
        "duration": 60,
        "timezone": "Asia/Calcutta",
    }

    def zoom(at: datetime, kind: str, inner: str, more: Json, change: Json | None = None) -> Step:
        payload = {
            "event": f"meeting.{inner}",
            "event_ts": int(at.timestamp() * 1000),
            "sessionId": session_id,
            "payload": {"account_id": "AcctNorthbridge", "object": meeting | more},
        }
        return step(at, kind, payload, _change(world, session_id, change) if change else nothing)

    running = {"meetingStatus": "IN_PROGRESS", "start_time": stamp(started), "startTime": stamp(started)}
    yield zoom(started, "MeetingStartedEvent", "started", {}, running)
    lines: list[Json] = []
    expected = list(classroom["students"])
    for user_id in (classroom["teacher"], *expected):
        who, teaches = world.people[user_id], user_id == classroom["teacher"]
        if not teaches and rng.random() < 0.12:
            if rng.random() < 0.5:  # those who stay away are listed with no time, or not at all
                lines.append(_line(who, 0, teaches=False))
            continue
        joined = started + timedelta(seconds=1 if teaches else rng.randrange(2, 600))
        left = ended - timedelta(seconds=1 if teaches else rng.randrange(1, 900))
        stay = _stay(rng, who, joined)
        yield zoom(joined, "ParticipantJoinedMeetingEvent", "participant_joined", {"participant": stay})
        gone = stay | {"leave_time": _zulu(left), "leave_reason": "left the meeting", "registrant_id": ""}
        yield zoom(left, "ParticipantLeftMeetingEvent", "participant_left", {"participant": gone})
        lines.append(_line(who, int((left - joined).total_seconds()), teaches=teaches))
        if teaches:
            yield from _sharing(zoom, stay, joined + 3 * _MINUTE, ended - 20 * _MINUTE)
    over = {"meetingStatus": "ENDED", "end_time": stamp(ended), "endTime": stamp(ended), "mettingEnded": True}
    yield zoom(ended, "MeetingEndedEvent", "ended", {"end_time": _zulu(ended)}, over | {"duration": 3_600_000})
    url = f"https://recordings.example.test/{session_id}"
    films = [
        {"type": "RECORDING", "url": f"{url}/{part}", "duration": 1770, "sessionIndex": 1, "partIndex": part}
        for part in range(1, rng.choice((1, 1, 2)) + 1)
    ]
    filmed = {"userId": classroom["teacher"], "sessionId": session_id, "recordings": films}
    recorded = _change(world, session_id, {"recordings": films})
    yield step(ended + 9 * _MINUTE, "RecordingCompletedEvent", filmed, recorded)
    attendees = [
        {"_id": user_id, "name": who["name"], "email": who.get("email"), "settings": {"timezone": "Asia/Calcutta"}}
        for user_id, who in ((user_id, world.people[user_id]) for user_id in expected)
    ]
    result = {"attendanceRecorded": True, "participants": lines, "students": expected, "attendees": attendees}
    ids = {"_id": session_id, "classId": classroom["_id"], "userId": classroom["teacher"]}
    computed = _change(world, session_id, result)
    yield step(ended + 12 * _MINUTE, "AttendanceComputedEvent", {"session": ids}, computed)


def _line(who: Json, seconds: int, *, teaches: bool) -> Json:
    """Somebody's time in a meeting: in seconds, unlike the session's own (seen in answers, undocumented)."""
    told = {"wiseUserId": who["_id"], "name": who["name"], "user_email": who.get("email", ""), "isTeacher": teaches}
    return told | {"duration": seconds, "inMeetingDuration": seconds, "absolutePercentAttendance": seconds // 36}


def _stay(rng: random.Random, who: Json, joined: datetime) -> Json:
    return {
        "user_id": str(rng.randrange(16_000_000, 17_000_000)),
        "user_name": who["name"],
        "participant_user_id": "",
        "id": "",
        "join_time": _zulu(joined),
        "email": who.get("email", ""),
        "participant_uuid": f"{rng.getrandbits(64):016X}",
    }


def _sharing(zoom: Callable[..., Step], stay: Json, start: datetime, end: datetime) -> Iterator[Step]:
    who = {key: stay[key] for key in ("user_id", "user_name", "id", "participant_uuid")}
    for at, kind, inner in (
        (start, "SharingStaredInMeetingEvent", "sharing_started"),
        (end, "SharingEndedInMeetingEvent", "sharing_ended"),
    ):
        details = {"content": "screen", "source": "", "link_source": "", "file_link": "", "date_time": _zulu(at)}
        yield zoom(at, kind, inner, {"participant": who | {"sharing_details": details}})


def _zulu(moment: datetime) -> str:
    """Zoom's form: whole seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
