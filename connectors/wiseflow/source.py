"""WISEflow's oddities, from help.wiseflow.net/service-centre/api-webhooks and its OpenAPI description:

The `id` is new on every call and `callTime` may be; only `sequenceNumber` stays. The printed sample lost its braces, so
`callTime` and `sequenceNumber` are looked for beside and inside `eventPayload`, `id` also as `Id`, numbers also quoted.
Only three event names are documented. Withdrawals and revocations come as the same events as what they take back.
Are header names prefixed? Is callTime in seconds? Not documented: both are accepted.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from bridge.core.errors import NotGenuine, PayloadError
from bridge.core.events import Event
from bridge.core.normalising import canonical
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.core.signing import Encoding, canonical_json, decode, matching_secret
from bridge.core.source import ApiAccess, Found, Inbound, Notice, SourceApi, Subscription, TokenRequest, Verified
from connectors.wiseflow import enriching, gathering, reconciling, subscribing
from connectors.wiseflow.envelope import countable, dedupe_key, header, kind_of, plausible, read
from connectors.wiseflow.kinds import KINDS


def verify(inbound: Inbound, settings: Settings) -> Verified:
    """Compare the signature header with an HMAC of the body, for each secret and each mode that is turned on."""
    if not settings.secrets:
        raise NotGenuine("no_secret")
    name, signature = header(inbound, settings.options["signature_headers"])
    if not signature:
        raise NotGenuine("signature_missing")
    proof = next(filter(None, (_proof(mode, inbound, signature, settings) for mode in _modes(settings))), None)
    if proof is None:
        readable = any(decode(signature, mode.encoding) for mode in _modes(settings))
        raise NotGenuine("signature_mismatch" if readable else "signature_malformed")
    _refuse_stale(inbound, settings)
    return Verified(
        inbound=inbound,
        proof=f"{proof} in header {name.lower()}",
        dedupe_key=dedupe_key(inbound, settings),
        dedupe_window=timedelta(hours=settings.options["dedupe_window_hours"]),
    )


def parse(verified: Verified, settings: Settings) -> list[Notice]:
    """The one event of a call."""
    inbound = verified.inbound
    call = read(inbound, settings)
    return [
        Notice(
            kind=kind_of(call, inbound, settings),
            payload=call.payload,
            tenant=f"lic-{call.licence}" if call.licence is not None else settings.name,
            # With neither sequence number nor Trace-Id two equal hand-ins cannot be told from a repeat. A repeat
            # within the dedupe window is recognised by its dedupe key and never gets here; what comes later is new.
            key=call.happening or f"received:{inbound.received_at.isoformat()}",
            action=call.action,
            occurred_at=plausible(call.time.maybe_time(), inbound.received_at),
            sequence=countable(call.sequence),
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


def listed_with(event: Event) -> str:
    """By its flow."""
    return gathering.flow_of(event) or ""


def gather(events: Sequence[Event], api: SourceApi, waiting: int) -> None:
    """Lists of participants, submissions and assessments, where many events of one flow wait."""
    gathering.gather(events, api, waiting)


def happened(since: datetime, api: SourceApi) -> Iterator[Found]:
    """Hand-ins, marks and states of flows that the lists show since a time."""
    return reconciling.happened(since, api)


def fact(event: Event) -> str | None:
    """What a completed event says has happened."""
    return reconciling.fact(event)


def returns(event: Event) -> bool:
    """Whether what an event says can come true again in the same words."""
    return reconciling.returns(event)


def subscriptions(api: SourceApi) -> list[Subscription]:
    """All webhooks of the licence."""
    return subscribing.subscriptions(api)


def subscribe(api: SourceApi, url: str) -> Subscription:
    """A webhook for all events with the first secret."""
    return subscribing.subscribe(api, url)


def unsubscribe(api: SourceApi, subscription: Subscription) -> None:
    """Delete a webhook, if it is there."""
    subscribing.unsubscribe(api, subscription)


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


def _refuse_stale(inbound: Inbound, settings: Settings) -> None:
    """Judge the signed call time, if asked to. The header Call-Time is not signed and proves nothing."""
    window = settings.options["replay_window_seconds"]
    if not window:
        return
    try:
        time = read(inbound, settings).time.maybe_time()
    except PayloadError:
        time = None
    if time is None:
        raise NotGenuine("call_time_missing")
    if abs(inbound.received_at - time) > timedelta(seconds=window):
        raise NotGenuine("stale_call")
