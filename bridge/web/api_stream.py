"""Server-sent events: the feed as it grows. At most one page is ready before the consumer took the one before."""

from __future__ import annotations

import select
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog
from sqlalchemy.exc import DBAPIError

from bridge.ledger.database import Ledger
from bridge.ledger.feed import Page, Wanted, read_feed
from bridge.web.api_cursor import cursor_of
from bridge.web.api_problems import ApiProblem

HEARTBEAT_SECONDS: Final = 15.0
PAGE: Final = 100
PIECE_BYTES: Final = 65_536
"""A consumer that takes less than this in the server's patience (5 s) is cut off, and resumes when it can."""

_LOOK_SECONDS: Final = 0.25
_BREATH_SECONDS: Final = 0.01  # between two pages of one who catches up: webhooks come first
_RECONNECT_MS: Final = 2000
_log = structlog.get_logger(__name__)


class Places:
    """How many consumers one web process serves at a time, so that they never crowd out the webhooks."""

    def __init__(self, total: int, for_one: int) -> None:
        self._lock = threading.Lock()
        self._total = total
        self._for_one = for_one
        self._taken: Counter[str] = Counter()

    def take(self, name: str) -> Callable[[], None]:
        """A place for a token's bearer, and how to give it back, once. Raises ApiProblem 429 or 503."""
        with self._lock:
            if self._taken.total() >= self._total:
                raise ApiProblem("busy", "all places of this process are taken", headers={"Retry-After": "2"})
            if self._taken[name] >= self._for_one:
                detail = f"a token may have {self._for_one} at a time in each web process"
                raise ApiProblem("too-many-streams", detail, headers={"Retry-After": "15"})
            self._taken[name] += 1
        given_back = threading.Event()

        def give_back() -> None:
            with self._lock:
                if not given_back.is_set():
                    given_back.set()
                    self._taken[name] -= 1

        return give_back


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """One consumer: what it wants, from where, until when, and whether its token is still good."""

    ledger: Ledger
    line: str
    wanted: Wanted
    after: int
    seconds: float
    allowed: Callable[[], bool]


def follow(following: Following, environ: Mapping[str, Any]) -> Iterator[bytes]:
    """The body of a stream. Ends when its time is up, the server ends, or the token does; the consumer resumes.

    The server's environment offers `campusbridge.ending`, an Event, and the connection, where it has them.
    """
    ending: threading.Event = environ.get("campusbridge.ending") or threading.Event()
    pause = _pause(environ)
    position = told = following.after
    until = time.monotonic() + following.seconds
    heartbeat = time.monotonic() + HEARTBEAT_SECONDS
    yield f"retry: {_RECONNECT_MS}\n\n".encode()
    try:
        while not ending.is_set() and (now := time.monotonic()) < until:
            page = read_feed(following.ledger, following.wanted, after=position, limit=PAGE)
            yield from pieces(page, following.line)
            if page.entries:
                told = page.entries[-1].position
            position = page.next
            if now >= heartbeat:
                heartbeat = now + HEARTBEAT_SECONDS
                if not following.allowed():
                    return
                # An id without data moves the consumer's cursor over what its filter left out.
                moved = f"id: {cursor_of(following.line, position)}\n" if position > told else ""
                told = position
                yield f": heartbeat\n{moved}\n".encode()
            if pause(_BREATH_SECONDS if page.more else min(_LOOK_SECONDS, max(0.0, until - now))):
                return
    except DBAPIError as error:
        _log.warning("stream_ended", error=type(error).__name__)
        return
    yield b": reconnect\n\n"


def pieces(page: Page, line: str) -> Iterator[bytes]:
    """The page's events in the form of the standard, some 64 KiB at a time."""
    gathered, size = [], 0
    for entry in page.entries:
        block = f"id: {cursor_of(line, entry.position)}\ndata: {entry.body}\n\n".encode()
        gathered.append(block)
        size += len(block)
        if size >= PIECE_BYTES:
            yield b"".join(gathered)
            gathered, size = [], 0
    if gathered:
        yield b"".join(gathered)


def _pause(environ: Mapping[str, Any]) -> Callable[[float], bool]:
    """Waits, and says whether the consumer hung up meanwhile: otherwise it would keep its place for a while."""
    connection = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    if connection is None:
        return lambda seconds: threading.Event().wait(seconds)
    poller = select.poll()
    poller.register(connection.fileno(), getattr(select, "POLLRDHUP", 0))
    return lambda seconds: bool(poller.poll(seconds * 1000))
