"""One target as this process sees it: whether anything may be sent now, and what its answers change about that."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import structlog
from sqlalchemy import Connection

from bridge.core.target import Outcome, Verdict
from bridge.flow.standing import FINE, Standing, State, after_answer, after_patience
from bridge.ledger.database import Ledger
from bridge.ledger.destinations import Destination as Row
from bridge.ledger.destinations import hold_new, note, probe, standing_of, stored

RETRIES: Final = 20.0
"""So many second tries may go out before the first ones of others pay for more."""

RETRY_SHARE: Final = 0.2
"""What a message that was delivered at once pays for second tries of others."""

RETRIES_A_SECOND: Final = 1.0
"""What time pays."""

_WELL: Final = frozenset({Verdict.OK, Verdict.DUPLICATE, Verdict.SUPERSEDED})
_log = structlog.get_logger(__name__)


class Destination:
    """Safe for threads. `settings` is a fingerprint: a target that is reached in another way begins anew."""

    def __init__(self, ledger: Ledger, target: str, settings: str, wake: Callable[[set[str]], None]) -> None:
        self._ledger = ledger
        self._target = target
        self._settings = settings
        self._wake = wake
        self._standing = FINE
        self._retries = RETRIES
        self._paid = time.monotonic()
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Open the lanes of a target that is reached in another way than when it was left alone."""
        with self._ledger.read() as connection:
            known = stored(connection, self._target)
            self.look(connection)
        if known is not None and known.state is not State.FINE and self._standing.state is State.FINE:
            self._change(FINE)

    def look(self, connection: Connection) -> None:
        """Learn what other workers, or a person, made of it."""
        known = standing_of(connection, self._target, self._settings)
        with self._lock:
            if known.state is not State.FINE or self._standing.state is not State.FINE:
                self._standing = known

    def open(self) -> bool:
        """Whether a message may be sent now."""
        return self._standing.until <= time.time()

    def hold(self, lane: str) -> None:
        """Hold back a lane that was not there when the target was left alone."""
        hold_new(self._ledger, self._target, lane)

    def mine_to_try(self) -> bool | None:
        """After a pause one message goes first: True for who sends it, False for all others, None when all may."""
        standing = self._standing
        if not standing.probing:
            return None
        return probe(self._ledger, self._row(standing))

    def let_others_try(self) -> None:
        """Who was to go first had nothing to send."""
        standing = self._standing
        if standing.probing:  # not if a person has paused it meanwhile
            self._change(replace(standing, until=time.time()))

    def may_retry(self) -> bool:
        """Whether the target can bear one more second try: they may not outnumber what is new by far."""
        with self._lock:
            now = time.monotonic()
            self._retries = min(RETRIES, self._retries + (now - self._paid) * RETRIES_A_SECOND)
            self._paid = now
            if self._retries < 1.0:
                return False
            self._retries -= 1.0
            return True

    def judged(self, outcome: Outcome, *, again: bool) -> Outcome:
        """What a try came to, `again` for a second one; what changes for the target is written down and told."""
        now = time.time()
        with self._lock:
            outcome = after_patience(outcome, self._standing, now)
            before = self._standing
            after = after_answer(before, outcome, now)
            if outcome.verdict in _WELL:
                # A retry that went well was no burden, and everything that goes well pays for others.
                self._retries = min(RETRIES, self._retries + (1.0 if again else RETRY_SHARE))
            changed = after.state is not before.state or after.until != before.until
            if not changed:
                self._standing = after
                return outcome
        self._change(after)
        return outcome

    def _change(self, standing: Standing) -> None:
        woken = note(self._ledger, self._row(standing))
        if woken is None:  # a person has paused it meanwhile
            with self._ledger.read() as connection:
                self.look(connection)
            return
        with self._lock:
            self._standing = standing
        if woken:
            self._wake(woken)
        tell = _log.info if standing.state in (State.FINE, State.THROTTLED) else _log.error
        tell("destination", target=self._target, state=standing.state.value, reason=standing.reason)

    def _row(self, standing: Standing) -> Row:
        return Row(target=self._target, standing=standing, settings=self._settings)
