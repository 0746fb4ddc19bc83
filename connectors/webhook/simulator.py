"""A receiver of Standard Webhooks: it believes what is signed and fresh, and takes each id once."""

from __future__ import annotations

import base64
import hmac
from datetime import UTC, datetime
from typing import Any, Final

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply

_KEY: Final = bytes(range(32))
_TOLERANCE: Final = 300.0  # seconds, as in the official libraries (github.com/standard-webhooks/standard-webhooks)


class Sink:
    """`gone` answers 410, which asks the sender to stop."""

    def __init__(self) -> None:
        self.gone = False
        self._webhooks: dict[str, Any] = {}

    def answer(self, call: ApiCall) -> ApiReply:
        if self.gone:
            return ApiReply(status=410, json={"error": "no longer wanted"})
        id, sent = call.headers.get("webhook-id", ""), call.headers.get("webhook-timestamp", "")
        signed = hmac.digest(_KEY, f"{id}.{sent}.".encode() + call.body, "sha256")
        signature = f"v1,{base64.b64encode(signed).decode()}"
        if signature not in call.headers.get("webhook-signature", "").split():
            return ApiReply(status=401, json={"error": "no matching signature"})
        if abs(datetime.now(UTC).timestamp() - float(sent)) > _TOLERANCE:
            return ApiReply(status=400, json={"error": "timestamp too far from now"})
        self._webhooks.setdefault(id, call.json)
        return ApiReply(status=204)

    def effects(self) -> Json:
        return {"webhooks": self._webhooks}


def target() -> Sink:
    return Sink()


def settings(url: str) -> Json:
    return {
        "connector": "webhook",
        "url": f"{url}/webhooks",
        "secrets": [f"whsec_{base64.b64encode(_KEY).decode()}"],
    }
