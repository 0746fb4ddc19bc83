"""Making and updating records: by a key of our own in batches, by e-mail one by one."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Final

from bridge.core.events import Json
from bridge.core.settings import Settings
from bridge.core.target import Answer, Ask, Conversation, Message, Outcome, Verdict
from connectors.hubspot.api import ask, document, existing, records, refusal, segment, taken, texts, traces_of

Exchange = Generator[Ask, Answer, Outcome]
"""The part of a conversation that is about one message."""

# Categories of a batch's errors that pass. Are there more? A category that is not here is taken for the data's fault.
_PASSING: Final = {"RATE_LIMITS": Verdict.THROTTLED, "RATE_LIMIT": Verdict.THROTTLED, "INTERNAL_ERROR": Verdict.RETRY}

UNSAID: Final = Outcome(verdict=Verdict.RETRY, reason="HubSpot does not say what became of it")
"""Nothing at all about an input."""

TAKEN: Final = "another record has one of its unique values, and HubSpot does not say which"


def upsert(messages: Sequence[Message], settings: Settings) -> Conversation:
    """One request for each kind of record and unique property among the messages."""
    groups: dict[tuple[str, str], list[Message]] = {}
    for message in messages:
        groups.setdefault(_place(message, settings), []).append(message)
    outcomes: dict[str, Outcome] = {}
    for (kind, property), group in groups.items():
        outcomes |= yield from _together(kind, property, group, settings)
    return [outcomes[message.key] for message in messages]


def upsert_by_email(messages: Sequence[Message], settings: Settings) -> Conversation:
    """Update, else make; and where somebody else was faster, update what they made."""
    [message] = messages
    email, properties = message.params["email"], texts(message.params["properties"])
    contacts = records(settings, "contacts")
    # Without the address itself: the contact may have been found by its second one, which would become the first.
    known = {"properties": {name: value for name, value in properties.items() if name != "email"}}
    answer = yield ask(
        "PATCH", f"{contacts}/{segment(email)}", settings, known, query={"idProperty": "email"}, seen=404
    )
    if answer.status != 404:
        return [_stored(document(answer), "updated")]
    answer = yield ask("POST", contacts, settings, {"properties": {**properties, "email": email}}, seen=409)
    if answer.status != 409:
        return [_stored(document(answer), "created")]
    other = existing(document(answer))
    if other is None:
        return [Outcome(verdict=Verdict.RETRY, reason=TAKEN)]
    answer = yield ask("PATCH", f"{contacts}/{other}", settings, known)
    return [_stored(document(answer), "updated")]


def clear_properties(messages: Sequence[Message], settings: Settings) -> Conversation:
    """An empty text is how HubSpot empties a property."""
    [message] = messages
    key, property = message.params["key"], settings.options["key_property"]
    body = {"properties": dict.fromkeys(message.params["names"], "")}
    url = f"{records(settings, 'contacts')}/{segment(key)}"
    answer = yield ask("PATCH", url, settings, body, query={"idProperty": property}, seen=404)
    if answer.status == 404:
        return [Outcome(verdict=Verdict.OK, reason="there is no such contact, and so nothing to empty")]
    return [_stored(document(answer), "cleared")]


def _place(message: Message, settings: Settings) -> tuple[str, str]:
    """The kind of record, and the property that its key goes into."""
    if message.operation == "upsert_contact":
        return "contacts", settings.options["key_property"]
    return message.params["type"], message.params.get("key_property") or settings.options["object_key_property"]


def _together(
    kind: str, property: str, group: Sequence[Message], settings: Settings
) -> Generator[Ask, Answer, dict[str, Outcome]]:
    """The outcome of each message by its key. What a 207 does not speak of is asked for alone."""
    inputs = [
        {
            "id": message.params["key"],
            "idProperty": property,
            "objectWriteTraceId": message.key,
            "properties": texts(message.params["properties"]),
        }
        for message in group
    ]
    alone = len(group) == 1
    # A CONFLICT of a whole batch does not say whose it is: it is judged permanent, and all are sent one by one.
    answer = yield ask(
        "POST", f"{records(settings, kind)}/batch/upsert", settings, {"inputs": inputs}, seen=409 if alone else None
    )
    found = document(answer)
    if alone and answer.status == 409:
        return {group[0].key: (yield from refused(found, kind, property, group[0], settings))}
    stored = {_key_of(result, property, group): result for result in objects(found.get("results"))}
    said = objects(found.get("errors"))
    errors = {trace: error for error in said for trace in traces_of(error)}
    if alone and said:
        errors = {group[0].key: said[0]}
    outcomes: dict[str, Outcome] = {}
    for message in group:
        if (error := errors.get(message.key)) is not None:
            outcomes[message.key] = yield from refused(error, kind, property, message, settings)
        elif message.key in stored or answer.status != 207:
            result = stored.get(message.key, {})
            outcomes[message.key] = _stored(result, "created" if result.get("new") else "updated")
        elif alone:
            outcomes[message.key] = UNSAID
        else:
            outcomes |= yield from _together(kind, property, [message], settings)
    return outcomes


def refused(error: Json, kind: str, property: str, message: Message, settings: Settings) -> Exchange:
    """What an input's error comes to: a contact that was there before us is adopted, everything else is said."""
    category = str(error.get("category", ""))
    other = existing(error)
    if other is not None or taken(error):
        if other is None or kind != "contacts":
            # Two upserts of one key at the same time: asked for again, the one that lost is an update.
            again = Verdict.RETRY if message.attempt == 1 else Verdict.PERMANENT
            return Outcome(verdict=again, reason=TAKEN if category == "CONFLICT" else refusal(error, message, settings))
        if not settings.options["adopt"]:
            return Outcome(verdict=Verdict.PERMANENT, reason="a contact with its e-mail address is there already")
        return (yield from _adopted(other, property, message, settings))
    return Outcome(verdict=_PASSING.get(category, Verdict.PERMANENT), reason=refusal(error, message, settings))


def _adopted(record: str, property: str, message: Message, settings: Settings) -> Exchange:
    """Update a contact by HubSpot's id. It gets the key, unless it has another: somebody whom two platforms know."""
    url = f"{records(settings, 'contacts')}/{record}"
    answer = yield ask("GET", url, settings, query={"properties": property}, harmless=True)
    properties = texts(message.params["properties"])
    if not document(answer).get("properties", {}).get(property):
        properties[property] = message.params["key"]
    answer = yield ask("PATCH", url, settings, {"properties": properties})
    return _stored(document(answer), "updated: it was there under its e-mail address")


def _stored(record: Json, done: str) -> Outcome:
    found = record.get("id")
    return Outcome(verdict=Verdict.OK, reason=done, target_id=str(found) if found else None)


def _key_of(result: Json, property: str, group: Sequence[Message]) -> str | None:
    """The message that a result is about: by trace id, else by the key that the record has."""
    properties = result.get("properties")
    held = properties.get(property) if isinstance(properties, dict) else None
    known = next((message.key for message in group if message.params["key"] == held), None)
    return next(iter(traces_of(result)), known)


def objects(value: Any) -> list[Json]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
