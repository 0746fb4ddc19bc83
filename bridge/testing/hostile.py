"""Bodies and values from which a connector must not break, and a way to see what it raised."""

from __future__ import annotations

import copy
import json
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from urllib.parse import urlencode

from bridge.core.events import Json
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.testing.offline import Offline

Steps = tuple[str | int, ...]

BODIES: Final[dict[str, bytes]] = {
    "empty": b"",
    "blanks": b" \r\n\t ",
    "NUL bytes": b"\x00" * 64,
    "not JSON": b"hello",
    "a form": b"event=x&payload=%7B%7D",
    "XML": b"<?xml version='1.0'?><event/>",
    "half an object": b'{"event": "x", "payl',
    "two objects": b'{"event":"x"}{"event":"y"}',
    "a comment": b'{"event":"x"} // hello',
    "single quotes": b"{'event':'x'}",
    "not UTF-8": b'{"event":"\xff\xfe\xfa"}',
    "UTF-16": '{"event":"x"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"event":"x"}',
    "byte order mark alone": b"\xef\xbb\xbf",
    "lone surrogate": b'{"event":"\\ud800","type":"\\udfff","payload":{"id":"\\ud83d"}}',
    "NUL in texts": b'{"event":"a\\u0000b","type":"\\u0000","payload":{"id":"\\u0000"}}',
    "control characters": b'{"event":"a\nb"}',
    "null": b"null",
    "true": b"true",
    "a number": b"42",
    "a text": b'"event"',
    "an empty array": b"[]",
    "an array of scalars": b'[1,"a",null,true,1.5]',
    "an array of objects": b'[{"event":"x"},{"type":"y"},{}]',
    "an empty object": b"{}",
    "empty keys": b'{"":"","":{"":[]}}',
    "duplicate keys": b'{"event":"a","event":"b","type":"c","type":"d","payload":{},"payload":[]}',
    "NaN": b'{"event":"x","payload":{"value":NaN}}',
    "Infinity": b'{"event":"x","payload":{"value":-Infinity}}',
    "a number beyond floats": b'{"event":"x","payload":{"value":1e999,"amount":-1e999}}',
    "a huge integer": b'{"event":"x","id":' + b"9" * 4000 + b"}",
    "an integer too long to read": b'{"event":"x","id":' + b"9" * 20_000 + b"}",
    "arrays 10,000 deep": b"[" * 10_000 + b"]" * 10_000,
    "objects 10,000 deep": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "unclosed, 100,000 deep": b"[" * 100_000,
    "payload 10,000 deep": b'{"event":"x","payload":' + b'{"payload":' * 10_000 + b"1" + b"}" * 10_001,
    "250 KiB in one text": b'{"event":"' + b"x" * 256_000 + b'"}',
    "250 KiB in one key": b'{"' + b"x" * 256_000 + b'":1}',
    "250 KiB of brackets in a text": b'{"event":"' + b"[{" * 128_000 + b'"}',
    "250 KiB of array": b"[" + b"0," * 128_000 + b"0]",
    "names of machinery": b'{"__proto__":{"a":1},"constructor":{},"event":"__class__","type":"{0.__class__}"}',
    "a template": b'{"event":"{{ 7*7 }}","payload":{"id":"${7*7}","name":"%s%n"}}',
}
"""Whole bodies, by what is wrong with them."""

VALUES: Final[dict[str, Any]] = {
    "null": None,
    "true": True,
    "zero": 0,
    "a negative number": -1,
    "a float": 1.5,
    "a whole float": 12345678901234567890.0,
    "a float beyond floats": float("1e308") * 10,
    "a huge integer": 10**400,
    "an empty text": "",
    "blanks": "  ",
    "NUL": "a\x00b",
    "a lone surrogate": "a\ud800b",
    "a long text": "é" * 5_000,
    "a number as text": "00123",
    "year 0": "0000-00-00T00:00:00Z",
    "year 9999 to the west": "9999-12-31T23:59:59-23:00",
    "year 1 to the east": "0001-01-01T00:00:00+23:00",
    "an absurd Unix time": 9_999_999_999_999_999,
    "a negative Unix time": -62_135_596_800_000,
    "an empty array": [],
    "an array of nulls": [None, None],
    "arrays in arrays": [[[]], [1, "a", {}]],
    "an empty object": {},
    "an object": {"id": {"$ne": None}},
}
"""Values to stand in any place of a body or of an API's answer."""

EACH: Final = 8
"""How many of VALUES a place gets at a turn: after three turns it has met all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StubbornApi(Offline):
    """Answers what a fixture says, however odd, and 404 to everything else."""

    settings: Settings
    now: datetime
    answers: Mapping[str, Any]

    def get(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        keep: float = 0,
        since: datetime | None = None,
        extra: bool = False,
    ) -> Payload | None:
        return self._answer(f"GET {path}" + (f"?{urlencode(query)}" if query else ""))

    def post(self, path: str, body: Json, *, keep: float = 0, extra: bool = False) -> Payload | None:
        return self._answer(f"POST {path}")

    def _answer(self, call: str) -> Payload | None:
        answer = self.answers.get(call, {"status": 404})
        return None if answer.get("status", 200) == 404 else Payload(answer.get("json"))


class Caught:
    """`with Caught() as caught:` keeps whatever error its block raises; a connector under test may raise anything."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __enter__(self) -> Caught:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.error = error if isinstance(error, Exception) else None
        return self.error is not None


def origin(error: Exception) -> str:
    """The kind of an error and the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"


def places(document: Any, steps: Steps = ()) -> Iterator[Steps]:
    """Every place in a JSON document, the whole of it first."""
    yield steps
    if isinstance(document, dict):
        for key, value in document.items():
            yield from places(value, (*steps, key))
    elif isinstance(document, list):
        for position, value in enumerate(document):
            yield from places(value, (*steps, position))


def value_at(document: Any, steps: Steps) -> Any:
    """What stands at a place."""
    for step in steps:
        document = document[step]
    return document


def with_value(document: Any, steps: Steps, value: Any) -> Any:
    """A document with another value at a place; what is on the way there is copied, the rest shared."""
    if not steps:
        return value
    changed = copy.copy(document)
    changed[steps[0]] = with_value(document[steps[0]], steps[1:], value)
    return changed


def without(document: Any, steps: Steps) -> Any:
    """A document without what stands at a place, which is not the whole."""
    parent = copy.copy(value_at(document, steps[:-1]))
    del parent[steps[-1]]
    return with_value(document, steps[:-1], parent)


def hollow(document: Any, *, keep_lists: bool = True) -> Any:
    """A document with null in place of every text, number and flag; its lists are as long as before, or empty."""
    if isinstance(document, dict):
        return {key: hollow(value, keep_lists=keep_lists) for key, value in document.items()}
    if isinstance(document, list):
        return [hollow(entry) for entry in document] if keep_lists else []
    return None


def shown(steps: Steps) -> str:
    """A place as `$.payload.students[0].id`."""
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)


def json_of(body: bytes) -> Any:
    """The JSON value of a body, or None for what is not JSON."""
    with Caught():
        return json.loads(body)
    return None


def wire(document: Any) -> bytes:
    """A document as a platform would send it; infinity goes as a number that is too large for a float."""
    return json.dumps(document, separators=(",", ":")).replace("Infinity", "1e999").encode()


def hostile_forms(document: Any, turn: int | None = None) -> Iterator[tuple[str, Any]]:
    """A document with VALUES in every place, and with every place missing; what and where beside it.

    With a `turn` each place gets only EACH of them, which take turns from place to place and from turn to turn.
    """
    values = list(VALUES.items())
    for position, steps in enumerate(places(document)):
        if steps:
            yield f"nothing at {shown(steps)}", without(document, steps)
        chosen = values
        if turn is not None:
            first = (turn + position) * EACH % len(values)
            chosen = values[first : first + EACH]
        for name, value in chosen:
            yield f"{name} at {shown(steps)}", with_value(document, steps, value)
