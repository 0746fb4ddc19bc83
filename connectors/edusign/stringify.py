"""JSON as JavaScript's `JSON.stringify` prints it.

Edusign's own receiver checks the HMAC over `JSON.stringify(req.body)` (github.com/Edusign/app-boilerplate,
src/middlewares/hmacValidator.ts), so a body that a proxy has laid out anew still proves genuine in this form.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Final

_HALF_PAIR: Final = re.compile("[\ud800-\udfff]")
_LAST_INDEX: Final = 2**32 - 2


def stringify(value: object) -> bytes:
    """UTF-8 without blanks: integer-like keys first and in order, numbers as doubles, `/` and U+2028 as they are."""
    return _text(value).encode("utf-8")


def _text(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, list):
        return "[" + ",".join(_text(entry) for entry in value) + "]"
    if isinstance(value, dict):
        keys = sorted((key for key in value if _is_index(key)), key=int)
        keys += [key for key in value if not _is_index(key)]
        return "{" + ",".join(f"{_quoted(key)}:{_text(value[key])}" for key in keys) + "}"
    raise TypeError("not a JSON value")


def _quoted(text: str) -> str:
    # JSON.stringify escapes half a surrogate pair (ES2019), which UTF-8 could not carry anyway.
    return _HALF_PAIR.sub(lambda half: f"\\u{ord(half[0]):04x}", json.dumps(text, ensure_ascii=False))


def _is_index(key: str) -> bool:
    """An "array index" of ECMAScript: JavaScript lists these keys before all others, in numeric order."""
    return len(key) <= 10 and key.isascii() and key.isdigit() and str(int(key)) == key and int(key) <= _LAST_INDEX


def _number(value: float) -> str:
    """Number::toString of ECMA-262: shortest digits, exponents only from 1e21 up and below 1e-6."""
    try:
        number = float(value)
    except OverflowError:
        return "null"
    if number in (float("inf"), float("-inf")):
        return "null"
    if number == 0:
        return "0"
    sign, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    figures = "".join(map(str, digits))
    point = len(figures) + int(exponent)
    if len(figures) <= point <= 21:
        text = figures + "0" * (point - len(figures))
    elif 0 < point <= 21:
        text = f"{figures[:point]}.{figures[point:]}"
    elif -6 < point <= 0:
        text = "0." + "0" * -point + figures
    else:
        fraction = f".{figures[1:]}" if len(figures) > 1 else ""
        text = f"{figures[0]}{fraction}e{point - 1:+d}"
    return ("-" if sign else "") + text
