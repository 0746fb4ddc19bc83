"""What an answer's headers say about limits, in the dialects that are in use."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

from bridge.core.target import Answer
from bridge.flow.judge import wait_asked_for
from bridge.outbound.budget import Said

# WISEflow has the first, and those for its minute and its second (help.wiseflow.net/service-centre/api-rate-limits).
_PAIRS: Final = tuple(
    (f"{name}-remaining", f"{name}-reset")
    for name in (
        *("ratelimit", "x-ratelimit", "x-rate-limit"),
        *("x-ratelimit-minute", "x-ratelimit-second"),
    )
)
# One header for all: `limit=100, remaining=50, reset=5` in older drafts of the IETF's, `"default";r=50;t=30` in newer.
_REMAINING: Final = re.compile(r"(?:^|[;,\s])(?:remaining|r)\s*=\s*(\d{1,12})(?=$|[;,\s])")
_RESET: Final = re.compile(r"(?:^|[;,\s])(?:reset|t)\s*=\s*(\d{1,12})(?=$|[;,\s])")
_EPOCH_FROM: Final = 1e9
"""Some count seconds since 1970, most count from now; size tells them apart."""

LONGEST_RESET: Final = 3600.0
"""A reset further away than this is taken for something else."""


def said_by(answer: Answer, now: datetime) -> Said:
    """What an answer says about the API's health, and how much more it will take."""
    throttled = answer.status == 429
    failed = answer.status >= 500
    pause = wait_asked_for(answer, now, resets=throttled) if throttled or failed else None
    # The one that runs out first.
    remaining, reset = min(_windows(answer.headers, now), default=(None, 0.0))
    return Said(fine=not failed, pause=pause, throttled=throttled, remaining=remaining, reset=reset)


def _windows(headers: Mapping[str, str], now: datetime) -> Iterator[tuple[int, float]]:
    for name, until in _PAIRS:
        yield from _window(headers.get(name, ""), headers.get(until, ""), now)
    for policy in headers.get("ratelimit", "").split('"')[::2]:
        remaining, reset = _REMAINING.search(policy), _RESET.search(policy)
        if remaining and reset:
            yield from _window(remaining[1], reset[1], now)


def _window(remaining: str, reset: str, now: datetime) -> Iterator[tuple[int, float]]:
    count, seconds = _number(remaining), _number(reset)
    if seconds >= _EPOCH_FROM:
        seconds -= now.timestamp()
    if count >= 0 and 0 < seconds <= LONGEST_RESET:
        yield int(count), seconds


def _number(text: str) -> float:
    """A number, or NaN, which no comparison holds for."""
    try:
        value = float(text) if len(text) <= 40 else math.nan
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan
