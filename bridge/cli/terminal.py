"""Texts in which strangers had a say, fit for a terminal: they can neither steer it nor pass for its own words."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Final

from rich.text import Text

_UNUSUAL: Final = re.compile(r"[^\n -~]")
_STEERING: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of what moves a cursor, ends a line, turns the reading direction or cannot be encoded."""


def printable(line: str) -> str:
    """One line: what would steer the terminal is shown as \\xNN or \\uNNNN, and a line's end as \\n."""
    return printable_lines(line).replace("\n", "\\n")


def printable_lines(text: str) -> str:
    """The same where several lines are meant."""
    return _UNUSUAL.sub(lambda found: _escaped(found[0]) if _steers(found[0]) else found[0], text)


def printable_json(document: str) -> str:
    """The same for a document in JSON, which keeps its values."""
    return _UNUSUAL.sub(lambda found: json.dumps(found[0])[1:-1] if _steers(found[0]) else found[0], document)


def as_text(line: str, style: str = "") -> Text:
    """The same for Rich, which in a str would take [brackets] for its markup."""
    return Text(printable(line), style)


def _steers(character: str) -> bool:
    return unicodedata.category(character) in _STEERING


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
