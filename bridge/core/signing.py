"""HMACs, constant-time comparison and fingerprints. A malformed signature is a mismatch, never an exception."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Iterable, Sequence
from typing import Literal

Algorithm = Literal["sha1", "sha256", "sha512"]
Encoding = Literal["hex", "base64"]


def digest(secret: str, message: bytes, algorithm: Algorithm = "sha256") -> bytes:
    """The raw HMAC of a message; the key is the secret's UTF-8 bytes."""
    return hmac.digest(secret.encode(), message, algorithm)


def sign(secret: str, message: bytes, algorithm: Algorithm = "sha256", encoding: Encoding = "hex") -> str:
    """The HMAC as lower-case hex or as standard base64 with padding."""
    raw = digest(secret, message, algorithm)
    return raw.hex() if encoding == "hex" else base64.b64encode(raw).decode()


def decode(signature: str, encoding: Encoding) -> bytes | None:
    """The bytes of a signature as a platform sent it, or None if it is not one.

    Hex in any case; base64 with or without padding. Blanks around it are ignored.
    """
    text = signature.strip()
    if not text or len(text) > 256 or not text.isascii():
        return None
    try:
        if encoding == "hex":
            return binascii.unhexlify(text)
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def matching_secret(
    secrets: Sequence[str],
    message: bytes,
    signature: str,
    *,
    algorithm: Algorithm = "sha256",
    encoding: Encoding = "hex",
) -> int | None:
    """Which of several secrets (counted from 1) made this signature, or None.

    All secrets are tried whatever matches, and compared in constant time on decoded bytes.
    """
    given = decode(signature, encoding)
    found: int | None = None
    for position, secret in enumerate(secrets, start=1):
        if given is not None and hmac.compare_digest(digest(secret, message, algorithm), given) and found is None:
            found = position
    return found


def matching_text(secrets: Sequence[str], given: str) -> int | None:
    """Which of several secrets (counted from 1) equals a text that was sent as it is, or None; constant time."""
    found: int | None = None
    for position, secret in enumerate(secrets, start=1):
        if hmac.compare_digest(secret.encode(), given.encode("utf-8", "surrogatepass")) and found is None:
            found = position
    return found


def canonical_json(value: object) -> bytes:
    """One byte form for equal JSON values: sorted keys, no blanks, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def fingerprint(parts: Iterable[str | bytes]) -> str:
    """SHA-256 over parts, each with its length in front so that no two lists of parts collide."""
    pieces: list[bytes] = []
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        pieces += (len(raw).to_bytes(8, "big"), raw)
    return hashlib.sha256(b"".join(pieces)).hexdigest()
