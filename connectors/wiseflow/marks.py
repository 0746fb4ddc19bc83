"""Reads a mark with its grading scale: WISEflow stores a value and shows a label.

A list scale has options, each with the label that is entered (`grade`) and the value that is stored (`value`). A scale
for typed numbers stores what is entered times its `modifier`: 89.99 with 100 is 8999 (OpenAPI description 1.34). Which
of the two the API's `grade` is, label or value, is not documented; hence the order of looking up is a setting.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from bridge.core.errors import PayloadError
from bridge.core.payload import Payload

_NUMBER: Final = re.compile(r"-?\d{1,12}(?:[.,]\d{1,6})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A mark as stored and as shown. The numbers are there for scales of numbers only; a list's marks are words."""

    value: str
    label: str
    scale: str | None = None
    score: float | None = None
    maximum: float | None = None


def read_mark(raw: str, scale: Payload | None, *, value_first: bool, stored_bounds: bool) -> Mark:
    """A mark by its scale, an element of GET /license/grading-scales; without one, or off it, as it was spelled."""
    if scale is None:
        return Mark(value=raw, label=raw)
    name = scale.at("name").maybe_text()
    if scale.at("list").present:
        value, label = _listed(raw, scale.at("list", "options"), value_first=value_first) or (raw, raw)
        return Mark(value=value, label=label, scale=name)
    number = _number(raw)
    if number is None or not scale.at("input").present:
        return Mark(value=raw, label=raw, scale=name)
    return _typed(raw, number, scale.at("input"), name, value_first=value_first, stored_bounds=stored_bounds)


def passes(mark: Mark, passing: Mapping[str, Sequence[str]] | None) -> bool | None:
    """Whether a mark passes by the configured labels of its scale; None where nobody said which do."""
    labels = passing.get(mark.scale) if passing and mark.scale else None
    return None if labels is None else mark.label in labels


def spelling(value: Payload) -> str | None:
    """A text or a number as it is written; None if there is none. Raises PayloadError for other shapes."""
    if isinstance(value.value, float):
        return format(Decimal(str(value.value)), "f") if abs(value.value) < 1e12 else None
    return value.maybe_text()


def _listed(raw: str, options: Payload, *, value_first: bool) -> tuple[str, str] | None:
    pairs = [(spelling(entry.at("value")) or "", spelling(entry.at("grade")) or "") for entry in options.items()]
    by_label = next((pair for pair in pairs if pair[1] == raw), None)
    by_value = next((pair for pair in pairs if pair[0] == raw), None)
    value, label = (by_value or by_label if value_first else by_label or by_value) or ("", "")
    return (value or raw, label or raw) if value or label else None


def _typed(
    raw: str, number: Decimal, scale: Payload, name: str | None, *, value_first: bool, stored_bounds: bool
) -> Mark:
    """What somebody typed is within the scale's bounds; a number beyond them can only be the stored form of one."""
    modifier = _decimal(scale.at("modifier")) or Decimal(1)
    bounds = [_decimal(scale.at(bound)) for bound in ("min", "max")]
    low, high = [bound / modifier if bound is not None and stored_bounds else bound for bound in bounds]
    within = (low is None or low <= number) and (high is None or number <= high)
    stored = modifier != 1 and (value_first or not within)
    entered = number / modifier if stored else number
    return Mark(
        value=raw if stored else _plain(entered * modifier),
        label=_plain(entered) if stored else raw,
        scale=name,
        score=float(entered),
        maximum=None if high is None else float(high),
    )


def _number(raw: str) -> Decimal | None:
    text = raw.strip()
    return Decimal(text.replace(",", ".")) if _NUMBER.fullmatch(text) and text.isascii() else None


def _decimal(value: Payload) -> Decimal | None:
    try:
        text = spelling(value)
    except PayloadError:
        return None
    return None if text is None else _number(text)


def _plain(number: Decimal) -> str:
    return format(number.normalize(), "f")
