"""From a matching mapping to the row of a message."""

from __future__ import annotations

import orjson

from bridge.core.errors import MappingError
from bridge.core.events import Event, Json, idempotency_key
from bridge.engine.line import TargetLine
from bridge.flow.mapping import Mapping, order_key
from bridge.ledger.database import milliseconds
from bridge.ledger.lanes import lane_of
from bridge.ledger.processing import NewMessage


def message_for(event: Event, document: Json, mapping: Mapping, target: TargetLine, source: str) -> NewMessage:
    """The rendered message. Raises MappingError."""
    key = idempotency_key(event.id, mapping.name, target.name)
    params = mapping.render(document, source, {"key": key})
    try:
        orjson.dumps(params)
    except TypeError:
        raise MappingError(mapping.name, "with", "expected what JSON and UTF-8 can hold") from None
    return _message(event, mapping, target, key=key, params=params)


def dead_message(event: Event, mapping: Mapping, target: TargetLine, error: MappingError) -> NewMessage:
    """The dead letter of a mapping that failed: it names the field and the reason."""
    key = idempotency_key(event.id, mapping.name, target.name)
    return _message(event, mapping, target, key=key, params={}, failure=f"{error.field}: {error.reason}")


def _message(
    event: Event, mapping: Mapping, target: TargetLine, *, key: str, params: Json, failure: str | None = None
) -> NewMessage:
    shared = order_key(mapping, event)
    return NewMessage(
        key=key,
        event_id=event.id,
        mapping=mapping.name,
        mapping_version=mapping.version,
        target=target.name,
        operation=mapping.operation,
        params=params,
        lane=lane_of("deliver", target.name, shared or key, target.concurrency),
        order_key=shared or key,
        state=event.kind.nature == "state" and shared is not None,
        latest_only=mapping.order == "latest" and event.kind.nature == "state",
        time_ms=milliseconds(event.time),
        sequence=event.sequence,
        status="waiting" if failure is None else "dead",
        step="deliver" if failure is None else "map",
        reason=failure,
    )
