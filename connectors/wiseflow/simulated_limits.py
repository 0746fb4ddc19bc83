"""The documented limits of WISEflow's API, counted (help.wiseflow.net/service-centre/api-rate-limits)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

_WINDOWS: Final = (("Second", 200, 1.0), ("Minute", 5000, 60.0))


@dataclass(slots=True, kw_only=True)
class Limits:
    """200 calls a second and 5,000 a minute for one set of credentials; whether the windows slide is not documented.

    Here a window opens with the first call after the last one closed. `exceeded` counts the calls that were one too
    many. They are answered with 429 while `on`, and only counted otherwise.
    """

    on: bool = False
    exceeded: int = 0
    clock: Callable[[], float] = time.monotonic
    _opened: dict[tuple[str, str], float] = field(default_factory=dict)
    _used: dict[tuple[str, str], int] = field(default_factory=dict)

    def take(self, credential: str) -> tuple[bool, dict[str, str]]:
        """Whether a call is within the limits, and the headers of its answer."""
        now = self.clock()
        left: dict[str, tuple[int, int, float]] = {}
        for name, limit, seconds in _WINDOWS:
            key = (credential, name)
            if now - self._opened.get(key, -math.inf) >= seconds:
                self._opened[key], self._used[key] = now, 0
            left[name] = (limit, limit - self._used[key], self._opened[key] + seconds - now)
        within = all(remaining > 0 for _, remaining, _ in left.values())
        self.exceeded += not within
        if within or not self.on:
            for name in left:
                self._used[credential, name] += 1
            return True, _headers({name: (limit, rest - 1, reset) for name, (limit, rest, reset) in left.items()})
        wait = max(reset for _, remaining, reset in left.values() if remaining <= 0)
        return False, _headers(left) | {"Retry-After": str(math.ceil(wait))}


def _headers(left: dict[str, tuple[int, int, float]]) -> dict[str, str]:
    """The header without a window's name is that of the second: which one it stands for is not documented."""
    headers: dict[str, str] = {}
    named = {"RateLimit": left["Second"]} | {f"X-RateLimit-{name}": window for name, window in left.items()}
    for prefix, (limit, remaining, reset) in named.items():
        headers[f"{prefix}-Limit"] = str(limit)
        headers[f"{prefix}-Remaining"] = str(max(remaining, 0))
        headers[f"{prefix}-Reset"] = str(math.ceil(reset))
    return headers
