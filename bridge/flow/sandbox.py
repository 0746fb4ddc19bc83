"""Where templates run: Jinja's sandbox, with bounds on work and size that hang on no clock and no thread.

Every template is checked and rewritten by `guard` before Jinja compiles it, so that all that could cost much
(loops, operators, comparisons, filters, calls) passes through this module and is paid for out of the render's Budget.
No template ever holds anything but plain JSON values: there are no callables, no methods and no Python attributes.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, Final

from jinja2 import StrictUndefined, Undefined, pass_context
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bridge.flow.filters import FILTERS, METHODS, NULL_AWARE, TESTS
from bridge.flow.values import (
    CHARACTERS_PER_STEP,
    COMPARISONS,
    MAX_TEXT,
    Budget,
    Fault,
    compare,
    entries,
    is_number,
    kind_of,
    number,
    plain,
    text_of,
    weigh,
)

__all__ = ["BUDGET", "Budget", "Sandbox", "closest", "plain"]

BUDGET: Final = "_budget"
"""The context's name for the Budget; names with an underscore in front are closed to templates."""

_LOOP_FIELDS: Final = frozenset(("index", "index0", "revindex", "revindex0", "first", "last", "length", "previtem"))
_OPERATORS: Final = {
    "+": "added", "-": "subtracted", "*": "multiplied", "/": "divided", "//": "divided", "%": "divided", "**": "raised",
}  # fmt: skip
_SELECTORS: Final = frozenset(("select", "reject", "selectattr", "rejectattr"))


def closest(name: str, candidates: Iterable[str]) -> str:
    """A hint such as `did you mean email?`, or nothing."""
    found = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.6)
    return f"did you mean {found[0]}?" if found else ""


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja as mappings use it: keys before anything else, null all the way down, no Python attribute within reach."""

    intercepted_binops = frozenset(_OPERATORS)

    def __init__(self) -> None:
        # Without `optimized` nothing is computed while compiling, where no budget could stop it.
        super().__init__(undefined=StrictUndefined, finalize=_written, optimized=False, keep_trailing_newline=True)
        self.globals.clear()
        self.filters = {name: _metered(name, code) for name, code in FILTERS.items()} | _INTERNAL
        self.tests = dict(TESTS) | {name: _comparison(operator) for name, operator in COMPARISONS.items()}

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`obj.attribute`: the key of an object, null of null. Raises Fault for a key that is not there."""
        if isinstance(obj, dict):
            try:
                return obj[attribute]
            except KeyError:
                hint = closest(attribute, obj)
                raise Fault(f"there is no key {attribute}" + (f" ({hint})" if hint else "")) from None
        if obj is None:
            return None
        if isinstance(obj, LoopContext) and attribute in _LOOP_FIELDS:
            return getattr(obj, attribute)
        raise Fault(_not_set(obj) or f"{kind_of(obj)} has no key {attribute}")

    def getitem(self, obj: Any, argument: Any) -> Any:
        """`obj[argument]`: as above for a key; null for a place beyond the end of a list or text.

        A key that was worked out may be somebody's name: no error shows it.
        """
        if isinstance(argument, str) and not isinstance(obj, str | list | tuple | range):
            try:
                return self.getattr(obj, argument)
            except Fault:
                raise Fault(_not_set(obj) or "there is no such key") from None
        if obj is None:
            return None
        if isinstance(obj, str | list | tuple | range) and isinstance(argument, int):
            return obj[argument] if -len(obj) <= argument < len(obj) else None
        raise Fault(_not_set(obj) or f"{kind_of(obj)} has no place or key of this kind")

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Arithmetic on numbers, `+` for texts and for lists too; null if either side is null. Raises Fault."""
        if left is None or right is None:
            return None
        if is_number(left) and is_number(right):
            if operator == "**" and (abs(right) > 64 or abs(left) > 2**32):
                raise Fault("a power that is too large")
            return number(self.binop_table[operator](left, right))
        if operator == "+" and (both := kind_of(left)) == kind_of(right) and both in ("text", "a list"):
            budget: Budget = context.parent[BUDGET]
            budget.work(weigh(left) + weigh(right))
            result = left + right if isinstance(left, str) else [*left, *right]
            weigh(result)
            return result
        reason = f"{kind_of(left)} and {kind_of(right)} cannot be {_OPERATORS[operator]}"
        raise Fault(_not_set(left) or _not_set(right) or reason)

    def is_safe_callable(self, obj: Any) -> bool:
        """Nothing is: functions and methods were rewritten into filters."""
        return False


def _not_set(value: object) -> str:
    return "a name that has no value here" if isinstance(value, Undefined) else ""


def _metered(name: str, code: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that is paid for by the size of what goes in, and whose result is checked."""
    null_aware = name in NULL_AWARE

    @pass_context
    @wraps(code)
    def run(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        if value is None and not null_aware:
            return None
        steps = weigh(value)
        for argument in (*args, *kwargs.values()):
            # A selector compares every entry with its argument.
            steps += weigh(argument) * (steps if name in _SELECTORS else 1)
        budget: Budget = context.parent[BUDGET]
        budget.work(steps)
        result = code(value, *args, **kwargs)
        if isinstance(result, str | list | range):
            weigh(result)
        return number(result) if isinstance(result, int | float) else result

    return run


def _comparison(operator: str) -> Callable[..., Any]:
    @pass_context
    def run(context: Context, left: Any, right: Any) -> bool:
        return _compared(context, left, operator, right)

    return run


# --- what the checked syntax is rewritten into ------------------------------------------------------------------------


@pass_context
def _written(context: Context, value: Any) -> str:
    """An expression between other text."""
    if isinstance(value, Undefined):
        raise Fault(_not_set(value))
    return text_of(value)


@pass_context
def _looped(context: Context, value: Any, steps: int) -> Any:
    """What a `for` goes through: null is an empty list."""
    if value is None:
        return ()
    sequence = entries(value)
    context.parent[BUDGET].loop(len(sequence), steps)
    return sequence


@pass_context
def _built(context: Context, value: Any) -> Any:
    """A list or object that was written out."""
    context.parent[BUDGET].work(weigh(value))
    return value


@pass_context
def _joined(context: Context, *values: Any) -> str:
    """`a ~ b ~ c`."""
    parts = [_written(context, value) for value in values]
    length = sum(map(len, parts))
    if length > MAX_TEXT:
        raise Fault(f"a text of more than {MAX_TEXT} characters")
    context.parent[BUDGET].work(len(parts) + length // CHARACTERS_PER_STEP)
    return "".join(parts)


@pass_context
def _compared(context: Context, left: Any, *operations: Any) -> bool:
    """`a < b <= c`: operators and operands take turns."""
    for operator, right in zip(operations[::2], operations[1::2], strict=True):
        context.parent[BUDGET].work(weigh(left) + weigh(right))
        if not compare(operator, left, right):
            return False
        left = right
    return True


@pass_context
def _sliced(context: Context, value: Any, start: Any, stop: Any, step: Any) -> Any:
    """`value[start:stop:step]`."""
    if value is None:
        return None
    context.parent[BUDGET].work(weigh(value))
    if not isinstance(value, str | list | tuple | range):
        raise Fault(f"{kind_of(value)} cannot be cut")
    return value[start:stop:step]


@pass_context
def _method(context: Context, value: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    """`value.name(…)` for the few methods that text and objects have here."""
    if value is None:
        return None
    known = METHODS.get(type(value), {})
    if name not in known:
        raise Fault(_not_set(value) or f"{kind_of(value)} has no method {name}")
    context.parent[BUDGET].work(weigh(value) + sum(weigh(argument) for argument in (*args, *kwargs.values())))
    result = known[name](value, *args, **kwargs)
    if isinstance(result, str | list):
        weigh(result)
    return result


def _optional(value: Mapping[str, Any], name: str) -> Any:
    """An attribute that an event leaves out when there is nothing to say."""
    return value.get(name)


_INTERNAL: Final[dict[str, Callable[..., Any]]] = {
    "_looped": _looped,
    "_built": _built,
    "_joined": _joined,
    "_compared": _compared,
    "_sliced": _sliced,
    "_method": _method,
    "_optional": _optional,
}
