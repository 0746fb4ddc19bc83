"""Webhooks of a licence over the API (OpenAPI description 1.34, /webhooks).

An update cannot carry a secret, so a new secret takes a new webhook; no answer ever tells one. No call to the address
is described when a webhook is made. How many a licence may have is not documented; one too many is answered 400.
"""

from __future__ import annotations

from typing import Final

from bridge.core.errors import PayloadError, SourceRefused
from bridge.core.payload import Payload
from bridge.core.source import SourceApi, Subscription
from connectors.wiseflow.calls import odd, unwrap

WEBHOOKS: Final = "/webhooks"
EVENTS: Final = (
    "ALTERNATIVE_GRADE",
    "ASSESSMENT",
    "ASSIGNMENT",
    "FINAL_GRADE",
    "FLOW_EXTERNAL_SOURCE",
    "FLOW_PERIOD_UPDATED",
    "FLOW_STATE_UPDATED",
    "PAPER_SUBMITTED",
)
"""All that the API can subscribe to. Which of them brings grade justifications is not documented."""


def subscriptions(api: SourceApi) -> list[Subscription]:
    """All webhooks of the licence, other people's too."""
    answer = api.get(WEBHOOKS)
    try:
        found = unwrap(Payload(answer.value, f"GET {WEBHOOKS} $")) if answer is not None else None
        return [_subscription(entry) for entry in found.items()] if found is not None else []
    except PayloadError as error:
        raise odd(error) from None


def subscribe(api: SourceApi, url: str) -> Subscription:
    """A new webhook for all events, signed with the first secret. WISEflow takes addresses with https only."""
    if not api.settings.secrets:
        raise SourceRefused("a webhook needs a secret: the source has none in `secrets`")
    body = {
        "secret": api.settings.secrets[0],
        "title": "Campus Bridge",
        "url": url,
        "active": True,
        "events": list(EVENTS),
    }
    answer = api.change("POST", WEBHOOKS, body)
    try:
        found = unwrap(Payload(answer.value, f"POST {WEBHOOKS} $")) if answer is not None else None
        if found is None:
            raise PayloadError(f"POST {WEBHOOKS} $", "a webhook")
        return _subscription(found)
    except PayloadError as error:
        raise odd(error) from None


def unsubscribe(api: SourceApi, subscription: Subscription) -> None:
    """Delete a webhook; a 404 says that it is gone already."""
    api.change("DELETE", f"{WEBHOOKS}/{subscription.id}")


def _subscription(entry: Payload) -> Subscription:
    return Subscription(
        id=str(entry.at("id").integer()),
        url=entry.at("url").text(),
        active=bool(entry.at("active").maybe_flag()),
        kinds=tuple(kind.text() for kind in entry.at("events").items()),
    )
