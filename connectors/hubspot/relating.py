"""What hangs on records: notes, associations, and events on a timeline."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Final

from bridge.core.settings import Settings
from bridge.core.target import Answer, Ask, Conversation, Message, Outcome, Verdict
from connectors.hubspot.api import ask, document, records, relations, segment, texts, timeline
from connectors.hubspot.upserting import UNSAID, objects, refused

Lookup = Generator[Ask, Answer, str | None]
"""Ends with HubSpot's id of a record, or None where there is none."""

_NOTE_TO_CONTACT: Final = {"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": 202}
_PAGE: Final = "500"


def add_note(messages: Sequence[Message], settings: Settings) -> Conversation:
    """A note that is there once: by a unique property of notes if there is one, else by looking for its key."""
    [message] = messages
    contact = yield from _contact(message.params["contact"], settings)
    if contact is None:
        return [_absent("contacts")]
    property = settings.options.get("note_key_property")
    written = {
        "hs_timestamp": message.params.get("at") or message.event["time"],
        "hs_note_body": message.params["body"] if property else f"{message.params['body']}{_mark(message)}",
    }
    notes = records(settings, "notes")
    if property:
        one = {"id": message.key, "idProperty": property, "objectWriteTraceId": message.key, "properties": written}
        answer = yield ask("POST", f"{notes}/batch/upsert", settings, {"inputs": [one]})
        results, errors = (objects(document(answer).get(name)) for name in ("results", "errors"))
        if not results:
            return [(yield from refused(errors[0], "notes", property, message, settings)) if errors else UNSAID]
        note = str(results[0]["id"])
        yield ask("PUT", relations(settings, "notes", note, f"default/contacts/{contact}"), settings)
        return [Outcome(verdict=Verdict.OK, reason="written", target_id=note)]
    known = yield from _note_with(message, contact, settings)
    if known is not None:
        return [Outcome(verdict=Verdict.DUPLICATE, reason="the note is there already", target_id=known)]
    body = {"properties": written, "associations": [{"to": {"id": contact}, "types": [_NOTE_TO_CONTACT]}]}
    answer = yield ask("POST", notes, settings, body)
    return [Outcome(verdict=Verdict.OK, reason="written", target_id=str(document(answer).get("id") or "") or None)]


def associate(messages: Sequence[Message], settings: Settings) -> Conversation:
    """A PUT: the same relation twice is one."""
    [message] = messages
    one, other, missing = yield from _both(message, settings)
    if missing is not None:
        return [missing]
    to, label = message.params["to"]["type"], message.params.get("label")
    if label is None:
        url = relations(settings, message.params["from"]["type"], one, f"default/{segment(to)}/{other}")
        yield ask("PUT", url, settings)
    else:
        types = [{"associationCategory": label.get("category", "USER_DEFINED"), "associationTypeId": label["type_id"]}]
        url = relations(settings, message.params["from"]["type"], one, f"{segment(to)}/{other}")
        yield ask("PUT", url, settings, types)
    return [None]


def disassociate(messages: Sequence[Message], settings: Settings) -> Conversation:
    """Records that are not there have no relation."""
    [message] = messages
    one, other, missing = yield from _both(message, settings)
    if missing is not None:
        return [Outcome(verdict=Verdict.OK, reason="one of the records is not there, and so no relation")]
    to = segment(message.params["to"]["type"])
    yield ask("DELETE", relations(settings, message.params["from"]["type"], one, f"{to}/{other}"), settings, seen=404)
    return [None]


def timeline_event(messages: Sequence[Message], settings: Settings) -> Conversation:
    """One occurrence. Dated versions know event types by name, v3 knows templates by id."""
    [message] = messages
    params = message.params
    dated = settings.options["version"] != "v3"
    values = texts(params.get("properties") or {})
    occurrence = {
        "eventTypeName" if dated else "eventTemplateId": params["event_type"],
        "id": params.get("id") or message.key,
        "email": params.get("email"),
        "objectId": params.get("object_id"),
        "timestamp": params.get("at") or message.event["time"],
        "properties" if dated else "tokens": values,
        "extraData": params.get("extra_data"),
    }
    body = {name: value for name, value in occurrence.items() if value is not None}
    yield ask("POST", timeline(settings), settings, body)
    return [None]


def _mark(message: Message) -> str:
    """The line by which a note is known again. HubSpot takes comments and hidden elements out of a note's HTML."""
    return f"<p>Ref. {message.key}</p>"


def _note_with(message: Message, contact: str, settings: Settings) -> Lookup:
    """The note among the contact's newest that holds the message's key."""
    ids: list[int] = []
    query = {"limit": _PAGE}
    while query:
        answer = yield ask(
            "GET", relations(settings, "contacts", contact, "notes"), settings, query=query, harmless=True
        )
        page = document(answer)
        ids += [int(entry["toObjectId"]) for entry in page.get("results", ())]
        after = page.get("paging", {}).get("next", {}).get("after")
        query = {"limit": _PAGE, "after": str(after)} if after else {}
    newest = sorted(ids, reverse=True)[: settings.options["notes_looked_at"]]
    if not newest:
        return None
    body = {"properties": ["hs_note_body"], "inputs": [{"id": str(note)} for note in newest]}
    answer = yield ask("POST", f"{records(settings, 'notes')}/batch/read", settings, body, harmless=True)
    for note in document(answer).get("results", ()):
        if message.key in (note.get("properties", {}).get("hs_note_body") or ""):
            return str(note["id"])
    return None


def _contact(reference: Mapping[str, str], settings: Settings) -> Lookup:
    if "email" in reference:
        record = {"type": "contacts", "key": reference["email"], "key_property": "email"}
    else:
        record = {"type": "contacts", **reference}
    return (yield from _record(record, settings))


def _record(record: Mapping[str, Any], settings: Settings) -> Lookup:
    if "id" in record:
        return str(record["id"])
    default = "key_property" if record["type"] == "contacts" else "object_key_property"
    answer = yield ask(
        "GET",
        f"{records(settings, record['type'])}/{segment(record['key'])}",
        settings,
        query={"idProperty": record.get("key_property") or settings.options[default]},
        seen=404,
        harmless=True,
    )
    return None if answer.status == 404 else str(document(answer).get("id") or "") or None


def _both(message: Message, settings: Settings) -> Generator[Ask, Answer, tuple[str, str, Outcome | None]]:
    """HubSpot's ids of both records, or what it comes to that one of them is missing."""
    found = []
    for end in ("from", "to"):
        record = message.params[end]
        known = yield from _record(record, settings)
        if known is None:
            return "", "", _absent(record["type"])
        found.append(known)
    return found[0], found[1], None


def _absent(kind: str) -> Outcome:
    """Not for good: the message that makes the record may still be on its way."""
    return Outcome(verdict=Verdict.RETRY, reason=f"there is no such record among the {kind} yet")
