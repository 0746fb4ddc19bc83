"""A platform on 127.0.0.1 with a token endpoint at /token and an API that takes the tokens it gave."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from bridge.core.settings import Settings
from bridge.core.target import Request
from bridge.outbound.guard import NetworkPolicy
from bridge.testing.answering import Asked, LocalServer, Reply

LOCAL = NetworkPolicy(allow_hosts=frozenset({"127.0.0.1"}))


def as_json(document: Any, status: int = 200, **headers: str) -> Reply:
    return Reply(status, json.dumps(document).encode(), {"Content-Type": "application/json", **headers})


def form_of(asked: Asked) -> dict[str, str]:
    pairs = parse_qsl(asked.body.decode(), keep_blank_values=True, strict_parsing=True)
    assert len(dict(pairs)) == len(pairs), "a field stands twice"
    return dict(pairs)


class Platform:
    """Gives token t1, t2, … and answers 200 to `Bearer` with the one it takes for good, 401 to all others."""

    def __init__(self, grant: Callable[[int, Asked], Reply | None] | None = None) -> None:
        self.grant = grant or (lambda number, asked: as_json({"access_token": f"t{number}", "expires_in": 3600}))
        self.tokens: list[Asked] = []
        self.calls: list[Asked] = []
        self.dead: set[str] = set()
        self._lock = threading.Lock()
        self._server = LocalServer(self._answer)
        self.url = self._server.url

    def close(self) -> None:
        self._server.close()

    @property
    def seen(self) -> list[str]:
        """The Authorization headers that the API got."""
        return [asked.headers.get("authorization", "") for asked in self.calls]

    def auth(self, kind: str = "oauth2_client_credentials", **more: Any) -> dict[str, Any]:
        known: dict[str, Any] = {"kind": kind, "token_url": f"{self.url}/token", "client_id": "id", **more}
        if kind == "oauth2_client_credentials":
            known.setdefault("client_secret", "hush")
        return known

    def request(self, path: str = "/api", **more: Any) -> Request:
        return Request(**{"method": "POST", "url": self.url + path, "body": b"{}", **more})

    def _answer(self, asked: Asked) -> Reply | None:
        if asked.target == "/token":
            with self._lock:
                self.tokens.append(asked)
                number = len(self.tokens)
            return self.grant(number, asked)
        with self._lock:
            self.calls.append(asked)
        scheme, _, token = asked.headers.get("authorization", "").partition(" ")
        return Reply(200 if scheme and token and token not in self.dead else 401)


def settings(auth: dict[str, Any]) -> Settings:
    return Settings(name="crm", options={"auth": auth})
