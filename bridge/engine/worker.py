"""A worker process: RQ hands it hints, and it runs the lanes they name, several at a time, until they are empty."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import structlog
from redis import Redis
from redis.exceptions import RedisError
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer
from sqlalchemy import Row
from sqlalchemy.exc import OperationalError, SQLAlchemyError, TimeoutError

from bridge.engine.hints import QUEUE, Hints
from bridge.engine.owners import this_process
from bridge.ledger.database import Ledger, milliseconds
from bridge.ledger.lanes import BATCH, Lease, LeaseLost, claim, claim_counted, has_due, held_back, release, take

SLICE_SECONDS: Final = 3.0
LINGER_SECONDS: Final = 1.5
"""How long an empty lane is kept: waking one costs more than looking at it a few times."""

_LOOK_SECONDS: Final = 0.04
_LONGEST_LOOK_SECONDS: Final = 0.12
"""How often it is looked at: the longer it is empty, the more seldom."""
_YIELD_SECONDS: Final = 0.002
_LONGEST_YIELD_SECONDS: Final = 0.03
_log = structlog.get_logger(__name__)


class Stage(Protocol):
    """What a lane does with its rows: works on them and commits what came of it."""

    @property
    def batch(self) -> int: ...
    def work(self, lease: Lease, rows: Sequence[Row[Any]]) -> None: ...


class Lanes:
    """The lanes that this process works on at the moment: one thread each, as many as there are slots.

    A lane is left after a time slice, with a new hint if rows are left, so that no lane starves another.
    """

    def __init__(self, ledger: Ledger, hints: Hints, stages: dict[str, Stage], *, slots: int) -> None:
        self._ledger = ledger
        self._hints = hints
        self._stages = stages
        self._slots = threading.Semaphore(slots)
        self._threads = ThreadPoolExecutor(max_workers=slots, thread_name_prefix="lane")
        self._owner = this_process()
        self._stopping = threading.Event()
        self._at_work = 0
        self._lock = threading.Lock()

    def start(self, lane: str) -> None:
        """Run a lane as soon as a slot is free. Who is busy is a little slow to ask for more: the idle come first."""
        self._slots.acquire()
        self._count(1)
        self._threads.submit(self._run, lane).add_done_callback(self._ended)
        self._stopping.wait(min(_YIELD_SECONDS * self._at_work, _LONGEST_YIELD_SECONDS))

    def stop(self) -> None:
        """Let the batches at work come to their end, and leave the lanes."""
        self._stopping.set()
        self._threads.shutdown(wait=True)

    def _ended(self, run: Future[None]) -> None:
        """A lane must never fail in silence; its lease runs out, and the sweeper wakes it again."""
        self._count(-1)
        error = run.exception()
        if error is not None:
            _log.error("lane_failed", exc_info=error)

    def _count(self, change: int) -> None:
        with self._lock:
            self._at_work += change

    def _run(self, lane: str) -> None:
        try:
            self._drain(lane)
        except SQLAlchemyError as error:
            _log.warning("ledger_unreachable", lane=lane, error=type(error).__name__)
            self._hints.asleep(lane)  # the sweeper may hint at it as soon as the database is back
        except LeaseLost:
            _log.warning("lease_lost", lane=lane)
        finally:
            self._slots.release()

    def _drain(self, lane: str) -> None:
        lease = take(self._ledger, lane, self._owner)
        if lease is None:
            # Its owner says itself when it is asleep, and looks again before it leaves; until then no hint is needed.
            if held_back(self._ledger, lane, now_ms=_now()):
                self._hints.asleep(lane)
            return
        more, suspects = False, BATCH  # whoever comes after a failure counts what it begins: one row may be to blame
        try:
            more, suspects = self._work(lease)
        except (LeaseLost, OperationalError, TimeoutError):  # the database: no row is
            suspects = lease.suspects
            raise
        finally:
            release(self._ledger, lease, suspects=suspects)
        self._hints.asleep(lane)
        # A row may have come in between the last claim and now, when the lane still counted as awake.
        if not self._stopping.is_set() and (more or has_due(self._ledger, lane, now_ms=_now())):
            self._hints.wake([lane])

    def _work(self, lease: Lease) -> tuple[bool, int]:
        """Batch after batch until the lane is empty or the slice is over: whether there is more, and how many of the
        lease's suspects are left.
        """
        stage = self._stages[lease.lane.partition(":")[0]]
        suspects = lease.suspects
        now = time.monotonic()
        end, leave, look = now + SLICE_SECONDS, now + LINGER_SECONDS, _LOOK_SECONDS
        while now < end and not self._stopping.is_set():
            ask = claim_counted if suspects else claim
            rows = ask(self._ledger, lease, now_ms=_now(), limit=stage.batch)
            suspects = max(0, suspects - len(rows)) if rows else 0  # without rows all that is due has been begun
            if rows:
                stage.work(lease, rows)
                leave = time.monotonic() + LINGER_SECONDS
            elif look == _LOOK_SECONDS and held_back(self._ledger, lease.lane, now_ms=_now()):
                return False, suspects  # its target is left alone: there is nothing to linger for
            look = _LOOK_SECONDS if rows else min(look * 1.25, _LONGEST_LOOK_SECONDS)
            if len(rows) < stage.batch and not suspects:
                self._stopping.wait(look)  # a batch of one costs almost as much as a full one
            now = time.monotonic()
            if not rows and now >= leave:
                return False, 0
        return True, suspects


_lanes: Lanes | None = None


def run_lane(lane: str) -> None:
    """The RQ job: nothing but a name. It ends as soon as the lane has a slot; the ledger knows what is left to do."""
    if _lanes is not None:
        _lanes.start(lane)


class _LaneWorker(SimpleWorker):  # type: ignore[misc]
    """RQ's loop in one process: a fork per job would cost ten times the work."""

    max_connection_wait_time = 2.0


def work(connect: Callable[[], Redis], lanes: Lanes) -> None:
    """Take hints until a signal says to stop (SIGTERM or SIGINT: batches at work are finished first)."""
    global _lanes  # noqa: PLW0603  RQ finds a job's function by its name, so what it needs is found the same way
    _lanes = lanes
    try:
        while _worked(connect):
            time.sleep(1.0)
    finally:
        lanes.stop()


def _worked(connect: Callable[[], Redis]) -> bool:
    """RQ's loop; True when Redis ended it (out of disk, say) and not a signal: the lanes at work go on meanwhile."""
    try:
        connection = connect()
        queue = Queue(QUEUE, connection=connection, serializer=JSONSerializer)
        worker = _LaneWorker([queue], connection=connection, serializer=JSONSerializer, log_job_description=False)
        worker.work(logging_level="WARNING", with_scheduler=False)
    except RedisError as error:
        _log.warning("redis_unreachable", error=type(error).__name__)
        return True
    return False


def _now() -> int:
    return milliseconds(datetime.now(UTC))
