"""Filters that go through lists. Plain functions of plain JSON values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from bridge.flow.values import COMPARISONS, MAX_TEXT, Fault, compare, entries, is_number, json_text, kind_of, text_of

MAX_PATH: Final = 256
"""Characters of an `attribute`."""


def _remainder(value: Any) -> float:
    if not is_number(value):  # `%` would take a text for a pattern to be filled in, of any width that it names
        raise Fault(f"{kind_of(value)} is neither odd nor even")
    remainder: float = value % 2
    return remainder


TESTS: Final[dict[str, Callable[[Any], bool]]] = {
    "none": lambda value: value is None,
    "string": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, float),
    "boolean": lambda value: isinstance(value, bool),
    "true": lambda value: value is True,
    "false": lambda value: value is False,
    "mapping": lambda value: isinstance(value, Mapping),
    "sequence": lambda value: isinstance(value, list | tuple | range | str),
    "odd": lambda value: _remainder(value) == 1,
    "even": lambda value: _remainder(value) == 0,
}


def join(value: object, separator: str = "", attribute: str | None = None) -> str:
    parts = [text_of(entry) for entry in picked(value, attribute)]
    if sum(map(len, parts)) + len(separator) * max(len(parts) - 1, 0) > MAX_TEXT:
        raise Fault(f"join would make a text of more than {MAX_TEXT} characters")
    return separator.join(parts)


def selected(value: object, test: str | None = None, argument: object = None) -> list[Any]:
    return [entry for entry in entries(value) if _passes(entry, test, argument)]


def rejected(value: object, test: str | None = None, argument: object = None) -> list[Any]:
    return [entry for entry in entries(value) if not _passes(entry, test, argument)]


def selected_by(value: object, attribute: str, test: str | None = None, argument: object = None) -> list[Any]:
    steps = _steps(attribute)
    return [entry for entry in entries(value) if _passes(_pick(entry, steps), test, argument)]


def rejected_by(value: object, attribute: str, test: str | None = None, argument: object = None) -> list[Any]:
    steps = _steps(attribute)
    return [entry for entry in entries(value) if not _passes(_pick(entry, steps), test, argument)]


def ordered(
    value: object, reverse: bool = False, case_sensitive: bool = False, attribute: str | None = None
) -> list[Any]:
    """Sorted; null comes first, text without regard to case."""
    steps = _steps(attribute)

    def rank(entry: object) -> tuple[bool, Any]:
        picked = _pick(entry, steps)
        return (picked is not None, picked.lower() if isinstance(picked, str) and not case_sensitive else picked or 0)

    return sorted(entries(value), key=rank, reverse=reverse)


def unique(value: object, attribute: str | None = None) -> list[Any]:
    """The first of each, told apart by their JSON."""
    seen: dict[str, Any] = {}
    steps = _steps(attribute)
    for entry in entries(value):
        seen.setdefault(json_text(_pick(entry, steps)), entry)
    return list(seen.values())


def total(value: object, attribute: str | None = None, start: float = 0) -> float:
    numbers = [entry for entry in picked(value, attribute) if entry is not None]
    if not all(isinstance(entry, int | float) for entry in numbers):
        raise Fault("sum expected numbers")
    return sum(numbers, start)


def first(value: object) -> Any:
    """The first entry, or null."""
    return next(iter(entries(value)), None)


def last(value: object) -> Any:
    """The last entry, or null."""
    return next(iter(reversed(entries(value))), None)


def backwards(value: object) -> Any:
    return value[::-1] if isinstance(value, str) else list(entries(value))[::-1]


def numbers(start: int, stop: int | None = None, step: int = 1) -> range:
    """`range`, of at most 10,000 numbers."""
    result = range(start) if stop is None else range(start, stop, step)
    if len(result) > 10_000:
        raise Fault("range is limited to 10000 numbers")
    return result


def _steps(attribute: str | None) -> list[str]:
    """The keys of a dotted path; none for the entry itself."""
    if not attribute:
        return []
    if len(attribute) > MAX_PATH:
        raise Fault(f"attribute expected at most {MAX_PATH} characters")
    return attribute.split(".")


def _pick(entry: object, steps: list[str]) -> Any:
    """What stands at a path inside an entry; null where something on the way is null."""
    value: Any = entry
    for step in steps:
        if value is None:
            return None
        if not isinstance(value, Mapping) or step not in value:
            raise Fault("there is nothing by the name of the attribute in an entry of the list")
        value = value[step]
    return value


def picked(value: object, attribute: str | None) -> Iterable[Any]:
    """The entries, or one attribute of each."""
    steps = _steps(attribute)
    return [_pick(entry, steps) for entry in entries(value)]


def _passes(value: object, test: str | None, argument: object) -> bool:
    if test is None:
        return bool(value)
    if test in COMPARISONS:
        return compare(COMPARISONS[test], value, argument)
    if test not in TESTS:
        raise Fault(f"expected one of the tests {', '.join(sorted(COMPARISONS | TESTS))}")
    return TESTS[test](value)
