"""Puts together what two sides know of one thing: whoever speaks first wins, the other fills the gaps."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, TypeVar

from bridge.core.nouns import Course, Payment, Person, Session

Noun = TypeVar("Noun", Course, Payment, Person, Session)


def together(first: Noun | None, other: Noun | None) -> Noun | None:
    """All fields that one of two has; identifiers of both."""
    if first is None or other is None:
        return first or other
    gaps: dict[str, Any] = {
        entry.name: getattr(other, entry.name) for entry in fields(first) if getattr(first, entry.name) is None
    }
    ours: Any = getattr(first, "identifiers", None)
    theirs: Any = getattr(other, "identifiers", None)
    if ours is not None and theirs is not None:
        gaps["identifiers"] = (*ours, *(one for one in theirs if one not in ours))
    return replace(first, **gaps)
