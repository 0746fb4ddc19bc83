"""How improbable it is that a source has nothing to say, judged by its own past weeks and by nothing else.

An hour counts as busy if at least one delivery came in it, so that one exam with ten thousand hand-ins weighs no more
than one with ten. Of the past weeks it is known in how many an hour of the week was busy; the present week counts as
one more, and quiet. That share is how probable it was to hear something in that hour, and the product over all hours of
the silence is how probable it was to hear nothing at all. Around the silence the source may be quieter than it used to
be (the end of term, holidays): the shares shrink by what the last days were short of.

It needs no clock zone and no calendar: an hour of the week that was never busy says nothing, and a week of holidays in
the past makes all its hours a little more likely to be quiet.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final

WEEKS: Final = 8
"""How far back is looked: two months are a term's rhythm, and not yet last term's."""

FEWEST_WEEKS: Final = 2
"""What has happened once is no habit."""

IMPROBABLE: Final = 0.001
_WEEK: Final = 168
_LATELY: Final = 72
"""Hours before the silence that tell how busy the source is these days: three days, so that a weekend hides nothing."""

_HOUR_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """Nothing since `last`. `probability` is that of a silence so long, from 1 down to 0; `busy` how many of its hours
    usually have deliveries, by `weeks` past ones.
    """

    last: datetime
    probability: float
    busy: float
    weeks: int

    @property
    def improbable(self) -> bool:
        return self.probability < IMPROBABLE


def hour_of(moment: datetime) -> int:
    """Whole hours since 1970."""
    return math.floor(moment.timestamp() / _HOUR_SECONDS)


def silence(busy_hours: Collection[int], last: datetime, now: datetime) -> Silence | None:
    """What to think of the time from the last delivery until now; None for a source without two weeks before that.

    `busy_hours` are the hours since 1970 in which at least one delivery came.
    """
    end = hour_of(last)
    past = [hour for hour in busy_hours if hour < end]
    weeks = min(WEEKS, (end - min(past)) // _WEEK) if past else 0
    if weeks < FEWEST_WEEKS:
        return None
    past = [hour for hour in past if hour >= end - weeks * _WEEK]
    busy_weeks = Counter(hour % _WEEK for hour in past)
    lately = sum(1 for hour in past if hour >= end - _LATELY)
    usual = sum(busy_weeks[hour % _WEEK] for hour in range(end - _LATELY, end)) / weeks
    level = min(1.0, (lately + 1) / (usual + 1))
    logarithm = busy = 0.0
    for hour, share in _span(last, now, longest=WEEKS * _WEEK):
        chance = level * busy_weeks[hour % _WEEK] / (weeks + 1)
        logarithm += share * math.log1p(-chance)
        busy += share * busy_weeks[hour % _WEEK] / weeks
    return Silence(last=last.astimezone(UTC), probability=math.exp(logarithm), busy=busy, weeks=weeks)


def _span(since: datetime, until: datetime, *, longest: int) -> list[tuple[int, float]]:
    """The hours between two moments, and which share of each lies between them."""
    begin, end = since.timestamp() / _HOUR_SECONDS, until.timestamp() / _HOUR_SECONDS
    first = math.floor(begin)
    last = min(math.floor(end), first + longest)
    return [(hour, max(0.0, min(hour + 1, end) - max(hour, begin))) for hour in range(first, last + 1)]


def rhythm_seconds(moments: Collection[datetime]) -> float | None:
    """The usual pause between calls that come at fixed intervals: the median; None for fewer than four of them."""
    times = sorted(moment.timestamp() for moment in moments)
    gaps = sorted(later - earlier for earlier, later in pairwise(times))
    return gaps[len(gaps) // 2] if len(gaps) >= 3 else None
