"""A receiver of CloudEvents over HTTP in all three modes; source and id are what makes an event the same one."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import unquote

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply

_REQUIRED: Final = ("specversion", "id", "source", "type")


class Sink:
    """`batches` is whether it asked for batches: others answer 415."""

    def __init__(self) -> None:
        self.batches = True
        self._events: dict[str, Any] = {}

    def answer(self, call: ApiCall) -> ApiReply:
        kind = call.headers.get("content-type", "").partition(";")[0].strip().lower()
        match kind:
            case "application/cloudevents+json":
                events = [call.json]
            case "application/cloudevents-batch+json" if self.batches:
                events = call.json if isinstance(call.json, list) else [None]
            case _ if "ce-specversion" in call.headers:
                events = [_binary(call, kind)]
            case _:
                return ApiReply(status=415, json={"error": "expected a CloudEvent"})
        if not all(isinstance(event, dict) and all(event.get(name) for name in _REQUIRED) for event in events):
            return ApiReply(status=400, json={"error": f"a CloudEvent has {', '.join(_REQUIRED)}"})
        for event in events:
            self._events.setdefault(f"{event['source']} {event['id']}", event)
        return ApiReply(status=204)

    def effects(self) -> Json:
        return {"events": self._events}


def _binary(call: ApiCall, kind: str) -> Json:
    """Attributes from `ce-` headers, the data from the body (bindings/http-protocol-binding.md, section 3.1)."""
    attributes = {
        name.removeprefix("ce-"): unquote(value) for name, value in call.headers.items() if name.startswith("ce-")
    }
    return {**attributes, "datacontenttype": kind, "data": json.loads(call.body) if call.body else None}


def target() -> Sink:
    return Sink()


def settings(url: str) -> Json:
    return {"connector": "cloudevents", "url": f"{url}/events"}
