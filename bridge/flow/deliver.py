"""Third stage: what happens to a message after its target has answered, or has not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Literal

from bridge.core.target import Outcome, Verdict
from bridge.flow.retry import next_attempt

Fate = Literal["delivered", "superseded", "dead", "held", "waiting"]

_FATES: dict[Verdict, Fate] = {
    Verdict.OK: "delivered",
    Verdict.DUPLICATE: "delivered",
    Verdict.SUPERSEDED: "superseded",
    Verdict.PERMANENT: "dead",
    Verdict.PARTIAL: "dead",  # a message of one item is whole or not at all
    Verdict.AMBIGUOUS: "held",
}
_NOT_ITS_FAULT = frozenset({Verdict.THROTTLED, Verdict.AUTH, Verdict.GONE})
_PERSONS_PAUSE = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long and how often a target's messages are tried: pauses between the two delays, until `longest`."""

    first_delay: timedelta
    max_delay: timedelta
    longest: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Next:
    """`waiting` messages are tried again after `pause`; `counts` is False where the try was not the message's fault."""

    fate: Fate
    reason: str
    pause: timedelta = timedelta(0)
    counts: bool = True


def after(outcome: Outcome, *, attempt: int, age: timedelta, patience: Patience, rng: Random) -> Next:
    """What happens next. `attempt` counts from 1; `age` is how long ago the message was made."""
    fate = _FATES.get(outcome.verdict)
    if fate is not None:
        return Next(fate=fate, reason=outcome.reason)
    wish = outcome.retry_after
    if outcome.verdict in (Verdict.AUTH, Verdict.GONE):  # nothing gets better before a person has looked
        wish = max(wish or 0.0, _PERSONS_PAUSE)
    if outcome.verdict is Verdict.GONE:
        return Next(fate="waiting", reason=outcome.reason, pause=timedelta(seconds=wish or 0.0), counts=False)
    pause = next_attempt(
        attempt,
        wish,
        rng,
        age=age,
        first_delay=patience.first_delay.total_seconds(),
        max_delay=patience.max_delay.total_seconds(),
        max_hours=patience.longest.total_seconds() / 3600,
    )
    if pause is None and outcome.verdict in _NOT_ITS_FAULT:  # the target waits, however long, and it with it
        pause = timedelta(seconds=wish or _PERSONS_PAUSE)
    if pause is None:
        return Next(fate="dead", reason=f"given up after {attempt} tries: {outcome.reason}")
    return Next(fate="waiting", reason=outcome.reason, pause=pause, counts=outcome.verdict not in _NOT_ITS_FAULT)
