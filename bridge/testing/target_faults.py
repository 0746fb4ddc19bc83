"""The ways in which a target misbehaves, whatever it is: knobs that a simulated target has beside its own."""

from __future__ import annotations

import gzip
import random
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import repeat
from typing import Any, Final

from bridge.testing.answering import Reply, Reset

NAMES: Final[Mapping[str, str]] = {
    "latency": "`seconds` before the answer",
    "hang": "no answer for `seconds`, and then none",
    "drop": "the call is taken, and the connection closed without an answer",
    "reset": "the connection is reset",
    "status": "`status` (503) instead of an answer",
    "throttle": "429 with `retry_after`: seconds, `date+30`, anything else as it stands, or none",
    "html": "a page with `status` (200) instead of an answer",
    "redirect": "`status` (302) to another path of the same host",
    "truncate": "half of the answer, as if it were all of it",
    "break_off": "half of the answer, then the connection closes",
    "gzip": "the answer compressed",
    "flood": "`bytes` (100 MB) in place of the answer's body",
    "skew": "a Date that is `seconds` late",
    "close": "the connection closes after the answer",
}
_AFTER: Final = frozenset({"drop", "truncate", "break_off", "gzip", "flood", "skew", "close", "latency"})
"""What goes wrong when the call has been taken; the others happen instead of that."""

ELSEWHERE: Final = "/__redirected__"
"""Where redirects lead: a call of this path followed one."""

_PAGE: Final = b"<!doctype html><html><head><title>Sign in</title></head><body><h1>Sign in</h1></body></html>"
_BLOCK: Final = b" " * 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One knob: what happens (see NAMES), on which paths, `after` how many calls, to which share of the others, and to
    how many of them at most.

    `taken` says whether the target takes the call first; by default that follows from what happens.
    """

    name: str
    share: float = 1.0
    after: int = 0
    calls: int | None = None
    path: str | None = None
    taken: bool | None = None
    seconds: float = 0.0
    status: int | None = None
    retry_after: str | None = None
    bytes: int = 100 * 1024 * 1024

    @property
    def takes(self) -> bool:
        return self.name in _AFTER if self.taken is None else self.taken


def fault_of(document: Mapping[str, Any]) -> Fault:
    """A fault from JSON: `{"name": "status", "status": 503, "calls": 3}`. Raises ValueError with what was expected."""
    kinds: dict[str, type | tuple[type, ...]] = {
        **dict.fromkeys(("name", "path", "retry_after"), str),
        **dict.fromkeys(("share", "seconds"), (int, float)),
        **dict.fromkeys(("after", "calls", "status", "bytes"), int),
        "taken": bool,
    }
    if document.get("name") not in NAMES:
        raise ValueError(f"a fault has one of these names: {', '.join(NAMES)}")
    for key, value in document.items():
        if key not in kinds:
            raise ValueError(f"a fault has no {key}; known: {', '.join(field.name for field in fields(Fault))}")
        if not isinstance(value, kinds[key]) or (isinstance(value, bool) and key != "taken"):
            raise ValueError(f"{key}: expected another kind of value")
    return Fault(**document)


def fault_in(text: str) -> Fault:
    """A fault from the command line: `status`, `status:status=503,calls=3`. Raises ValueError as `fault_of` does."""
    name, _, settings = text.partition(":")
    document: dict[str, Any] = {"name": name}
    for setting in settings.split(",") if settings else ():
        key, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"{key}: expected key=value")
        document[key] = value if key in ("path", "retry_after") else _plain(value)
    return fault_of(document)


class Faults:
    """The knobs of one server. Seeded: the same calls in the same order meet the same faults. Safe for threads."""

    def __init__(self, faults: Sequence[Fault] = (), seed: int = 1) -> None:
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._faults = list(faults)

    def set(self, faults: Sequence[Fault]) -> None:
        with self._lock:
            self._faults = list(faults)

    def all(self) -> list[Fault]:
        """Those that are not over."""
        with self._lock:
            return list(self._faults)

    def striking(self, path: str) -> list[Fault]:
        """Those that a call meets."""
        met = []
        with self._lock:
            for place, fault in enumerate(self._faults):
                if fault.path is not None and not re.search(fault.path, path):
                    continue
                if fault.after > 0:
                    self._faults[place] = replace(fault, after=fault.after - 1)
                    continue
                if fault.calls == 0 or (fault.share < 1.0 and self._chance.random() >= fault.share):
                    continue
                if fault.calls is not None:
                    self._faults[place] = replace(fault, calls=fault.calls - 1)
                met.append(fault)
            self._faults = [fault for fault in self._faults if fault.calls != 0]
        return met


def misanswered(
    faults: Sequence[Fault], genuine: Callable[[], Reply], hold: Callable[[float], None]
) -> Reply | Reset | None:
    """The answer to a call that meets these faults. `hold` waits for so many seconds, or until the server closes."""
    for fault in faults:
        if fault.name == "latency":
            hold(fault.seconds)
    instead = next((fault for fault in faults if fault.name in _INSTEAD), None)
    reply = genuine() if instead is None or instead.takes else Reply()
    if instead is not None:
        if instead.name == "hang":
            hold(instead.seconds)
        return _INSTEAD[instead.name](instead)
    for fault in faults:
        if fault.name in _SPOILT:
            reply = _SPOILT[fault.name](fault, reply)
    return reply


def _none(_: Fault) -> None:
    return None


def _reset(_: Fault) -> Reset:
    return Reset()


def _status(fault: Fault) -> Reply:
    return Reply(fault.status or 503, b'{"error":"simulated"}', {"Content-Type": "application/json"})


def _throttle(fault: Fault) -> Reply:
    text = fault.retry_after
    if text is not None and text.startswith("date+"):
        moment = datetime.now(UTC) + timedelta(seconds=float(text.removeprefix("date+")))
        text = format_datetime(moment, usegmt=True)
    headers = {} if text is None else {"Retry-After": text}
    return Reply(429, b'{"error":"too many requests"}', {"Content-Type": "application/json", **headers})


def _html(fault: Fault) -> Reply:
    return Reply(fault.status or 200, _PAGE, {"Content-Type": "text/html; charset=utf-8"})


def _redirect(fault: Fault) -> Reply:
    return Reply(fault.status or 302, b"", {"Location": ELSEWHERE})


def _truncate(_: Fault, reply: Reply) -> Reply:
    return replace(reply, body=reply.body[: len(reply.body) // 2])


def _break_off(_: Fault, reply: Reply) -> Reply:
    # At least one byte is missing, also where there was none to send.
    return replace(_with_body(reply), body=reply.body[: len(reply.body) // 2], length=max(1, len(reply.body)))


def _gzip(_: Fault, reply: Reply) -> Reply:
    return replace(reply, body=gzip.compress(reply.body), headers={**reply.headers, "Content-Encoding": "gzip"})


def _flood(fault: Fault, reply: Reply) -> Reply:
    return replace(_with_body(reply), body=b"", length=fault.bytes, more=_blocks(fault.bytes))


def _with_body(reply: Reply) -> Reply:
    """What says that it has no body cannot have a bad one."""
    return replace(reply, status=200) if reply.status == 204 else reply


def _skew(fault: Fault, reply: Reply) -> Reply:
    moment = datetime.now(UTC) - timedelta(seconds=fault.seconds or 86400.0)
    return replace(reply, headers={**reply.headers, "Date": format_datetime(moment, usegmt=True)})


def _close(_: Fault, reply: Reply) -> Reply:
    return replace(reply, headers={**reply.headers, "Connection": "close"})


_INSTEAD: Final[Mapping[str, Callable[[Fault], Reply | Reset | None]]] = {
    "hang": _none,
    "drop": _none,
    "reset": _reset,
    "status": _status,
    "throttle": _throttle,
    "html": _html,
    "redirect": _redirect,
}
_SPOILT: Final[Mapping[str, Callable[[Fault, Reply], Reply]]] = {
    "truncate": _truncate,
    "break_off": _break_off,
    "gzip": _gzip,
    "flood": _flood,
    "skew": _skew,
    "close": _close,
}


def _blocks(count: int) -> Iterator[bytes]:
    yield from repeat(_BLOCK, count // len(_BLOCK))
    yield _BLOCK[: count % len(_BLOCK)]


def _plain(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
