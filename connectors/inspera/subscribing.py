"""Webhook subscriptions over Inspera's API: https://inspera.atlassian.net/wiki/spaces/KB/pages/664928482/Webhooks

One row is one event at one endpoint, and nothing changes a row, so all rows of an endpoint are one Subscription here;
its id is theirs, joined with commas. The platform calls the endpoint while a row is being made and refuses the row
unless the answer is 200, so the secret has to be in bridge.yaml and the hook live before. The body of the POST and the
shape of the list of events are not printed: these are the fields of the list of rows, and every shape that fits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from bridge.core.errors import PayloadError, SourceUnavailable
from bridge.core.payload import Payload
from bridge.core.source import SourceApi, Subscription
from connectors.inspera.kinds import CONFIRMED, EXPORTS
from connectors.inspera.results import identifier, unwrapped

_PATH = "/v1/subscription"


def subscriptions(api: SourceApi) -> list[Subscription]:
    """The rows of this API user by endpoint, and what is there twice apart from the newest; active when there is a row
    for each event that is wanted. Raises SourceUnavailable and PayloadError.
    """
    wanted = set(_wanted(api))
    by_endpoint: dict[str, list[tuple[str, str]]] = {}
    for row, event, endpoint in _rows(api):
        by_endpoint.setdefault(endpoint, []).append((row, event))
    found = []
    for endpoint, rows in by_endpoint.items():
        newest = {event: row for row, event in rows}
        older = [(row, event) for row, event in rows if newest[event] != row]
        found += [_subscription(endpoint, older, wanted)] if older else []
        found.append(_subscription(endpoint, [entry for entry in rows if entry not in older], wanted))
    return found


def subscribe(api: SourceApi, url: str) -> Subscription:
    """A row for each wanted event, all with the first secret; when one is refused, those just made are taken back.

    Raises SourceUnavailable and PayloadError.
    """
    if not api.settings.secrets:
        raise SourceUnavailable("a subscription needs a secret in the settings first")
    wanted = _wanted(api)
    before = {row for row, _, _ in _rows(api)}
    try:
        for event in wanted:
            body = {"event": event, "endpoint": url, "secret": api.settings.secrets[0]}
            _refuse_errors(api.change("POST", _PATH, body))
        rows = _made(api, url, before)
        if {event for _, event in rows} != set(wanted):
            raise SourceUnavailable("the platform does not list all subscriptions that were made")
    except (SourceUnavailable, PayloadError):
        with contextlib.suppress(SourceUnavailable, PayloadError):  # the first error is the one to tell
            _remove(api, [row for row, _ in _made(api, url, before)])
        raise
    return _subscription(url, rows, set(wanted))


def unsubscribe(api: SourceApi, subscription: Subscription) -> None:
    """Delete its rows; those that are gone already are no error. Raises SourceUnavailable."""
    _remove(api, subscription.id.split(","))


def _subscription(endpoint: str, rows: list[tuple[str, str]], wanted: set[str]) -> Subscription:
    events = tuple(dict.fromkeys(event for _, event in rows))
    return Subscription(id=",".join(row for row, _ in rows), url=endpoint, active=wanted.issubset(events), kinds=events)


def _remove(api: SourceApi, rows: Iterable[str]) -> None:
    for row in rows:
        api.change("DELETE", f"{_PATH}/{row}")


def _made(api: SourceApi, url: str, before: set[str]) -> list[tuple[str, str]]:
    """What is listed for an endpoint and was not before: the answer of the POST is not printed anywhere."""
    return [(row, event) for row, event, endpoint in _rows(api) if endpoint == url and row not in before]


def _rows(api: SourceApi) -> list[tuple[str, str, str]]:
    """Number, event and endpoint of every row, the newest last."""
    listed = api.get(_PATH)
    if listed is None:
        raise SourceUnavailable("the platform's API has no list of subscriptions")
    rows = unwrapped(listed).at("subscriptions")
    if not isinstance(rows.value, list):
        raise PayloadError(rows.path, "a list of subscriptions")
    return [
        (identifier(row.at("subscriptionId")), row.at("event").text(), row.at("endpoint").text())
        for row in sorted(rows.items(), key=lambda row: row.at("lastModified").maybe_text() or "")
    ]


def _wanted(api: SourceApi) -> list[str]:
    """The events to subscribe to: those of the settings, else all that the tenant offers.

    All, because ids are the tenant's own, and many an event is recognised by its object only when it comes.
    """
    chosen: list[str] = list(api.settings.api["subscribe_to"] if api.settings.api else ())
    if chosen:
        return chosen
    offered = api.get(f"{_PATH}/events")
    names = [] if offered is None else _names(offered)
    if not names:
        options = api.settings.options
        names = [
            CONFIRMED,
            options["delivered_event"],
            "revision_status_updated",
            *sorted(EXPORTS),
            *options["aliases"],
        ]
    return [name for name in dict.fromkeys(names) if name != "verification"]


def _names(offered: Payload) -> list[str]:
    """The list of events may be of texts or of objects, bare or under `events`: its shape is not printed."""
    listed = offered if isinstance(offered.value, list) else unwrapped(offered).at("events")
    return [
        (entry if isinstance(entry.value, str) else entry.first("event", "id", "name")).text()
        for entry in listed.items()
    ]


def _refuse_errors(answer: Payload | None) -> None:
    """A 200 that holds `errors` or `success: false` is an error here (seen in clients of other calls)."""
    if answer is None:
        raise SourceUnavailable("the platform's API does not take subscriptions")
    if answer.at("errors").value or answer.at("success").value is False:
        raise SourceUnavailable("the platform answered 200 and refused the subscription")
