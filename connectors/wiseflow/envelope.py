"""The envelope of WISEflow's calls: what one is called, what makes it the same as another, and when it was made.

The printed sample lost its braces, so `callTime` and `sequenceNumber` are looked for beside and inside `eventPayload`,
numbers also quoted. Only three event names are documented; the others are known by their payload's keys too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from bridge.core.errors import PayloadError
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.core.signing import canonical_json, fingerprint
from bridge.core.source import Inbound
from connectors.wiseflow.kinds import KINDS

# The spellings of the subscription API's enumeration, and names under which a test call might come (not documented).
_NAMES: Final = {
    "paper_submitted": "paper.submission",
    "final_grade": "final.mark",
    "alternative_grade": "alternative.grade",
    "assignment": "assignment.added",
    "flow_state_updated": "flow.state",
    "flow_external_source": "flow.external.source",
    "flow_period_updated": "flow.period",
    "assessment": "assessment",
    "test": "webhook.test",
    "webhook_test": "webhook.test",
    "ping": "webhook.test",
}
# Payload keys that only one kind has.
_TELLING: Final = (
    ({"isHandedIn"}, "paper.submission"),
    ({"explanationRequestId"}, "grade.justification"),
    ({"asRole", "updatedBy"}, "alternative.grade"),
    ({"assignmentId", "assignmentReference"}, "assignment.added"),
    ({"externalSources"}, "flow.external.source"),
)
# The envelope's keys, in case they do come inside eventPayload: they change from call to call.
_ENVELOPE: Final = frozenset({"callTime", "eventVersion", "sequenceNumber"})
_CHANGING: Final = frozenset({"id", "Id", "callTime", "eventVersion"})
_STORED_FOR: Final = timedelta(days=100)
"""Calls are kept for 90 days: an older call time, or one from the future, is not a time but a mistake."""


class Call(NamedTuple):
    """One call without what changes from call to call. `happening` is equal on all calls about the same happening."""

    name: str | None
    action: str | None
    licence: str | None
    payload: Payload
    sequence: Payload
    happening: str | None
    time: Payload


def read(inbound: Inbound, settings: Settings) -> Call:
    body = Payload.parse(inbound.body).object()
    payload = body.at("eventPayload")
    if isinstance(payload.value, Mapping):
        kept = {key: value for key, value in payload.value.items() if key not in _ENVELOPE}
        payload = Payload(kept, payload.path)
    sequence = body.first("sequenceNumber", "eventPayload.sequenceNumber")
    if sequence.present:
        happening: str | None = f"sequence:{sequence.text()}"
    else:
        # Identical calls share their Trace-Id (help page, "Grouping of Calls"). It is not signed: second choice.
        _, trace = header(inbound, settings.options["trace_id_headers"])
        happening = f"trace:{trace.strip()}" if trace else None
    action = body.at("action").maybe_text()
    licence = body.at("licenseId").maybe_integer()
    return Call(
        name=body.at("event").maybe_text() or header(inbound, settings.options["event_type_headers"])[1] or None,
        action=action.strip().lower() or None if action else None,
        licence=None if licence is None else str(licence),
        payload=payload,
        sequence=sequence,
        happening=happening,
        time=body.first("callTime", "eventPayload.callTime"),
    )


def countable(sequence: Payload) -> int | None:
    """The sequence number, if it is one and fits 64 bits; as a text it identifies all the same."""
    try:
        number = sequence.maybe_integer()
    except PayloadError:
        return None
    return number if number is not None and abs(number) < 2**63 else None


def plausible(time: datetime | None, received_at: datetime) -> datetime | None:
    if time is None or not received_at - _STORED_FOR < time < received_at + timedelta(days=1):
        return None
    return time


def kind_of(call: Call, inbound: Inbound, settings: Settings) -> str:
    """The kind by the body's name, then by the header's, then by the payload's keys, else the platform's own word.

    Raises PayloadError for a call without a name whose keys tell nothing either.
    """
    known = {kind: kind for kind in KINDS} | _NAMES
    known |= {name.strip().lower(): kind for name, kind in settings.options["aliases"].items()}
    names = [call.name, header(inbound, settings.options["event_type_headers"])[1]]
    for name in names:
        if name and (kind := known.get(name.strip().lower())):
            return kind
    kind = _by_keys(call) or call.name
    if kind is None:
        raise PayloadError("$.event", "the name of an event")
    return kind


def _by_keys(call: Call) -> str | None:
    keys = set(call.payload.keys())
    for telling, kind in _TELLING:
        if keys & telling:
            return kind
    if keys == {"state", "flowId"}:
        return "flow.state"
    # A mark has no key of its own. Another event about a submission, known by another name, must not be taken for
    # one: it would end as a revoked grade.
    return "final.mark" if {"submissionId", "participantId"} <= keys and call.name is None else None


def dedupe_key(inbound: Inbound, settings: Settings) -> str:
    """All of a call but what changes when it is sent again: its id, its call time, and the version of the format.

    Read without care for types: this is done before the sender is answered, and any stable text will do.
    """
    try:
        call = Payload.parse(inbound.body).value
    except PayloadError:
        call = None
    if not isinstance(call, dict):
        return fingerprint([b"unreadable", inbound.body])
    kept = {name: value for name, value in call.items() if name not in _CHANGING}
    payload = kept.get("eventPayload")
    if isinstance(payload, dict) and not _ENVELOPE.isdisjoint(payload):
        inner = {name: value for name, value in payload.items() if name not in ("callTime", "eventVersion")}
        kept["eventPayload"] = inner
    happening = "" if _sequence(call) else header(inbound, settings.options["trace_id_headers"])[1]
    name = "" if kept.get("event") else header(inbound, settings.options["event_type_headers"])[1]
    return fingerprint([canonical_json(kept), happening.strip(), name])


def _sequence(call: Mapping[str, object]) -> bool:
    payload = call.get("eventPayload")
    inner = payload.get("sequenceNumber") if isinstance(payload, dict) else None
    return any(value not in (None, "") for value in (call.get("sequenceNumber"), inner))


def header(inbound: Inbound, names: Iterable[str]) -> tuple[str, str]:
    """The first of several headers that is there and not empty, as name and value."""
    for name in names:
        value = inbound.headers.get(name.lower(), "")
        if value.strip():
            return name, value
    return "", ""
