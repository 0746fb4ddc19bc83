"""An HTTP API with ordinary manners: PUT and PATCH write below a path, DELETE removes, POST adds once for each key."""

from __future__ import annotations

from typing import Any, Final

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply

_TOKEN: Final = "http-bearer-token"


class Api:
    """`knows_keys` is whether an Idempotency-Key that came before adds nothing."""

    def __init__(self) -> None:
        self.knows_keys = True
        self._things: dict[str, Any] = {}
        self._added: dict[str, list[Any]] = {}
        self._keys: set[str] = set()

    def answer(self, call: ApiCall) -> ApiReply:
        if call.headers.get("authorization") != f"Bearer {_TOKEN}":
            return ApiReply(status=401, json={"error": "unauthorised"}, headers={"WWW-Authenticate": "Bearer"})
        body: Any = call.json if call.json is not None else call.form or call.body.decode("utf-8", "replace")
        match call.method:
            case "GET":
                return ApiReply(status=200 if call.path in self._things else 404, json=self._things.get(call.path))
            case "PUT":
                self._things[call.path] = body
            case "PATCH":
                known = self._things.get(call.path)
                both = isinstance(known, dict) and isinstance(body, dict)
                self._things[call.path] = known | body if both else body
            case "DELETE":
                self._things.pop(call.path, None)
                return ApiReply(status=204)
            case "POST":
                key = call.headers.get("idempotency-key")
                if key is None or key not in self._keys or not self.knows_keys:
                    self._added.setdefault(call.path, []).append(body)
                self._keys |= {key} if key is not None else set()
                return ApiReply(status=201, json={"ok": True})
            case _:
                return ApiReply(status=405, json={"error": "method not allowed"})
        return ApiReply(json={"ok": True})

    def effects(self) -> Json:
        return {"things": self._things, "added": self._added}


def target() -> Api:
    return Api()


def settings(url: str) -> Json:
    return {"connector": "http", "base_url": f"{url}/api", "auth": {"kind": "bearer", "token": _TOKEN}}
