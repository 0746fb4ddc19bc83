"""Inspera Assessment.

Oddities: exactly 200 within 10 s counts, three retries, then the event is gone, and after failed checks every 8 hours
the subscription too. The signature is HMAC-SHA-1; nobody says whether `verification` calls carry one. There is no event
id and times are whole seconds. Bodies are thin: confirmed grades hold no grades, and the grades of a test come as a
file that has to be ordered. No list of papers is documented, and of tests only a search by name, so each is asked for
by itself, and what is compared are the files of tests that the settings name. The list of events is open and per tenant
(`GET /v1/subscription/events`), so the ids are settings.
Pages: https://inspera.atlassian.net/wiki/spaces/KB/pages/664928482/Webhooks and, for the API,
https://inspera.atlassian.net/wiki/spaces/KB/pages/184090625/Inspera+Assessment+API
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import quote, urlencode

from bridge.core.errors import NotGenuine, PayloadError, SourceUnavailable
from bridge.core.events import Event, stamp
from bridge.core.normalising import canonical
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.core.signing import canonical_json, fingerprint, matching_secret
from bridge.core.source import (
    ApiAccess,
    Challenge,
    Found,
    Inbound,
    Notice,
    SourceApi,
    Subscription,
    TokenRequest,
    Verified,
)
from connectors.inspera import reconciling, subscribing
from connectors.inspera.kinds import BY_OBJECT, TYPES, kind_of
from connectors.inspera.map_print import read_map_print
from connectors.inspera.nouns import data_of, subject_of
from connectors.inspera.recipes import completed
from connectors.inspera.results import identifier

_IDENTITY: Final = (
    "marketplaceId",
    "event",
    "contextObjectType",
    "contextObjectId",
    "associatedObjectType",
    "associatedObjectId",
    "timestamp",
)


def verify(inbound: Inbound, settings: Settings) -> Verified | Challenge:
    """Hex HMAC-SHA-1 over the raw body in `X-Inspera-Signature` (documented); header and modes are settings."""
    options = settings.options
    given = inbound.headers.get(options["signature_header"].lower(), "").strip()
    proof = _proof(inbound.body, given, settings)
    body = _maybe_read(inbound.body, options) if proof else None
    if proof is None:
        reason = "no_secret" if not settings.secrets else "signature_mismatch" if given else "missing_signature"
        # The one look into an unproven body, and only to answer: a subscription is made with one verification call that
        # is not repeated, whether it is signed is not documented, and it may come before its secret is stored here.
        # Nothing of it is kept; who forges one wins a 200.
        if options["verification_policy"] == "allow_unsigned" and b"verification" in inbound.body[:4096]:
            body = _maybe_read(inbound.body, options)
            if body is not None and _is_verification(body):
                return Challenge(reason=f"verification call, not proven: {reason}")
        raise NotGenuine(reason)
    verified = Verified(
        inbound=inbound,
        proof=proof,
        dedupe_key=_dedupe_key(body, inbound, settings),
        dedupe_window=timedelta(hours=options["dedupe_window_hours"]),
    )
    if body is not None and _is_verification(body):
        return Challenge(reason="verification call, correctly signed", keep=verified)
    if body is not None:
        _refuse_stale(body, inbound, options)
    return verified


def parse(verified: Verified, settings: Settings) -> list[Notice]:
    """One event per call."""
    body = _read(verified.inbound.body, settings.options)
    happened = body.at("timestamp")
    received_at = verified.inbound.received_at
    marketplace = body.at("marketplaceId")  # not in verification calls, nor in samples from before 2021
    fallback = settings.options["marketplace_id"] or settings.name
    return [
        Notice(
            kind=kind_of(body, settings.options),
            payload=body,
            tenant=identifier(marketplace) if marketplace.present else fallback,
            key=_word(happened.value).decode("utf-8", "replace") if happened.present else stamp(received_at),
            occurred_at=happened.maybe_time(),
            received_at=received_at,
        )
    ]


def normalise(notice: Notice, settings: Settings) -> Event:
    """One thin event. Those recognised by their object alone keep Inspera's own id as `sourceaction`."""
    kind, options = notice.kind, settings.options
    event = canonical(
        notice,
        settings,
        provider="inspera",
        type=TYPES[kind],
        subject=subject_of(notice, options),
        data=data_of(notice, options),
    )
    native = notice.payload.at("event").text()
    return replace(event, sourceaction=native) if kind in BY_OBJECT and native not in options["aliases"] else event


def access(settings: Settings) -> ApiAccess | None:
    """`POST /authenticate/token/`: the key is the header `code`; older clients sent it in the query, where logs see it,
    and all else with it (github.com/ToolsCollectiveR/InspeRaAssign: the body is empty).
    A token lives an hour, and asking in parallel may end in 409 "Multiple tokens for user"."""
    if settings.api is None:
        return None
    base, key = settings.api["base_url"].rstrip("/"), settings.api["api_key"]
    url = f"{base}/authenticate/token/"
    form = {"grant_type": "authorization_code", "client_id": settings.api["client_id"]}
    if settings.api["key_in"] == "query":
        query = urlencode({"code": key} | form, quote_via=quote)
        return ApiAccess(base_url=base, token=TokenRequest(url=f"{url}?{query}", form={}))
    return ApiAccess(base_url=base, token=TokenRequest(url=url, form=form, headers={"code": key}))


def enrich(event: Event, api: SourceApi) -> list[Event]:
    """Who, and in which test; for confirmed grades one `grade.published` per candidate as well.

    There is no list of a test's papers or people to gather from: each is asked for by itself, and kept a while.
    """
    with _readable():
        return completed(event, api)


def happened(since: datetime, api: SourceApi) -> Iterator[Found]:
    """Papers and grades of the tests in `reconcile_tests`, from files that the platform makes when they are ordered."""
    return reconciling.happened(since, api)


def fact(event: Event) -> str | None:
    """A paper by when it was delivered, a grade by its value; nothing else is in any file."""
    return reconciling.fact(event)


def returns(event: Event) -> bool:
    """Whether what an event says can come true again in the same words."""
    return reconciling.returns(event)


def subscriptions(api: SourceApi) -> list[Subscription]:
    """One for each endpoint, made of the platform's rows of one event each."""
    with _readable():
        return subscribing.subscriptions(api)


def subscribe(api: SourceApi, url: str) -> Subscription:
    """A row for each event; the platform calls the endpoint at once and wants 200."""
    with _readable():
        return subscribing.subscribe(api, url)


def unsubscribe(api: SourceApi, subscription: Subscription) -> None:
    """Delete its rows."""
    subscribing.unsubscribe(api, subscription)


@contextmanager
def _readable() -> Iterator[None]:
    """An answer of another shape than any that is known may be right the next time; it is never quoted."""
    try:
        yield
    except PayloadError as error:
        raise SourceUnavailable(f"an answer of the API has an unexpected shape at {error.path}") from None


def _proof(body: bytes, given: str, settings: Settings) -> str | None:
    for mode in settings.options["signature_modes"]:
        algorithm, _, encoding = mode.partition(":")
        # A prefix as in `sha1=…` is not documented; it costs nothing to understand it.
        prefix = f"{algorithm}="
        signature = given[len(prefix) :] if given.lower().startswith(prefix) else given
        found = matching_secret(settings.secrets, body, signature, algorithm=algorithm, encoding=encoding)
        if found is not None:
            return f"secret {found}, hmac-{algorithm} {encoding} in header {settings.options['signature_header']}"
    return None


def _is_verification(body: Payload) -> bool:
    subject = body.at("contextObjectId")
    return body.at("event").value == "verification" and (not subject.present or subject.value in (0, "0"))


def _refuse_stale(body: Payload, inbound: Inbound, options: Mapping[str, Any]) -> None:
    """Refuse what is signed but too old or from the future, if a window is set. It is off by default:

    the signed time is when something happened, not when it was sent, and neither the pause between the retries nor
    how long the platform may queue is documented. What is refused four times is lost for ever, while a replay wins
    nothing: within the dedupe window it is a repeat, later it becomes the same event with the same keys, and what it
    announces is read from the API anyway.
    """
    happened = body.at("timestamp").maybe_time()
    if not options["replay_window_hours"] or happened is None:
        return
    age = inbound.received_at - happened
    early = -timedelta(minutes=options["future_tolerance_minutes"])
    if not early <= age <= timedelta(hours=options["replay_window_hours"]):
        raise NotGenuine("stale")


def _dedupe_key(body: Payload | None, inbound: Inbound, settings: Settings) -> str:
    """The happening, not the call. Two subscriptions of two users at one endpoint send the same event twice; without
    the fields that tell happenings apart only equal bytes are a repeat."""
    if body is None or not body.at("event").present or not body.at("timestamp").present:
        return fingerprint(("inspera", settings.name, inbound.body))
    words = [_word(body.at(name).value) for name in _IDENTITY]
    return fingerprint(("inspera", settings.name, *words, canonical_json(body.at("extraInfo").value)))


def _word(value: object) -> bytes:
    # 74379551 and "74379551" are one id.
    return canonical_json(str(value) if isinstance(value, int) else value)


def _read(body: bytes, options: Mapping[str, Any]) -> Payload:
    try:
        return Payload.parse(body).object()
    except PayloadError:
        if options["map_print"]:
            return read_map_print(body)
        raise


def _maybe_read(body: bytes, options: Mapping[str, Any]) -> Payload | None:
    try:
        return _read(body, options)
    except PayloadError:
        return None
