"""Reads a class's participants: who is in it now decides, not how many events about it came.

Enrolment webhooks carry no time, and "added, removed, added again" has equal bytes for both additions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from bridge.core.events import Event, stamp
from bridge.core.nouns import Enrolment, Person
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.core.source import SourceApi
from connectors.wise import asking
from connectors.wise.asking import CONTRADICTED, KEEP_SUBJECT, ask, settle
from connectors.wise.gaps import together
from connectors.wise.nouns import maybe_id, person

_BACK: Final = {
    "enrolment.added": "enrolment.added",
    "enrolment.removed": "enrolment.added",
    "enrolment.reinstated": "enrolment.reinstated",
    "enrolment.suspended": "enrolment.reinstated",
}
"""What an event comes to when the person is in the class: who was said to have left was added again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """A class's people by user id, and others whom it mentions. Who is invited is neither in it nor out of it."""

    people: Mapping[str, Person]
    mentioned: Mapping[str, Person]
    suspended: frozenset[str]
    undecided: frozenset[str]

    def status(self, user_id: str) -> str | None:
        """active, suspended or removed; None where the class does not say."""
        if user_id in self.suspended:
            return "suspended"
        if user_id in self.people:
            return "active"
        return None if user_id in self.undecided else "removed"


def roster(data: Payload, settings: Settings) -> Roster:
    """From the answer of a class's participants, whose lists hold ids in one place and objects in another."""
    people = _listed(data, {"joinedRequest": "learner", "coTeachers": "instructor"}, settings)
    others = {"pendingRequest": "learner", "invitedStudents": "learner", "admins": "manager"}
    owner, owner_id = person(data.at("userId"), settings, "instructor"), maybe_id(data.at("userId"))
    if owner is not None and owner_id is not None:
        people.setdefault(owner_id, owner)
    waiting = [*data.at("pendingRequest").items(), *data.at("invitedStudents").items()]
    return Roster(
        people=people,
        mentioned=_listed(data, others, settings),
        suspended=frozenset(_ids([_suspended(entry) for entry in data.at("suspendedStudents").items()])),
        undecided=frozenset(_ids(waiting)),
    )


def _listed(data: Payload, roles: Mapping[str, str], settings: Settings) -> dict[str, Person]:
    found: dict[str, Person] = {}
    for name, role in roles.items():
        for entry in data.at(name).items():
            who, identifier = person(entry, settings, role), maybe_id(entry)
            if who is not None and identifier is not None:
                found[identifier] = who
    return found


def _suspended(entry: Payload) -> Payload:
    """Whom a suspension is about: `{userId, reason}` in clients of the API; a mere id is taken as well."""
    return entry.at("userId") if entry.at("userId").present else entry


def _ids(entries: list[Payload]) -> list[str]:
    return [identifier for entry in entries if (identifier := maybe_id(entry)) is not None]


def membership(event: Event, api: SourceApi) -> tuple[Event, bool]:
    """An enrolment event as its class now has it, and whether the class could be read. Raises SourceUnavailable."""
    class_id, user_id = event.subject.removeprefix("enrolment/").split(".")

    def read(data: Payload) -> Roster:
        return roster(data, api.settings)

    found = ask(event, api, asking.roster_path(class_id), read, keep=KEEP_SUBJECT, fresh=True)
    if found is None:
        settle(event, api, "class")
        return event, False
    told = event.data.enrolment or Enrolment()
    status = found.status(user_id) or told.status
    if status != told.status:
        settle(event, api, "change of the class", CONTRADICTED)
    type_ = {"removed": "enrolment.removed", "suspended": "enrolment.suspended"}.get(
        status or "", _BACK.get(event.type, event.type)
    )
    reason = told.reason if status == told.status else None
    data = replace(
        event.data,
        person=together(
            _named(found.people.get(user_id) or found.mentioned.get(user_id), event.data.person), event.data.person
        ),
        enrolment=replace(told, status=status, reason=reason),
    )
    return _told_before(replace(event, type=type_, data=data), api), True


def _named(listed: Person | None, told: Person | None) -> Person | None:
    """Somebody of the list in the role that the event is about."""
    return listed and replace(listed, role=told.role if told is not None else listed.role)


def _told_before(event: Event, api: SourceApi) -> Event:
    """A webhook that comes after the audit feed has told the same: at the time that the feed gave.

    Then both are one fact, and the webhook says nothing new.
    """
    if event.timequality == "source":
        return event
    known = api.known(event.subject)
    if known is None or known.origin != "reconciled" or known.timequality != "source":
        return event
    if _status(known) != _status(event):
        return event
    return replace(event, time=known.time, timequality="source")


def _status(event: Event) -> str | None:
    return event.data.enrolment.status if event.data.enrolment is not None else None


def fact(event: Event) -> str | None:
    """A place in a class and its status, with the time where the platform gave one."""
    status = _status(event)
    if status is None:
        return None
    when = f"|{stamp(event.time)}" if event.timequality == "source" else ""
    return f"{event.subject}|{status}{when}"
