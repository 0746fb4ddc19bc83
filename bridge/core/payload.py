"""Reading JSON from strangers: every access knows its path, and says what it expected and never what it found."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

from bridge.core.errors import PayloadError

MAX_DEPTH: Final = 64
"""Deeper nesting than any platform sends; beyond it a body is refused before Python's own recursion limit is met."""

# 10^11 seconds is the year 5138, 10^11 milliseconds is 1973: the two units can be told apart by size.
_MILLISECONDS_FROM: Final = 100_000_000_000


class _Missing:
    def __repr__(self) -> str:
        return "missing"


_MISSING: Final = _Missing()


class Payload:
    """A JSON value from outside together with its path.

    `at` walks down and never fails; the typed readers (`text`, `integer`, …) raise PayloadError when the value has
    another shape, and their `maybe_` forms answer None for what is missing, null or an empty string.
    """

    __slots__ = ("_path", "_value")

    def __init__(self, value: object, path: str = "$") -> None:
        self._value = value
        self._path = path

    @classmethod
    def parse(cls, body: bytes) -> Payload:
        """Parse a body as UTF-8 JSON. Raises PayloadError for anything else, nesting beyond MAX_DEPTH included."""
        try:
            text = body.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise PayloadError("$", "UTF-8 text") from None
        if _too_deep(text):
            raise PayloadError("$", f"nesting of at most {MAX_DEPTH} levels")
        try:
            return cls(json.loads(text, parse_constant=_refuse_constant))
        except (ValueError, RecursionError):
            raise PayloadError("$", "JSON") from None

    @property
    def path(self) -> str:
        return self._path

    @property
    def value(self) -> object:
        """The plain value; None when missing."""
        return None if isinstance(self._value, _Missing) else self._value

    @property
    def exists(self) -> bool:
        """True when the key is there, null included."""
        return self._value is not _MISSING

    @property
    def present(self) -> bool:
        """True when there is something to read: not missing, not null, not an empty string."""
        value = self._value
        return value is not None and value is not _MISSING and value != ""

    def at(self, *keys: str | int) -> Payload:
        """Walk down; a missing step gives a Payload that is missing and remembers the whole path."""
        value, path = self._value, self._path
        for key in keys:
            path = f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}"
            if isinstance(value, dict):
                value = value.get(key, _MISSING)
            elif isinstance(key, int) and isinstance(value, list) and -len(value) <= key < len(value):
                value = value[key]
            else:
                value = _MISSING
        return Payload(value, path)

    def first(self, *paths: str) -> Payload:
        """The first of several dotted candidate paths that is present, else the first candidate (which is missing)."""
        for path in paths:
            candidate = self.at(*path.split("."))
            if candidate.present:
                return candidate
        return self.at(*paths[0].split("."))

    def text(self) -> str:
        """A text; a whole number becomes text, because platforms send ids both ways and ours are always text."""
        if isinstance(self._value, str) and self._value and storable(self._value):
            return self._value
        if isinstance(self._value, int) and not isinstance(self._value, bool):
            return str(self._value)
        raise PayloadError(self._path, "text")

    def maybe_text(self) -> str | None:
        return self.text() if self.present else None

    def integer(self) -> int:
        """A whole number of at most 64 bits, also when it came quoted: no JSON and no database of ours holds more."""
        found = _whole(self._value)
        if found is None or not -(2**63) <= found < 2**63:
            raise PayloadError(self._path, "a whole number")
        return found

    def maybe_integer(self) -> int | None:
        return self.integer() if self.present else None

    def number(self) -> float:
        if isinstance(self._value, int | float) and not isinstance(self._value, bool):
            with contextlib.suppress(OverflowError):
                value = float(self._value)
                if math.isfinite(value):
                    return value
        raise PayloadError(self._path, "a number")

    def maybe_number(self) -> float | None:
        return self.number() if self.present else None

    def flag(self) -> bool:
        """A truth value; 0/1 and "true"/"false" count, as several platforms send them."""
        if isinstance(self._value, bool):
            return self._value
        if self._value in (0, 1, "0", "1"):
            return self._value in (1, "1")
        if isinstance(self._value, str) and self._value.lower() in ("true", "false"):
            return self._value.lower() == "true"
        raise PayloadError(self._path, "true or false")

    def maybe_flag(self) -> bool | None:
        return self.flag() if self.present else None

    def time(self) -> datetime:
        """An aware UTC time from ISO 8601 (naive means UTC) or from a Unix time in seconds or milliseconds."""
        try:
            if isinstance(self._value, str) and not self._value.strip().removeprefix("-").isdigit():
                moment = datetime.fromisoformat(self._value.strip())
                return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
            stamp = self.integer() if isinstance(self._value, str) else self.number()
            return datetime.fromtimestamp(stamp / 1000 if abs(stamp) >= _MILLISECONDS_FROM else stamp, UTC)
        except (ValueError, OverflowError, OSError, PayloadError):
            raise PayloadError(self._path, "a time") from None

    def maybe_time(self) -> datetime | None:
        """A time, or None when there is none or it is not one: an absurd time never stops an event."""
        try:
            return self.time() if self.present else None
        except PayloadError:
            return None

    def object(self) -> Payload:
        """Itself, if it is a JSON object."""
        if isinstance(self._value, Mapping):
            return self
        raise PayloadError(self._path, "an object")

    def items(self) -> Iterator[Payload]:
        """The elements of a list; a missing or null list is empty."""
        if self._value is None or isinstance(self._value, _Missing):
            return
        if not isinstance(self._value, list):
            raise PayloadError(self._path, "a list")
        for position, value in enumerate(self._value):
            yield Payload(value, f"{self._path}[{position}]")

    def keys(self) -> tuple[str, ...]:
        """The keys of an object; none for anything else."""
        return tuple(self._value) if isinstance(self._value, Mapping) else ()

    def __repr__(self) -> str:
        return f"Payload({self._path})"


def _refuse_constant(name: str) -> object:
    raise ValueError(name)


def _whole(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        digits = value.strip()
        if len(digits) <= 30 and digits.removeprefix("-").isascii() and digits.removeprefix("-").isdigit():
            return int(digits)
    return None


def storable(text: str) -> bool:
    """PostgreSQL keeps neither NUL nor half a surrogate pair in a text; a JSON escape can smuggle in both."""
    if "\x00" in text:
        return False
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _too_deep(text: str) -> bool:
    """Bracket depth outside strings. Cheap first: most bodies have fewer brackets than the limit."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    depth, inside, escaped = 0, False, False
    for character in text:
        if inside:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                inside = False
        elif character == '"':
            inside = True
        elif character in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif character in "]}":
            depth -= 1
    return False
