"""Zoho CRM's oddities: the word in front of the token is its own; a batch's answer says per record, in the order of
the records, whether it was done, and a wholly failed one says so below a 400; which record is meant hangs on a field
that Zoho checks for duplicates; a search that finds nothing answers 204, lags behind writes and finds what only looks
alike; notes have no key, so theirs stands in a last line and is looked for before one is written.

zoho.com/crm/developer/docs/api/v8: upsert-records, search-records, notes; answers as in github.com/zoho/crm-oas, v8.0.
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

Lookup = Generator[Ask, Answer, str | None]
"""Ends with Zoho's id of a contact, or None where there is none."""

# Codes of single records that pass: a lock and an approval end when a person ends them. Are there more? A code that is
# not here is taken for the data's fault (github.com/zoho/crm-oas, v8.0/record/operations/upsertRecords).
_PASSING: Final = frozenset(
    ("INTERNAL_ERROR", "RECORD_LOCKED", "CANNOT_PROCESS", "NOT_APPROVED", "DEPENDENT_SERVICE_ERROR")
)

_EACH: Final = ({"status": 400, "json_path": "data", "exists": True, "as": "ok"},)
"""A 400 that speaks of each record is looked at like any other answer to a batch."""


def converse(messages: Sequence[Message], settings: Settings) -> Conversation:
    """What to say for an operation's messages. Raises TargetError for an operation that there is not."""
    talk = _OPERATIONS.get(messages[0].operation)
    if talk is None:
        raise TargetError(f"zoho has no operation {messages[0].operation}")
    return talk(messages, settings)


def _upsert(messages: Sequence[Message], settings: Settings) -> Conversation:
    """One request for each module and key field among the messages."""
    groups: dict[tuple[str, str], list[Message]] = {}
    for message in messages:
        groups.setdefault(_place(message, settings), []).append(message)
    outcomes: dict[str, Outcome] = {}
    for (module, field), group in groups.items():
        outcomes |= yield from _together(module, field, group, settings)
    return [outcomes[message.key] for message in messages]


def _together(
    module: str, field: str, group: Sequence[Message], settings: Settings
) -> Generator[Ask, Answer, dict[str, Outcome]]:
    body: Json = {
        "data": [{field: message.params["key"]} | _given(message.params["fields"]) for message in group],
        "duplicate_check_fields": [field],
    }
    answer = yield _ask("POST", f"{module}/upsert", settings, _quietly(body, settings), answers=_EACH)
    results = _records(answer)
    if len(results) == len(group):
        return {message.key: _judged(result, message, field) for message, result in zip(group, results, strict=True)}
    if len(group) == 1:
        return {group[0].key: Outcome(verdict=Verdict.RETRY, reason="Zoho does not say what became of it")}
    outcomes: dict[str, Outcome] = {}
    for message in group:
        outcomes |= yield from _together(module, field, [message], settings)
    return outcomes


def _clear_fields(messages: Sequence[Message], settings: Settings) -> Conversation:
    [message] = messages
    contact = yield from _contact(message.params["key"], settings)
    if contact is None and message.attempt == 1:  # the search answers 204 for what was written a moment ago
        return [Outcome(verdict=Verdict.RETRY, reason="there is no such contact, or the search does not know it yet")]
    if contact is None:
        return [Outcome(verdict=Verdict.OK, reason="there is no such contact, and so nothing to empty")]
    body: Json = {"data": [dict.fromkeys(message.params["names"])]}
    answer = yield _ask("PUT", f"Contacts/{contact}", settings, _quietly(body, settings), answers=_EACH)
    return [_only(answer, message)]


def _add_note(messages: Sequence[Message], settings: Settings) -> Conversation:
    [message] = messages
    contact = yield from _contact(message.params["key"], settings)
    if contact is None:
        return [Outcome(verdict=Verdict.RETRY, reason="there is no such contact yet")]
    # The newest 200; the related list shows a note at once, the search index would not.
    query = {"fields": "Note_Content", "sort_by": "Created_Time", "sort_order": "desc", "per_page": "200"}
    answer = yield _ask("GET", f"Contacts/{contact}/Notes", settings, query=query, harmless=True)
    for note in _records(answer):
        if message.key in (note.get("Note_Content") or ""):
            return [Outcome(verdict=Verdict.DUPLICATE, reason="the note is there already", target_id=str(note["id"]))]
    note = _given({"Note_Title": message.params.get("title")})
    note["Note_Content"] = f"{message.params['content']}\n\nRef. {message.key}"
    answer = yield _ask("POST", f"Contacts/{contact}/Notes", settings, {"data": [note]}, answers=_EACH)
    return [_only(answer, message)]


_OPERATIONS: Final[Mapping[str, Callable[[Sequence[Message], Settings], Conversation]]] = {
    "upsert_contact": _upsert,
    "upsert_record": _upsert,
    "clear_fields": _clear_fields,
    "add_note": _add_note,
}


def _place(message: Message, settings: Settings) -> tuple[str, str]:
    if message.operation == "upsert_contact":
        return "Contacts", settings.options["key_field"]
    return message.params["module"], message.params.get("key_field") or settings.options["record_key_field"]


def _contact(key: str, settings: Settings) -> Lookup:
    # A criterion's own signs are escaped: \( \) and \, are documented (help.zoho.com, "Kaizen #82"); is \\ needed?
    value, field = re.sub(r"([(),\\])", r"\\\1", key), settings.options["key_field"]
    query = {"criteria": f"({field}:equals:{value})", "fields": field, "per_page": "10"}
    answer = yield _ask("GET", "Contacts/search", settings, query=query, harmless=True)
    # `equals` also finds what looks alike (seen in clients, undocumented), and somebody else must not be written to.
    same = (found for found in _records(answer) if str(found.get(field, key)).casefold() == key.casefold())
    return next((str(found["id"]) for found in same), None)


def _judged(result: Json, message: Message, key_field: str | None = None) -> Outcome:
    """What became of one record: done, a passing trouble, or its own fault, with the fields that are ours."""
    details = _details(result)
    if result.get("status") == "success":
        done = result.get("action")
        stored = details.get("id")
        reason = {"insert": "created", "update": "updated"}.get(str(done), "")
        return Outcome(verdict=Verdict.OK, reason=reason, target_id=None if stored is None else str(stored))
    # MULTIPLE_OR_MULTI_ERRORS lists what is wrong with one record; else the result itself says it.
    faults = [fault for fault in details.get("errors") or () if isinstance(fault, dict)] or [result]
    codes = [str(fault.get("code", "")) for fault in faults]
    said = dict.fromkeys(code if re.fullmatch(r"[A-Z_]{3,40}", code) else "refused" for code in codes)
    ours = [*(message.params.get("fields") or {}), *message.params.get("names", ()), "Last_Name", "Email", key_field]
    fields = dict.fromkeys(str(name) for fault in faults if (name := _details(fault).get("api_name")) in ours)
    reason = f"{', '.join(said)}: {', '.join(fields)}" if fields else ", ".join(said)
    passes = all(_passes(code, _details(fault), message, key_field) for code, fault in zip(codes, faults, strict=True))
    return Outcome(verdict=Verdict.RETRY if passes else Verdict.PERMANENT, reason=reason)


def _passes(code: str, details: Json, message: Message, key_field: str | None) -> bool:
    """Of two inserts of one key at the same time one is a duplicate: asked for again it is an update."""
    if code == "DUPLICATE_DATA":
        return key_field is not None and details.get("api_name") == key_field and message.attempt == 1
    return code in _PASSING and details.get("dependency_error") != "NO_PERMISSION"


def _details(result: Json) -> Json:
    details = result.get("details")
    return details if isinstance(details, dict) else {}


def _only(answer: Answer, message: Message) -> Outcome | None:
    results = _records(answer)
    return _judged(results[0], message) if results else None


def _quietly(body: Json, settings: Settings) -> Json:
    """An empty list of triggers is silence; without one Zoho starts all of them."""
    return body if settings.options["workflows"] else {**body, "trigger": []}


def _given(fields: Mapping[str, Any]) -> Json:
    return {name: value for name, value in fields.items() if value is not None}


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
    url = f"{settings.options['base_url'].rstrip('/')}/crm/{settings.options['version']}/{path}"
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


def _records(answer: Answer) -> list[Json]:
    """What an answer has under `data`; nothing when it is empty, as Zoho's 204 is."""
    try:
        document = json.loads(answer.body)
    except ValueError:
        return []
    found = document.get("data") if isinstance(document, dict) else None
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
