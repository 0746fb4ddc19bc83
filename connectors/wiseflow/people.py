"""Who an event is about, by name and address, and who did it."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from bridge.core.events import Event
from bridge.core.nouns import Identifier, Person
from bridge.core.payload import Payload
from bridge.core.source import SourceApi
from connectors.wiseflow.calls import EMAILS, EMAILS_KEPT, PARTICIPANT, PEOPLE_KEPT, USER, ask, readable

_USER_ID: Final = "wiseflow.userId"


def person(event: Event, api: SourceApi) -> tuple[Person | None, bool]:
    """The participant as its flow knows them, and whether all of it answered."""
    before = event.data.person
    if before is None or not api.settings.options["person_details"]:
        return before, True
    participant = ask(api, event, PARTICIPANT, keep=PEOPLE_KEPT, extra=True)
    return readable(lambda: _named(event, api, before, participant), (before, False))


def person_of(event: Event, api: SourceApi, participant: Payload) -> tuple[Person | None, bool]:
    """The same from a participant that was read already; the user's id is told whatever the settings say."""
    before = event.data.person or Person(role="learner")
    if not api.settings.options["person_details"]:
        return _keyed(before, participant), True
    return readable(lambda: _named(event, api, before, participant), (before, False))


def actor(event: Event, api: SourceApi) -> tuple[Person | None, bool]:
    """Whoever did it, if the webhook named a user."""
    before = event.data.actor
    number = next((entry.value for entry in before.identifiers if entry.scheme == _USER_ID), None) if before else None
    if before is None or number is None or not _named_here(api, "data.actor"):
        return before, True
    user = ask(api, event, USER, keep=PEOPLE_KEPT, extra=True, user=number)
    if user is None:
        return before, False
    return readable(lambda: (replace(described(before, user, api), email=_only_address(user)), True), (before, False))


def described(before: Person, user: Payload, api: SourceApi) -> Person:
    """A person with the name and the external ids of one of the API's users; all but the configured ids stay behind."""
    schemes = {name.casefold(): scheme for name, scheme in api.settings.options["identifier_schemes"].items()}
    identifiers = {(entry.scheme, entry.value): entry for entry in before.identifiers}
    for external in user.at("externalIds").items():
        scheme = schemes.get((external.at("name").maybe_text() or "").casefold())
        value = external.at("value").maybe_text()
        if scheme and value:
            identifiers.setdefault((scheme, value), Identifier(scheme=scheme, value=value))
    return replace(
        before,
        given_name=user.at("firstName").maybe_text(),
        family_name=user.at("lastName").maybe_text(),
        identifiers=tuple(identifiers.values()),
    )


def _named(event: Event, api: SourceApi, before: Person, participant: Payload | None) -> tuple[Person, bool]:
    found = before if participant is None else described(_keyed(before, participant), participant.at("user"), api)
    address, answered = _address(replace(event, data=replace(event.data, person=found)), api)
    return replace(found, email=address), participant is not None and answered


def _keyed(before: Person, participant: Payload) -> Person:
    """With the user's id, where the webhook did not say it: a user is one for the licence, a participant per flow."""
    number = participant.first("userId", "user.id").maybe_integer()
    if before.key is not None or number is None:
        return before
    known = (Identifier(scheme=_USER_ID, value=str(number)), *before.identifiers)
    return replace(before, key=f"wiseflow:{number}", identifiers=known)


def _address(event: Event, api: SourceApi) -> tuple[str | None, bool]:
    """The primary address, else the first; and whether the platform told, or nobody wants to know."""
    if not api.wants("data.person.email"):
        return None, True
    found = ask(api, event, EMAILS, keep=EMAILS_KEPT, extra=True)
    if found is None:
        return None, False
    addresses = [(entry.at("primary").maybe_flag(), entry.at("email").maybe_text()) for entry in found.items()]
    given = [address for primary, address in sorted(addresses, key=lambda entry: not entry[0]) if address]
    return given[0] if given else None, True


def _only_address(user: Payload) -> str | None:
    """A user's info lists addresses without saying which is the primary one: only a single one is certain."""
    addresses = [entry.text() for entry in user.at("emails").items() if entry.present]
    return addresses[0] if len(addresses) == 1 else None


def _named_here(api: SourceApi, noun: str) -> bool:
    return bool(api.settings.options["person_details"]) and api.wants(noun)
