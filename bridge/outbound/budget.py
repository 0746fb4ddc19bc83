"""What a credential may ask of a platform's API: how often, how much at a time, and when not at all.

The rules are kept in a book: one that all workers of all machines share (`shared_budget`), or, while there is no Redis,
one for each process (`local_budget`). Both keep the same rules:

- The platform's counter never sees more than `calls` in any window of `span` seconds, nor more than the further limits
  (`also`) allow in theirs, wherever the platform begins to count. A call counts from the moment it may go out until a
  window after its answer came back, since nobody knows when in between the platform counted it. That is what keeps the
  limits exact when requests are late.
- Within that, calls go out evenly, as fast as the slowest of the limits, at most `burst` of them together.
- At most `concurrent` calls are out at the same time. The place of a worker that died is free as soon as another one on
  its host looks for places in vain, and otherwise after `lease` seconds.
- A platform that asks for a pause gets it, from everybody; so does one that says 429 and does not say for how long.
- After `failures` calls in a row without a usable answer nobody asks for a while; then a single call goes first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol

from bridge.core.manifest import Budget, Rate

Why = Literal["budget", "busy", "paused", "open"]

PACE: Final = 0.985
"""The part of the limit that the even pace uses: what remains is for clocks that differ and books that were lost."""

STRIKE_SECONDS: Final = 2.0
LONGEST_STRIKE_SECONDS: Final = 60.0
"""Pauses after a 429 that names none: 2, 4, 8 … seconds, as help.wiseflow.net/service-centre advises its clients."""

PROBE_SECONDS: Final = 1.0
"""When to ask again while somebody else's single call is out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """All times are seconds. `lease` must be longer than any call takes; `also` are limits beside the first.

    Calls go out as if `evenly` were the span where that is shorter: a day's quota need not last for the day.
    """

    calls: int
    span: float
    concurrent: int
    lease: float = 75.0
    failures: int = 5
    first_pause: float = 2.0
    longest_pause: float = 60.0
    evenly: float = math.inf
    also: tuple[Rate, ...] = ()

    @property
    def windows(self) -> tuple[Rate, ...]:
        """Every limit; the first one is that of `calls` and `span`."""
        return (Rate(calls=self.calls, seconds=self.span), *self.also)

    @property
    def interval(self) -> float:
        """Between two calls at the even pace."""
        return max(min(window.seconds, self.evenly) / (window.calls * PACE) for window in self.windows)

    @property
    def burst(self) -> int:
        """How many calls may go out together after a rest: so that a single event need not wait between its calls."""
        usual = max(1, self.calls // 100, min(self.concurrent, self.calls // 10))
        return min(usual, *(window.calls for window in self.windows))

    def share(self, parts: int) -> Rules:
        """What one of several processes may do by itself that do not know of each other."""
        first, *also = (replace(window, calls=max(1, window.calls // parts)) for window in self.windows)
        return replace(self, calls=first.calls, concurrent=max(1, self.concurrent // parts), also=tuple(also))


def rules_of(budget: Budget) -> Rules:
    """The rules for what a manifest or bridge.yaml says."""
    return Rules(calls=budget.calls, span=budget.seconds, concurrent=budget.concurrent, also=budget.also)


@dataclass(frozen=True, slots=True)
class Wait:
    """No place now: how long to wait, and what for.

    `budget`: the pace or the window; `busy`: places; `paused`: the platform asked for it; `open`: the breaker.
    """

    seconds: float
    why: Why


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a call's end tells about the API.

    `fine` is None where it tells nothing about its health. `pause` is in seconds; `throttled` is a 429. `remaining` is
    how many calls the platform says it will still take within the next `reset` seconds.
    """

    fine: bool | None = None
    pause: float | None = None
    throttled: bool = False
    remaining: int | None = None
    reset: float = 0.0


class Book(Protocol):
    """Where the calls of one credential are counted. Safe for threads."""

    def take(self, places: Sequence[str]) -> tuple[int, Wait | None]:
        """Places for calls under these names: how many of the first ones have theirs, and how long the next one has to
        wait, None when all have.
        """

    def give_back(self, place: str, said: Said) -> bool:
        """The call has come to an end. True while the breaker is open."""
