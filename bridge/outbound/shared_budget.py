"""The book of a credential that all workers of all machines share, in Redis."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from importlib import resources
from typing import Any, Final, cast

from redis import Redis
from redis.commands.core import Script

from bridge.outbound.budget import LONGEST_STRIKE_SECONDS, PROBE_SECONDS, STRIKE_SECONDS, Rules, Said, Wait, Why
from bridge.outbound.shared_server import SharedServer

_PREFIX: Final = "bridge:budget:"


class SharedBook:
    """A Book in Redis; everything raises ServerAway while there is none. `credential` is a fingerprint."""

    def __init__(self, server: SharedServer, credential: str, rules: Rules) -> None:
        self._server = server
        # The window is part of the name: another one has other slices. The braces keep the keys on one cluster node.
        name = f"{_PREFIX}{{{credential[:32]}}}:{rules.span:g}"
        spent = [
            f"{name}:spent",
            *(f"{name}:spent:{number}:{rate.seconds:g}" for number, rate in enumerate(rules.also)),
        ]
        self._keys = (name, f"{name}:places", *spent)
        seconds = (rules.lease, rules.first_pause, rules.longest_pause, STRIKE_SECONDS, LONGEST_STRIKE_SECONDS)
        lease, first, longest, strike, longest_strike = (1000 * value for value in seconds)
        self._rules: tuple[float | str, ...] = (
            " ".join(str(window.calls) for window in rules.windows),
            " ".join(f"{window.seconds * 1000:.3f}" for window in rules.windows),
            *(rules.concurrent, rules.interval * 1000, rules.burst),
            *(lease, rules.failures, first, longest, strike, longest_strike, PROBE_SECONDS * 1000),
        )
        self._script: Script | None = None

    def take(self, places: Sequence[str]) -> tuple[int, Wait | None]:
        granted, milliseconds, why = self._run("take", " ".join(places))
        reason = _text(why)
        return int(granted), Wait(float(milliseconds) / 1000, cast("Why", reason)) if reason else None

    def give_back(self, place: str, said: Said) -> bool:
        fine = "" if said.fine is None else int(said.fine)
        remaining = -1 if said.remaining is None else said.remaining
        pause = (said.pause or 0) * 1000
        [open_] = self._run("give", place, fine, pause, int(said.throttled), remaining, said.reset * 1000)
        return bool(open_)

    def out(self) -> list[str]:
        """The places of all calls that are out, whoever has them."""
        return [_text(place) for place in self._run("out", "")]

    def free(self, places: Sequence[str]) -> None:
        """Nobody will give these back. Their calls count from now on, as if they had come back."""
        self._run("free", " ".join(places))

    def owe(self, calls: Sequence[int]) -> None:
        """Calls of the last moments that were made without this book, as each window of the rules counts them."""
        self._run("owe", " ".join(str(count) for count in calls))

    def _run(self, verb: str, place: str, *more: float | str) -> list[Any]:
        return self._server.ask(partial(self._eval, (verb, place, *self._rules, *more)))

    def _eval(self, arguments: tuple[float | str, ...], redis: Redis) -> list[Any]:
        if self._script is None:
            self._script = redis.register_script(_source())
        answer: list[Any] = self._script(keys=self._keys, args=arguments, client=redis)
        return answer


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


@cache
def _source() -> str:
    return resources.files("bridge.outbound").joinpath("budget.lua").read_text("utf-8")
