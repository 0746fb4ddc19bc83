"""Access tokens of platform APIs: one fetch for all workers, kept in Redis, or in each process while Redis is away.

A token in Redis is worth what its life is worth; the credentials that it came from are never there, only their
fingerprint. Nothing here raises because Redis is down: the worst that a missing Redis does is one fetch per process.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Final

from redis import Redis
from redis.exceptions import RedisError

from bridge.core.signing import canonical_json, fingerprint
from bridge.core.source import TokenRequest

EARLIER: Final = 60.0
"""Seconds before its end from which a token is not used any more: clocks differ, and requests take time."""
SHORTEST: Final = 5.0
_LONGEST: Final = 30 * 86_400.0

_FETCH_SECONDS: Final = 30
_POLL_SECONDS: Final = 0.05
_REDIS_PAUSE: Final = 30.0
_PREFIX: Final = "bridge:token:"
_DELETE_IF_SAME: Final = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """An access token and its life in seconds from now."""

    value: str
    expires_in: float


@dataclass(frozen=True, slots=True)
class _Known:
    value: str
    until: float


class TokenCache:
    """All platforms' tokens for one process, shared with all other processes through Redis. Safe for threads."""

    def __init__(
        self, redis: Redis | None, *, fetch_seconds: int = _FETCH_SECONDS, redis_pause: float = _REDIS_PAUSE
    ) -> None:
        """`fetch_seconds` is how long others wait for a fetch, `redis_pause` how long a Redis that failed is let be.

        Hand in a client that fails fast, `Redis(…, retry=Retry(NoBackoff(), 0), socket_timeout=2)`: left alone,
        redis-py tries for some four seconds before it says that there is no Redis.
        """
        self._redis = redis
        self._redis_pause = redis_pause
        self._fetch_seconds = fetch_seconds
        self._away_until = 0.0
        self._known: dict[str, _Known] = {}
        self._locks: dict[str, Lock] = {}
        self._lock = Lock()

    def get(self, source: str, request: TokenRequest, fetch: Callable[[], Token]) -> str:
        """A token that still lives, fetched if need be by one worker for all. Raises what `fetch` raises."""
        key = _key(source, request)
        known = self._known.get(key)
        if known is not None and known.until > time.monotonic():
            return known.value
        with self._only_one(key):
            known = self._known.get(key)
            if known is not None and known.until > time.monotonic():
                return known.value
            return self._shared(key) or self._fetched_by_one(key, fetch)

    def drop(self, source: str, request: TokenRequest, token: str) -> None:
        """Forget a token that the platform refuses; one that somebody has fetched since then stays."""
        key = _key(source, request)
        with self._lock:
            known = self._known.get(key)
            if known is not None and known.value == token:
                del self._known[key]
        self._delete_if_same(key, token)

    @contextmanager
    def _only_one(self, key: str) -> Iterator[None]:
        with self._lock:
            lock = self._locks.setdefault(key, Lock())
        with lock:
            yield

    def _fetched_by_one(self, key: str, fetch: Callable[[], Token]) -> str:
        """Fetch under a lock in Redis, or wait for who holds it; alone when Redis is away or that takes too long."""
        lock, mine = f"{key}:lock", secrets.token_hex(8)
        until = time.monotonic() + self._fetch_seconds
        while time.monotonic() < until and self._redis_is_there():
            if self._take(lock, mine):
                try:
                    # Somebody may have finished between our look and our lock.
                    return self._shared(key) or self._fetched(key, fetch)
                finally:
                    self._delete_if_same(lock, mine)
            time.sleep(_POLL_SECONDS)
            if token := self._shared(key):
                return token
        return self._fetched(key, fetch)

    def _fetched(self, key: str, fetch: Callable[[], Token]) -> str:
        token = fetch()
        life = min(max(token.expires_in - EARLIER, SHORTEST), _LONGEST)
        self._known[key] = _Known(token.value, time.monotonic() + life)
        if self._redis is not None and self._redis_is_there():
            try:
                self._redis.set(key, token.value, px=int(life * 1000))
            except RedisError:
                self._redis_is_away()
        return token.value

    def _shared(self, key: str) -> str | None:
        """The token that another process left in Redis."""
        if self._redis is None or not self._redis_is_there():
            return None
        try:
            found, left = self._redis.get(key), self._redis.pttl(key)
        except RedisError:
            self._redis_is_away()
            return None
        if found is None or left <= 0:
            return None
        value = found.decode() if isinstance(found, bytes) else found
        self._known[key] = _Known(value, time.monotonic() + left / 1000)
        return value

    def _take(self, lock: str, mine: str) -> bool:
        if self._redis is None:
            return False
        try:
            return bool(self._redis.set(lock, mine, nx=True, px=self._fetch_seconds * 1000))
        except RedisError:
            self._redis_is_away()
            return False

    def _delete_if_same(self, key: str, value: str) -> None:
        if self._redis is None or not self._redis_is_there():
            return
        try:
            self._redis.eval(_DELETE_IF_SAME, 1, key, value)
        except RedisError:
            self._redis_is_away()

    def _redis_is_there(self) -> bool:
        return self._redis is not None and time.monotonic() >= self._away_until

    def _redis_is_away(self) -> None:
        """Leave it alone for a while, so that not every call waits for it."""
        self._away_until = time.monotonic() + self._redis_pause


def _key(source: str, request: TokenRequest) -> str:
    credentials = canonical_json([request.url, dict(request.form), dict(request.headers)])
    return f"{_PREFIX}{source}:{fingerprint([credentials])[:32]}"
