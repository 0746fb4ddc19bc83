"""Wise (wise.live, nothing to do with wise.com): a static key instead of a signature, no delivery id, mostly no time.

The body is `{"event": NAME, "payload": {…}}` and names no institute. Meeting events wrap Zoom's own webhook. One
delivery may hold many sessions or recordings. One event name is misspelt for good ("SharingStared…"), and names that
are not in the list do come. Only exactly 200 within 5 s stops the eight retries, which repeat the same bytes.
Pages: docs.wise.live/wise-api-integration/webhooks-integration and below it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from bridge.core.errors import NotGenuine, PayloadError
from bridge.core.events import Event, stamp
from bridge.core.normalising import canonical
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.core.signing import canonical_json, fingerprint, matching_text
from bridge.core.source import ApiAccess, Inbound, Notice, Verified
from connectors.wise import readings
from connectors.wise.enriching import enrich
from connectors.wise.gathering import gather, listed_with
from connectors.wise.happening import fact, happened, returns

__all__ = ["access", "enrich", "fact", "gather", "happened", "listed_with", "normalise", "parse", "returns", "verify"]

# A time further ahead of its own arrival than clocks differ is not a time: it would outrank all later states.
_CLOCK_SKEW: Final = timedelta(minutes=10)


def verify(inbound: Inbound, settings: Settings) -> Verified:
    """Compare the key in its header, or, while nobody knows which header that is, in every one of them."""
    if not any(settings.secrets):
        raise NotGenuine("no_secret")
    pinned = settings.options["auth_header"]
    scheme = settings.options["auth_scheme"]
    found = [(name, _match(settings.secrets, value, scheme)) for name, value in inbound.headers.items()]
    genuine = [(name, position) for name, position in found if position is not None]
    accepted = [(name, position) for name, position in genuine if pinned is None or name == pinned.lower()]
    if not accepted:
        if genuine:
            raise NotGenuine("key_in_another_header")
        raise NotGenuine("key_mismatch" if pinned is None or pinned.lower() in inbound.headers else "key_missing")
    name, position = accepted[0]
    proof = f"secret {position}, static key in header {name}"
    token = settings.options["url_token"]
    if token:
        if _match([token], inbound.query.get("token", ""), "none") is None:
            raise NotGenuine("url_token_mismatch")
        proof += " and token in the address"
    return Verified(
        inbound=inbound,
        proof=proof,
        dedupe_key=fingerprint([inbound.body]),
        dedupe_window=timedelta(seconds=settings.options["dedupe_window_seconds"]),
    )


def _match(secrets: Sequence[str], value: str, scheme: str) -> int | None:
    """Which secret (counted from 1) stands in a value, in constant time; an empty value never matches one."""
    word, _, rest = (part.strip() for part in value.strip().partition(" "))
    carried = {"none": [value.strip()], "any": [value.strip(), rest]}.get(
        scheme, [rest] if word.lower() == scheme else []
    )
    matches = [matching_text(secrets, text) for text in carried if text and text.isascii()]
    return next((position for position in matches if position is not None), None)


def parse(verified: Verified, settings: Settings) -> Iterator[Notice]:
    """One notice per event, per session of `sessions`, and per recording of `recordings`."""
    inbound = verified.inbound
    body = Payload.parse(inbound.body).object()
    name = body.at("event").text()
    aliases = {_folded(alias): _folded(meant) for alias, meant in settings.options["event_aliases"].items()}
    kind = _NAMES.get(aliases.get(_folded(name), _folded(name)), name)
    rule = _KINDS.get(kind, _UNKNOWN)
    for payload in rule.split(body.at("payload")):
        occurred_at = _time(payload, rule.times, inbound.received_at)
        yield Notice(
            kind=kind,
            payload=payload,
            tenant=settings.options["institute_id"] or settings.name,
            key=_key(payload, rule.key, inbound.received_at),
            action=_text(payload.at(rule.action)) if rule.action else None,
            occurred_at=occurred_at,
            received_at=inbound.received_at,
        )


def _text(value: Payload) -> str | None:
    """A text, or None for anything else: what cannot be read here is the reader's to refuse, under the event's name."""
    try:
        return value.maybe_text()
    except PayloadError:
        return None


def _folded(name: str) -> str:
    return "".join(name.lower().split()).removesuffix("event")


def _time(payload: Payload, paths: tuple[str, ...], received_at: datetime) -> datetime | None:
    """The first time among the candidates that can be true."""
    moments = (payload.at(*path.split(".")).maybe_time() for path in paths)
    return next((moment for moment in moments if moment and moment <= received_at + _CLOCK_SKEW), None)


def _key(payload: Payload, paths: tuple[str, ...], received_at: datetime) -> str:
    """What tells this event from an equal one; if the first part is missing, that is the time of receipt."""
    values = [payload.at(*path.split(".")).value for path in paths]
    if not values or values[0] in (None, ""):
        values.append(stamp(received_at))
    return fingerprint(canonical_json(value) for value in values)


def _whole(payload: Payload) -> list[Payload]:
    return [payload]


def _sessions(payload: Payload) -> list[Payload]:
    """Created comes as a list; do updated and deleted? `session` and bare fields are taken as well."""
    if isinstance(payload.at("sessions").value, list) and payload.at("sessions").value:
        return list(payload.at("sessions").items())
    return [payload.at("session") if isinstance(payload.at("session").value, Mapping) else payload]


def _recordings(payload: Payload) -> list[Payload]:
    """The payload once for each recording, which then stands under `recording`."""
    value, recordings = payload.value, payload.at("recordings").value
    if not isinstance(value, Mapping) or not isinstance(recordings, list) or not recordings:
        return [payload]
    rest = {key: entry for key, entry in value.items() if key != "recordings"}
    return [Payload(rest | {"recording": recording}, payload.path) for recording in recordings]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """A kind: its reader, how it splits, where it says when, what makes it unlike an equal one, and its action."""

    read: Callable[[Payload, Settings], readings.Reading]
    split: Callable[[Payload], list[Payload]] = _whole
    times: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    action: str | None = None


def _zoom(type_: str, *times: str) -> _Kind:
    inner = tuple(f"payload.object.{time}" for time in times)
    key = ("event_ts", "payload.object.uuid", "payload.object.participant.participant_uuid")
    return _Kind(read=partial(readings.meeting, type_), times=("event_ts", *inner), key=key)


def _member(type_: str, who: str) -> _Kind:
    # The time is the audit feed's, for an event that was found there; webhooks about people in classes have none.
    return _Kind(read=partial(readings.enrolment, type_, who), times=("eventTimestamp",))


_INVOICE: Final = (
    "transaction.chargedAt",
    "transaction._id",
    "student._id",
    "transaction.metadata.classId",
    "transaction.metadata.installmentId",
    "transaction.metadata.index",
)
_KINDS: Final = {
    "ParticipantJoinedMeetingEvent": _zoom("session.participant_joined", "participant.join_time"),
    "ParticipantLeftMeetingEvent": _zoom("session.participant_left", "participant.leave_time"),
    "SharingStaredInMeetingEvent": _zoom("session.sharing_started", "participant.sharing_details.date_time"),
    "SharingEndedInMeetingEvent": _zoom("session.sharing_ended", "participant.sharing_details.date_time"),
    "MeetingStartedEvent": _zoom("session.started", "start_time"),
    "MeetingEndedEvent": _zoom("session.ended", "end_time"),
    "RecordingCompletedEvent": _Kind(
        read=readings.recording, split=_recordings, key=("recording.url", "recording.partIndex")
    ),
    "CertificateIssuedEvent": _Kind(
        read=readings.certificate, times=("certificate.issuedOn",), key=("certificate._id",)
    ),
    "AttendanceComputedEvent": _Kind(read=readings.attendance),
    "StudentAddedToClassroomEvent": _member("enrolment.added", "student"),
    "TeacherAddedToClassroomEvent": _member("enrolment.added", "teacher"),
    "StudentRemovedFromClassroomEvent": _member("enrolment.removed", "student"),
    "TeacherRemovedFromClassroomEvent": _member("enrolment.removed", "teacher"),
    "StudentSuspensionUpdatedEvent": _Kind(read=readings.suspension, times=("eventTimestamp",)),
    "FeePaymentCompletedEvent": _Kind(
        read=partial(readings.fee, "payment"),
        times=("transaction.chargedAt",),
        key=("transaction._id",),
        action="type",  # OFFLINE is the only value published
    ),
    "FeeInvoiceChargedEvent": _Kind(
        read=partial(readings.fee, "invoice"), times=("transaction.chargedAt",), key=_INVOICE
    ),
    # createdAt is when the session was planned, also in an update or a deletion, which do not say when they happened.
    "SessionsCreatedEvent": _Kind(
        read=partial(readings.scheduled, "session.scheduled"),
        split=_sessions,
        times=("createdAt",),
        key=("_id", "createdAt"),
    ),
    "SessionsUpdatedEvent": _Kind(read=partial(readings.scheduled, "session.rescheduled"), split=_sessions),
    "SessionsDeletedEvent": _Kind(read=partial(readings.scheduled, "session.cancelled"), split=_sessions, key=("_id",)),
}
_UNKNOWN: Final = _Kind(read=readings.unknown)
_NAMES: Final = {_folded(kind): kind for kind in _KINDS}


def normalise(notice: Notice, settings: Settings) -> Event:
    """One canonical event; PayloadError when something is missing without which it would say nothing."""
    rule = _KINDS.get(notice.kind, _UNKNOWN)
    type_, subject, data = rule.read(notice.payload.object(), settings)
    return canonical(notice, settings, provider="wise", type=type_, subject=subject, data=data)


def access(settings: Settings) -> ApiAccess | None:
    """Five headers on every call, the key twice (docs.wise.live/wise-api-integration/api-authentication)."""
    if settings.api is None:
        return None
    api = settings.api
    basic = base64.b64encode(f"{api['user_id']}:{api['api_key']}".encode()).decode()
    return ApiAccess(
        base_url=api["base_url"].rstrip("/"),
        headers={
            "authorization": f"Basic {basic}",
            "x-api-key": api["api_key"],
            "x-wise-namespace": api["namespace"],
            "user-agent": api["user_agent"] or f"VendorIntegrations/{api['namespace']}",
            "content-type": "application/json",
        },
    )
