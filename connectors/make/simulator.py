"""A scenario that starts with a custom webhook: a queue that can be full, a webhook that can be disabled."""

from __future__ import annotations

from typing import Any, Final

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply

_HOOK: Final = "/w3bh00k"
_KEY: Final = "make-api-key"
_TEXT: Final = {"Content-Type": "text/plain; charset=utf-8"}


class Make:
    """One webhook with an API key. `queue` is how many items it holds, `most` how many requests before it throttles."""

    def __init__(self) -> None:
        self.queue: int | None = None
        self.most: int | None = None
        self.disabled = False
        self._runs: list[Any] = []

    def answer(self, call: ApiCall) -> ApiReply:
        if call.path != _HOOK:
            return ApiReply(status=404, text="There is no webhook.", headers=_TEXT)
        if self.disabled:
            return ApiReply(status=410, text="There is no scenario listening for this webhook.", headers=_TEXT)
        if call.headers.get("x-make-apikey") != _KEY:
            return ApiReply(status=401, text="Unauthorized", headers=_TEXT)
        if self.most is not None and len(self._runs) >= self.most:
            return ApiReply(status=429, text="Too many requests.", headers=_TEXT)
        if self.queue is not None and len(self._runs) >= self.queue:
            return ApiReply(status=400, text="Queue is full.", headers=_TEXT)
        self._runs.append(call.json)
        return ApiReply(text="Accepted", headers=_TEXT)

    def effects(self) -> Json:
        return {"runs": self._runs}


def target() -> Make:
    return Make()


def settings(url: str) -> Json:
    return {"connector": "make", "url": f"{url}{_HOOK}", "api_key": _KEY}
