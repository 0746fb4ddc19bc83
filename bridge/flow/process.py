"""Second stage: from stored bytes to canonical events, completed over the platform's API."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

from bridge.core.errors import PayloadError
from bridge.core.events import Event
from bridge.core.manifest import SourceConnector
from bridge.core.normalising import canonical, with_raw
from bridge.core.nouns import Change, Data
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.core.source import Notice, SourceApi, Verified


def events_of(connector: SourceConnector, verified: Verified, settings: Settings) -> list[Event]:
    """All canonical events of one delivery, not yet enriched.

    What cannot be read, or is of a kind that the connector does not know, becomes `source.unmapped` with its name:
    it is kept and counted, and can be replayed after the connector learns it.
    """
    try:
        notices = list(connector.code.parse(verified, settings))
    except PayloadError as error:
        return [_unmapped(connector, _unread(verified, settings), settings, str(error), verified)]
    return [with_raw(_event_of(connector, notice, settings, verified), verified) for notice in notices]


def _event_of(connector: SourceConnector, notice: Notice, settings: Settings, verified: Verified) -> Event:
    if notice.kind not in connector.manifest.kinds:
        return _unmapped(connector, notice, settings, "unknown kind", verified)
    try:
        return connector.code.normalise(notice, settings)
    except PayloadError as error:
        return _unmapped(connector, notice, settings, str(error), verified)


def _unread(verified: Verified, settings: Settings) -> Notice:
    inbound = verified.inbound
    return Notice(
        kind="unreadable",
        payload=Payload(None),
        tenant=settings.name,
        key=inbound.id,
        received_at=inbound.received_at,
    )


def _unmapped(connector: SourceConnector, notice: Notice, settings: Settings, why: str, verified: Verified) -> Event:
    data = Data(change=Change(field=notice.kind, new=why))
    event = canonical(
        notice,
        settings,
        provider=connector.name,
        type="source.unmapped",
        subject=f"delivery/{verified.inbound.id}",
        data=data,
    )
    return with_raw(event, verified)


def deadline_of(connector: SourceConnector, event: Event, usual: timedelta) -> timedelta:
    """How long the platform's API is asked before an event goes on as it is: by its kind, or as for its source."""
    kind = connector.manifest.kinds.get(event.sourceevent)
    return kind.deadline if kind is not None and kind.deadline is not None else usual


def enriched(connector: SourceConnector, event: Event, api: SourceApi | None) -> list[Event]:
    """The event completed, or several where it fans out. Raises SourceUnavailable: the caller waits, up to a deadline.

    Events without a recipe, and sources without an API, stay as they are, marked `skipped`.
    """
    kind = connector.manifest.kinds.get(event.sourceevent)
    if api is None or kind is None or not kind.calls or event.type == "source.unmapped":
        return [event]
    raw = event.data.raw
    results: Iterable[Event] = connector.code.enrich(event, api)
    return [replace(result, data=replace(result.data, raw=raw)) for result in results]


def given_up(event: Event) -> Event:
    """The event as it goes on when the platform's API stayed silent until the deadline."""
    return replace(event, enrichment="missing")


def waited(attempts: int) -> timedelta:
    """How long an event has waited for the platform's API after so many tries, whatever it waited for before."""
    return sum((retry_delay(attempt, None) for attempt in range(1, attempts + 1)), timedelta())


def retry_delay(attempt: int, retry_after: float | None) -> timedelta:
    """How long enrichment waits before attempt `attempt + 1`: 2, 4, 8 … seconds up to 5 minutes, or what was asked."""
    if retry_after is not None:
        return timedelta(seconds=min(max(retry_after, 1.0), 3600.0))
    return timedelta(seconds=min(2.0 ** min(attempt, 9), 300.0))
