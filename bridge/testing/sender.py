"""Delivers a simulated platform's webhooks as the platform would: retries and all, and with mishaps on request."""

from __future__ import annotations

import heapq
import json
import math
import random
import threading
import time
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal
from urllib.parse import urlencode

import urllib3
from urllib3 import exceptions

from bridge.core.simulation import Call, SendingRule, SimulatedPlatform
from bridge.testing.account import Account, Plan
from bridge.testing.hostile import Caught

__all__ = ["Account", "Plan", "Sender"]

_MOST_PENDING: Final = 10_000
"""So many calls may wait for a retry before a sender without a rate makes no more."""
_FORGED_WITH: Final = "nobody-gave-me-the-real-one"

Part = Literal["call", "duplicate", "forgery"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Delivery:
    call: Call
    part: Part
    attempt: int
    duplicate: bool


class Sender:
    """Sends the calls of a platform's day to one webhook address, in threads of its own.

    Which calls are sent, and which of them meet a mishap, hangs on the platform's and the plan's seeds alone.
    """

    def __init__(
        self,
        platform: SimulatedPlatform,
        rule: SendingRule,
        *,
        secret: str,
        url: str,
        plan: Plan,
        calls: Iterable[Call] | None = None,
        on_progress: Callable[[Account], None] | None = None,
        progress_seconds: float = 0.5,
    ) -> None:
        """`calls` replaces the platform's day; `on_progress` gets a copy of the account at times, and at the end."""
        self._platform, self._rule, self._secret, self._plan = platform, rule, secret, plan
        self._calls = iter(calls if calls is not None else platform.day())
        self._on_progress, self._progress_seconds = on_progress, progress_seconds
        self._chance = random.Random(plan.seed)
        self._account = Account()
        self._ids: set[str] = set()
        # What is to be sent, by when: (due, counter, delivery), None standing for the next new call.
        self._heap: list[tuple[float, int, _Delivery | None]] = []
        self._counter = 0
        self._pending = 0
        self._stopping = self._dropping = False
        self._error: Exception | None = None
        self._timed_until = math.inf
        self._reported = 0.0
        self._working = plan.threads
        self._condition = threading.Condition()
        self._signing = threading.Lock()
        address = urllib3.util.parse_url(url)
        self._target = address.request_uri
        self._pool = urllib3.connection_from_url(
            url, maxsize=plan.threads, timeout=urllib3.Timeout(total=rule.timeout), retries=False
        )
        self._threads = [
            threading.Thread(target=self._work, name=f"sender-{number}", daemon=True) for number in range(plan.threads)
        ]

    def start(self) -> Sender:
        """Begin; returns at once."""
        self._account = Account()
        with self._condition:
            self._push(time.monotonic(), None)
        for thread in self._threads:
            thread.start()
        return self

    def stop(self, *, now: bool = False) -> None:
        """Make no new calls; those under way are seen through with their retries, unless `now`: they are dropped."""
        with self._condition:
            self._stopping = True
            self._dropping = self._dropping or now
            if now:
                left = [entry[2] for entry in self._heap if entry[2] is not None]
                self._account.dropped += sum(delivery.part == "call" for delivery in left)
                self._pending -= len(left)
                self._heap.clear()
            self._condition.notify_all()

    def wait(self, timeout: float | None = None) -> Account:
        """The account when all is sent, or after `timeout` seconds as far as it has come.

        Raises what the platform or `on_progress` raised in the sender's threads.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        if not self.running:
            self._pool.close()
        if self._error is not None:
            raise self._error
        return self.account()

    @property
    def running(self) -> bool:
        """Whether anything is still to be sent."""
        return any(thread.is_alive() for thread in self._threads)

    def account(self) -> Account:
        """A copy of the account."""
        with self._condition:
            return deepcopy(self._account)

    def accepted_ids(self) -> frozenset[str]:
        """The ids of all deliveries that the hub says it keeps, those of duplicates among them."""
        with self._condition:
            return frozenset(self._ids)

    # --- what to send next --------------------------------------------------------------------------------------------

    def _work(self) -> None:
        with Caught() as caught:
            while (delivery := self._next()) is not None:
                self._deliver(delivery)
                self._report()
            with self._condition:
                self._working -= 1
                last = self._working == 0
            if last:
                self._report(last=True)
        if caught.error is not None:
            with self._condition:
                self._error = self._error or caught.error
            self.stop(now=True)

    def _next(self) -> _Delivery | None:
        """The next delivery when it is due, or None when there will be none."""
        with self._condition:
            while True:
                if self._error or (not self._pending and (self._stopping or not self._heap)):
                    self._account.ended = self._account.ended or time.monotonic()
                    self._condition.notify_all()
                    return None
                now = time.monotonic()
                if self._heap and self._heap[0][0] <= now:
                    due, _, delivery = heapq.heappop(self._heap)
                    if delivery is not None:
                        self._condition.notify()  # somebody else has to watch the clock now
                        return delivery
                    self._make_call(due)
                elif self._heap and self._heap[0][0] < self._timed_until:
                    self._timed_until = self._heap[0][0]
                    self._condition.wait(self._timed_until - now)
                    self._timed_until = math.inf
                else:  # one thread watches the clock; to wake all of them for every call would cost a core
                    self._condition.wait()

    def _make_call(self, due: float) -> None:
        """Plan the next new call of the day with its mishaps, and the one after it."""
        plan, account = self._plan, self._account
        if plan.rate is None and self._pending > _MOST_PENDING:
            self._push(time.monotonic() + 0.05, None)
            return
        call = None if self._stopping or account.calls == plan.calls else next(self._calls, None)
        if call is None:
            return
        account.calls += 1
        account.kinds[call.kind] += 1
        step = 1 / plan.rate if plan.rate else 0.0
        forged, late, twice = (
            self._chance.random() < share for share in (plan.forgeries, plan.disorder, plan.duplicates)
        )
        delay = self._chance.uniform(1, 10) * (step or 0.002) if late else 0.0
        self._plan_delivery(due + delay, _Delivery(call=call, part="call", attempt=1, duplicate=twice))
        if forged:
            self._plan_delivery(due, _Delivery(call=call, part="forgery", attempt=1, duplicate=False))
        self._push(due + step if step else time.monotonic(), None)

    def _plan_delivery(self, due: float, delivery: _Delivery) -> None:
        self._pending += 1
        self._push(due, delivery)

    def _push(self, due: float, delivery: _Delivery | None) -> None:
        self._counter += 1
        heapq.heappush(self._heap, (due, self._counter, delivery))
        self._condition.notify()

    # --- sending ------------------------------------------------------------------------------------------------------

    def _deliver(self, delivery: _Delivery) -> None:
        secret = _FORGED_WITH if delivery.part == "forgery" else self._secret
        with self._signing:
            signed = self._platform.sign(delivery.call, secret, attempt=delivery.attempt, now=datetime.now(UTC))
        target = self._target
        if signed.query:
            target += ("&" if "?" in target else "?") + urlencode(signed.query)
        began = time.monotonic()
        status, body, failure = 0, b"", ""
        try:
            answer = self._pool.urlopen("POST", target, body=signed.body, headers=dict(signed.headers), redirect=False)
            status, body = answer.status, answer.data
        except exceptions.NewConnectionError:
            failure = "no connection"
        except exceptions.TimeoutError:
            failure = "timeout"
        except (exceptions.HTTPError, OSError):
            failure = "connection lost"
        with self._condition:
            self._account.sent += 1
            self._account.longest = max(self._account.longest, time.monotonic() - began)
            if delivery.part == "forgery":
                self._book_forgery(status)
            else:
                self._book(delivery, status in self._rule.success, body, failure or str(status))
            self._pending -= 1
            if not self._pending:
                self._condition.notify_all()

    def _book_forgery(self, status: int) -> None:
        self._account.forgeries += 1
        self._account.forgeries_refused += status == 401
        self._account.forgeries_taken += 200 <= status < 300

    def _book(self, delivery: _Delivery, success: bool, body: bytes, failure: str) -> None:
        account = self._account
        account.duplicates += delivery.part == "duplicate"
        account.retries += delivery.part == "call" and delivery.attempt > 1
        if success:
            kept = _kept(body)
            if kept is not None:
                self._ids.add(kept)
            if delivery.part == "duplicate":
                account.duplicates_accepted += kept is not None
                return
            account.accepted += kept is not None
            account.ignored += kept is None
            if delivery.duplicate:
                again = _Delivery(call=delivery.call, part="duplicate", attempt=delivery.attempt + 1, duplicate=False)
                self._plan_delivery(time.monotonic(), again)
            return
        account.failures[failure] += 1
        if delivery.part == "duplicate":
            return
        if delivery.attempt > len(self._rule.retries):
            account.gave_up += 1
            return
        if self._dropping:
            account.dropped += 1
            return
        pause = self._rule.retries[delivery.attempt - 1] * self._plan.time_scale
        retry = _Delivery(call=delivery.call, part="call", attempt=delivery.attempt + 1, duplicate=delivery.duplicate)
        self._plan_delivery(time.monotonic() + pause, retry)

    def _report(self, *, last: bool = False) -> None:
        if self._on_progress is None:
            return
        with self._condition:
            now = time.monotonic()
            if not last and now - self._reported < self._progress_seconds:
                return
            self._reported = now
            account = deepcopy(self._account)
        self._on_progress(account)


def _kept(body: bytes) -> str | None:
    """The id in the hub's answer if it says that it keeps the delivery."""
    try:
        answer = json.loads(body)
    except ValueError:
        return None
    if isinstance(answer, dict) and answer.get("status") == "accepted" and isinstance(answer.get("id"), str):
        return str(answer["id"])
    return None
