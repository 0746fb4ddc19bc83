"""A workflow of Pabbly Connect that starts with a webhook. What else it may answer than yes is not known."""

from __future__ import annotations

from typing import Any, Final

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply

_HOOK: Final = "/workflow/sendwebhookdata/abc"


class Pabbly:
    """One workflow."""

    def __init__(self) -> None:
        self._runs: list[Any] = []

    def answer(self, call: ApiCall) -> ApiReply:
        if call.path != _HOOK:
            return ApiReply(status=404, json={"status": "error", "message": "not found"})
        self._runs.append(call.json)
        return ApiReply(json={"status": "success", "message": "Response Accepted"})

    def effects(self) -> Json:
        return {"runs": self._runs}


def target() -> Pabbly:
    return Pabbly()


def settings(url: str) -> Json:
    return {"connector": "pabbly", "url": f"{url}{_HOOK}"}
