"""Standard Webhooks 1.0: `webhook-id`, `webhook-timestamp` and one signature per secret over id, time and body.

github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md. The id is the same on every attempt and is
what a receiver knows a repeat by; the timestamp is that of the attempt. A secret that both sides share (`whsec_`) signs
as `v1`, a key of the bridge's own (`whsk_`, ed25519) as `v1a`; some write only the 32 bytes of such a key
(libraries/go/webhook_asymmetric.go), others (github.com/svix/svix-webhooks) the public half behind them too.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge.core.errors import TargetError
from bridge.core.settings import Settings
from bridge.core.target import Answer, Message, Outcome, Request
from bridge.core.vocabulary import short

_SEED_BYTES: Final = 32
_PAIR_BYTES: Final = 64


def prepare(message: Message, settings: Settings) -> Request:
    """The signed webhook: `type`, `timestamp` (the event's) and `data`. Raises TargetError for a malformed secret."""
    params, event = message.params, message.event
    document = {
        "type": params.get("type") or short(event["type"]),
        "timestamp": event["time"],
        "data": params.get("data", event["data"]),
    }
    try:
        body = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except ValueError:
        raise TargetError("data: expected what JSON and UTF-8 can hold") from None
    sent = int(message.sent_at.timestamp())
    secrets = settings.secrets or tuple(settings.options.get("secrets", ()))
    if not secrets:
        raise TargetError("secrets: expected at least one")
    return Request(
        method="POST",
        url=settings.options["url"],
        headers={
            **(settings.options.get("headers") or {}),
            "Content-Type": "application/json",
            "Idempotency-Key": message.key,
            "webhook-id": message.key,
            "webhook-timestamp": str(sent),
            "webhook-signature": " ".join(signature(secret, message.key, sent, body) for secret in secrets),
        },
        body=body,
    )


def judge(answer: Answer, message: Message, settings: Settings) -> Outcome | None:
    """What HTTP says is what Standard Webhooks means: 2xx is success, 3xx a failure, 410 stops the sending."""
    return None


def signature(secret: str, id: str, timestamp: int, body: bytes) -> str:
    """`v1,` or `v1a,` and base64, over `id.timestamp.body`; `timestamp` in Unix seconds. Raises TargetError."""
    signed = f"{id}.{timestamp}.".encode() + body
    if secret.startswith("whsk_"):
        key = _key(secret.removeprefix("whsk_"))
        if len(key) not in (_SEED_BYTES, _PAIR_BYTES):
            raise TargetError("secrets: expected whsk_ and the base64 of an ed25519 key")
        version, made = "v1a", Ed25519PrivateKey.from_private_bytes(key[:_SEED_BYTES]).sign(signed)
    else:
        version, made = "v1", hmac.digest(_key(secret.removeprefix("whsec_")), signed, "sha256")
    return f"{version},{base64.b64encode(made).decode()}"


def _key(text: str) -> bytes:
    encoded = text.rstrip("=")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise TargetError("secrets: expected whsec_ or whsk_ and base64")
    return key
