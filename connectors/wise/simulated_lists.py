"""The simulated institute's lists: its audit feed, its sessions and its transactions, a page at a time.

The term's dates are fixed, so that a seed repeats; what is listed bears the machine's time as well, at which it was
done, and is found by either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from bridge.core.events import Json, stamp
from connectors.wise.simulated_world import Step, World

_MOST: Final = 50

# How the feed calls what a webhook tells, and of which type it is there.
_NAMES: Final = {
    "AttendanceComputedEvent": ("AttendanceCalculatedEvent", "SESSION"),
    "RecordingCompletedEvent": ("RecordingCompletedEvent", "SESSION"),
    "SessionsCreatedEvent": ("SessionCreatedEvent", "SESSION"),
    "SessionsUpdatedEvent": ("SessionUpdatedEvent", "SESSION"),
    "SessionsDeletedEvent": ("SessionDeletedEvent", "SESSION"),
    "StudentAddedToClassroomEvent": ("StudentAddedToClassroomEvent", "CLASSROOM"),
    "StudentRemovedFromClassroomEvent": ("StudentRemovedFromClassroomEvent", "CLASSROOM"),
    "TeacherAddedToClassroomEvent": ("TeacherAddedToClassroomEvent", "CLASSROOM"),
    "TeacherRemovedFromClassroomEvent": ("TeacherRemovedFromClassroomEvent", "CLASSROOM"),
    "StudentSuspensionUpdatedEvent": ("StudentSuspendedEvent", "CLASSROOM"),
    "FeeInvoiceChargedEvent": ("InvoiceChargedEvent", "BILLING"),
    "FeePaymentCompletedEvent": ("OfflinePaymentChargedEvent", "BILLING"),
}


def record(world: World, step: Step) -> None:
    """Write down what a step did, in the feed and among the transactions. The caller holds the world's lock."""
    kind, payload = step.call.kind, step.call.body["payload"]
    now = datetime.now(UTC)
    for session_id, _ in _sessions_of(payload):
        world.touched[session_id] = now
    if kind.startswith("Fee"):
        world.transactions.append(_transaction(world, step, payload, now))
    if kind not in _NAMES:
        return
    name, type_ = _NAMES[kind]
    event: Json = {"eventName": name, "eventTimestamp": stamp(now), "type": type_, "payload": {}}
    if type_ == "SESSION":
        for session_id, told in _sessions_of(payload):
            if kind == "SessionsUpdatedEvent" and told.get("meetingStatus") == "CANCELLED":
                event["eventName"] = "SessionCancelledEvent"
            about = {"id": session_id} | {key: told[key] for key in _PLANNED if key in told}
            room = world.classes.get(told.get("classId") or world.sessions[session_id]["classId"])
            world.feed.append(_entry(world, event | {"payload": {"session": about}}, room, None))
        return
    if kind == "StudentSuspensionUpdatedEvent" and not payload["suspended"]:
        event["eventName"] = "StudentUnsuspendedEvent"
    if "transaction" in payload:
        last = world.transactions[-1]
        event["payload"] = {"transaction": {"id": last["_id"]} | {key: last[key] for key in ("type", "status")}}
    world.feed.append(_entry(world, event, payload["classroom"], payload.get("student") or payload.get("teacher")))


_PLANNED: Final = ("title", "scheduledStartTime", "scheduledEndTime")


def _sessions_of(payload: Json) -> Iterator[tuple[str, Json]]:
    if "sessionId" in payload:
        yield payload["sessionId"], payload
    for told in [*payload.get("sessions", ()), *([payload["session"]] if "session" in payload else [])]:
        yield told["_id"], told


def _entry(world: World, event: Json, room: Any, whom: Any) -> Json:
    entry: Json = {
        "user": {"_id": "65f0c0ffee0000000000b001", "name": "Owner", "role": "ADMIN"},
        "event": {"eventId": f"{len(world.feed) + 1:024x}"} | event,
    }
    if room is not None:
        entry["classroom"] = {key: room[key] for key in ("_id", "name", "subject") if key in room}
    if whom is not None:
        entry["participant"] = {key: whom[key] for key in ("_id", "name") if key in whom}
    return entry


def _transaction(world: World, step: Step, payload: Json, now: datetime) -> Json:
    told, room, who = payload["transaction"], payload["classroom"], payload["student"]
    number = len(world.transactions) + 1
    entry: Json = {
        "_id": f"{0x66DD << 80 | number:024x}",
        "type": "OFFLINE_PAYMENT" if payload.get("type") == "OFFLINE" else "PAYMENT",
        "status": "CHARGED",
        "transactionType": "FEE_COLLECTION",
        "chargedAt": stamp(step.at),
        "createdAt": stamp(now),
        "updatedAt": stamp(now),
        "classId": room["_id"],
        "studentId": who["_id"],
        "metadata": {"classId": room["_id"]},
        "classroom": {key: room[key] for key in ("_id", "name", "subject")} | {"classType": "LIVE"},
        "student": {key: who[key] for key in ("_id", "name")},
    }
    entry |= told
    if entry["type"] == "INVOICE":
        entry["invoiceNumber"] = f"NB-{number:06d}"
    return entry


# --- what is asked ----------------------------------------------------------------------------------------------------


def events(world: World, query: Mapping[str, str]) -> Json:
    """Newest first; dates are not heeded, and nothing says how many there are."""
    classes = set(query["classIds"].split(",")) if query.get("classIds") else None

    def wanted(entry: Json) -> bool:
        told = entry["event"]
        return (
            query.get("type", told["type"]) == told["type"]
            and query.get("eventName", told["eventName"]) == told["eventName"]
            and (classes is None or entry.get("classroom", {}).get("_id") in classes)
        )

    with world.lock:
        found = world.feed[::-1] if not query.keys() & {"type", "eventName", "classIds"} else None
        shown = found if found is not None else [entry for entry in reversed(world.feed) if wanted(entry)]
    return {"events": _page(shown, query)}


def transactions(world: World, query: Mapping[str, str]) -> Json:
    types, statuses = query.get("type", "").split(","), query.get("status", "CHARGED").split(",")
    within = _within(query)
    with world.lock:
        found = [
            entry
            for entry in reversed(world.transactions)
            if entry["type"] in types
            and entry["status"] in statuses
            and (within(entry["chargedAt"]) or within(entry["createdAt"]))
        ]
    return {"transactions": _page(found, query)} | _counts(found, query)


def sessions(world: World, query: Mapping[str, str]) -> Json:
    """Without `status` there are none; the day `endDate` does not count (seen in clients, undocumented)."""
    past, by_date = {"PAST": True, "FUTURE": False}.get(query.get("status", "")), query.get("paginateBy") == "DATE"
    start, end = query.get("startDate", ""), query.get("endDate", "9999")
    with world.lock:
        found = [
            held
            for held in world.sessions.values()
            if past is not None
            and (held["meetingStatus"] == "ENDED") == past
            and query.get("classId", held["classId"]) == held["classId"]
            and (not by_date or any(start <= day < end for day in _days(world, held)))
        ]
        shown = [_listed(world, held) for held in _page(found, query)]
    return {"sessions": shown} | _counts(found, query)


def _listed(world: World, held: Json) -> Json:
    """A session in a list: class and teacher as objects, and who came only in the session's own answer."""
    room = world.classes[held["classId"]]
    hidden = ("attendees", "className", "classSubject", "classNumber", "classType", "startTime", "endTime")
    shown = {key: value for key, value in held.items() if key not in hidden}
    return shown | {
        "classId": {key: room[key] for key in ("_id", "name", "subject")} | {"classType": "LIVE"},
        "participants": [],
        "end_time": held.get("end_time"),
        "studentCount": len(held["students"]),
    }


def _days(world: World, held: Json) -> tuple[str, str]:
    return held["scheduledStartTime"][:10], stamp(world.touched[held["_id"]])[:10]


def _within(query: Mapping[str, str]) -> Callable[[str], bool]:
    """Whether a time lies between `startDate` and `endDate`, days or moments; the last day counts."""
    start, end = query.get("startDate", ""), query.get("endDate", "9999")
    return lambda moment: start <= moment[: max(len(start), 10)] and moment[: len(end)] <= end


def _page(entries: list[Json], query: Mapping[str, str]) -> list[Json]:
    size, number = _size(query), max(int(query.get("page_number", "1")), 1)
    return entries[(number - 1) * size : number * size]


def _counts(entries: list[Json], query: Mapping[str, str]) -> Json:
    return {
        "page_number": max(int(query.get("page_number", "1")), 1),
        "totalRecords": len(entries),
        "page_count": -(-len(entries) // _size(query)),
    }


def _size(query: Mapping[str, str]) -> int:
    return min(max(int(query.get("page_size", str(_MOST))), 1), _MOST)
