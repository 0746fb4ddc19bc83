"""HubSpot's oddities, in the order in which they bite.

An upsert by e-mail takes no partial updates, so contacts carry the bridge's key in a unique property of their own.
Such an upsert meets contacts that have the e-mail address but no key: HubSpot answers CONFLICT and names the record in
words ("Contact already exists. Existing ID: 123"), and that one is adopted. Every value is text. A batch with one
unknown property is refused as a whole, and then goes out one by one; only to those who gave each input a trace id does
a 207 say what became of each. Its results are in no order, and e-mail addresses in them are in small letters. Notes
have no key and are looked for before they are written; the search index lags by seconds, a record's associations do
not. Errors are for people, every field of them is optional.

developers.hubspot.com/docs: "Contacts", "Notes", "Associations", "Error handling"; paths and bodies as in
github.com/HubSpot/HubSpot-public-api-spec-collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from bridge.core.errors import TargetError
from bridge.core.settings import Settings
from bridge.core.target import Answer, Conversation, Message, Outcome, Verdict
from connectors.hubspot.api import document, refusal, taken
from connectors.hubspot.relating import add_note, associate, disassociate, timeline_event
from connectors.hubspot.upserting import clear_properties, upsert, upsert_by_email

_OPERATIONS: Final[Mapping[str, Callable[[Sequence[Message], Settings], Conversation]]] = {
    "upsert_contact": upsert,
    "upsert_object": upsert,
    "upsert_contact_by_email": upsert_by_email,
    "clear_properties": clear_properties,
    "add_note": add_note,
    "associate": associate,
    "disassociate": disassociate,
    "timeline_event": timeline_event,
}


_KEYED: Final = frozenset(("upsert_contact", "upsert_object"))
"""Two of these with one key at the same time: HubSpot refuses one of them, and takes it when it comes again."""


def converse(messages: Sequence[Message], settings: Settings) -> Conversation:
    """What to say for an operation's messages. Raises TargetError for an operation that there is not."""
    talk = _OPERATIONS.get(messages[0].operation)
    if talk is None:
        raise TargetError(f"hubspot has no operation {messages[0].operation}")
    return talk(messages, settings)


def judge(answer: Answer, message: Message, settings: Settings) -> Outcome | None:
    """A refusal with the names of the properties that it is about, and a day's limit, which names no end."""
    if answer.status == 400:
        error = document(answer)
        again = message.operation in _KEYED and message.attempt == 1 and taken(error)
        reason = refusal(error, message, settings)
        return Outcome(verdict=Verdict.RETRY if again else Verdict.PERMANENT, reason=reason)
    if answer.status == 429 and document(answer).get("policyName") == "DAILY":
        return Outcome(
            verdict=Verdict.THROTTLED,
            reason="the account's calls of the day are used up",
            retry_after=float(settings.options["daily_pause"]),
        )
    return None
