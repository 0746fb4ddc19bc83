"""CloudEvents 1.0 over HTTP, as one JSON document, with the attributes in headers, or as a batch of one.

github.com/cloudevents/spec, bindings/http-protocol-binding.md. The id stays the event's id, also when two mappings send
the same event: to a CloudEvents receiver source and id are what makes an event the same one. In binary mode receivers
that are built on the SDKs of Go or Java take what is percent-encoded for the value itself (github.com/cloudevents/spec,
issue 1397); a JSON document is read alike by all.
"""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import quote

from bridge.core.errors import TargetError
from bridge.core.settings import Settings
from bridge.core.target import Answer, Message, Outcome, Request

# Section 3.1.3.2: blank, double quote, percent and everything outside printable ASCII is percent-encoded as UTF-8.
_AS_IT_IS: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


def prepare(message: Message, settings: Settings) -> Request:
    """The event in the mode of the settings (structured unless they say otherwise). Raises TargetError."""
    event = message.event | ({"data": message.params["data"]} if "data" in message.params else {})
    # Attributes are never null; data may be.
    event = {name: value for name, value in event.items() if value is not None or name == "data"}
    headers = {"Idempotency-Key": message.key}
    if settings.options.get("origin"):
        headers["WebHook-Request-Origin"] = settings.options["origin"]
    match settings.options.get("mode", "structured"):
        case "structured":
            headers["Content-Type"] = "application/cloudevents+json; charset=utf-8"
            body = _dump(event)
        case "batched":
            headers["Content-Type"] = "application/cloudevents-batch+json; charset=utf-8"
            body = _dump([event])
        case "binary":
            # datacontenttype becomes Content-Type and has no header of its own.
            headers["Content-Type"] = event.get("datacontenttype", "application/json")
            for name, value in event.items():
                if name not in ("data", "datacontenttype"):
                    headers[f"ce-{name}"] = header_value(value)
            body = _dump(event["data"])
        case _:
            raise TargetError("mode: expected structured, binary or batched")
    return Request(method="POST", url=settings.options["url"], headers=headers, body=body)


def judge(answer: Answer, message: Message, settings: Settings) -> Outcome | None:
    """The webhook rules of CloudEvents (http-webhook.md) are those of HTTP, 410 included."""
    return None


def header_value(value: Any) -> str:
    """An attribute's value as a header. Raises TargetError."""
    text = value if isinstance(value, str) else json.dumps(value)
    try:
        return quote(text, safe=_AS_IT_IS)
    except UnicodeEncodeError:
        raise TargetError("an attribute: expected what UTF-8 can hold") from None


def _dump(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except ValueError:
        raise TargetError("data: expected what JSON and UTF-8 can hold") from None
