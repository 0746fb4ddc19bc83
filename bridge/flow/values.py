"""The plain JSON values that templates work with: what they are called, how they compare, and what they cost."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from jinja2 import Undefined

from bridge.core.errors import BridgeError

MAX_TEXT: Final = 256 * 1024
"""Characters: the longest text a template may make, and the most a whole rendered message may hold."""

MAX_STEPS: Final = 100_000
MAX_ITERATIONS: Final = 10_000
MAX_PARTS: Final = 20_000
MAX_DEPTH: Final = 32
MAX_NUMBER: Final = 2**63

CHARACTERS_PER_STEP: Final = 64


class Fault(BridgeError):
    """A template cannot be evaluated. `reason` names what was expected, and never a value."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def kind_of(value: object) -> str:
    """What a value is, in the words of JSON."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, Mapping):
        return "an object"
    return "a list" if isinstance(value, list | tuple | range) else "something else"


def text_of(value: object) -> str:
    """A value inside text: null is nothing, truth is true or false, a number as JSON writes it. Else Fault."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    raise Fault(f"{kind_of(value)} cannot be put into text; pick a part of it, or write it with tojson")


def entries(value: object) -> Sequence[Any]:
    """What a loop or a filter of lists goes through: a list, the keys of an object, the characters of a text."""
    if isinstance(value, list | tuple | range | str):
        return value
    if isinstance(value, Mapping):
        return list(value)
    raise Fault(f"expected a list and got {kind_of(value)}")


def json_text(value: object) -> str:
    """Compact JSON, nothing escaped for HTML. Raises Fault for more than MAX_TEXT characters."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    if len(text) > MAX_TEXT:
        raise Fault(f"a text of more than {MAX_TEXT} characters")
    return text


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def number(value: float) -> float:
    """A number that JSON and every target can hold. Raises Fault."""
    if isinstance(value, complex) or not math.isfinite(value) or abs(value) >= MAX_NUMBER:
        raise Fault("a number that is too large")
    return value


# --- comparing --------------------------------------------------------------------------------------------------------

COMPARISONS: Final = {
    "eq": "eq", "equalto": "eq", "==": "eq", "ne": "ne", "!=": "ne", "lt": "lt", "<": "lt", "lessthan": "lt",
    "gt": "gt", ">": "gt", "greaterthan": "gt", "le": "lteq", "<=": "lteq", "ge": "gteq", ">=": "gteq", "in": "in",
}  # fmt: skip
"""Names of tests that take an argument, and the operator that each stands for."""


def compare(operator: str, left: Any, right: Any) -> bool:
    """One comparison. Null is neither smaller nor larger than anything, and nothing is in null."""
    if operator == "eq":
        return bool(left == right)
    if operator == "ne":
        return bool(left != right)
    if operator in ("in", "notin"):
        inside = right is not None and not (isinstance(right, str) and left is None) and left in right
        return inside == (operator == "in")
    if left is None or right is None:
        return False
    if kind_of(left) != kind_of(right):
        raise Fault(f"{kind_of(left)} cannot be compared with {kind_of(right)}")
    if operator in ("lt", "gteq"):
        return bool(left < right) == (operator == "lt")
    return bool(left > right) == (operator == "gt")


# --- what a render may cost -------------------------------------------------------------------------------------------


class Budget:
    """What one render may still use. One per render, so that renders in other threads cannot see it."""

    __slots__ = ("characters", "iterations", "steps")

    def __init__(self) -> None:
        self.steps = MAX_STEPS
        self.iterations = MAX_ITERATIONS
        self.characters = MAX_TEXT

    def work(self, steps: int) -> None:
        """Pay for steps: one for each part of a template, each entry, and each 64 characters. Raises Fault."""
        self.steps -= steps
        if self.steps < 0:
            raise Fault(f"more than {MAX_STEPS} steps of work")

    def loop(self, rounds: int, steps: int) -> None:
        """Pay for all rounds of a loop before the first. Raises Fault."""
        self.iterations -= rounds
        if self.iterations < 0:
            raise Fault(f"more than {MAX_ITERATIONS} rounds of loops")
        self.work(rounds * steps)

    def write(self, characters: int) -> None:
        """Pay for output. Raises Fault."""
        self.characters -= characters
        if self.characters < 0:
            raise Fault(f"the message is longer than {MAX_TEXT} characters")


def weigh(value: object) -> int:
    """The steps that going through a value costs. Raises Fault for what is too large, or is no plain value."""
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            raise Fault(f"a text of more than {MAX_TEXT} characters")
        return 1 + len(value) // CHARACTERS_PER_STEP
    if value is None or isinstance(value, bool | int | float):
        return 1
    parts, characters, level = 0, 0, [value]
    for _ in range(MAX_DEPTH):
        below: list[object] = []
        for entry in level:
            parts += 1
            if isinstance(entry, str):
                characters += len(entry)
            elif isinstance(entry, Mapping):
                below.extend(entry)
                below.extend(entry.values())
            elif isinstance(entry, list | tuple | range):
                below.extend(entry)
            elif isinstance(entry, Undefined):
                raise Fault("a name that has no value here")
            elif entry is not None and not isinstance(entry, bool | int | float):
                raise Fault("something that is not a plain value")
            if parts + len(below) > MAX_PARTS or characters > MAX_TEXT:
                raise Fault(f"a value of more than {MAX_PARTS} parts or {MAX_TEXT} characters")
        if not below:
            return parts + characters // CHARACTERS_PER_STEP
        level = below
    raise Fault(f"a value nested more than {MAX_DEPTH} levels deep")


def plain(value: object, budget: Budget) -> Any:
    """A copy made of JSON's own types, paid for as output. Raises Fault for what JSON cannot hold."""
    if isinstance(value, str):
        budget.write(len(value))
        return value
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return number(value)
    budget.work(weigh(value))
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise Fault("the keys of an object must be text")
        return {plain(key, budget): plain(entry, budget) for key, entry in value.items()}
    if isinstance(value, list | tuple | range):
        return [plain(entry, budget) for entry in value]
    raise Fault("something that is not a plain value")
