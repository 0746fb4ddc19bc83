"""Who asks, and for what: the token, the query's parameters, and both together as one filter."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

import structlog
from flask import Request
from werkzeug.datastructures import MultiDict

from bridge.core.vocabulary import short
from bridge.flow.mapping import types_named
from bridge.ledger.api_tokens import Permission, permission_of
from bridge.ledger.database import Ledger
from bridge.ledger.feed import Wanted
from bridge.web.api_problems import ApiProblem

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
_TELL_EVERY_SECONDS: Final = 60.0
_REALM: Final = 'Bearer realm="campusbridge"'
_log = structlog.get_logger(__name__)


class Refusals:
    """Tells the log how many wrong tokens came: the first one at once, then at most one line a minute."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._told = float("-inf")

    def note(self) -> None:
        with self._lock:
            self._count += 1
            now = time.monotonic()
            if now - self._told < _TELL_EVERY_SECONDS:
                return
            count, self._count, self._told = self._count, 0, now
        _log.warning("api_tokens_refused", count=count)


def bearer(request: Request, ledger: Ledger, scope: str, refusals: Refusals) -> tuple[str, Permission]:
    """The token that came with a request, and what it allows. Raises ApiProblem 401 or 403."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise ApiProblem("unauthorized", "expected Authorization: Bearer", headers={"WWW-Authenticate": _REALM})
    permission = permission_of(ledger, token.strip())
    if permission is None:
        refusals.note()
        challenge = {"WWW-Authenticate": f'{_REALM}, error="invalid_token"'}
        raise ApiProblem("unauthorized", "the token is unknown, has expired or was revoked", headers=challenge)
    if scope not in permission.scopes:
        challenge = {"WWW-Authenticate": f'{_REALM}, error="insufficient_scope", scope="{scope}"'}
        raise ApiProblem("forbidden", f"the token lacks the scope {scope}", headers=challenge)
    return token.strip(), permission


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What the query says. `after` is the cursor as it came."""

    after: str | None
    limit: int
    types: tuple[str, ...]
    sources: tuple[str, ...]


def asking(query: MultiDict[str, str], allowed: Collection[str]) -> Asking:
    """The query of a request that may have these parameters. Raises ApiProblem 400."""
    for name in query:
        if name not in allowed:
            raise ApiProblem("bad-parameter", f"expected only {', '.join(sorted(allowed))}")
    for name in ("after", "limit"):
        if len(query.getlist(name)) > 1:
            raise ApiProblem("bad-parameter", "expected at most once", parameter=name)
    return Asking(
        after=query.get("after") or None,
        limit=_limit(query.get("limit")),
        types=_several(query.getlist("type")),
        sources=_several(query.getlist("source")),
    )


def wanted(asked: Asking, permission: Permission, sources: Collection[str]) -> Wanted:
    """What is asked for and allowed; `sources` are those of bridge.yaml. Raises ApiProblem 400 or 403."""
    mine = permitted(permission)
    types = frozenset[str]().union(*(_named(pattern) for pattern in asked.types)) or _usual(permission)
    if not types & mine.types:
        raise ApiProblem("forbidden", "the token is not good for any of these types", parameter="type")
    if not asked.sources:
        return Wanted(types=types & mine.types, sources=mine.sources)
    for name in asked.sources:
        if mine.sources is not None and name not in mine.sources:
            raise ApiProblem("forbidden", "the token is not good for this source", parameter="source")
        if name not in sources:
            raise ApiProblem("bad-parameter", "expected the name of a source in bridge.yaml", parameter="source")
    return Wanted(types=types & mine.types, sources=frozenset(asked.sources))


def permitted(permission: Permission) -> Wanted:
    """All that a token allows."""
    internal = frozenset[str]() if permission.types else types_named("source.*")
    sources = frozenset(permission.sources) if permission.sources else None
    return Wanted(types=_usual(permission) | internal, sources=sources)


def _usual(permission: Permission) -> frozenset[str]:
    """What is meant when no type is asked for. Internal types (source.*) have to be named, as in mappings."""
    return frozenset().union(*(types_named(short(pattern)) for pattern in permission.types or ("*",)))


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and 1 <= int(text) <= MAX_LIMIT):
        raise ApiProblem("bad-parameter", f"expected a whole number from 1 to {MAX_LIMIT}", parameter="limit")
    return int(text)


def _named(pattern: str) -> set[str]:
    found = types_named(short(pattern))
    if not found:
        raise ApiProblem(
            "bad-parameter", "expected a canonical type such as grade.published or grade.*", parameter="type"
        )
    return found


def _several(values: Iterable[str]) -> tuple[str, ...]:
    """`type=a&type=b` and `type=a,b` are the same."""
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())
