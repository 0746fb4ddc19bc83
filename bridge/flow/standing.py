"""How a target stands: may anything be sent to it now, and what its last answers change about that.

A target that throttles, refuses our credentials, fails again and again or is gone is left alone for a while, all of it:
its messages wait and use up no tries. Times are seconds since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from bridge.core.target import Outcome, Verdict


class State(StrEnum):
    """Why a target is left alone, or `fine`."""

    FINE = "fine"
    THROTTLED = "throttled"
    REFUSED = "refused"
    FAILING = "failing"
    GONE = "gone"
    PAUSED = "paused"


FOREVER: Final = 1e11
"""Until a person says otherwise."""

FAILURES: Final = 5
"""So many tries in a row that came to nothing, and the target is left alone."""

_FIRST: Final = {State.THROTTLED: 5.0, State.REFUSED: 60.0, State.FAILING: 10.0}
_LONGEST: Final = {State.THROTTLED: 900.0, State.REFUSED: 3600.0, State.FAILING: 600.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Nothing is sent before `until`. `failures` are tries in a row that came to nothing, `rounds` pauses in a row,
    `since` is when the first of them began.
    """

    state: State = State.FINE
    until: float = 0.0
    reason: str = ""
    failures: int = 0
    rounds: int = 0
    since: float | None = None

    @property
    def probing(self) -> bool:
        """Whether one message has to try first, when the pause is over."""
        return self.state in (State.FAILING, State.REFUSED)


FINE: Final = Standing()


def after_answer(standing: Standing, outcome: Outcome, now: float) -> Standing:
    """How the target stands after a try. Any answer that was about the message itself is a sign of life.

    What a person paused stays paused, whatever answers are still under way.
    """
    if standing.state is State.PAUSED:
        return standing
    match outcome.verdict:
        case Verdict.THROTTLED:
            return _left_alone(standing, State.THROTTLED, outcome, now)
        case Verdict.AUTH:
            return _left_alone(standing, State.REFUSED, outcome, now)
        case Verdict.GONE:
            return replace(standing, state=State.GONE, until=FOREVER, reason=outcome.reason, since=now)
        case Verdict.RETRY | Verdict.AMBIGUOUS:
            return _failed(standing, outcome, now)
    # What was sent before a target asked to be left alone may be answered after it did.
    return standing if standing.state is State.THROTTLED and standing.until > now else FINE


def _failed(standing: Standing, outcome: Outcome, now: float) -> Standing:
    failures = standing.failures + 1
    if failures >= FAILURES or standing.state is State.FAILING:
        return replace(_left_alone(standing, State.FAILING, outcome, now), failures=failures)
    return replace(standing, failures=failures, since=standing.since or now, reason=outcome.reason)


def after_patience(outcome: Outcome, standing: Standing, now: float) -> Outcome:
    """The outcome as it is when the target has had as much patience as it deserves."""
    if outcome.finally_ is None or outcome.patience is None or standing.since is None:
        return outcome
    if now - standing.since <= outcome.patience:
        return outcome
    return replace(outcome, verdict=outcome.finally_)


def _left_alone(standing: Standing, state: State, outcome: Outcome, now: float) -> Standing:
    rounds = standing.rounds if standing.state in (state, State.FINE) else 0
    wait = outcome.retry_after or min(_FIRST[state] * 2.0 ** min(rounds, 20), _LONGEST[state])
    # A shorter pause never cuts a longer one short: several are under way when the first is told to wait.
    until = max(now + wait, standing.until if standing.state in (state, State.THROTTLED) else 0.0)
    return Standing(state=state, until=until, reason=outcome.reason, rounds=rounds + 1, since=standing.since or now)
