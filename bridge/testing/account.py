"""What a sender is asked to do, and what it has to tell."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to send: at which rate (calls a second; None: as fast as it goes), how many calls, with which mishaps.

    `duplicates` is the share of accepted calls that are delivered a second time, `disorder` the share of calls that up
    to ten later ones overtake, `forgeries` the share of calls beside which a copy with a wrong signature is sent.
    `time_scale` shortens the pauses before retries: 0.01 makes a minute of 0.6 seconds.
    """

    rate: float | None = None
    calls: int | None = None
    threads: int = 16
    duplicates: float = 0.0
    disorder: float = 0.0
    forgeries: float = 0.0
    time_scale: float = 1.0
    seed: int = 1


@dataclass(slots=True, kw_only=True)
class Account:
    """What has happened so far. `calls` are different webhooks, `sent` requests of any sort.

    Of the calls, `accepted` were kept by the hub, `ignored` answered with success but not kept, `gave_up` failed at
    every attempt. `failures` are attempts that failed, by status or by what went wrong. Of the forgeries,
    `forgeries_refused` got 401 and `forgeries_taken` a success, which must not be; others met a fault.
    """

    calls: int = 0
    sent: int = 0
    accepted: int = 0
    ignored: int = 0
    gave_up: int = 0
    dropped: int = 0
    retries: int = 0
    duplicates: int = 0
    duplicates_accepted: int = 0
    forgeries: int = 0
    forgeries_refused: int = 0
    forgeries_taken: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    longest: float = 0.0
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None

    @property
    def seconds(self) -> float:
        """How long it has been going on."""
        return (self.ended or time.monotonic()) - self.began

    @property
    def settled(self) -> int:
        """Calls of which it is known what became of them."""
        return self.accepted + self.ignored + self.gave_up + self.dropped
