"""A scenario that starts with a custom webhook: a queue that can be full, a webhook that can be disabled."""

from __future__ import annotations

from typing import Any, Final

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply

_HOOK: Final = "/w3bh00k"
_KEY: Final = "make-api-key"
_TEXT: Final = {"Content-Type": "text/plain; charset=utf-8"}


class Make:
    """One webhook with an API key. `queue` is how many items it holds, `most` how many requests before it throttles.

    With `failing` the scenario has a Webhook response module and fails before it gets there.
    """

    def __init__(self) -> None:
        self.queue: int | None = None
        self.most: int | None = None
        self.disabled = False
        self.failing = False
        self._runs: list[Any] = []

    def answer(self, call: ApiCall) -> ApiReply:
        refusals = (
            (call.path != _HOOK, 410, "Webhook not found"),
            (self.disabled, 410, "There is no scenario listening for this webhook."),
            (call.headers.get("x-make-apikey") != _KEY, 401, "Unauthorized"),
            (self.most is not None and len(self._runs) >= self.most, 429, "Too many requests"),
            (self.queue is not None and len(self._runs) >= self.queue, 400, "Queue is full."),
        )
        for refused, status, words in refusals:
            if refused:
                return ApiReply(status=status, text=words, headers=_TEXT)
        self._runs.append(call.json)
        if self.failing:
            return ApiReply(status=500, text="Scenario failed to complete.", headers=_TEXT)
        return ApiReply(text="Accepted", headers=_TEXT)

    def effects(self) -> Json:
        return {"runs": self._runs}


def target() -> Make:
    return Make()


def settings(url: str) -> Json:
    return {"connector": "make", "url": f"{url}{_HOOK}", "api_key": _KEY}
