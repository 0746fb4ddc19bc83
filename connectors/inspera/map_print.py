"""Inspera's older pages print bodies as `{contextObjectId=35199862, event=confirm_final_grades}`, a Java map as text.

No receiver has been seen that gets them like that, so this is for the day when one does, and off by default.
"""

from __future__ import annotations

import re
from typing import Final

from bridge.core.errors import PayloadError
from bridge.core.payload import Payload

_KEY: Final = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)=")
_VALUE: Final = re.compile(r"(.*?)(?=, [A-Za-z_][A-Za-z0-9_]*=|\})", re.DOTALL)
_DEPTH: Final = 8


def read_map_print(body: bytes) -> Payload:
    """A printed map as texts and maps; quotes and types are lost in such a print. Raises PayloadError."""
    try:
        text = body.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise PayloadError("$", "UTF-8 text") from None
    values, end = _map(text, 0, 1)
    if end != len(text):
        raise PayloadError("$", "one printed map")
    return Payload(values)


def _map(text: str, at: int, depth: int) -> tuple[dict[str, object], int]:
    if depth > _DEPTH or not text.startswith("{", at):
        raise PayloadError("$", "JSON or a printed map")
    values: dict[str, object] = {}
    at += 1
    while not text.startswith("}", at):
        key = _KEY.match(text, at)
        if key is None:
            raise PayloadError("$", "a printed map")
        at = key.end()
        if text.startswith("{", at):
            values[key[1]], at = _map(text, at, depth + 1)
        else:
            value = _VALUE.match(text, at)
            if value is None:
                raise PayloadError("$", "a printed map")
            values[key[1]], at = None if value[1] == "null" else value[1], value.end()
        if text.startswith(", ", at):
            at += 2
    return values, at + 1
