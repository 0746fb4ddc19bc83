"""Cursors: a position of the feed and the name of its line, in 16 characters that nobody has to understand."""

from __future__ import annotations

import base64
import binascii
import struct
from typing import Final

from bridge.ledger.feed import Head
from bridge.web.api_problems import ApiProblem

NEWEST: Final = "newest"
"""Instead of a cursor: what comes from now on."""

_LAYOUT: Final = struct.Struct(">4sQ")


def cursor_of(line: str, position: int) -> str:
    """The cursor behind the event at this position."""
    return base64.urlsafe_b64encode(_LAYOUT.pack(bytes.fromhex(line), position)).decode()


def position_of(cursor: str, head: Head, *, parameter: str) -> int:
    """The position that a cursor stands for. Raises ApiProblem for what is none, and for one of another line.

    One that is ahead of the head is of a ledger that is gone, say one that was restored to a time before it: to go on
    from it would skip events without a word.
    """
    if cursor == NEWEST:
        return head.position
    try:
        line, position = _LAYOUT.unpack(base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, struct.error):
        raise ApiProblem("bad-cursor", "expected a cursor as this API gave it", parameter=parameter) from None
    if line.hex() != head.line or position > head.position:
        detail = "begin without one, or at an older one of this ledger, and expect events that you know"
        raise ApiProblem("lost-cursor", detail, parameter=parameter)
    return int(position)
