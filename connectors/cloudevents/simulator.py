"""A receiver of CloudEvents over HTTP in all three modes; source and id are what makes an event the same one."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply

# github.com/cloudevents/conformance, format/json/invalid-events.json: what no receiver takes for an event.
_REQUIRED: Final = ("id", "source", "type")
_NAME: Final = re.compile(r"[a-z0-9]+|data_base64")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_MEDIA: Final = re.compile(r"[\w.+-]+/[\w.+-]+(\s*;.*)?")


class Sink:
    """`batches` is whether it asked for batches: others answer 415. `origin` is the only sender that it takes."""

    def __init__(self) -> None:
        self.origin: str | None = None
        self.batches = True
        self._events: dict[str, Any] = {}

    def answer(self, call: ApiCall) -> ApiReply:
        if self.origin is not None and call.headers.get("webhook-request-origin") != self.origin:
            return ApiReply(status=403, json={"error": "this origin may not send"})
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
        if not all(map(sound, events)):
            return ApiReply(status=400, json={"error": "expected CloudEvents 1.0"})
        for event in events:
            self._events.setdefault(f"{event['source']} {event['id']}", event)
        return ApiReply(status=204)

    def effects(self) -> Json:
        return {"events": self._events}


def sound(event: Any) -> bool:
    """Whether it is an event of CloudEvents 1.0, as in structured JSON."""
    if not isinstance(event, dict) or event.get("specversion") != "1.0" or {"data", "data_base64"} <= event.keys():
        return False
    attributes = {name: value for name, value in event.items() if name not in ("data", "data_base64")}
    known = [attributes[name] for name in ("subject", "dataschema", "datacontenttype", "time") if name in attributes]
    return (
        all(map(_NAME.fullmatch, event))
        and all(isinstance(value, str | int) for value in attributes.values())
        and all(isinstance(value, str) and value for value in (*map(attributes.get, _REQUIRED), *known))
        and _MEDIA.fullmatch(attributes.get("datacontenttype", "x/y")) is not None
        and _time(attributes.get("time", "2026-06-05T09:30:00Z"))
    )


def _time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return _TIME.fullmatch(text) is not None


def _binary(call: ApiCall, kind: str) -> Json:
    """Attributes from `ce-` headers, the data from the body (bindings/http-protocol-binding.md, section 3.1)."""
    try:
        attributes = {
            name.removeprefix("ce-"): unquote(value, errors="strict")
            for name, value in call.headers.items()
            if name.startswith("ce-")
        }
    except UnicodeDecodeError:  # 3.1.3.2: what is no UTF-8 is refused
        return {}
    return {**attributes, "datacontenttype": kind, "data": json.loads(call.body) if call.body else None}


def target() -> Sink:
    return Sink()


def settings(url: str) -> Json:
    return {"connector": "cloudevents", "url": f"{url}/events"}
