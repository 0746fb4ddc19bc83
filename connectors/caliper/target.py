"""Caliper Analytics 1.1 and 1.2: events in an envelope, for any endpoint.

- The vocabulary of 1.1 has no withdrawn, revoked, published, attended or paid: what has no event of its own goes out as
  the generic Event, which may carry any action of the vocabulary (Removed, Deleted, Identified …).
- An envelope may hold nothing but sensor, sendTime, dataVersion and data; sendTime has milliseconds and ends with Z.
- An event's id is `urn:uuid:` and the message's key: the same for everything that is sent twice. Endpoints are not told
  to leave out what they have already; whoever reads events counts ids.
- 1.2 adds `profile` to events; all else that is sent here is the same in both.

github.com/1EdTech/caliper-spec (model/caliper_v1p2.lines has every term); imsglobal.org/spec/caliper/v1p2.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from bridge.core.errors import TargetError
from bridge.core.events import Json, stamp
from bridge.core.settings import Settings
from bridge.core.target import Ask, Conversation, Message, Request

_CONTEXTS: Final = {
    "1.1": "http://purl.imsglobal.org/ctx/caliper/v1p1",
    "1.2": "http://purl.imsglobal.org/ctx/caliper/v1p2",
}
_PROFILES: Final = {"AssessmentEvent": "AssessmentProfile", "GradeEvent": "GradingProfile", "Event": "GeneralProfile"}
_ENROLMENTS: Final = {
    "added": "Added", "removed": "Removed", "suspended": "Deactivated", "reinstated": "Activated",
}  # fmt: skip

_ROLES: Final = {
    "learner": "Learner", "student": "Learner", "instructor": "Instructor", "teacher": "Instructor",
    "administrator": "Administrator", "manager": "Manager", "mentor": "Mentor", "member": "Member",
}  # fmt: skip


def converse(messages: Sequence[Message], settings: Settings) -> Conversation:
    """One envelope for all of them. Raises TargetError."""
    options = settings.options
    envelope = {
        "sensor": options.get("sensor") or f"{_base(options)}/campus-bridge",
        "sendTime": stamp(messages[0].sent_at),
        "dataVersion": _CONTEXTS[options["version"]],
        "data": [event(message, options) for message in messages],
    }
    headers = {"Content-Type": "application/json"}
    if len(messages) == 1:  # the next envelope may hold others beside this one
        headers["Idempotency-Key"] = messages[0].key
    yield Ask(request=Request(method="POST", url=options["url"], headers=headers, body=_dump(envelope)))
    return [None] * len(messages)


def event(message: Message, options: Mapping[str, Any]) -> Json:
    """A message as an event of Caliper; null is left out. Raises TargetError."""
    params = message.params
    told = params["event"] if message.operation == "event" else _told(message, options)
    frame: Json = {
        "@context": _CONTEXTS[options["version"]],
        "id": f"urn:uuid:{_uuid(params.get('id') or message.key)}",
        "eventTime": _time(params.get("at") or message.event.get("time")),
    }
    if options["version"] == "1.2":
        frame["profile"] = _PROFILES.get(told.get("type", ""))
    present: Json = _without_null(frame | told)
    return present


def _told(message: Message, options: Mapping[str, Any]) -> Json:
    params, base = message.params, _base(options)
    person = _entity(base, "Person", params.get("person"))
    course = params.get("course") or {}
    kind, action, what, generated = _operation(message, options)
    # Of a grade the learner is the one who tried; who graded is not known, and the bridge tells of it.
    bridge = {"id": f"{base}/campus-bridge", "type": "SoftwareApplication"}
    acting = None if message.operation in ("grade", "revoke_grade") else person
    return {
        "type": kind,
        "actor": acting or bridge,
        "action": action,
        "object": what,
        "generated": generated,
        "edApp": {"id": message.event.get("source"), "type": "SoftwareApplication"},
        "group": _entity(base, "CourseSection", course) if course.get("key") else None,
        "extensions": _without_null(_extensions(params)) or None,
    }


_Told = tuple[str, str, Json | None, Json | None]


def _operation(message: Message, options: Mapping[str, Any]) -> _Told:
    """The event's type, its action, its object and what came of it."""
    params, base = message.params, _base(options)
    match message.operation:
        case "grade":
            return "GradeEvent", "Graded", _attempt(params, base), _score(params, base)
        case "submission":
            exam = _entity(base, "Assessment", params["assessment"])
            return "AssessmentEvent", "Submitted", exam, _attempt(params, base)
        case _:
            return "Event", *_generic(message.operation, params, base), None


def _generic(operation: str, params: Mapping[str, Any], base: str) -> tuple[str, Json | None]:
    """Action and object of what has no type of event in Caliper."""
    match operation:
        case "revoke_grade":
            return "Deleted", {"id": _score_id(params, base), "type": "Score"}
        case "withdrawal":
            return "Removed", _attempt(params, base)
        case "attendance":
            return "Identified", _entity(base, "Session", params["session"])
        case "enrolment":
            return _ENROLMENTS[params["change"]], _membership(params, base)
        case _:
            return params["action"], _entity(base, params["object"]["type"], params["object"])


def _membership(params: Mapping[str, Any], base: str) -> Json:
    course, person = (quote(params[whose]["key"], safe="") for whose in ("course", "person"))
    return {
        "id": f"{base}/memberships/{course}/{person}",
        "type": "Membership",
        "member": _entity(base, "Person", params["person"]),
        "organization": _entity(base, "CourseSection", params["course"]),
        "roles": _roles(params.get("role")),
        "status": "Active" if params["change"] in ("added", "reinstated") else "Inactive",
    }


def _roles(role: str | None) -> list[str] | None:
    """A role in Caliper's spelling; a role within a role has the outer one beside it (Membership, LIS roles)."""
    if not role:
        return None
    term = _ROLES.get(role.lower(), role)
    core = term.partition("#")[0]
    return [core] if core == term else [core, term]


def _attempt(params: Mapping[str, Any], base: str) -> Json:
    return {
        "id": f"{base}/attempts/{_trying(params)}",
        "type": "Attempt",
        "assignee": _entity(base, "Person", params["person"]),
        "assignable": _entity(base, "Assessment", params["assessment"]),
        "count": params.get("attempt") or 1,
    }


def _score(params: Mapping[str, Any], base: str) -> Json | None:
    """Both numbers or no score: a Score without them is none (caliper-spec, 5.41)."""
    given, most = params.get("score_given"), params.get("score_maximum")
    if given is None or most is None:
        return None
    return {
        "id": _score_id(params, base),
        "type": "Score",
        "attempt": f"{base}/attempts/{_trying(params)}",
        "maxScore": most,
        "scoreGiven": given,
        "comment": params.get("comment"),
    }


def _score_id(params: Mapping[str, Any], base: str) -> str:
    return f"{base}/scores/{_trying(params)}"


def _trying(params: Mapping[str, Any]) -> str:
    """Which attempt it is: the paper's own key, or the exam and the person."""
    if params.get("submission"):
        return quote(params["submission"], safe="")
    return f"{quote(params['assessment']['key'], safe='')}/{quote(params['person']['key'], safe='')}"


def _extensions(params: Mapping[str, Any]) -> Json:
    own = {name: params.get(name) for name in ("grade", "kind", "passed", "status") if name in params}
    return own | dict(params.get("extensions") or {})


def _entity(base: str, kind: str, thing: Mapping[str, Any] | None) -> Json | None:
    if thing is None:
        return None
    found = thing.get("iri") or f"{base}/{_PLACES.get(kind, kind.lower())}/{quote(thing['key'], safe='')}"
    return {"id": found, "type": kind, "name": thing.get("name")}


_PLACES: Final = {
    "Assessment": "assessments", "CourseSection": "courses", "Document": "documents", "Person": "persons",
    "Session": "sessions",
}  # fmt: skip


def _base(options: Mapping[str, Any]) -> str:
    return str(options["iris"]).rstrip("/")


def _uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, text))


def _time(text: Any) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise TargetError("at: expected a time, as in 2026-06-05T09:30:00Z") from None
    return stamp(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _without_null(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_null(entry) for name, entry in value.items() if entry is not None}
    return [_without_null(entry) for entry in value] if isinstance(value, list) else value


def _dump(document: Any) -> bytes:
    try:
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except ValueError:
        raise TargetError("event: expected what JSON and UTF-8 can hold") from None
