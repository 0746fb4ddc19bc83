"""Connections to the Redis-compatible server: the embedded one, started when it is needed, or one that exists."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from bridge.engine.embedded import ensure, running


def connector(redis: str, folder: Path, *, timeout: float | None = None) -> Callable[[], Redis]:
    """Makes clients for `storage.redis`; `folder` is where an embedded server lives.

    Every call makes sure that an embedded server runs, so calling it again after a connection error heals a killed one.
    """

    def connect() -> Redis:
        address = ensure(folder) if redis == "embedded" else redis
        return Redis.from_url(address, socket_timeout=timeout, socket_connect_timeout=timeout or 5.0)

    return connect


def pinger(redis: str, folder: Path) -> Callable[[], None]:
    """Asks whether the server answers, without starting one. Raises RedisError or OSError."""

    def ping() -> None:
        if redis != "embedded":
            Redis.from_url(redis, socket_timeout=1.0, socket_connect_timeout=1.0).ping()
        elif running(folder) is None:
            raise RedisConnectionError("the embedded server does not run")

    return ping
