"""Requests made of data: what a manifest's `request` becomes.

Every text in it may hold Jinja over `settings` (the target's options), `params` (what the mapping rendered), `event`
and `message` (key, mapping, target, operation, attempt, sent_at). A lone `{{ … }}` keeps its type. Options and
parameters that the manifest knows and nobody set are null; null in `query`, `headers` and `form` leaves the entry out,
null in `json` stays null. With `flatten: true` a form holds objects and lists, written as PHP reads them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from bridge.core.errors import TargetError
from bridge.core.events import stamp
from bridge.core.manifest import TargetConnector
from bridge.core.settings import Settings
from bridge.core.target import Message, Request
from bridge.flow.guard import BadTemplate
from bridge.flow.sandbox import BUDGET
from bridge.flow.templates import Template, compile_template, context_of
from bridge.flow.values import Budget, Fault

VARIABLES: Final = frozenset((
    "settings", "params", "event", "message", "steps", "answer", "items", "item", "result",
))  # fmt: skip
"""All that a manifest can name; `steps` and what follows have values only where there are some."""


def scope_of(connector: TargetConnector, message: Message, settings: Settings) -> dict[str, Any]:
    """What the texts of a manifest see of one message. Raises TargetError for an unknown operation."""
    manifest = connector.manifest
    operation = manifest.operations.get(message.operation)
    if operation is None:
        raise TargetError(f"{connector.name} has no operation {message.operation}")
    return {
        "settings": dict.fromkeys(manifest.options.get("properties", {})) | dict(settings.options),
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


def rendered_request(declared: Mapping[str, Any], scope: Mapping[str, Any], where: str) -> Request:
    """The request that is declared. Raises TargetError with the place in the declaration, never a value."""
    flatten = declared.get("flatten", False)
    values = {part: rendered(value, scope, f"{where}.{part}") for part, value in declared.items() if part != "flatten"}
    headers = {name: _text(value) for name, value in (values.get("headers") or {}).items() if value is not None}
    body = b""
    if "json" in values:
        body = _json(values["json"], where)
        headers = {"Content-Type": "application/json"} | headers
    elif "form" in values:
        form = values["form"] or {}
        body = urlencode(list(_flat(form) if flatten else _pairs(form))).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"} | headers
    return Request(
        method=_text(values["method"]).upper(),
        url=_with_query(_url(values["url"], where), values.get("query") or {}),
        headers=headers,
        body=body,
    )


def keyed(request: Request, key: str) -> Request:
    """The request with an `Idempotency-Key`, unless it has one."""
    if any(name.lower() == "idempotency-key" for name in request.headers):
        return request
    return replace(request, headers={**request.headers, "Idempotency-Key": key})


def _json(value: Any, where: str) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except ValueError:
        raise TargetError(f"{where}.json: expected what JSON and UTF-8 can hold") from None


def _url(value: object, where: str) -> str:
    """An absolute URL whose path stays where the manifest put it, whatever an event's values hold."""
    url = value if isinstance(value, str) else ""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise TargetError(f"{where}.url: expected an absolute http or https URL")
    if any(step.lower().replace("%2e", ".") in (".", "..") for step in parts.path.split("/")):
        raise TargetError(f"{where}.url: a path may not climb with . or ..")
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


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Names as PHP reads them, `users[0][username]`; truth is 1 or 0, null and what is empty are left out."""
    if isinstance(value, Mapping | list):
        steps = value.items() if isinstance(value, Mapping) else enumerate(value)
        for step, entry in steps:
            yield from _flat(entry, f"{name}[{step}]" if name else str(step))
    elif isinstance(value, bool):
        yield name, str(int(value))
    elif value is not None:
        yield name, _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def rendered(value: Any, scope: Mapping[str, Any], where: str) -> Any:
    """A value of a manifest with its texts evaluated. Raises TargetError."""
    if isinstance(value, Mapping):
        return {name: rendered(entry, scope, f"{where}.{name}") for name, entry in value.items()}
    if isinstance(value, list):
        return [rendered(entry, scope, f"{where}[{position}]") for position, entry in enumerate(value)]
    if not isinstance(value, str):
        return value
    try:
        template = compile_declared(value)
        return value if template is None else template.render(context_of(scope))
    except (BadTemplate, Fault) as error:
        raise TargetError(f"{where}: {error}") from None


@lru_cache(maxsize=4096)
def compile_declared(source: str) -> Template | None:
    """A text of a manifest as a template, or None when it holds no Jinja. Raises BadTemplate."""
    return compile_template(source, VARIABLES)
