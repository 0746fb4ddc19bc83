"""What templates may call: filters, tests and methods of text and objects. Plain functions of plain JSON values.

null goes through a filter untouched (so that a thin payload gives null and not "NONE"), unless the filter is in
NULL_AWARE. Sizes are bounded here where a result can be larger than what went in; the sandbox counts the rest.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from urllib.parse import quote

from bridge.core.events import stamp
from bridge.core.vocabulary import short
from bridge.flow.lists import (
    TESTS,
    backwards,
    first,
    join,
    last,
    numbers,
    ordered,
    picked,
    rejected,
    rejected_by,
    selected,
    selected_by,
    total,
    unique,
)
from bridge.flow.values import MAX_TEXT, Fault, entries, json_text, text_of

__all__ = ["FILTERS", "FUNCTIONS", "METHODS", "NULL_AWARE", "TESTS", "Fault"]

MAX_STRIPPED: Final = 64
"""Characters that `trim` and `strip` can be told to take off."""

# ISO 4217, "Table A.1: current currency & funds code list": the codes whose minor unit is not a hundredth.
_EXPONENTS: Final = {
    "BIF": 0, "CLP": 0, "DJF": 0, "GNF": 0, "ISK": 0, "JPY": 0, "KMF": 0, "KRW": 0, "PYG": 0, "RWF": 0, "UGX": 0,
    "UYI": 0, "VND": 0, "VUV": 0, "XAF": 0, "XOF": 0, "XPF": 0,
    "BHD": 3, "IQD": 3, "JOD": 3, "KWD": 3, "LYD": 3, "OMR": 3, "TND": 3, "CLF": 4, "UYW": 4,
}  # fmt: skip


# --- for targets ------------------------------------------------------------------------------------------------------


def urlseg(value: object) -> str:
    """One segment of a path, percent-encoded. Nothing, `.` and `..` are refused: they would name another address."""
    text = text_of(value)
    if text in ("", ".", ".."):
        raise Fault("urlseg expected something that can be a segment of a path")
    return quote(text, safe="")


def iso(value: object) -> str:
    """A time as RFC 3339 in UTC with milliseconds, from an ISO 8601 text or Unix seconds or milliseconds."""
    return stamp(_moment(value))


def date(value: object) -> str:
    """The day of a time in UTC, as in `2026-06-05`."""
    return stamp(_moment(value))[:10]


def epoch_ms(value: object) -> int:
    """A time as Unix milliseconds."""
    moment = _moment(value)
    return int(moment.timestamp()) * 1000 + moment.microsecond // 1000


def uuid5(value: object, namespace: object = None) -> str:
    """A UUID that is the same for the same text (RFC 9562, version 5), in the namespace of URLs or in another one."""
    try:
        space = uuid.NAMESPACE_URL if namespace is None else uuid.UUID(text_of(namespace))
    except ValueError:
        raise Fault("uuid5 expected a UUID as its namespace") from None
    return str(uuid.uuid5(space, text_of(value)))


def odata_str(value: object) -> str:
    """A text as an OData literal, quotes included: O'Hara becomes 'O''Hara'."""
    return "'" + text_of(value).replace("'", "''") + "'"


def slack_escape(value: object) -> str:
    """Text for Slack: its three control characters escaped (docs.slack.dev, "Formatting message text")."""
    return text_of(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def ids(thing: object, scheme: str) -> str | None:
    """The value of a person's (course's, exam's) first identifier of a scheme; null when there is none."""
    if thing is None:
        return None
    if not isinstance(thing, Mapping) or not isinstance(thing.get("identifiers"), list):
        raise Fault("ids expected a person, a course or an assessment")
    return next((entry["value"] for entry in thing["identifiers"] if entry["scheme"] == scheme), None)


def money(minor: object, currency: object = None) -> str:
    """Minor units as a decimal text with the currency's own number of places: 12345 EUR is 123.45, JPY 12345."""
    if isinstance(minor, bool) or not isinstance(minor, int):
        raise Fault("money expected a whole number of minor units")
    if not isinstance(currency, str) or not re.fullmatch(r"[A-Z]{3}", currency):
        raise Fault("money expected a currency of three capital letters (ISO 4217) as its second argument")
    return str(Decimal(minor).scaleb(-_EXPONENTS.get(currency, 2)))


def short_type(value: object) -> str:
    """A canonical type without its frame: edu.grade.published.v1 becomes grade.published."""
    return short(text_of(value))


def _moment(value: object) -> datetime:
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value.strip())
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            # 10^11 seconds is the year 5138, 10^11 milliseconds is 1973.
            return datetime.fromtimestamp(value / 1000 if abs(value) >= 100_000_000_000 else value, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    raise Fault("expected a time: ISO 8601 text, or Unix seconds or milliseconds")


# --- text and numbers -------------------------------------------------------------------------------------------------


def present(value: object) -> object:
    """An object without its entries that are null, and without the objects that this leaves empty."""
    if not isinstance(value, Mapping):
        raise Fault("present expected an object")
    inner = {key: present(entry) if isinstance(entry, Mapping) and entry else entry for key, entry in value.items()}
    return {key: entry for key, entry in inner.items() if entry is not None and (entry != {} or value[key] == {})}


def default(value: object, fallback: object = "", boolean: bool = False) -> object:
    """The fallback for null; with a second argument true also for "", 0, false and empty lists."""
    return fallback if value is None or (boolean and not value) else value


def replace(value: object, old: str, new: str, count: int = -1) -> str:
    text = text_of(value)
    if len(text) + text.count(old) * max(len(new) - len(old), 0) > MAX_TEXT:
        raise Fault(f"replace would make a text of more than {MAX_TEXT} characters")
    return text.replace(old, new, count)


def _stripping(strip: Callable[[str, str | None], str]) -> Callable[..., str]:
    """One of str's own three, which look for every character of the text among those to take off."""

    def run(value: object, characters: str | None = None) -> str:
        if characters is not None and len(characters) > MAX_STRIPPED:
            raise Fault(f"expected at most {MAX_STRIPPED} characters to take off")
        return strip(text_of(value), characters)

    return run


def truncate(value: object, length: int = 255, killwords: bool = False, end: str = "...") -> str:
    """At most `length` characters, `end` included; cut at a blank unless `killwords`."""
    text = text_of(value)
    if len(text) <= length:
        return text
    head = text[: max(length - len(end), 0)]
    return (head if killwords else head.rsplit(" ", 1)[0]) + end


def integer(value: object, default: object = ...) -> object:
    """A whole number from a number or a text; without a default an unusable text is an error, never 0."""
    if isinstance(value, float):
        return int(value)
    return _number(value, default, int)


def floating(value: object, default: object = ...) -> object:
    """A number from a number or a text; as above."""
    return _number(value, default, float)


def _number(value: object, default: object, kind: Callable[[Any], object]) -> object:
    if isinstance(value, int | float) or (
        isinstance(value, str) and re.fullmatch(r"\s*-?\d{1,18}(\.\d{0,18})?\s*", value)
    ):
        try:
            return kind(value)
        except ValueError:
            pass
    if default is ...:
        raise Fault("expected a number")
    return default


def rounded(value: float, precision: int = 0, method: str = "common") -> float:
    """Half away from zero for `common`, as on a grade sheet; or `ceil` or `floor`."""
    if not isinstance(precision, int) or not -18 <= precision <= 18:
        raise Fault("round expected a precision from -18 to 18")
    modes = {"common": "ROUND_HALF_UP", "ceil": "ROUND_CEILING", "floor": "ROUND_FLOOR"}
    if method not in modes or not isinstance(value, int | float):
        raise Fault("round expected a number, and common, ceil or floor")
    return float(Decimal(str(value)).quantize(Decimal(1).scaleb(-precision), modes[method]))


# --- lists ------------------------------------------------------------------------------------------------------------


def mapped(value: object, name: str | None = None, attribute: str | None = None, default: object = None) -> list[Any]:
    """`map(attribute="scheme")`, or `map("upper")` with a filter that takes no argument."""
    if attribute is not None:
        return [default if entry is None else entry for entry in picked(value, attribute)]
    if name not in MAPPABLE:
        raise Fault(f"map expected attribute=… or one of {', '.join(sorted(MAPPABLE))}")
    return [None if entry is None else FILTERS[name](entry) for entry in entries(value)]


# --- the tables -------------------------------------------------------------------------------------------------------

FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "urlseg": urlseg, "iso": iso, "date": date, "epoch_ms": epoch_ms, "odata_str": odata_str,
    "slack_escape": slack_escape, "uuid5": uuid5, "ids": ids, "money": money, "short": short_type, "tojson": json_text,
    "default": default, "d": default, "present": present,
    "upper": lambda value: text_of(value).upper(), "lower": lambda value: text_of(value).lower(),
    "title": lambda value: text_of(value).title(), "capitalize": lambda value: text_of(value).capitalize(),
    "trim": _stripping(str.strip), "string": text_of, "replace": replace,
    "truncate": truncate, "int": integer, "float": floating, "round": rounded, "abs": abs, "join": join,
    "length": len, "count": len, "first": first, "last": last, "list": lambda value: list(entries(value)),
    "items": lambda value: [list(pair) for pair in value.items()], "map": mapped, "select": selected,
    "reject": rejected, "selectattr": selected_by, "rejectattr": rejected_by, "sort": ordered, "unique": unique,
    "sum": total, "reverse": backwards, "range": numbers,
    "min": lambda value: min((entry for entry in entries(value) if entry is not None), default=None),
    "max": lambda value: max((entry for entry in entries(value) if entry is not None), default=None),
}  # fmt: skip

MAPPABLE: Final = frozenset((
    "urlseg", "iso", "date", "epoch_ms", "odata_str", "slack_escape", "tojson", "upper", "lower", "title",
    "capitalize", "trim", "string", "int", "float", "length", "first", "last",
))  # fmt: skip
"""Filters that `map` takes by name."""

NULL_AWARE: Final = frozenset(("default", "d", "tojson", "urlseg"))
"""Filters that see null themselves; every other one gives null for null."""

FUNCTIONS: Final = frozenset(("ids", "money", "range", "urlseg", "iso", "date", "epoch_ms"))
"""Filters that may be written as functions too: `ids(event.data.person, 'sis.studentNumber')`."""

METHODS: Final[dict[type, dict[str, Callable[..., Any]]]] = {
    str: {
        "lower": str.lower, "upper": str.upper, "title": str.title, "capitalize": str.capitalize,
        "strip": _stripping(str.strip), "lstrip": _stripping(str.lstrip), "rstrip": _stripping(str.rstrip),
        "split": str.split, "startswith": str.startswith, "endswith": str.endswith, "removeprefix": str.removeprefix,
        "removesuffix": str.removesuffix, "replace": replace, "isdigit": str.isdigit,
    },
    dict: {
        "get": dict.get, "keys": list, "values": lambda value: list(value.values()),
        "items": lambda value: [list(pair) for pair in value.items()],
    },
}  # fmt: skip
"""Methods that may be called, by the type that has them; none gives anything but plain values."""
