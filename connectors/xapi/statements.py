"""Statements made of a mapping's few parameters: who, did, what, with which result.

The verbs are those of the registries (registry.tincanapi.com, adlnet.gov/expapi/verbs) where they have one for what the
bridge tells of; the others are IRIs below the institution's own address. xAPI knows no null: what nobody said is left
out.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha1
from typing import Any, Final
from urllib.parse import quote

from bridge.core.errors import TargetError
from bridge.core.events import Json, stamp
from bridge.core.settings import Settings
from bridge.core.target import Message

_ADL: Final = "http://adlnet.gov/expapi/verbs"
VERBS: Final[Mapping[str, str]] = {
    "answered": f"{_ADL}/answered",
    "asked": f"{_ADL}/asked",
    "attended": f"{_ADL}/attended",
    "completed": f"{_ADL}/completed",
    "earned": "http://id.tincanapi.com/verb/earned",
    "exited": f"{_ADL}/exited",
    "initialized": f"{_ADL}/initialized",
    "registered": f"{_ADL}/registered",
    "responded": f"{_ADL}/responded",
    "scored": f"{_ADL}/scored",
    "submitted": "http://activitystrea.ms/schema/1.0/submit",
    "terminated": f"{_ADL}/terminated",
    "unregistered": "http://id.tincanapi.com/verb/unregistered",  # as Open edX, Ralph and Moodle's logstore send it
    "voided": f"{_ADL}/voided",
}
_KINDS: Final[Mapping[str, str]] = {
    "assessment": "http://adlnet.gov/expapi/activities/assessment",
    "course": "http://adlnet.gov/expapi/activities/course",
    "file": "http://adlnet.gov/expapi/activities/file",
    "session": "http://adlnet.gov/expapi/activities/meeting",
}
_ENROLMENTS: Final[Mapping[str, str]] = {
    "added": "registered", "removed": "unregistered", "suspended": "suspended", "reinstated": "reinstated",
}  # fmt: skip


def statement(message: Message, settings: Settings) -> Json:
    """The statement of a message. Its id is the message's key, or what the mapping wants. Raises TargetError."""
    params, options = message.params, settings.options
    made = dict(params["statement"]) if "statement" in params else _told(message.operation, params, options)
    # Stores give ids back in lower case, whatever they came in.
    made["id"] = statement_id(str(made.get("id") or params.get("id") or message.key))
    made.setdefault("timestamp", _time(params["at"]) if params.get("at") else message.event.get("time"))
    present: Json = {"id": made.pop("id"), **_without_null(made)}
    return present


def statement_id(text: str) -> str:
    """A UUID as it is, and one of our own for every other text."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, text))


def agent(person: Mapping[str, Any] | None, options: Mapping[str, Any], *, named: bool = True) -> Json:
    """Whoever did it; the bridge itself where nobody is named. Raises TargetError without the address that is needed.

    Stores tell people apart by what they are identified with, and take two identifications for two people.
    """
    if person is None:
        account = {"homePage": options["home_page"], "name": "campus-bridge"}
        return {"objectType": "Agent", "name": "Campus Bridge", "account": account}
    who: Json = {}
    match options.get("identify_by", "account"):
        case "account":
            who = {"account": {"homePage": options["home_page"], "name": person["key"]}}
        case "mbox":
            who = {"mbox": _mbox(person)}
        case "mbox_sha1sum":
            who = {"mbox_sha1sum": sha1(_mbox(person).encode(), usedforsecurity=False).hexdigest()}
    name = {"name": person["name"]} if named and person.get("name") else {}
    return {"objectType": "Agent", **name, **who}


def activity(kind: str, thing: Mapping[str, Any], options: Mapping[str, Any]) -> Json:
    """Something that somebody did something with; `iri` where it has one of its own, else one is made of its key."""
    found = thing.get("iri") or f"{_base(options)}/{quote(kind, safe='')}/{quote(thing['key'], safe='')}"
    name = {options.get("language", "und"): thing["name"]} if thing.get("name") else None
    definition = {"type": _KINDS.get(kind) or f"{_base(options)}/activity-types/{quote(kind, safe='')}", "name": name}
    return {"objectType": "Activity", "id": found, "definition": definition}


def verb(word: str, options: Mapping[str, Any]) -> Json:
    """A verb by its word, or by its IRI."""
    if ":" in word:
        return {"id": word}
    return {"id": VERBS.get(word) or f"{_base(options)}/verbs/{quote(word, safe='')}", "display": {"en": word}}


def _told(operation: str, params: Mapping[str, Any], options: Mapping[str, Any]) -> Json:
    """Verb, object and result of one of the operations that know them; the rest is the same for all."""
    word, kind, thing, result = _operations(operation, params, options)
    course = params.get("course")
    parent = [activity("course", course, options)] if course and course.get("key") else None
    context: Json = {
        "registration": params.get("registration"),
        "platform": params.get("platform"),
        "contextActivities": {"parent": parent},
    }
    return {
        "actor": agent(params.get("person"), options),
        "verb": verb(word, options),
        "object": activity(kind, thing, options),
        "result": result,
        "context": context,
    }


def _operations(
    operation: str, params: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[str, str, Mapping[str, Any], Json | None]:
    match operation:
        case "grade" | "sync_grade":
            return "scored", "assessment", params["assessment"], _grade(params, options)
        case "submission" | "sync_submission":
            said = _extensions({"submission": params.get("submission")}, options)
            return "submitted", "assessment", params["assessment"], said
        case "attendance":
            return "attended", "session", params["session"], _extensions({"attendance": params.get("status")}, options)
        case "enrolment":
            return _ENROLMENTS[params["change"]], "course", params["object"], None
        case "certificate":
            return "earned", "certificate", params["certificate"], None
    what = params["object"]
    return params["verb"], what["kind"], what, params.get("result")


def _grade(params: Mapping[str, Any], options: Mapping[str, Any]) -> Json:
    """`scaled` only where the maximum is known: -1 to 1 (xAPI-Data, 2.4.5.1), which a bonus may break."""
    given, most = params.get("score_given"), params.get("score_maximum")
    score: Json = {"raw": given}
    if given is not None and most and 0 <= given <= most:
        score |= {"min": 0, "max": most, "scaled": round(given / most, 6)}
    said = _extensions({"grade": params.get("grade"), "grade-kind": params.get("kind")}, options) or {}
    return {"score": score, "success": params.get("passed"), "response": params.get("comment"), **said}


def _extensions(values: Mapping[str, Any], options: Mapping[str, Any]) -> Json | None:
    found = {f"{_base(options)}/extensions/{name}": value for name, value in values.items() if value is not None}
    return {"extensions": found} if found else None


def _mbox(person: Mapping[str, Any]) -> str:
    if not person.get("email"):
        raise TargetError("person.email: the setting identify_by needs it")
    return f"mailto:{person['email']}"


def _time(text: str) -> str:
    """A time as every store takes it: with a T, and -00:00 is forbidden (xAPI-Data, 2.4.7). Raises TargetError."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise TargetError("at: expected a time, as in 2026-06-05T09:30:00Z") from None
    return stamp(found if found.tzinfo else found.replace(tzinfo=UTC))


def _base(options: Mapping[str, Any]) -> str:
    return str(options.get("iris") or options["home_page"]).rstrip("/")


def _without_null(value: Any) -> Any:
    """xAPI refuses null, except within extensions (xAPI-Data, 2.2); objects that are left empty go too."""
    if isinstance(value, list):
        return [_without_null(entry) for entry in value if entry is not None]
    if not isinstance(value, Mapping):
        return value
    kept = {name: entry if name == "extensions" else _without_null(entry) for name, entry in value.items()}
    return {name: entry for name, entry in kept.items() if entry is not None and entry != {}}


# --- what a store holds -----------------------------------------------------------------------------------------------


_SPELT: Final = {"definition", "display"}
_IDENTIFIED: Final = {"account", "mbox", "mbox_sha1sum", "openid"}


def same(sent: Any, held: Any) -> bool:
    """Whether a store's statement says all that was sent.

    A store adds to it (stored, authority, version), writes times in another way, makes lists of single activities, and
    may have definitions, displays and names of people of its own (xAPI-Data, 2.3.1 and 2.4.4.1).
    """
    if isinstance(held, list) and len(held) == 1 and not isinstance(sent, list):
        return same(sent, held[0])
    if isinstance(sent, Mapping):
        others = _SPELT | ({"name"} if _IDENTIFIED & sent.keys() else set())
        return isinstance(held, Mapping) and all(
            name in held and same(entry, held[name]) for name, entry in sent.items() if name not in others
        )
    if isinstance(sent, list):
        return isinstance(held, list) and len(sent) == len(held) and all(map(same, sent, held))
    if sent == held:
        return True
    return (
        isinstance(sent, str) and isinstance(held, str) and (when := moment(sent)) is not None and when == moment(held)
    )


def moment(text: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else None
