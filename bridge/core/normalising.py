"""From a notice to an event: the envelope that every connector fills in the same way."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

from bridge.core.events import Event, event_id
from bridge.core.nouns import Data, Raw
from bridge.core.settings import Settings
from bridge.core.source import Notice, Verified


def canonical(notice: Notice, settings: Settings, *, provider: str, type: str, subject: str, data: Data) -> Event:
    """An event of a canonical type with all attributes that follow from the notice.

    `time` is the platform's, or the time of receipt with `timequality` "received".
    """
    source = f"urn:edu:{provider}:{notice.tenant}"
    return Event(
        id=event_id(
            source=source,
            sourceevent=notice.kind,
            sourceaction=notice.action,
            key=notice.key,
            payload=notice.payload.value,
        ),
        source=source,
        type=type,
        subject=subject,
        time=notice.occurred_at or notice.received_at,
        timequality="source" if notice.occurred_at else "received",
        recordedtime=notice.received_at,
        tenant=settings.name,
        sourceevent=notice.kind,
        sourceaction=notice.action,
        sequence=notice.sequence,
        data=data,
    )


def with_raw(event: Event, verified: Verified) -> Event:
    """The event with the reference to its untouched bytes."""
    raw = Raw(ref=verified.inbound.id, sha256=sha256(verified.inbound.body).hexdigest())
    return replace(event, data=replace(event.data, raw=raw))
