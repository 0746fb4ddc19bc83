"""The webhook subscriptions of a simulated WISEflow (/webhooks of its OpenAPI description 1.34)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from connectors.wiseflow.subscribing import EVENTS

_AT: Final = "2026-06-05T07:00:00Z"
_ONE: Final = re.compile(r"/webhooks/(?P<id>[0-9]{1,9})(?P<test>/test)?")
_HERE: Final = ("127.0.0.1", "localhost")


@dataclass(slots=True, kw_only=True)
class Webhooks:
    """What is subscribed to. `limit` is a guess: that there is one is documented, how many is not.

    `tests` are the ids of the webhooks whose test was asked for.
    """

    limit: int = 10
    hooks: dict[int, dict[str, Any]] = field(default_factory=dict)
    secrets: dict[int, str] = field(default_factory=dict, repr=False)
    tests: list[int] = field(default_factory=list)
    _last: int = 0

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """A status and what the answer holds; for 400 and 404 nothing."""
        if path == "/webhooks":
            return (200, self.listed()) if method == "GET" else _made(self.create(body), 201)
        found = _ONE.fullmatch(path)
        number = int(found["id"]) if found else 0
        if found is None or number not in self.hooks:
            return 404, None
        if method == "PUT":
            return _made(self.change(number, body), 200)
        if found["test"]:
            self.tests.append(number)
        elif method == "DELETE":
            self.delete(number)
        else:
            return 200, self.hooks[number]
        return 200, None

    def listed(self) -> list[dict[str, Any]]:
        """All of them; their secrets are never told."""
        return list(self.hooks.values())

    def create(self, body: Any) -> dict[str, Any] | None:
        """A new one; None for a body that the API refuses, and for one too many."""
        if not _understood(body) or not isinstance(body.get("secret"), str) or len(self.hooks) >= self.limit:
            return None
        self._last += 1
        self.secrets[self._last] = body["secret"]
        self.hooks[self._last] = {"id": self._last, **_told(body), "createdAt": _AT, "updatedAt": _AT}
        return self.hooks[self._last]

    def change(self, number: int, body: Any) -> dict[str, Any] | None:
        """All but the secret, which an update does not have; None for a body that the API refuses."""
        if not _understood(body) or "secret" in body:
            return None
        self.hooks[number] |= _told(body)
        return self.hooks[number]

    def delete(self, number: int) -> None:
        del self.hooks[number], self.secrets[number]


def _made(hook: dict[str, Any] | None, status: int) -> tuple[int, Any]:
    return (400, None) if hook is None else (status, hook)


def _told(body: dict[str, Any]) -> dict[str, Any]:
    return {name: body[name] for name in ("title", "url", "active", "events")}


def _understood(body: Any) -> bool:
    if not isinstance(body, dict) or not {"title", "url", "active", "events"} <= body.keys():
        return False
    url = urlsplit(str(body["url"]))
    # WISEflow takes https only; a bridge that is tried out on this machine has none.
    encrypted = url.scheme == "https" or (url.scheme == "http" and url.hostname in _HERE)
    events = body["events"]
    return encrypted and isinstance(events, list) and bool(events) and set(events) <= set(EVENTS)
