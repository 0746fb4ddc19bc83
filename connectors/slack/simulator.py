"""An incoming webhook of Slack: `ok` or a word of plain text, and no memory of what was posted before."""

from __future__ import annotations

import re
from typing import Any, Final

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply

_HOOK: Final = "/services/T0000/B0000/XXXXXXXX"
_PLAIN: Final = {"Content-Type": "text/plain; charset=utf-8"}
_MOST_BLOCKS: Final = 50


class Slack:
    """One webhook. `state` is what is wrong with it: an error's word, such as `channel_is_archived`; `limit_on` lets
    it throttle.
    """

    def __init__(self) -> None:
        self.state: str | None = None
        self.limit_on = False
        self._messages: list[Json] = []

    def answer(self, call: ApiCall) -> ApiReply:
        if call.path != _HOOK:
            return _word("no_service")
        if self.limit_on:
            return ApiReply(status=429, text="rate_limited", headers={"Retry-After": "30", **_PLAIN})
        wrong = self.state or _wrong(call)
        if wrong is not None:
            return _word(wrong)
        self._messages.append({"text": _shown(call.json.get("text") or ""), "blocks": len(call.json.get("blocks", []))})
        return ApiReply(text="ok", headers=_PLAIN)

    def effects(self) -> Json:
        return {"messages": self._messages}


_STATUS: Final = {
    "user_not_found": 400, "invalid_token": 403, "action_prohibited": 403, "channel_not_found": 404, "no_service": 404,
    "no_team": 404, "no_active_hooks": 404, "posting_to_general_channel_denied": 403, "team_disabled": 403,
    "channel_is_archived": 410, "rollup_error": 500,
}  # fmt: skip


def _wrong(call: ApiCall) -> str | None:
    if call.method != "POST" or not isinstance(call.json, dict):
        return "invalid_payload"
    text, blocks = call.json.get("text"), call.json.get("blocks", [])
    if not isinstance(blocks, list) or len(blocks) > _MOST_BLOCKS or not all(map(_is_block, blocks)):
        return "invalid_blocks"
    return None if text or blocks else "no_text"


def _is_block(block: Any) -> bool:
    return isinstance(block, dict) and isinstance(block.get("type"), str)


def _shown(text: str) -> str:
    """As people see it: <…> calls somebody or links, the three entities are the characters themselves."""
    called = re.sub(r"<!(\w+)>", r"@\1 (everybody is called)", text)
    return called.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _word(word: str) -> ApiReply:
    return ApiReply(status=_STATUS.get(word, 400), text=word, headers=_PLAIN)


def target() -> Slack:
    return Slack()


def settings(url: str) -> Json:
    return {"connector": "slack", "url": f"{url}{_HOOK}"}
