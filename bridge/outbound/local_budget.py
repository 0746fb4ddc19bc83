"""The book of a credential for one process, while there is no Redis: the same rules as budget.lua, on a share."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from threading import Lock
from typing import Final

from bridge.core.manifest import Rate
from bridge.outbound.budget import LONGEST_STRIKE_SECONDS, PROBE_SECONDS, STRIKE_SECONDS, Rules, Said, Wait

_MOST_DOUBLINGS: Final = 20


class LocalBook:
    """A Book in memory. Nothing here dies without giving its place back, so places need no lease."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._lock = Lock()
        self._out: set[str] = set()
        self._back: tuple[tuple[Rate, deque[float]], ...] = tuple((window, deque()) for window in rules.windows)
        self._tokens = 1.0
        self._at = time.monotonic()
        self._paused = 0.0
        self._strikes = 0
        self._left = 0
        self._left_until = 0.0
        self._fails = 0
        self._rounds = 0
        self._open: float | None = None
        self._probe: str | None = None

    def take(self, places: Sequence[str]) -> tuple[int, Wait | None]:
        with self._lock:
            for granted, place in enumerate(places):
                now = time.monotonic()
                wait = self._stopped(now) or self._full(now)
                if wait is not None:
                    return granted, wait
                self._tokens -= 1
                self._left -= 1
                if self._open is not None:
                    self._probe = place
                self._out.add(place)
            return len(places), None

    def give_back(self, place: str, said: Said) -> bool:
        with self._lock:
            now = time.monotonic()
            self._out.discard(place)
            for _, back in self._back:
                back.append(now)
            self._watch(place, said.fine, now)
            pause = said.pause or 0.0
            if said.throttled and not pause and now >= self._paused:
                pause = min(STRIKE_SECONDS * 2.0 ** min(self._strikes, _MOST_DOUBLINGS), LONGEST_STRIKE_SECONDS)
                self._strikes += 1
            elif said.fine and not said.throttled and now >= self._paused:
                self._strikes = 0
            self._paused = max(self._paused, now + pause)
            if said.remaining is not None:
                self._left, self._left_until = said.remaining - len(self._out), now + said.reset
            return self._open is not None

    def counted(self) -> list[int]:
        """How many calls count at the moment, in each window of the rules."""
        with self._lock:
            self._forget(time.monotonic())
            return [len(back) for _, back in self._back]

    def forget(self) -> None:
        """Somebody else counts them from now on."""
        with self._lock:
            for _, back in self._back:
                back.clear()

    def _stopped(self, now: float) -> Wait | None:
        if now < self._paused:
            return Wait(self._paused - now, "paused")
        if self._open is not None and now < self._open:
            return Wait(self._open - now, "open")
        if self._open is not None and self._probe is not None:
            return Wait(PROBE_SECONDS, "open")
        if now < self._left_until and self._left < 1:
            return Wait(self._left_until - now, "paused")
        return None

    def _full(self, now: float) -> Wait | None:
        rules = self._rules
        self._forget(now)
        full = [(window, back) for window, back in self._back if len(back) + len(self._out) >= window.calls]
        if any(back for _, back in full):
            return Wait(max(back[0] + window.seconds - now for window, back in full if back), "budget")
        if full or len(self._out) >= rules.concurrent:
            return Wait(0.0, "busy")
        self._tokens = min(float(rules.burst), self._tokens + (now - self._at) / rules.interval)
        self._at = now
        return Wait((1 - self._tokens) * rules.interval, "budget") if self._tokens < 1 else None

    def _forget(self, now: float) -> None:
        for window, back in self._back:
            while back and back[0] <= now - window.seconds:
                back.popleft()

    def _watch(self, place: str, fine: bool | None, now: float) -> None:
        probing = self._probe == place
        if probing:
            self._probe = None
        if fine:
            if probing:
                self._open, self._fails, self._rounds = None, 0, 0
            elif self._open is None:
                self._fails = 0
        elif fine is False and (self._open is None or probing):
            self._fails += 1
            if probing or self._fails >= self._rules.failures:
                growing = self._rules.first_pause * 2.0 ** min(self._rounds, _MOST_DOUBLINGS)
                self._open = now + min(growing, self._rules.longest_pause)
                self._rounds += 1
