"""The one way to a platform's API: each call waits for its turn, a little, and tells what it met."""

from __future__ import annotations

import heapq
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from typing import Final

import structlog

from bridge.core.contracts import Answer, Request
from bridge.core.errors import SourceUnavailable
from bridge.flow.judge import NoAnswer
from bridge.outbound.budget import Rules, Said, Wait
from bridge.outbound.local_budget import LocalBook
from bridge.outbound.metrics import API_BREAKER, API_CALLS, API_REFUSED, API_WAITS
from bridge.outbound.rate_headers import said_by
from bridge.outbound.session import AnswerTooLong, Sender
from bridge.outbound.shared_budget import SharedBook
from bridge.outbound.shared_server import ServerAway, SharedServer

BUSY_SECONDS: Final = 0.02
"""How soon to look again for a place that another process may give back."""

LONGEST_BREATH_SECONDS: Final = 0.05

CROWDED_SECONDS: Final = 2.0
"""When to come again if too many wait."""

_WORDS: Final = {
    "budget": "the budget of calls is used up for now",
    "busy": "as many calls as may be are under way",
    "paused": "the platform's API asked for a pause",
    "open": "the platform's API failed too often and is left alone for a while",
}
_log = structlog.get_logger(__name__)


class Gate:
    """One source's calls in this process. Safe for threads.

    The book in Redis rules; while it is away each process keeps to its share. `shares` is among how many processes the
    budget is divided then.
    """

    def __init__(
        self,
        source: str,
        rules: Rules,
        *,
        server: SharedServer | None = None,
        credential: str = "",
        shares: int = 1,
    ) -> None:
        self._source = source
        self._shared = None if server is None else SharedBook(server, credential, rules)
        self._local = LocalBook(rules.share(shares))
        self._alone = False
        # What is saved up meanwhile goes out together: asking for each call's moment by itself would double the work.
        self._breath = min(LONGEST_BREATH_SECONDS, rules.interval * rules.burst / 4)
        self._name, self._numbers = secrets.token_hex(8), count()
        self._queue = _Queue()
        self._freed = threading.Event()

    def send(self, sender: Sender, request: Request, *, patience: float, begun: bool) -> Answer:
        """The sender's answer, once it is this call's turn.

        `patience` is how many seconds it may wait for that. Calls of a work that has `begun` come before the first ones
        of others, since what was asked already would be asked again. Raises SourceUnavailable without a turn, and what
        the sender raises.
        """
        place, book = self._enter(patience, begun)
        said, outcome = Said(), "no_answer"
        try:
            answer = sender.send(request)
            said, outcome = said_by(answer, datetime.now(UTC)), _outcome(answer)
        except AnswerTooLong:
            said = Said(fine=True)
            raise
        except NoAnswer:
            said = Said(fine=False)
            raise
        finally:
            API_CALLS.labels(self._source, outcome).inc()
            self._leave(place, book, said)
        return answer

    def _enter(self, patience: float, begun: bool) -> tuple[str, SharedBook | LocalBook]:
        began = time.monotonic()
        place, until = f"{self._name}-{next(self._numbers)}", began + patience
        with self._queue.turn(until, begun) as mine:
            if not mine:
                raise self._refused(Wait(CROWDED_SECONDS, "budget"))
            while True:
                self._freed.clear()
                wait, book = self._take(place)
                if wait is None:
                    API_WAITS.labels(self._source).observe(time.monotonic() - began)
                    return place, book
                left = until - time.monotonic()
                if wait.why == "open" or wait.seconds > left or left <= 0:
                    raise self._refused(wait)
                if wait.why == "busy":
                    self._freed.wait(min(BUSY_SECONDS, left))
                else:
                    time.sleep(max(wait.seconds, min(self._breath, left)))

    def _take(self, place: str) -> tuple[Wait | None, SharedBook | LocalBook]:
        if self._shared is not None:
            try:
                if self._alone:
                    self._shared.owe(self._local.counted())
                    self._local.forget()
                    self._alone = False
                return self._shared.take(place), self._shared
            except ServerAway:
                self._alone = True
        return self._local.take(place), self._local

    def _leave(self, place: str, book: SharedBook | LocalBook, said: Said) -> None:
        try:
            is_open = book.give_back(place, said)
        except ServerAway:  # the place is free when its lease is over
            return
        finally:
            self._freed.set()
        API_BREAKER.labels(self._source).set(int(is_open))
        if is_open and said.fine is False:
            _log.warning("source_api_left_alone", source=self._source)

    def _refused(self, wait: Wait) -> SourceUnavailable:
        API_REFUSED.labels(self._source, wait.why).inc()
        return SourceUnavailable(_WORDS[wait.why], retry_after=max(wait.seconds, 1.0 if wait.why != "busy" else 2.0))


class _Queue:
    """Threads one after the other: those that have begun first, then as they came. Nobody is woken for nothing."""

    def __init__(self) -> None:
        self._waiting: list[tuple[bool, int, threading.Event]] = []
        self._numbers = count()
        self._served = False
        self._lock = threading.Lock()

    @contextmanager
    def turn(self, until: float, begun: bool) -> Iterator[bool]:
        """Whether it is this thread's turn; False when it did not come in time."""
        mine = self._wait(until, begun)
        try:
            yield mine
        finally:
            if mine:
                self._next()

    def _wait(self, until: float, begun: bool) -> bool:
        with self._lock:
            if not self._served:
                self._served = True
                return True
            me = (not begun, next(self._numbers), threading.Event())
            heapq.heappush(self._waiting, me)
        if me[2].wait(max(0.0, until - time.monotonic())):
            return True
        with self._lock:
            if me[2].is_set():  # a moment too late is still a turn, and nobody else has it
                return True
            self._waiting.remove(me)
            heapq.heapify(self._waiting)
            return False

    def _next(self) -> None:
        with self._lock:
            if self._waiting:
                heapq.heappop(self._waiting)[2].set()
            else:
                self._served = False


def _outcome(answer: Answer) -> str:
    status = answer.status
    if status == 404:
        return "absent"
    if status in (401, 403):
        return "refused"
    if status == 429:
        return "throttled"
    return "ok" if 200 <= status < 300 else "failed"
