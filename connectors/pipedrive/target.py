"""Pipedrive's oddities: there is no upsert, so somebody is looked for and then updated or added; custom fields are
called by 40 hexadecimal digits; an update of e-mail addresses replaces all of them, so a person who is there keeps
theirs; notes are still in version 1 of the API and know no key, so theirs stands in a last line and is looked for
before one is written. A search looks at all custom fields at once, so what it finds is read before it is believed. It
also does not know at once what was written: the newest records themselves are looked at before one is added, so that
nobody whose answer was lost, or who was added a moment ago for another event, is added twice. Of the day's tokens a
search costs 20, a list 10, a write 5 and a record 1.

developers.pipedrive.com/docs/api/v1 (persons, deals, itemSearch, notes); github.com/pipedrive/client-nodejs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from bridge.core.errors import TargetError
from bridge.core.events import Json
from bridge.core.settings import Settings
from bridge.core.target import Answer, Ask, Conversation, Message, Outcome, Request, Verdict

Lookup = Generator[Ask, Answer, int | None]
"""Ends with Pipedrive's id, or None where there is nothing."""

Sought = Callable[[Json], bool]
"""Whether a record, as a list shows it, is the one."""

_SHARED: Final = "https://api.pipedrive.com"
"""The address of all companies."""

_GONE: Final = ({"status": 404, "as": "ok"},)
"""What was found may have been deleted before it is read."""

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
    # The header is in no document and may be missing; seen in clients' code against real companies.
    if answer.status == 429 and re.fullmatch(r"0|-\d+", answer.headers.get("x-daily-ratelimit-token-remaining", "")):
        pause = float(settings.options["daily_pause"])
        return Outcome(
            verdict=Verdict.THROTTLED, reason="the company's tokens of the day are used up", retry_after=pause
        )
    return None


def _upsert_person(message: Message, settings: Settings) -> Conversation:
    params = message.params
    key, field = params.get("key"), settings.options.get("person_key_field")
    known = (yield from _by_key("persons", key, field, settings)) if key and field else None
    if known is None:
        known = yield from _by_email(params["email"], settings)
    if known is None:
        references = [{"email": params["email"]}, *([{"key": key}] if key and field else [])]
        known = yield from _among_newest("persons", settings, lambda one: any(_is(one, by, field) for by in references))
    fields = _fields(params.get("fields"), settings) | ({field: key} if key and field else {})
    body = {"name": params["name"]} | ({"custom_fields": fields} if fields else {})
    if known is not None:
        return (yield from _stored("PATCH", f"v2/persons/{known}", body, settings))
    body["emails"] = [{"value": params["email"], "primary": True, "label": "work"}]
    if params.get("phone"):
        body["phones"] = [{"value": params["phone"], "primary": True, "label": "work"}]
    return (yield from _stored("POST", "v2/persons", body, settings))


def _clear_fields(message: Message, settings: Settings) -> Conversation:
    reference, field = message.params["person"], settings.options.get("person_key_field")
    known = yield from _person(reference, settings)
    if known is None:
        known = yield from _among_newest("persons", settings, lambda one: _is(one, reference, field))
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
    known = yield from _by_key("deals", params["key"], field, settings)
    if known is None:
        known = yield from _among_newest("deals", settings, lambda deal: _is(deal, {"key": params["key"]}, field))
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
        return (yield from _by_email(reference["email"], settings))
    if not settings.options.get("person_key_field"):
        raise TargetError("a person's key needs the setting person_key_field")
    return (yield from _by_key("persons", reference["key"], settings.options["person_key_field"], settings))


def _by_email(email: str, settings: Settings) -> Lookup:
    """The first of those who have the address. Case does not count."""
    for item in (yield from _search("persons", email, "email", settings)):
        held = _emails(item)
        if not held or email.lower() in held:
            return int(item["id"])
    return None


def _by_key(kind: str, key: str, field: str, settings: Settings) -> Lookup:
    """The record that has the key in its own field: a search finds it in any other one, too, and in any case."""
    for item in (yield from _search(kind, key, "custom_fields", settings)):
        query = {"custom_fields": field}
        answer = yield _ask("GET", f"v2/{kind}/{int(item['id'])}", settings, query=query, answers=_GONE, harmless=True)
        if _is(_document(answer).get("data") or {}, {"key": key}, field):
            return int(item["id"])
    return None


def _search(kind: str, term: str, fields: str, settings: Settings) -> Generator[Ask, Answer, list[Json]]:
    """The first exact matches; of custom fields all that hold text or numbers are searched."""
    query = {"term": term, "fields": fields, "exact_match": "true", "limit": "10"}
    answer = yield _ask("GET", f"v2/{kind}/search", settings, query=query, harmless=True)
    items = (_document(answer).get("data") or {}).get("items") or []
    return [found["item"] for found in items]


def _among_newest(kind: str, settings: Settings, sought: Sought) -> Lookup:
    """A record that was added a moment ago, and that the search need not know yet."""
    query = {"sort_by": "add_time", "sort_direction": "desc", "limit": "100"}
    answer = yield _ask("GET", f"v2/{kind}", settings, query=query, harmless=True)
    return next((int(record["id"]) for record in _document(answer).get("data") or () if sought(record)), None)


def _is(record: Json, reference: Mapping[str, Any], field: str | None) -> bool:
    """Whether a record has the address or the key of a reference."""
    if "email" in reference:
        return str(reference["email"]).lower() in _emails(record)
    return field is not None and (record.get("custom_fields") or {}).get(field) == reference.get("key")


def _emails(person: Json) -> list[str]:
    """Addresses in small letters: a search shows them bare, everything else with a label."""
    each = person.get("emails") or ()
    return [str(entry.get("value", "") if isinstance(entry, dict) else entry).lower() for entry in each]


def _stored(method: str, path: str, body: Json, settings: Settings) -> Conversation:
    answer = yield _ask(method, path, settings, body)
    stored = (_document(answer).get("data") or {}).get("id")
    done = "added" if method == "POST" else "updated"
    return [Outcome(verdict=Verdict.OK, reason=done, target_id=None if stored is None else str(stored))]


def _fields(given: Mapping[str, Any] | None, settings: Settings) -> Json:
    """Custom fields by API key. An empty list is refused, null is not (client-nodejs, v2 models, AddPersonRequest)."""
    written = {_field(name, settings): value for name, value in (given or {}).items() if value is not None}
    return {name: None if value == [] else value for name, value in written.items()}


def _field(name: str, settings: Settings) -> str:
    """The API key of a custom field. Raises TargetError where Pipedrive would say only that validation failed."""
    key = str(settings.options["custom_fields"].get(name, name))
    if not re.fullmatch(r"[0-9a-f]{40}", key):
        raise TargetError("expected custom fields by a name of the setting custom_fields, or by 40-character API key")
    return key


def _ask(
    method: str,
    path: str,
    settings: Settings,
    body: Json | None = None,
    *,
    query: Mapping[str, str] | None = None,
    answers: tuple[Mapping[str, Any], ...] = (),
    harmless: bool = False,
) -> Ask:
    base = settings.options["base_url"].rstrip("/")
    # Version 1 is described at api.pipedrive.com/v1, version 2 at api.pipedrive.com/api/v2 (the servers of both OpenAPI
    # descriptions); a company's own address has both below /api.
    url = f"{base}/{path}" if base == _SHARED and path.startswith("v1/") else f"{base}/api/{path}"
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
        answers=answers,
        harmless=harmless,
    )


def _document(answer: Answer) -> Json:
    try:
        value = json.loads(answer.body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
