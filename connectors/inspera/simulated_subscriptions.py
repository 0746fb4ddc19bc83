"""The simulated tenant's subscriptions and its checks of their endpoints.

https://inspera.atlassian.net/wiki/spaces/KB/pages/664928482/Webhooks. The body of the POST, its status for a
refusal and the number of failed checks before a subscription goes are not printed; these are one guess each.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply, Call
from connectors.inspera.simulated_bodies import BODIES, verification
from connectors.inspera.simulated_exports import found, number
from connectors.inspera.simulated_world import START, World, timestamp

FAILED_CHECKS: Final = 3
"""After how many failed checks in a row the subscriptions of an endpoint are removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """A check that the platform makes of an endpoint: with which secret, and the call to sign and send."""

    endpoint: str
    secret: str = field(repr=False)
    call: Call


@dataclass(slots=True)
class Subscriptions:
    """The rows of one API user; whoever asks holds the tenant's lock.

    With `check` the platform calls an endpoint while a row is made, and refuses the row unless the answer is 200.
    Without it every row is taken, and its check waits in `pending` for somebody to send.
    """

    world: World
    pending: list[Verification] = field(default_factory=list)
    check: Callable[[Verification], int] | None = None
    rows: dict[int, Json] = field(default_factory=dict)
    _secrets: dict[str, str] = field(default_factory=dict)
    _failed: dict[str, int] = field(default_factory=dict)
    _made: int = 0
    _checks: int = 0

    def answer(self, call: ApiCall, rest: list[str]) -> ApiReply:
        """`/v1/subscription`, `/v1/subscription/events` and `/v1/subscription/{subscriptionId}`."""
        match (call.method, *rest):
            case ("GET", "events"):
                return ApiReply(json=self.events())
            case ("GET",):
                return ApiReply(json={"subscriptions": list(self.rows.values())})
            case ("DELETE", row):
                return found({} if self.rows.pop(number(row), None) else None)
            case ("POST",):
                return self._make(call.json if isinstance(call.json, dict) else {})
        return found(None)

    def events(self) -> list[str]:
        """The ids that this tenant offers."""
        return [event for event, _ in BODIES.values() if event != "verification"]

    def checks(self) -> list[Verification]:
        """The checks of every 8 hours: one call for each endpoint."""
        return [self._verification(endpoint) for endpoint in {row["endpoint"]: None for row in self.rows.values()}]

    def checked(self, endpoint: str, status: int) -> None:
        """What came of a check: too many bad answers in a row, and the endpoint's rows are gone."""
        self._failed[endpoint] = 0 if status == 200 else self._failed.get(endpoint, 0) + 1
        if self._failed[endpoint] >= FAILED_CHECKS:
            self.rows = {row: entry for row, entry in self.rows.items() if entry["endpoint"] != endpoint}

    def _make(self, asked: Json) -> ApiReply:
        event, endpoint, secret = (asked.get(name) for name in ("event", "endpoint", "secret"))
        if event not in self.events() or not isinstance(endpoint, str) or not isinstance(secret, str) or not secret:
            return ApiReply(status=400, json={"error": "Bad request", "description": "event, endpoint and secret"})
        self._secrets[endpoint] = secret
        due = self._verification(endpoint)
        if self.check is None:
            self.pending.append(due)
        elif self.check(due) != 200:
            return ApiReply(status=400, json={"error": "Bad request", "description": "The endpoint did not answer 200"})
        self._made += 1
        self.rows[self._made] = {
            "subscriptionId": self._made,
            "event": event,
            "endpoint": endpoint,
            "lastModified": timestamp(START + timedelta(seconds=self._made)),
        }
        return ApiReply(json={"subscriptionId": self._made})

    def _verification(self, endpoint: str) -> Verification:
        self._checks += 1
        chance = random.Random(f"inspera {self.world.seed} check {self._checks}")
        body = {"event": "verification"} | verification(chance) | {"timestamp": timestamp(START)}
        call = Call(kind="verification", body=body)
        return Verification(endpoint=endpoint, secret=self._secrets.get(endpoint, ""), call=call)
