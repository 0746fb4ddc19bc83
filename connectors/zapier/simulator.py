"""A Zap that starts with Catch Hook: it takes everything, runs later, and knows no repeats."""

from __future__ import annotations

from typing import Any, Final

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply

_HOOK: Final = "/hooks/catch/123/abc/"
_MOST_BYTES: Final = 10 * 1024 * 1024  # help.zapier.com/hc/en-us/articles/29972220283789


class Zapier:
    """One hook. `most` is after how many runs it throttles, `deleted` whether the hook is gone."""

    def __init__(self) -> None:
        self.most: int | None = None
        self.deleted = False
        self._runs: list[Any] = []

    def answer(self, call: ApiCall) -> ApiReply:
        if call.path != _HOOK or self.deleted:
            return ApiReply(status=404, text="please unsubscribe me!")  # as integrators see it
        if len(call.body) > _MOST_BYTES:
            return ApiReply(status=413, text="Request Entity Too Large")
        if self.most is not None and len(self._runs) >= self.most:
            return ApiReply(status=429, json={"status": "error", "errors": ["too many requests"]})
        # An array on top starts one run for each of its elements.
        self._runs += call.json if isinstance(call.json, list) else [call.json]
        number = f"{len(self._runs):012}"
        return ApiReply(
            json={
                "attempt": f"01890000-0000-7000-8000-{number}",
                "id": f"01890000-0000-7000-8000-{number}",
                "request_id": f"01890000-0000-7000-9000-{number}",
                "status": "success",
            }
        )

    def effects(self) -> Json:
        return {"runs": self._runs}


def target() -> Zapier:
    return Zapier()


def settings(url: str) -> Json:
    return {"connector": "zapier", "url": f"{url}{_HOOK}"}
