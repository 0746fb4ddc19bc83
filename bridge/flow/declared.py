"""Requests made of data: what a manifest's `request` becomes for one message.

Every text in it may hold Jinja over `settings` (the target's options), `params` (what the mapping rendered), `event`
and `message` (key, mapping, target, operation, attempt, sent_at). A lone `{{ … }}` keeps its type. Options and
parameters that the manifest knows and nobody set are null; null in `query`, `headers` and `form` leaves the entry out,
null in `json` stays null.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from jinja2 import TemplateError, nodes

from bridge.core.contracts import Message, Request, Settings
from bridge.core.errors import BridgeError, TargetError
from bridge.core.events import stamp
from bridge.core.manifest import Operation, TargetConnector
from bridge.flow.sandbox import BUDGET, Sandbox
from bridge.flow.values import Budget, Fault, plain

_SANDBOX: Final = Sandbox()

Render = Callable[[Mapping[str, Any]], Any]


def prepare(connector: TargetConnector, message: Message, settings: Settings) -> Request:
    """The request for a message, not yet authorised: declared in the manifest, else made by the target's code.

    Every request carries the message's key as `Idempotency-Key`. Raises TargetError.
    """
    operation = connector.manifest.operations.get(message.operation)
    if operation is None:
        raise TargetError(f"{connector.name} has no operation {message.operation}")
    if operation.request is not None:
        known = dict.fromkeys(connector.manifest.options.get("properties", {}))
        return prepare_declared(operation, message, replace(settings, options=known | dict(settings.options)))
    if connector.code is None:
        raise TargetError(f"{connector.name}.{operation.name} has neither a declared request nor code")
    return _keyed(connector.code.prepare(message, settings), message)


def prepare_declared(operation: Operation, message: Message, settings: Settings) -> Request:
    """The request that an operation declares. Raises TargetError with the place in the declaration, never a value."""
    declared = operation.request or {}
    scope = {
        "settings": dict(settings.options),
        "params": dict.fromkeys(operation.params.get("properties", {})) | message.params,
        "event": message.event,
        "message": {
            "key": message.key,
            "mapping": message.mapping,
            "target": message.target,
            "operation": message.operation,
            "attempt": message.attempt,
            "sent_at": stamp(message.sent_at),
        },
        BUDGET: Budget(),
    }
    try:
        values = {part: _rendered(declared[part], scope, f"request.{part}") for part in declared}
    except BridgeError as error:
        raise TargetError(f"{operation.name}: {error}") from None
    headers = {name: _text(value) for name, value in (values.get("headers") or {}).items() if value is not None}
    body = b""
    if "json" in values:
        body = _json(values["json"], operation)
        headers = {"Content-Type": "application/json"} | headers
    elif "form" in values:
        body = urlencode(list(_pairs(values["form"] or {}))).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"} | headers
    request = Request(
        method=_text(values["method"]).upper(),
        url=_with_query(_url(values["url"], operation), values.get("query") or {}),
        headers=headers,
        body=body,
    )
    return _keyed(request, message)


def _keyed(request: Request, message: Message) -> Request:
    if any(name.lower() == "idempotency-key" for name in request.headers):
        return request
    return replace(request, headers={**request.headers, "Idempotency-Key": message.key})


def _json(value: Any, operation: Operation) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except ValueError:
        raise TargetError(f"{operation.name}: request.json: expected what JSON and UTF-8 can hold") from None


def _url(value: object, operation: Operation) -> str:
    """An absolute URL whose path stays where the manifest put it, whatever an event's values hold."""
    url = value if isinstance(value, str) else ""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise TargetError(f"{operation.name}: request.url: expected an absolute http or https URL")
    if any(step.lower().replace("%2e", ".") in (".", "..") for step in parts.path.split("/")):
        raise TargetError(f"{operation.name}: request.url: a path may not climb with . or ..")
    return url


def _with_query(url: str, query: Mapping[str, Any]) -> str:
    text = urlencode(list(_pairs(query)))
    if not text:
        return url
    return f"{url}{'&' if urlsplit(url).query else '?'}{text}"


def _pairs(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and texts; a list repeats its name, null is left out."""
    for name, value in values.items():
        for entry in value if isinstance(value, list) else [value]:
            if entry is not None:
                yield name, _text(entry)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _rendered(value: Any, scope: Mapping[str, Any], where: str) -> Any:
    if isinstance(value, Mapping):
        return {name: _rendered(entry, scope, f"{where}.{name}") for name, entry in value.items()}
    if isinstance(value, list):
        return [_rendered(entry, scope, f"{where}[{position}]") for position, entry in enumerate(value)]
    if not isinstance(value, str):
        return value
    try:
        return _compiled(value)(scope)
    except Fault as error:
        raise TargetError(f"{where}: {error}") from None
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError):
        # Their own messages may quote values.
        raise TargetError(f"{where}: the expression cannot use its values") from None


@lru_cache(maxsize=4096)
def _compiled(source: str) -> Render:
    """A text of a manifest, compiled. Manifests ship with the code and are trusted as code is; their values are not."""
    if "{{" not in source and "{%" not in source:
        return lambda scope: source
    text = source.strip()
    match _SANDBOX.parse(text).body:
        case [nodes.Output(nodes=[expression])] if not isinstance(expression, nodes.TemplateData):
            lone = _SANDBOX.compile_expression(text.removeprefix("{{").removesuffix("}}"), undefined_to_none=False)
            return lambda scope: plain(lone(scope), scope[BUDGET])
    template = _SANDBOX.from_string(source)
    return template.render
