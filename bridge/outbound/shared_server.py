"""The Redis-compatible server as something that may be away: nothing fails for it, and nobody keeps waiting for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import Final, TypeVar

import structlog
from redis import Redis
from redis.exceptions import RedisError

AWAY_SECONDS: Final = 5.0

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)


class ServerAway(Exception):
    """There is no answer from the server, now or since a moment ago."""


class SharedServer:
    """One process's way to the server. Safe for threads.

    `connect` gives a client that fails fast, `Redis(…, retry=Retry(NoBackoff(), 0), socket_timeout=2)`: left alone,
    redis-py tries for some four seconds. After a failure the server is let be for `pause` seconds.
    """

    def __init__(self, connect: Callable[[], Redis], *, pause: float = AWAY_SECONDS) -> None:
        self._connect = connect
        self._pause = pause
        self._redis: Redis | None = None
        self._away_until = 0.0
        self._told = False
        self._lock = Lock()

    def ask(self, question: Callable[[Redis], _T]) -> _T:
        """What the question gives. Raises ServerAway."""
        if time.monotonic() < self._away_until:
            raise ServerAway
        try:
            answer = question(self._client())
        except (RedisError, OSError) as error:
            self._away_until = time.monotonic() + self._pause
            if not self._told:
                self._told = True
                _log.warning("redis_unreachable", error=type(error).__name__)
            raise ServerAway from None
        self._told = False
        return answer

    def _client(self) -> Redis:
        with self._lock:
            if self._redis is None:
                self._redis = self._connect()
            return self._redis
