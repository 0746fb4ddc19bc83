"""A receiver of Standard Webhooks: it believes what is signed and fresh, and takes each id once."""

from __future__ import annotations

import base64
import hmac
from datetime import UTC, datetime
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply

_KEY: Final = bytes(range(32))
_SEED: Final = bytes(range(32, 64))
OWN_KEY: Final = f"whsk_{base64.b64encode(_SEED).decode()}"
"""The bridge's own key, whose public half the receiver has."""

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
        signatures = call.headers.get("webhook-signature", "").split(" ")
        if not id or not sent.isdecimal() or not any(signatures):
            return ApiReply(status=400, json={"error": "missing required headers"})
        if not any(_matches(signature, f"{id}.{sent}.".encode() + call.body) for signature in signatures):
            return ApiReply(status=401, json={"error": "no matching signature"})
        if abs(datetime.now(UTC).timestamp() - float(sent)) > _TOLERANCE:
            return ApiReply(status=400, json={"error": "timestamp too far from now"})
        self._webhooks.setdefault(id, call.json)
        return ApiReply(status=204)

    def effects(self) -> Json:
        return {"webhooks": self._webhooks}


def _matches(signature: str, signed: bytes) -> bool:
    version, _, text = signature.partition(",")
    if version == "v1":
        return hmac.compare_digest(text, base64.b64encode(hmac.digest(_KEY, signed, "sha256")).decode())
    try:
        Ed25519PrivateKey.from_private_bytes(_SEED).public_key().verify(base64.b64decode(text), signed)
    except (InvalidSignature, ValueError):
        return False
    return version == "v1a"


def target() -> Sink:
    return Sink()


def settings(url: str) -> Json:
    return {
        "connector": "webhook",
        "url": f"{url}/webhooks",
        "secrets": [f"whsec_{base64.b64encode(_KEY).decode()}"],
    }
