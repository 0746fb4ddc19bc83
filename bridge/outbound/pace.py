"""A target's requests at the pace that it allows, by all workers together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bridge.core.errors import SourceUnavailable
from bridge.core.manifest import Rate
from bridge.core.target import Answer, Request
from bridge.flow.judge import NoTurn
from bridge.outbound.budget import Rules
from bridge.outbound.gate import Gate

PATIENCE_SECONDS: Final = 2.0
"""How long a request waits for its turn; after that its whole target waits, and the threads are free for others."""

_REASON: Final = "as many requests as the target may get have been sent"
_LEAST_LEASE_SECONDS: Final = 75.0
_SPARE_SECONDS: Final = 15.0
_EVENLY_SECONDS: Final = 300.0
"""A longer quota is used as fast as if it were for this long: after an exam all grades come at once."""


def rules_for(rate: Rate, *, timeout: float = 60.0) -> Rules:
    """The rules for a target's rate; `timeout` is how many seconds one of its requests takes at most.

    How many requests are out at the same time is not their affair: `concurrency` says that.
    """
    lease = max(_LEAST_LEASE_SECONDS, timeout + _SPARE_SECONDS)
    return Rules(calls=rate.calls, span=rate.seconds, concurrent=rate.calls, lease=lease, evenly=_EVENLY_SECONDS)


def in_turn(send: Callable[[Request], Answer], gate: Gate) -> Callable[[Request], Answer]:
    """`send`, request by request as the gate lets them through; raises NoTurn where that takes too long.

    The gate counts and does nothing else: how the target fares is written down elsewhere (see flow/standing.py), and a
    request that fails is no reason to keep others here.
    """

    def paced(request: Request) -> Answer:
        try:
            with gate.turn(PATIENCE_SECONDS):
                return send(request)
        except SourceUnavailable as late:  # the gate's: a target's way out raises none
            raise NoTurn(_REASON, late.retry_after) from None

    return paced
