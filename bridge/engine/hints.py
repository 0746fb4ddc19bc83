"""Hints: "this lane has work". They travel through Redis and RQ, carry a lane's name and nothing else, and may be lost.

A lane has at most one hint on its way: the flag `campusbridge:awake:<lane>` is set with the hint and dropped by the
worker before it looks for work a last time. So waking a lane that is awake costs its share of one round trip.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Final

import structlog
from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.serializers import JSONSerializer

QUEUE: Final = "campusbridge-lanes"
_FLAG_SECONDS: Final = 15
_SILENT_SECONDS: Final = 1.0
_JUST_NOW_SECONDS: Final = 0.3
"""Shorter than a worker lingers on an empty lane: one that was hinted at so recently is still being looked after."""

_log = structlog.get_logger(__name__)


class Hints:
    """Waking lanes, best effort: without Redis the sweeper's next round does it.

    `connect` gives a client of the Redis-compatible server, and starts an embedded one that is gone.
    """

    def __init__(self, connect: Callable[[], Redis]) -> None:
        self._connect = connect
        self._redis: Redis | None = None
        self._silent_until = 0.0
        self._hinted: dict[str, float] = {}

    def wake(self, lanes: Collection[str]) -> None:
        """Hint at these lanes, except those that are awake."""
        now = time.monotonic()
        quiet = sorted(lane for lane in lanes if now - self._hinted.get(lane, -1.0) > _JUST_NOW_SECONDS)
        if not quiet or now < self._silent_until:
            return
        try:
            self._wake(quiet)
            self._hinted |= dict.fromkeys(quiet, now)
        except (RedisError, OSError) as error:
            self._redis = None
            self._silent_until = time.monotonic() + _SILENT_SECONDS
            _log.warning("redis_unreachable", error=type(error).__name__)

    def asleep(self, lane: str) -> None:
        """A worker is about to leave this lane: from now on it can be woken again."""
        self._hinted.pop(lane, None)
        try:
            self.client().delete(_flag(lane))
        except (RedisError, OSError):
            self._redis = None

    def client(self) -> Redis:
        """The connection, made when it is first needed."""
        if self._redis is None:
            self._redis = self._connect()
        return self._redis

    def _wake(self, lanes: list[str]) -> None:
        client = self.client()
        with client.pipeline(transaction=False) as pipeline:
            for lane in lanes:
                pipeline.set(_flag(lane), 1, nx=True, ex=_FLAG_SECONDS)
            newly = [lane for lane, fresh in zip(lanes, pipeline.execute(), strict=True) if fresh]
        if newly:
            queue = Queue(QUEUE, connection=client, serializer=JSONSerializer)
            queue.enqueue_many(
                [
                    Queue.prepare_data(
                        "bridge.engine.worker.run_lane", (lane,), result_ttl=0, failure_ttl=60, ttl=60, timeout=60
                    )
                    for lane in newly
                ]
            )


def _flag(lane: str) -> str:
    return f"campusbridge:awake:{lane}"
