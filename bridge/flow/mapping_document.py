"""The document of a mapping before it is compiled: its keys, their kinds, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from bridge.core.errors import BridgeError
from bridge.flow.sandbox import closest

Steps = tuple[str | int, ...]
"""The way to a value: keys and positions."""

_KEYS: Final[dict[str, type | tuple[type, ...]]] = {
    "version": int, "description": str, "events": list, "sources": list, "when": str, "order": str, "state": str,
    "requires": str,
    "target": str, "operation": str, "with": dict, "tests": list, "allow_destructive": bool,
}  # fmt: skip
_REQUIRED: Final = ("version", "events", "target", "operation")
_TEST_KEYS: Final = frozenset(("about", "event", "source", "expect", "expect_error"))
_CHOICES: Final = {"order": ("strict", "latest", "none"), "requires": ("any", "full")}
_IN_WORDS: Final[dict[object, str]] = {int: "a whole number", str: "text", list: "a list", dict: "keys and values",
                                       bool: "true or false"}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingProblem:
    """One thing wrong with a mapping's document; `steps` leads to it, as in ("with", "properties", "email")."""

    steps: Steps
    message: str
    hint: str = ""

    @property
    def where(self) -> str:
        return dotted(self.steps)


class MappingSyntax(BridgeError):
    """A mapping cannot be compiled; `problems` has all that is wrong with it, at least one."""

    def __init__(self, problems: list[MappingProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{problem.where}: {problem.message}" for problem in problems))


def dotted(steps: Steps) -> str:
    """`("with", "tags", 0)` becomes `with.tags[0]`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")


def problems_of(document: object) -> Iterator[MappingProblem]:
    """What can be said without compiling: keys, their kinds, and the choices."""
    if not isinstance(document, dict):
        yield MappingProblem(steps=(), message="expected keys and values")
        return
    for key in document.keys() - _KEYS.keys():
        yield MappingProblem(steps=(str(key),), message="is not a key of a mapping", hint=closest(str(key), _KEYS))
    for key in _REQUIRED:
        if key not in document:
            yield MappingProblem(steps=(), message=f"{key} is missing")
    for key, kind in _KEYS.items():
        if key in document and (not isinstance(document[key], kind) or (kind is int and document[key] is True)):
            yield MappingProblem(steps=(key,), message=f"expected {_IN_WORDS[kind]}")
    yield from _values_shape(document)


def _values_shape(document: dict[str, Any]) -> Iterator[MappingProblem]:
    if isinstance(document.get("version"), int) and document["version"] != 1:
        yield MappingProblem(steps=("version",), message="expected 1")
    for key, choices in _CHOICES.items():
        if isinstance(document.get(key), str) and document[key] not in choices:
            hint = closest(document[key], choices)
            yield MappingProblem(steps=(key,), message=f"expected {', '.join(choices)}", hint=hint)
    for key in ("events", "sources"):
        values = document.get(key, [""])
        if values == []:
            yield MappingProblem(steps=(key,), message="expected at least one")
        for position, value in enumerate(values if isinstance(values, list) else ()):
            if not isinstance(value, str):
                yield MappingProblem(steps=(key, position), message="expected text")
    tests = document.get("tests", [])
    for position, test in enumerate(tests if isinstance(tests, list) else ()):
        yield from _test_shape(test, ("tests", position))


def _test_shape(test: object, steps: Steps) -> Iterator[MappingProblem]:
    if not isinstance(test, dict):
        yield MappingProblem(steps=steps, message="expected keys and values")
        return
    for key in test.keys() - _TEST_KEYS:
        yield MappingProblem(steps=(*steps, key), message="is not a key of a test", hint=closest(str(key), _TEST_KEYS))
    if not isinstance(test.get("event"), str | dict):
        yield MappingProblem(steps=(*steps, "event"), message="expected connector/fixture, or an event")
    if ("expect" in test) == ("expect_error" in test):
        yield MappingProblem(steps=steps, message="expected either expect or expect_error")
    elif "expect_error" in test and not isinstance(test["expect_error"], str):
        yield MappingProblem(steps=(*steps, "expect_error"), message="expected text")
    elif "expect" in test and test["expect"] != "skipped" and not isinstance(test["expect"], dict | list):
        yield MappingProblem(steps=(*steps, "expect"), message="expected the parameters, or skipped")
