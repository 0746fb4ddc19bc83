"""Who may use the API. A token is 256 random bits; what is kept of it is its SHA-256, which needs no salt."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, or_, select, update

from bridge.ledger.database import Ledger, insert_new, milliseconds
from bridge.ledger.tables import api_tokens, audit

SCOPES: Final = {"events:read": "Read canonical events"}
"""What a token can be good for."""

_PREFIX: Final = "cb_"  # tells people, and scanners of repositories, what leaked
_USED_EVERY_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """What the bearer of a token may do. `sources` and `types` (short, with globs) are empty when all are allowed."""

    name: str
    scopes: frozenset[str]
    sources: tuple[str, ...]
    types: tuple[str, ...]


def create_token(
    ledger: Ledger,
    name: str,
    *,
    scopes: Sequence[str],
    sources: Sequence[str] = (),
    types: Sequence[str] = (),
    lifetime: timedelta | None = None,
    who: str,
) -> str | None:
    """A new token, which nobody can look up again; None if the name is taken, be it by a revoked one."""
    token = _PREFIX + secrets.token_urlsafe(32)
    now = datetime.now(UTC)
    row = {
        "name": name,
        "hash": _hash(token),
        "scopes": json.dumps(sorted(scopes)),
        "sources": json.dumps(sorted(sources)),
        "types": json.dumps(list(types)),
        "created_ms": milliseconds(now),
        "expires_ms": None if lifetime is None else milliseconds(now + lifetime),
    }
    with ledger.write() as connection:
        if not insert_new(connection, api_tokens, [row], "name"):
            return None
        _write_down(connection, who, "tokens.create", name)
    return token


def list_tokens(ledger: Ledger) -> Sequence[Row[Any]]:
    """All tokens without their hashes, the oldest first."""
    columns = [column for column in api_tokens.c if column.name != "hash"]
    with ledger.read() as connection:
        return connection.execute(select(*columns).order_by(api_tokens.c.created_ms, api_tokens.c.name)).all()


def revoke_token(ledger: Ledger, name: str, *, who: str) -> bool:
    """End a token now; whether there was one of this name that had not been revoked."""
    with ledger.write() as connection:
        ended = connection.execute(
            update(api_tokens)
            .where(api_tokens.c.name == name, api_tokens.c.revoked_ms.is_(None))
            .values(revoked_ms=_now())
        )
        if ended.rowcount:
            _write_down(connection, who, "tokens.revoke", name)
    return bool(ended.rowcount)


def permission_of(ledger: Ledger, token: str) -> Permission | None:
    """What a token allows; None if it is unknown, revoked or has expired, and nobody is told which.

    It is looked up by its hash: how long that takes says nothing about a token that somebody would have to guess whole.
    """
    sought, now = _hash(token), _now()
    with ledger.read() as connection:
        row = connection.execute(select(api_tokens).where(api_tokens.c.hash == sought)).first()
    if row is None or not hmac.compare_digest(row.hash, sought):
        return None
    if row.revoked_ms is not None or (row.expires_ms is not None and row.expires_ms <= now):
        return None
    if row.used_ms is None or row.used_ms <= now - _USED_EVERY_MS:
        _note_use(ledger, row.name, now)
    return Permission(
        name=row.name,
        scopes=frozenset(json.loads(row.scopes)),
        sources=tuple(json.loads(row.sources)),
        types=tuple(json.loads(row.types)),
    )


def _note_use(ledger: Ledger, name: str, now: int) -> None:
    """Written at most once an hour: reading stays reading."""
    hour = now - now % _USED_EVERY_MS
    used = api_tokens.c.used_ms
    with ledger.write() as connection:
        connection.execute(
            update(api_tokens).where(api_tokens.c.name == name, or_(used.is_(None), used < hour)).values(used_ms=hour)
        )


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _write_down(connection: Connection, who: str, action: str, name: str) -> None:
    connection.execute(audit.insert(), {"at_ms": _now(), "who": who, "action": action, "object": name, "detail": ""})


def _now() -> int:
    return milliseconds(datetime.now(UTC))
