"""Any HTTP API: the mapping names method, path, query, headers and body; nothing is known about the other side."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

from bridge.core.errors import TargetError
from bridge.core.settings import Settings
from bridge.core.target import Answer, Message, Outcome, Request

_PATH: Final = "/%:@!$&'()*+,;=~"


def prepare(message: Message, settings: Settings) -> Request:
    """The request that the mapping describes, below `base_url`. Raises TargetError.

    Without `json`, `form` or `body` there is none. A header of the mapping goes before the same one of the settings.
    """
    params = message.params
    content_type, body = _body(params)
    headers: dict[str, str] = {"Idempotency-Key": message.key}
    for given in (
        {"Content-Type": content_type} if body else {},
        settings.options.get("headers"),
        params.get("headers"),
    ):
        for name, value in (given or {}).items():
            _set(headers, name, value)
    query = urlencode(list(_pairs(params.get("query") or {})))
    url = _url(settings.options["base_url"], params.get("path") or "")
    return Request(
        method=params.get("method") or "POST",
        url=f"{url}?{query}" if query else url,
        headers=headers,
        body=body,
    )


def judge(answer: Answer, message: Message, settings: Settings) -> Outcome | None:
    """Nothing is known beyond what HTTP says."""
    return None


def _set(headers: dict[str, str], name: str, value: str | None) -> None:
    for same in [key for key in headers if key.lower() == name.lower()]:
        del headers[same]
    if value is not None:
        headers[name] = value


def _url(base: str, path: str) -> str:
    """A path can never leave the base: no other host, no climbing, and no query in disguise."""
    steps = path.lower().replace("%2e", ".").replace("%2f", "/").split("/")
    if "." in steps or ".." in steps or any(mark in path for mark in "?#\\"):
        raise TargetError("path: expected steps without . and .., and no ?, # or backslash; write urlseg for values")
    if not path:
        return base
    return f"{base.rstrip('/')}/{quote(path.lstrip('/'), safe=_PATH)}"


def _body(params: Mapping[str, Any]) -> tuple[str, bytes]:
    if "json" in params:
        try:
            text = json.dumps(params["json"], ensure_ascii=False, separators=(",", ":"), allow_nan=False)
            return "application/json", text.encode()
        except ValueError:
            raise TargetError("json: expected what JSON and UTF-8 can hold") from None
    if "form" in params:
        return "application/x-www-form-urlencoded", urlencode(list(_pairs(params["form"]))).encode()
    return "text/plain; charset=utf-8", params.get("body", "").encode()


def _pairs(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and texts; a list repeats its name, null is left out."""
    for name, value in values.items():
        for entry in value if isinstance(value, list) else [value]:
            if entry is not None:
                yield name, entry if isinstance(entry, str) else json.dumps(entry, ensure_ascii=False)
