"""HubSpot's paths, its way of writing values, and what its errors say."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

from bridge.core.errors import TargetError
from bridge.core.events import Json
from bridge.core.settings import Settings
from bridge.core.target import Answer, Ask, Message, Request

SEEN: Final = {"as": "ok"}
"""A rule's end: the conversation itself looks at this answer."""

_EXISTING: Final = re.compile(r"Existing ID: ?(\d+)")

# Of a unique property's value that another record has HubSpot says VALIDATION_ERROR; seen in clients, undocumented.
_TAKEN: Final = re.compile(r"CONFLICTING_UNIQUE_VALUE|already has that value")


def records(settings: Settings, kind: str) -> str:
    """The address of a kind of records: `/crm/v3/objects/contacts`, with a date `/crm/objects/2026-09/contacts`."""
    version = settings.options["version"]
    return f"{_base(settings)}/crm/{'v3/objects' if version == 'v3' else f'objects/{version}'}/{segment(kind)}"


def relations(settings: Settings, kind: str, record: str, other: str) -> str:
    """The address of a record's associations. Beside v3 they are v4; dated versions have them below their records."""
    if settings.options["version"] == "v3":
        return f"{_base(settings)}/crm/v4/objects/{segment(kind)}/{record}/associations/{other}"
    return f"{records(settings, kind)}/{record}/associations/{other}"


def timeline(settings: Settings) -> str:
    return f"{_base(settings)}/integrators/timeline/{settings.options['version']}/events"


def segment(value: str) -> str:
    """One segment of a path. Raises TargetError for what would name another address."""
    if value in ("", ".", ".."):
        raise TargetError("expected something that can be a segment of a path")
    return quote(value, safe="")


def ask(
    method: str,
    url: str,
    settings: Settings,
    body: Any = None,
    *,
    query: Mapping[str, str] | None = None,
    seen: int | None = None,
    harmless: bool = False,
) -> Ask:
    """A request with a JSON body, if any; an answer with the status `seen` comes back to the conversation."""
    headers = {} if body is None else {"Content-Type": "application/json"}
    if token := settings.options.get("token"):
        headers["Authorization"] = f"Bearer {token}"
    request = Request(
        method=method,
        url=f"{url}?{urlencode(query)}" if query else url,
        headers=headers,
        body=b"" if body is None else _json(body),
    )
    return Ask(request=request, answers=() if seen is None else ({"status": seen, **SEEN},), harmless=harmless)


def texts(properties: Mapping[str, Any]) -> dict[str, str]:
    """Properties as HubSpot takes them: all text, several choices as `a;b`, and no nulls. Raises TargetError."""
    return {name: _text(name, value) for name, value in properties.items() if value is not None}


def document(answer: Answer) -> Json:
    """The body's JSON object; empty when it holds none."""
    try:
        value = json.loads(answer.body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def existing(error: Json) -> str | None:
    """The id of the record that a CONFLICT names: in the context of a batch's errors, else only in words."""
    ids = _context(error).get("existingId")
    if isinstance(ids, list) and ids and str(ids[0]).isdigit():
        return str(ids[0])
    found = _EXISTING.search(str(error.get("message", "")))
    return found[1] if found else None


def taken(error: Json) -> bool:
    """Whether another record has one of the unique values: somebody else's, or ours that was made a moment ago."""
    return error.get("category") == "CONFLICT" or _TAKEN.search(json.dumps(error)) is not None


def traces_of(result: Json) -> list[str]:
    """Which inputs a result or an error of a batch speaks of, by the trace ids that we gave them."""
    found = result.get("objectWriteTraceId") or _context(result).get("objectWriteTraceId")
    return [trace for trace in (found if isinstance(found, list) else [found]) if isinstance(trace, str)]


def refusal(error: Json, message: Message, settings: Settings) -> str:
    """Why properties were refused: HubSpot's code and the names among ours. Its own words may hold values."""
    details = [entry for entry in error.get("errors") or () if isinstance(entry, dict)]
    said = json.dumps([error.get("message"), error.get("context"), details])
    ours = [*(message.params.get("properties") or {}), *message.params.get("names", ())]
    ours += [settings.options["key_property"], settings.options["object_key_property"]]
    named = [name for name in dict.fromkeys(ours) if re.search(rf"(?<![a-z0-9_]){re.escape(name)}(?![a-z0-9_])", said)]
    category = str(error.get("category", ""))
    reason = category if re.fullmatch(r"[A-Z_]{3,40}", category) else "refused"
    return f"{reason}: {', '.join(named)}" if named else reason


def _json(body: Any) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except ValueError:
        raise TargetError("expected what JSON and UTF-8 can hold") from None


def _context(error: Json) -> Json:
    context = error.get("context")
    return context if isinstance(context, dict) else {}


def _base(settings: Settings) -> str:
    return str(settings.options["base_url"]).rstrip("/")


def _text(name: str, value: Any) -> str:
    match value:
        case str():
            return value
        case bool() | int() | float():
            return json.dumps(value)
        case list():
            return ";".join(_text(name, entry) for entry in value)
    raise TargetError(f"properties.{name}: expected text, a number, true or false, or a list of those")
