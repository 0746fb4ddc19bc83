"""The canonical event: CloudEvents 1.0 attributes around education data whose keys are always all there.

The nouns of `data` are in `nouns.py`. `event_from_json` and `Event.to_json` are each other's inverse.
"""

from __future__ import annotations

import types
import typing
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, Literal

from bridge.core.nouns import Data, Identifier
from bridge.core.signing import canonical_json
from bridge.core.vocabulary import TYPES, EventType, short

NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "https://bridge.example/ns/edu-event")
SCHEMA_ID: Final = "https://bridge.example/schemas/edu-event/1.json"
"""`$id` of the JSON Schema: a name, not an address. Every installation serves the file at /schemas/edu-event/1.json."""

Enrichment = Literal["full", "partial", "missing", "skipped"]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One canonical event.

    `type` is the short name (`grade.published`); `source` is `urn:edu:<provider>:<tenant>`; `subject` is
    `<noun>/<provider id>`; `time` is when it happened at the platform, or, with `timequality` "received", when it
    reached us; `causationid` names the parent of a fanned-out event; `observedat` is when enrichment read the
    platform; `origin` is how we learnt of it.
    """

    id: str
    source: str
    type: str
    subject: str
    time: datetime
    recordedtime: datetime
    tenant: str
    sourceevent: str
    data: Data = field(default_factory=Data)
    timequality: Literal["source", "received"] = "source"
    sourceaction: str | None = None
    sequence: int | None = None
    correlationid: str | None = None
    causationid: str | None = None
    enrichment: Enrichment = "skipped"
    observedat: datetime | None = None
    origin: Literal["webhook", "reconciled"] = "webhook"

    @property
    def kind(self) -> EventType:
        return TYPES[self.type]

    @property
    def state_key(self) -> str:
        """What orders this event: equal keys are delivered one after the other."""
        parts = [self.source, self.kind.family, self.subject]
        if self.kind.per_person and self.data.person is not None and self.data.person.key:
            parts.append(self.data.person.key)
        return "|".join(parts)

    def to_json(self) -> Json:
        """The CloudEvents structured form, ready for `json.dumps`; absent attributes are left out, data keys never."""
        document: Json = {
            "specversion": "1.0",
            "id": self.id,
            "source": self.source,
            "type": self.kind.full,
            "subject": self.subject,
            "time": stamp(self.time),
            "datacontenttype": "application/json",
            "dataschema": SCHEMA_ID,
            "tenant": self.tenant,
            "sourceevent": self.sourceevent,
            "recordedtime": stamp(self.recordedtime),
            "timequality": self.timequality,
            "enrichment": self.enrichment,
            "origin": self.origin,
        }
        optional: Json = {
            "sourceaction": self.sourceaction,
            "sequence": None if self.sequence is None else str(self.sequence),
            "correlationid": self.correlationid,
            "causationid": self.causationid,
            "observedat": None if self.observedat is None else stamp(self.observedat),
        }
        document |= {name: value for name, value in optional.items() if value is not None}
        document["data"] = _dump(self.data)
        return document


def event_from_json(document: Mapping[str, Any]) -> Event:
    """The inverse of `Event.to_json`, for documents that are valid against the schema."""
    optional = {name: document[name] for name in ("sourceaction", "correlationid", "causationid") if document.get(name)}
    return Event(
        id=document["id"],
        source=document["source"],
        type=short(document["type"]),
        subject=document["subject"],
        time=datetime.fromisoformat(document["time"]),
        recordedtime=datetime.fromisoformat(document.get("recordedtime", document["time"])),
        tenant=document["tenant"],
        sourceevent=document["sourceevent"],
        timequality=document.get("timequality", "source"),
        sequence=int(document["sequence"]) if document.get("sequence") else None,
        enrichment=document.get("enrichment", "skipped"),
        origin=document.get("origin", "webhook"),
        observedat=datetime.fromisoformat(document["observedat"]) if document.get("observedat") else None,
        data=_load(Data, document["data"]),
        **optional,
    )


def event_id(*, source: str, sourceevent: str, sourceaction: str | None, key: str, payload: object) -> str:
    """The same webhook content gives the same id, whenever and however often it is processed.

    `key` must tell two different happenings apart whose payloads are equal: the platform's sequence number or time, or,
    where it has neither, the time at which the first copy reached us.
    """
    name = "|".join((source, sourceevent, sourceaction or "", key)).encode("utf-8", "surrogatepass")
    return str(uuid.uuid5(NAMESPACE, (name + b"|" + canonical_json(payload)).hex()))


def child_id(parent: str, part: str) -> str:
    """The id of one fanned-out event: its parent and what tells it from its siblings, say a candidate's id."""
    return str(uuid.uuid5(NAMESPACE, f"{parent}|{part}"))


def idempotency_key(event: str, mapping: str, target: str) -> str:
    """The same on every attempt and replay of what is the same message."""
    return str(uuid.uuid5(NAMESPACE, f"{event}|{mapping}|{target}"))


def stamp(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds, as in `2026-06-05T09:30:00.000Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


@cache
def _wire_fields(noun: Any) -> tuple[tuple[str, str], ...]:
    return tuple((entry.name, _camel(entry.name)) for entry in fields(noun))


def _dump(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, datetime):
        return stamp(value)
    if isinstance(value, tuple):
        return [_dump(entry) for entry in value]
    return {wire: _dump(getattr(value, name)) for name, wire in _wire_fields(value.__class__)}


@cache
def _readers(noun: Any) -> tuple[tuple[str, str, Any], ...]:
    """Per field its name, its wire name, and the type to read: a noun, `datetime`, `tuple`, or None for as it is."""
    hints = typing.get_type_hints(noun)
    plans = []
    for name, wire in _wire_fields(noun):
        hint = hints[name]
        if isinstance(hint, types.UnionType):
            hint = next(part for part in typing.get_args(hint) if part is not type(None))
        reader = tuple if typing.get_origin(hint) is tuple else hint
        plans.append((name, wire, None if reader in (str, int, float, bool) else reader))
    return tuple(plans)


def _load(noun: Any, document: Mapping[str, Any]) -> Any:
    values: dict[str, Any] = {}
    for name, wire, reader in _readers(noun):
        value = document.get(wire)
        if value is None and reader is tuple:
            values[name] = ()
        elif value is None or reader is None:
            values[name] = value
        elif reader is datetime:
            values[name] = datetime.fromisoformat(value)
        elif reader is tuple:
            values[name] = tuple(_load(Identifier, entry) for entry in value)
        else:
            values[name] = _load(reader, value)
    return noun(**values)
