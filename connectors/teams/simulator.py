"""A workflow that posts to a channel: 202 at once, and a run that may fail where no sender sees it."""

from __future__ import annotations

from typing import Any, Final

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply

_PATH: Final = "/workflows/0a1b/triggers/manual/paths/invoke"
_SIG: Final = "s1g"
_CARD: Final = "application/vnd.microsoft.card.adaptive"
_MOST_BYTES: Final = 28 * 1024  # learn.microsoft.com/connectors/teams


class Teams:
    """One workflow. `limit_on` lets it throttle, `owner_left` that it is not there any more; `on` is False when
    somebody switched it off, `hiding` is the retired webhook, which answers 200 to everything.
    """

    def __init__(self) -> None:
        self.limit_on = False
        self.owner_left = False
        self.on = True
        self.hiding = False
        self._posts: list[Json] = []
        self._failed: list[str] = []

    def answer(self, call: ApiCall) -> ApiReply:
        if self.hiding and self.limit_on:
            words = "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 429"
            return ApiReply(text=words)
        refused = self._refused(call)
        if refused is not None:
            return _error(*refused)
        self._run(call)
        return ApiReply(status=202, text="")

    def _refused(self, call: ApiCall) -> tuple[int, str] | None:
        found: tuple[int, str] | None = None
        if call.path != _PATH or self.owner_left:
            found = 404, "WorkflowNotFound"
        elif "sig" in call.query and "authorization" in call.headers:
            found = 401, "DirectApiRequestHasMoreThanOneAuthorization"
        elif call.query.get("sig") != _SIG:
            found = 401, "DirectApiAuthorizationRequired"
        elif self.limit_on:
            found = 429, "WorkflowTriggerThrottled"
        elif not self.on:
            found = 400, "WorkflowTriggerIsNotEnabled"
        elif call.method != "POST" or not isinstance(call.json, dict):
            found = 400, "TriggerInputSchemaMismatch"
        return found

    def _run(self, call: ApiCall) -> None:
        cards = [entry["content"] for entry in call.json.get("attachments", []) if entry.get("contentType") == _CARD]
        if len(call.body) > _MOST_BYTES:
            self._failed.append("RequestEntityTooLarge")
        elif call.json.get("type") != "message" or not cards or not all(map(_sound, cards)):
            self._failed.append("BadRequest")
        else:
            self._posts += [{"texts": [part.get("text") for part in card["body"]]} for card in cards]

    def effects(self) -> Json:
        return {"posts": self._posts, "failed_runs": self._failed}


def _sound(card: Any) -> bool:
    return card.get("type") == "AdaptiveCard" and float(card["version"]) <= 1.5 and isinstance(card.get("body"), list)


def _error(status: int, code: str) -> ApiReply:
    wait = {"Retry-After": "20"} if status == 429 else {}
    return ApiReply(status=status, json={"error": {"code": code, "message": code}}, headers=wait)


def target() -> Teams:
    return Teams()


def settings(url: str) -> Json:
    return {"connector": "teams", "url": f"{url}{_PATH}?api-version=1", "sig": _SIG}
