"""When a message that was not delivered is tried again."""

from __future__ import annotations

from datetime import timedelta
from random import Random


def next_attempt(
    attempt: int,
    retry_after: float | None,
    rng: Random,
    *,
    age: timedelta = timedelta(0),
    first_delay: float = 5.0,
    max_delay: float = 3600.0,
    max_hours: float = 72.0,
) -> timedelta | None:
    """The pause after attempt `attempt` (counted from 1) failed, or None when it is time to give up.

    Without `retry_after` (seconds) exponential back-off with full jitter: anything from 1 s to `first_delay` doubled
    per attempt, at most `max_delay`. What a target asked for is never shortened, only spread a little, so that all
    messages that wait for it do not come back in the same instant. `age` is how long ago the first attempt was; the
    last attempt falls on `max_hours`, not before.
    """
    left = timedelta(hours=max_hours) - age
    if left <= timedelta(0):
        return None
    if retry_after is not None:
        pause = timedelta(seconds=retry_after + rng.uniform(0.0, min(5.0, retry_after / 10)))
        return pause if timedelta(seconds=retry_after) <= left else None
    longest = min(max_delay, first_delay * 2.0 ** min(attempt - 1, 40))
    return min(timedelta(seconds=max(1.0, rng.uniform(0.0, longest))), left)
