"""What a store refuses of a statement: the rules of xAPI-Data that the conformance suite asks every store for.

github.com/adlnet/lrs-conformance-test-suite, test/v1_0_3; the forms of times, languages and addresses are the strictest
seen: github.com/LearningLocker/xapi-validation, github.com/adlnet/ADL_LRS (lrs/utils/StatementValidator.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, TypeGuard

from bridge.core.events import Json

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE)
_IRI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"{}|\\^`]+")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|\+\d\d:\d\d|-(?!00:00)\d\d:\d\d)")
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")
_IDENTIFIERS: Final = {
    "mbox": re.compile(r"mailto:[A-Z0-9.`'_%+-]+@[A-Z0-9.-]+\.[A-Z]{1,63}", re.IGNORECASE),
    "mbox_sha1sum": re.compile(r"[0-9a-f]{40}"),
    "openid": _IRI,
}
_VOIDED: Final = "http://adlnet.gov/expapi/verbs/voided"
# The names that each part may have (xAPI-Data, 2.4); whatever else it has makes it none.
_NAMES: Final[Mapping[str, str]] = {
    "statement": "id actor verb object result context timestamp stored authority version attachments",
    "agent": "objectType name mbox mbox_sha1sum openid account",
    "account": "homePage name",
    "verb": "id display",
    "activity": "objectType id definition",
    "definition": "name description type moreInfo extensions interactionType correctResponsesPattern choices scale "
    "source target steps",
    "result": "score success completion response duration extensions",
    "score": "scaled raw min max",
    "context": "registration instructor team contextActivities revision platform language statement extensions",
    "contexts": "parent grouping category other",
    "reference": "objectType id",
}


def sound(made: Any) -> bool:
    """Whether a store takes it. It knows no groups, sub-statements and attachments, which the bridge never sends."""
    if not _only(made, "statement") or not {"actor", "verb", "object"} <= made.keys() or _has_null(made):
        return False
    thing, verb = made["object"], made["verb"]
    if not isinstance(thing, dict) or not _only(verb, "verb") or not _text(verb.get("id"), _IRI):
        return False
    reference = thing.get("objectType") == "StatementRef"
    context = made.get("context", {})
    return (
        _text(made.get("id"), _UUID)
        and _agent(made["actor"])
        and _languages(verb.get("display", {}))
        and (_reference(thing) if reference else _activity(thing))
        and (verb["id"] != _VOIDED or reference)
        and ("timestamp" not in made or _text(made["timestamp"], _TIME))
        and _result(made.get("result", {}))
        and _context(context)
        and not (reference and {"platform", "revision"} & context.keys())
    )


def _agent(made: Any) -> bool:
    if (
        not _only(made, "agent")
        or made.get("objectType", "Agent") != "Agent"
        or not isinstance(made.get("name", ""), str)
    ):
        return False
    known = [name for name in ("account", *_IDENTIFIERS) if name in made]
    if len(known) != 1:
        return False
    if known != ["account"]:
        return _text(made[known[0]], _IDENTIFIERS[known[0]])
    account = made["account"]
    return _only(account, "account") and _text(account.get("homePage"), _IRI) and _filled(account.get("name"))


def _activity(made: Any) -> bool:
    definition = made.get("definition", {}) if isinstance(made, dict) else None
    return (
        _only(made, "activity")
        and made.get("objectType", "Activity") == "Activity"
        and _text(made.get("id"), _IRI)
        and _only(definition, "definition")
        and _text(definition.get("type", "x:y"), _IRI)
        and all(_languages(definition.get(name, {})) for name in ("name", "description"))
        and _extensions(definition)
    )


def _reference(made: Any) -> bool:
    return _only(made, "reference") and _text(made.get("id"), _UUID)


def _result(made: Any) -> bool:
    score = made.get("score", {}) if isinstance(made, dict) else None
    if not _only(made, "result") or not _only(score, "score") or not _extensions(made):
        return False
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in score.values()):
        return False
    least, most = score.get("min", float("-inf")), score.get("max", float("inf"))
    return (
        -1 <= score.get("scaled", 0) <= 1
        and least < most
        and least <= score.get("raw", max(least, min(most, 0))) <= most
        and all(isinstance(made.get(name, True), bool) for name in ("success", "completion"))
        and isinstance(made.get("response", ""), str)
    )


def _context(made: Any) -> bool:
    around = made.get("contextActivities", {}) if isinstance(made, dict) else None
    if not _only(made, "context") or not _only(around, "contexts") or not _extensions(made):
        return False
    lists = [entry if isinstance(entry, list) else [entry] for entry in around.values()]
    return (
        all(_activity(entry) for entries in lists for entry in entries)
        and ("registration" not in made or _text(made["registration"], _UUID))
        and isinstance(made.get("platform", ""), str)
    )


def _extensions(made: Mapping[str, Any]) -> bool:
    found = made.get("extensions", {})
    return isinstance(found, dict) and all(_text(name, _IRI) for name in found)


def _languages(made: Any) -> bool:
    return isinstance(made, dict) and all(_text(tag, _LANGUAGE) and isinstance(word, str) for tag, word in made.items())


def _only(made: Any, part: str) -> TypeGuard[Json]:
    return isinstance(made, dict) and made.keys() <= set(_NAMES[part].split())


def _text(value: Any, form: re.Pattern[str]) -> TypeGuard[str]:
    return isinstance(value, str) and form.fullmatch(value) is not None


def _filled(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _has_null(value: Any) -> bool:
    """xAPI-Data, 2.2: null is allowed nowhere but in extensions."""
    if isinstance(value, dict):
        return any(entry is None or (name != "extensions" and _has_null(entry)) for name, entry in value.items())
    return isinstance(value, list) and any(entry is None or _has_null(entry) for entry in value)
