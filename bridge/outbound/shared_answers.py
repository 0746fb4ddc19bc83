"""Kept answers that all workers share through Redis, and one worker who asks for all.

What is kept there is what the platform said, people's data too: as long as the answer is good and never longer than a
day, in the server that the bridge owns or was given. Keys are fingerprints. Long answers stay in their process.
"""

from __future__ import annotations

import json
import secrets
import time
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from importlib import resources
from itertools import count
from typing import Any, Final

from redis import Redis
from redis.commands.core import Script

from bridge.outbound.shared_server import ServerAway, SharedServer

MAX_ENTRY_BYTES: Final = 256 * 1024
MAX_BYTES: Final = 48 * 1024 * 1024
"""Compressed, for one answer and for all of them: an embedded server has 256 MB for everything."""

LONGEST_KEEP: Final = 24 * 3600.0
ASK_SECONDS: Final = 35.0
"""How long others wait for one who asks: as long as an answer may take. Then, or if that one died, they ask too."""

_GRACE_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.02
_SHORT: Final = 512
"""Bytes that are not worth compressing."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PREFIX: Final = "bridge:answers:{answers}:"


@dataclass(frozen=True, slots=True)
class Kept:
    """A JSON value, and what it weighed on the wire in bytes."""

    value: Any
    weight: int


@dataclass(frozen=True, slots=True)
class Shared:
    """An answer and when it was asked for; `kept` is None where there is nothing at that address."""

    kept: Kept | None
    asked_at: datetime


class SharedAnswers:
    """Safe for threads. Everything raises ServerAway while there is no server."""

    def __init__(
        self,
        server: SharedServer,
        *,
        ask_seconds: float = ASK_SECONDS,
        max_entry_bytes: int = MAX_ENTRY_BYTES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._server = server
        self._ask_seconds = ask_seconds
        self._max_entry_bytes = max_entry_bytes
        self._max_bytes = max_bytes
        self._name, self._numbers = secrets.token_hex(8), count()
        self._script: Script | None = None

    def find(self, key: str, not_before: datetime, since: datetime) -> Shared | str:
        """An answer asked for at `not_before` or later; or, for `keep` and `end`, the right to ask.

        While somebody asks, who began at `since` or later, that one's answer is waited for.
        """
        now = datetime.now(UTC)
        mine = f"{_milliseconds(now)}:{self._name}-{next(self._numbers)}"
        seen = ""
        oldest = _milliseconds(not_before)
        until = time.monotonic() + self._ask_seconds
        while time.monotonic() < until:
            what, *more = self._run("find", key, mine, oldest, int(self._ask_seconds * 1000), seen)
            match _text(what):
                case "answer":
                    return _unpacked(more[0])
                case "ask":
                    return mine
                case "absent":
                    return Shared(None, _moment(seen[:13]))
                case _:
                    who = _text(more[0])
                    # A question that was asked too early is waited for all the same, but its answer is not good enough.
                    if who[:13] >= _milliseconds(since):
                        seen, oldest = who, min(oldest, who[:13])
            time.sleep(_POLL_SECONDS)
        return mine

    def keep(self, key: str, mine: str, kept: Kept, asked_at: datetime, keep: float) -> None:
        """Who had the right to ask has an answer: let all find it for `keep` seconds from now."""
        packed = _packed(kept, asked_at)
        if len(packed) > self._max_entry_bytes:
            self.end(key, mine, absent=False)
            return
        milliseconds = int(min(keep, LONGEST_KEEP) * 1000)
        self._run("keep", key, mine, packed, max(milliseconds, 1), self._max_bytes)

    def end(self, key: str, mine: str, *, absent: bool) -> None:
        """Who had the right to ask has no answer; when it is `absent`, those who wait share that."""
        self._run("end", key, mine, int(absent), int(_GRACE_SECONDS * 1000))

    def _run(self, verb: str, key: str, *arguments: str | bytes | int) -> list[Any]:
        keys = [_PREFIX + key, f"{_PREFIX}{key}:asking", f"{_PREFIX}order", f"{_PREFIX}sizes"]
        return self._server.ask(partial(self._eval, keys, (verb, *arguments)))

    def _eval(self, keys: list[str], arguments: tuple[str | bytes | int, ...], redis: Redis) -> list[Any]:
        if self._script is None:
            self._script = redis.register_script(_source())
        answer: list[Any] = self._script(keys=keys, args=arguments, client=redis)
        return answer


def _packed(kept: Kept, asked_at: datetime) -> bytes:
    # The standard library's writer, as its reader made these values: whole numbers of any size survive.
    body = json.dumps(kept.value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    packed = b"z" + zlib.compress(body, 1) if len(body) > _SHORT else b"j" + body
    return f"{_milliseconds(asked_at)}{kept.weight:010d}".encode() + packed


def _unpacked(packed: bytes) -> Shared:
    try:
        asked_at, weight, how, body = _moment(packed[:13]), int(packed[13:23]), packed[23:24], packed[24:]
        plain = zlib.decompress(body) if how == b"z" else body
        return Shared(Kept(json.loads(plain.decode("utf-8", "surrogatepass")), weight), asked_at)
    except (ValueError, zlib.error):  # written by another version, or by somebody else
        raise ServerAway from None


def _milliseconds(moment: datetime) -> str:
    """As text of one length, so that it sorts."""
    return f"{max(0, (moment - _EPOCH) // timedelta(milliseconds=1)):013d}"


def _moment(milliseconds: str | bytes) -> datetime:
    return _EPOCH + timedelta(milliseconds=int(milliseconds))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


@cache
def _source() -> str:
    return resources.files("bridge.outbound").joinpath("answers.lua").read_text("utf-8")
