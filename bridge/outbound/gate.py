"""The one way to a platform's API: each call waits for its turn, a little, and tells what it met."""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Final

import structlog

from bridge.core.errors import SourceUnavailable
from bridge.core.target import Answer, Request
from bridge.flow.judge import NoAnswer
from bridge.outbound.budget import Book, Rules, Said, Wait
from bridge.outbound.local_budget import LocalBook
from bridge.outbound.metrics import API_BREAKER, API_CALLS, API_REFUSED, API_WAITS
from bridge.outbound.rate_headers import said_by
from bridge.outbound.session import AnswerTooLong, Sender
from bridge.outbound.shared_budget import SharedBook
from bridge.outbound.shared_server import ServerAway, SharedServer

BUSY_SECONDS: Final = 0.02
"""How soon to look again for a place that another process may give back."""

LONGEST_BREATH_SECONDS: Final = 0.05

LOOK_SECONDS: Final = 1.0
"""How often it is looked whether those who have the places still live."""

_OF: Final = "/"

MOST_AT_ONCE: Final = 32
"""Places that are asked for together."""

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
    budget is divided then. `owner` is this process by a name of which others can find out whether it `is_dead`.
    """

    def __init__(
        self,
        source: str,
        rules: Rules,
        *,
        server: SharedServer | None = None,
        credential: str = "",
        shares: int = 1,
        owner: str = "",
        is_dead: Callable[[str], bool] = lambda _owner: False,
    ) -> None:
        self._source = source
        self._shared = None if server is None else SharedBook(server, credential, rules)
        self._local = LocalBook(rules.share(shares))
        self._alone = False
        # What is saved up meanwhile goes out together: asking for each call's moment by itself would double the work.
        self._breath = min(LONGEST_BREATH_SECONDS, rules.interval * rules.burst / 4)
        # A place's name begins with its owner's, so that somebody else can free those of a process that was killed.
        self._name, self._numbers = f"{owner}{_OF}{secrets.token_hex(8)}", count()
        self._is_dead, self._looked = is_dead, -math.inf
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

    @contextmanager
    def turn(self, patience: float) -> Iterator[None]:
        """A turn for what says nothing here about the other side: it is counted, and that is all.

        Raises SourceUnavailable without a turn in `patience` seconds.
        """
        place, book = self._enter(patience, False)
        try:
            yield
        finally:
            self._leave(place, book, Said())

    def _enter(self, patience: float, begun: bool) -> tuple[str, Book]:
        began = time.monotonic()
        mine = _Turn(place=f"{self._name}-{next(self._numbers)}", until=began + patience, begun=begun)
        self._queue.join(mine)
        mine.called.wait(max(0.0, mine.until - time.monotonic()))
        if self._queue.leads(mine):
            self._lead(mine)
        if mine.book is None:
            raise self._refused(mine.wait or Wait(CROWDED_SECONDS, "budget"))
        API_WAITS.labels(self._source).observe(time.monotonic() - began)
        return mine.place, mine.book

    def _lead(self, mine: _Turn) -> None:
        """Ask the book for everybody who waits, in their order, until this thread has its own place or is out of time.

        One question for all of them: a thread that is woken, asks and wakes the next would let hardly two hundred calls
        a second through.
        """
        try:
            while mine.book is None:
                self._freed.clear()
                first = self._queue.first(MOST_AT_ONCE)
                granted, wait, book = self._take([turn.place for turn in first])
                for gone in self._queue.call(first[:granted], book):
                    self._leave(gone.place, book, Said())
                if mine.book is not None or wait is None:
                    continue
                left = mine.until - time.monotonic()
                if wait.why == "open" or wait.seconds > left or left <= 0:
                    mine.wait = wait
                    return
                if wait.why == "busy":
                    self._freed.wait(min(BUSY_SECONDS, left))
                else:
                    time.sleep(max(wait.seconds, min(self._breath, left)))
        finally:
            self._queue.leave(mine)

    def _take(self, places: list[str]) -> tuple[int, Wait | None, Book]:
        if self._shared is not None:
            try:
                if self._alone:
                    self._shared.owe(self._local.counted())
                    self._local.forget()
                    self._alone = False
                granted, wait = self._shared.take(places)
                if wait is not None and wait.why in ("busy", "open") and self._freed_of_the_dead(self._shared):
                    more, wait = self._shared.take(places[granted:])
                    granted += more
                return granted, wait, self._shared
            except ServerAway:
                self._alone = True
        return *self._local.take(places), self._local

    def _freed_of_the_dead(self, book: SharedBook) -> bool:
        """Whether places were free that killed processes of this host had; it is looked once in a while."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return False
        self._looked = time.monotonic()
        owners = {place: place.partition(_OF)[0] for place in book.out()}
        dead = {owner for owner in {*owners.values()} if owner and self._is_dead(owner)}
        left = [place for place, owner in owners.items() if owner in dead]
        if left:
            book.free(left)
        return bool(left)

    def _leave(self, place: str, book: Book, said: Said) -> None:
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


@dataclass(slots=True, eq=False, kw_only=True)
class _Turn:
    """A thread that waits for its call's place: until it is called, with a book that has it, or to lead the others."""

    place: str
    until: float
    begun: bool
    called: threading.Event = field(default_factory=threading.Event)
    book: Book | None = None
    wait: Wait | None = None


class _Queue:
    """Threads in line: those that have begun first, then as they came. One of them leads, and asks for all."""

    def __init__(self) -> None:
        self._waiting: list[_Turn] = []
        self._leader: _Turn | None = None
        self._lock = threading.Lock()

    def join(self, turn: _Turn) -> None:
        """Get in line; who finds no leader is called to lead."""
        with self._lock:
            self._waiting.append(turn)
            if self._leader is None:
                self._leader = turn
                turn.called.set()

    def leads(self, turn: _Turn) -> bool:
        """Whether it is for this one to ask. One that was not called in time is out of the line, unless it has a place
        by now.
        """
        with self._lock:
            if self._leader is turn:
                return True
            if turn.book is None:
                self._waiting.remove(turn)
            return False

    def first(self, most: int) -> list[_Turn]:
        """The first of the line, at most so many."""
        with self._lock:
            return sorted(self._waiting, key=lambda turn: not turn.begun)[:most]

    def call(self, turns: Sequence[_Turn], book: Book) -> list[_Turn]:
        """These have their places. Gives those who have gone meanwhile, and will not use theirs."""
        with self._lock:
            there = [turn for turn in turns if turn in self._waiting]
            for turn in there:
                self._waiting.remove(turn)
                turn.book = book
                turn.called.set()
        return [turn for turn in turns if turn not in there]

    def leave(self, turn: _Turn) -> None:
        """Who leads goes, with or without a place, and the first of the others leads."""
        with self._lock:
            if turn in self._waiting:
                self._waiting.remove(turn)
            self._leader = min(self._waiting, key=lambda other: not other.begun, default=None)
            if self._leader is not None:
                self._leader.called.set()


def _outcome(answer: Answer) -> str:
    status = answer.status
    if status == 404:
        return "absent"
    if status in (401, 403):
        return "refused"
    if status == 429:
        return "throttled"
    return "ok" if 200 <= status < 300 else "failed"
