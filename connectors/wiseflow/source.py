"""WISEflow's oddities, from help.wiseflow.net/service-centre/api-webhooks and its OpenAPI description:

The `id` is new on every call and `callTime` may be; only `sequenceNumber` stays. The printed sample lost its braces, so
`callTime` and `sequenceNumber` are looked for beside and inside `eventPayload`, `id` also as `Id`, numbers also quoted.
Only three event names are documented. Withdrawals and revocations come as the same events as what they take back.
Are header names prefixed? Is callTime in seconds? Not documented: both are accepted.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from bridge.core.contracts import ApiAccess, Inbound, Notice, Settings, SourceApi, TokenRequest, Verified
from bridge.core.errors import NotGenuine, PayloadError
from bridge.core.events import Event
from bridge.core.normalising import canonical
from bridge.core.payload import Payload
from bridge.core.signing import Encoding, canonical_json, decode, fingerprint, matching_secret
from connectors.wiseflow import enriching
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


def verify(inbound: Inbound, settings: Settings) -> Verified:
    """Compare the signature header with an HMAC of the body, for each secret and each mode that is turned on."""
    if not settings.secrets:
        raise NotGenuine("no_secret")
    header, signature = _header(inbound, settings.options["signature_headers"])
    if not signature:
        raise NotGenuine("signature_missing")
    proof = next(filter(None, (_proof(mode, inbound, signature, settings) for mode in _modes(settings))), None)
    if proof is None:
        readable = any(decode(signature, mode.encoding) for mode in _modes(settings))
        raise NotGenuine("signature_mismatch" if readable else "signature_malformed")
    _refuse_stale(inbound, settings)
    return Verified(
        inbound=inbound,
        proof=f"{proof} in header {header.lower()}",
        dedupe_key=_dedupe_key(inbound, settings),
        dedupe_window=timedelta(hours=settings.options["dedupe_window_hours"]),
    )


def parse(verified: Verified, settings: Settings) -> list[Notice]:
    """The one event of a call."""
    inbound = verified.inbound
    call = _read(inbound, settings)
    return [
        Notice(
            kind=_kind(call, inbound, settings),
            payload=call.payload,
            tenant=f"lic-{call.licence}" if call.licence is not None else settings.name,
            # With neither sequence number nor Trace-Id two equal hand-ins cannot be told from a repeat. A repeat
            # within the dedupe window is recognised by its dedupe key and never gets here; what comes later is new.
            key=call.happening or f"received:{inbound.received_at.isoformat()}",
            action=call.action,
            occurred_at=_plausible(call.time.maybe_time(), inbound.received_at),
            sequence=_countable(call.sequence),
            received_at=inbound.received_at,
        )
    ]


def normalise(notice: Notice, settings: Settings) -> Event:
    """The canonical event of a notice, by the rules of `kinds`."""
    type, subject, data = KINDS[notice.kind](notice, settings)
    return canonical(notice, settings, provider="wiseflow", type=type, subject=subject, data=data)


def access(settings: Settings) -> ApiAccess | None:
    """OAuth2 client credentials, or a static token (help.wiseflow.net/service-centre/api-authentication)."""
    if settings.api is None:
        return None
    api = settings.api
    base_url = api["base_url"].rstrip("/")
    headers = {"X-Client-Name": api.get("client_name") or "campus-bridge"}
    if api.get("license_id"):
        headers["x-wiseflow-license-id"] = api["license_id"]
    if api.get("client_id") and api.get("client_secret"):
        form = {
            "client_id": api["client_id"],
            "client_secret": api["client_secret"],
            "grant_type": "client_credentials",
        }
        token = TokenRequest(url=f"{base_url}/oauth2/token", form=form, headers=dict(headers))
        return ApiAccess(base_url=base_url, headers=headers, token=token)
    if api.get("api_key"):
        headers["x-api-key"] = api["api_key"]
    return ApiAccess(base_url=base_url, headers=headers)


def enrich(event: Event, api: SourceApi) -> list[Event]:
    """The event as the API shows it now. Raises SourceUnavailable while the API does not agree with a new event."""
    return [enriching.complete(event, api)]


# --- proof ------------------------------------------------------------------------------------------------------------


class _Mode(NamedTuple):
    """A signature mode `hmac-sha256:<what is signed>:<encoding>`."""

    signed: str
    encoding: Encoding


def _modes(settings: Settings) -> list[_Mode]:
    parts = [mode.split(":") for mode in settings.options["signature_modes"]]
    return [_Mode(signed, "hex" if encoding == "hex" else "base64") for _, signed, encoding in parts]


def _proof(mode: _Mode, inbound: Inbound, signature: str, settings: Settings) -> str | None:
    message = inbound.body
    if mode.signed == "base64-body":
        message = base64.b64encode(inbound.body)
    elif mode.signed == "canonical-json":
        try:  # parsed before the proof: a canonical form cannot be had otherwise; off by default
            message = canonical_json(Payload.parse(inbound.body).value)
        except PayloadError:
            return None
    position = matching_secret(settings.secrets, message, signature, algorithm="sha256", encoding=mode.encoding)
    return None if position is None else f"secret {position}, hmac-sha256 {mode.encoding} of the {mode.signed}"


def _header(inbound: Inbound, names: Iterable[str]) -> tuple[str, str]:
    """The first of several headers that is there and not empty, as name and value."""
    for name in names:
        value = inbound.headers.get(name.lower(), "")
        if value.strip():
            return name, value
    return "", ""


def _refuse_stale(inbound: Inbound, settings: Settings) -> None:
    """Judge the signed call time, if asked to. The header Call-Time is not signed and proves nothing."""
    window = settings.options["replay_window_seconds"]
    if not window:
        return
    try:
        time = _read(inbound, settings).time.maybe_time()
    except PayloadError:
        time = None
    if time is None:
        raise NotGenuine("call_time_missing")
    if abs(inbound.received_at - time) > timedelta(seconds=window):
        raise NotGenuine("stale_call")


def _dedupe_key(inbound: Inbound, settings: Settings) -> str:
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
    happening = "" if _sequence(call) else _header(inbound, settings.options["trace_id_headers"])[1]
    name = "" if kept.get("event") else _header(inbound, settings.options["event_type_headers"])[1]
    return fingerprint([canonical_json(kept), happening.strip(), name])


def _sequence(call: Mapping[str, object]) -> bool:
    payload = call.get("eventPayload")
    inner = payload.get("sequenceNumber") if isinstance(payload, dict) else None
    return any(value not in (None, "") for value in (call.get("sequenceNumber"), inner))


# --- the envelope -----------------------------------------------------------------------------------------------------


class _Call(NamedTuple):
    """One call without what changes from call to call. `happening` is equal on all calls about the same happening."""

    name: str | None
    action: str | None
    licence: str | None
    payload: Payload
    sequence: Payload
    happening: str | None
    time: Payload


def _read(inbound: Inbound, settings: Settings) -> _Call:
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
        _, trace = _header(inbound, settings.options["trace_id_headers"])
        happening = f"trace:{trace.strip()}" if trace else None
    action = body.at("action").maybe_text()
    licence = body.at("licenseId").maybe_integer()
    return _Call(
        name=body.at("event").maybe_text() or _header(inbound, settings.options["event_type_headers"])[1] or None,
        action=action.strip().lower() or None if action else None,
        licence=None if licence is None else str(licence),
        payload=payload,
        sequence=sequence,
        happening=happening,
        time=body.first("callTime", "eventPayload.callTime"),
    )


def _countable(sequence: Payload) -> int | None:
    """The sequence number, if it is one and fits 64 bits; as a text it identifies all the same."""
    try:
        number = sequence.maybe_integer()
    except PayloadError:
        return None
    return number if number is not None and abs(number) < 2**63 else None


def _plausible(time: datetime | None, received_at: datetime) -> datetime | None:
    if time is None or not received_at - _STORED_FOR < time < received_at + timedelta(days=1):
        return None
    return time


def _kind(call: _Call, inbound: Inbound, settings: Settings) -> str:
    """The kind by the body's name, then by the header's, then by the payload's keys, else the platform's own word.

    Raises PayloadError for a call without a name whose keys tell nothing either.
    """
    known = {kind: kind for kind in KINDS} | _NAMES
    known |= {name.strip().lower(): kind for name, kind in settings.options["aliases"].items()}
    names = [call.name, _header(inbound, settings.options["event_type_headers"])[1]]
    for name in names:
        if name and (kind := known.get(name.strip().lower())):
            return kind
    kind = _by_keys(call) or call.name
    if kind is None:
        raise PayloadError("$.event", "the name of an event")
    return kind


def _by_keys(call: _Call) -> str | None:
    keys = set(call.payload.keys())
    for telling, kind in _TELLING:
        if keys & telling:
            return kind
    if keys == {"state", "flowId"}:
        return "flow.state"
    # A mark has no key of its own. Another event about a submission, known by another name, must not be taken for
    # one: it would end as a revoked grade.
    return "final.mark" if {"submissionId", "participantId"} <= keys and call.name is None else None
