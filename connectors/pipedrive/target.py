"""Pipedrive's oddities: there is no upsert, so somebody is looked for and then updated or added; custom fields are
called by 40 hexadecimal digits; an update of e-mail addresses replaces all of them, so a person who is there keeps
theirs; notes are still in version 1 of the API and know no key, so theirs stands in a last line and is looked for
before one is written. Searching is dear, 40 of the day's tokens where an update is 10, and its index may lag: a second
try also looks at the newest records themselves, so that one whose answer was lost is not added twice.

developers.pipedrive.com/docs/api/v1 (persons, deals, itemSearch, notes); github.com/pipedrive/client-nodejs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from bridge.core.errors import TargetError
from bridge.core.events import Json
from bridge.core.settings import Settings
from bridge.core.target import Answer, Ask, Conversation, Message, Outcome, Request, Verdict

Lookup = Generator[Ask, Answer, int | None]
"""Ends with Pipedrive's id, or None where there is nothing."""

_ABSENT: Final = Outcome(verdict=Verdict.RETRY, reason="there is no such person yet")


def converse(messages: Sequence[Message], settings: Settings) -> Conversation:
    """What to say for one message. Raises TargetError for an operation that there is not."""
    [message] = messages
    talk = _OPERATIONS.get(message.operation)
    if talk is None:
        raise TargetError(f"pipedrive has no operation {message.operation}")
    return talk(message, settings)


def judge(answer: Answer, message: Message, settings: Settings) -> Outcome | None:
    """A day's budget that is used up: its 429 names the end of the burst window only, which is two seconds away."""
    if answer.status == 429 and answer.headers.get("x-daily-ratelimit-token-remaining") == "0":
        pause = float(settings.options["daily_pause"])
        return Outcome(
            verdict=Verdict.THROTTLED, reason="the company's tokens of the day are used up", retry_after=pause
        )
    return None


def _upsert_person(message: Message, settings: Settings) -> Conversation:
    params = message.params
    key, field = params.get("key"), settings.options.get("person_key_field")
    known = (yield from _search("persons", key, "custom_fields", settings)) if key and field else None
    if known is None:
        known = yield from _search("persons", params["email"], "email", settings)
    if known is None and message.attempt > 1:
        known = yield from _among_newest("persons", settings, lambda person: params["email"].lower() in _emails(person))
    fields = _fields(params.get("fields"), settings) | ({field: key} if key and field else {})
    body = {"name": params["name"]} | ({"custom_fields": fields} if fields else {})
    if known is not None:
        return (yield from _stored("PATCH", f"v2/persons/{known}", body, settings))
    body["emails"] = [{"value": params["email"], "primary": True, "label": "work"}]
    if params.get("phone"):
        body["phones"] = [{"value": params["phone"], "primary": True, "label": "work"}]
    return (yield from _stored("POST", "v2/persons", body, settings))


def _clear_fields(message: Message, settings: Settings) -> Conversation:
    known = yield from _person(message.params["person"], settings)
    if known is None:
        return [Outcome(verdict=Verdict.OK, reason="there is no such person, and so nothing to empty")]
    fields = {_field(name, settings): None for name in message.params["names"]}
    return (yield from _stored("PATCH", f"v2/persons/{known}", {"custom_fields": fields}, settings))


def _upsert_deal(message: Message, settings: Settings) -> Conversation:
    params, field = message.params, settings.options.get("deal_key_field")
    if not field:
        raise TargetError("upsert_deal needs the setting deal_key_field")
    person = None
    if params.get("person"):
        person = yield from _person(params["person"], settings)
        if person is None:
            return [_ABSENT]
    known = yield from _search("deals", params["key"], "custom_fields", settings)
    if known is None and message.attempt > 1:
        known = yield from _among_newest(
            "deals", settings, lambda deal: (deal.get("custom_fields") or {}).get(field) == params["key"]
        )
    given = {name: params.get(name) for name in ("title", "value", "currency", "status")} | {"person_id": person}
    body = {name: value for name, value in given.items() if value is not None}
    body["custom_fields"] = _fields(params.get("fields"), settings) | {field: params["key"]}
    if known is not None:
        return (yield from _stored("PATCH", f"v2/deals/{known}", body, settings))
    return (yield from _stored("POST", "v2/deals", body, settings))


def _add_note(message: Message, settings: Settings) -> Conversation:
    person = yield from _person(message.params["person"], settings)
    if person is None:
        return [_ABSENT]
    query = {"person_id": str(person), "sort": "add_time DESC", "limit": str(settings.options["notes_looked_at"])}
    answer = yield _ask("GET", "v1/notes", settings, query=query, harmless=True)
    for note in _document(answer).get("data") or ():
        if message.key in (note.get("content") or ""):
            return [Outcome(verdict=Verdict.DUPLICATE, reason="the note is there already", target_id=str(note["id"]))]
    content = f"{message.params['content']}<p>Ref. {message.key}</p>"
    return (yield from _stored("POST", "v1/notes", {"content": content, "person_id": person}, settings))


_OPERATIONS: Final[Mapping[str, Callable[[Message, Settings], Conversation]]] = {
    "upsert_person": _upsert_person,
    "clear_fields": _clear_fields,
    "upsert_deal": _upsert_deal,
    "add_note": _add_note,
}


def _person(reference: Mapping[str, Any], settings: Settings) -> Lookup:
    if "id" in reference:
        return int(reference["id"])
    if "email" in reference:
        return (yield from _search("persons", reference["email"], "email", settings))
    if not settings.options.get("person_key_field"):
        raise TargetError("a person's key needs the setting person_key_field")
    return (yield from _search("persons", reference["key"], "custom_fields", settings))


def _search(kind: str, term: str, fields: str, settings: Settings) -> Lookup:
    """The first exact match. Case does not count; of custom fields all that hold text are searched."""
    query = {"term": term, "fields": fields, "exact_match": "true", "limit": "1"}
    answer = yield _ask("GET", f"v2/{kind}/search", settings, query=query, harmless=True)
    items = (_document(answer).get("data") or {}).get("items") or []
    return int(items[0]["item"]["id"]) if items else None


def _among_newest(kind: str, settings: Settings, sought: Callable[[Json], bool]) -> Lookup:
    """A record that a try before this one may have added."""
    query = {"sort_by": "add_time", "sort_direction": "desc", "limit": "100"}
    answer = yield _ask("GET", f"v2/{kind}", settings, query=query, harmless=True)
    return next((int(record["id"]) for record in _document(answer).get("data") or () if sought(record)), None)


def _emails(person: Json) -> list[str]:
    return [str(entry.get("value", "")).lower() for entry in person.get("emails") or ()]


def _stored(method: str, path: str, body: Json, settings: Settings) -> Conversation:
    answer = yield _ask(method, path, settings, body)
    stored = (_document(answer).get("data") or {}).get("id")
    done = "added" if method == "POST" else "updated"
    return [Outcome(verdict=Verdict.OK, reason=done, target_id=None if stored is None else str(stored))]


def _fields(given: Mapping[str, Any] | None, settings: Settings) -> Json:
    return {_field(name, settings): value for name, value in (given or {}).items() if value is not None}


def _field(name: str, settings: Settings) -> str:
    return str(settings.options["custom_fields"].get(name, name))


def _ask(
    method: str,
    path: str,
    settings: Settings,
    body: Json | None = None,
    *,
    query: Mapping[str, str] | None = None,
    harmless: bool = False,
) -> Ask:
    url = f"{settings.options['base_url'].rstrip('/')}/api/{path}"
    try:
        content = b"" if body is None else json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    except ValueError:
        raise TargetError("expected what UTF-8 can hold") from None
    return Ask(
        request=Request(
            method=method,
            url=f"{url}?{urlencode(query)}" if query else url,
            headers={} if body is None else {"Content-Type": "application/json"},
            body=content,
        ),
        harmless=harmless,
    )


def _document(answer: Answer) -> Json:
    try:
        value = json.loads(answer.body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
