"""Addresses of rows, `contacts(bridge_personkey='p1')`, and what a key may hold.

- A key whose value has one of `/ < > * % & : \\ ? + #` can be stored and never be addressed, percent-encoded or not.
- In the body, behind `@odata.bind`, an address is not percent-encoded: with %23 in it no row is found
  (github.com/MicrosoftDocs/powerapps-docs, issue 1895).

learn.microsoft.com: "Define alternate keys", "Use an alternate key to reference a record".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

from bridge.core.errors import TargetError
from bridge.core.events import Json

_UNADDRESSABLE: Final = re.compile(r"[/<>*%&:\\?+#~]")
"""What a key's value must not have, and the sign that stands in for it."""

_ID: Final = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


def address(table: str, key: Mapping[str, Any] | str) -> str:
    """A row's address below the API's root: `contacts(bridge_personkey='p1')`, or by id. Raises TargetError."""
    return _place(table, key, lambda text: quote(text, safe=""))


def reference(table: str, key: Mapping[str, Any] | str) -> str:
    """A row's address as `@odata.bind` has it, where nothing is percent-encoded. Raises TargetError."""
    return f"/{_place(table, key, str)}"


def columns(key: Mapping[str, Any], lookups: Mapping[str, Any]) -> Json:
    """A key as columns of a new row. Raises TargetError for a lookup in it that is not among the lookups."""
    bound = tuple(name.lower() for name in lookups)
    for column in filter(_of_lookup, key):
        if not any(name.startswith(column[1 : -len("_value")].lower()) for name in bound):
            raise TargetError(f"key.{column}: with mode create expected the same row in lookups, too")
    return {column: _kept(column, value) for column, value in key.items() if not _of_lookup(column)}


def _place(table: str, key: Mapping[str, Any] | str, encoded: Callable[[str], str]) -> str:
    if isinstance(key, str):
        return f"{name_of(table)}({encoded(key)})"
    pairs = (f"{name_of(column)}={_literal(column, value, encoded)}" for column, value in key.items())
    return f"{name_of(table)}({','.join(pairs)})"


def name_of(text: str) -> str:
    """A table's or column's name; anything else would be another address."""
    if not re.fullmatch(r"\w+", text, re.ASCII):
        raise TargetError("table, key: expected names of letters, digits and _")
    return text


def _literal(column: str, value: Any, encoded: Callable[[str], str]) -> str:
    """A key's value as OData writes it: a text in quotes that are doubled inside."""
    kept = _kept(column, value)
    if isinstance(kept, bool):
        return str(kept).lower()
    if isinstance(kept, int):
        return str(kept)
    return encoded(kept) if _of_lookup(column) else f"'{encoded(kept.replace(chr(39), chr(39) * 2))}'"


def _kept(column: str, value: Any) -> str | int:
    """A key's value as it is in the row."""
    if isinstance(value, int):
        return value
    text = str(value)
    if not text:
        raise TargetError(f"key.{column}: expected a value")
    if _of_lookup(column) and not _ID.fullmatch(text):
        raise TargetError(f"key.{column}: expected an id")
    return text if _of_lookup(column) else _UNADDRESSABLE.sub(lambda sign: f"~{ord(sign[0]):02X}", text)


def _of_lookup(column: str) -> bool:
    """Whether a column of a key is the id in a lookup, as in `_bridge_student_value`."""
    return column.startswith("_") and column.endswith("_value")
