"""The tree of a mapping's `with`: plain values with templates as leaves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from jinja2.runtime import Context

from bridge.core.errors import MappingError
from bridge.flow.guard import BadTemplate
from bridge.flow.mapping_document import MappingProblem, Steps, dotted
from bridge.flow.templates import Template, compile_template
from bridge.flow.values import Fault

MAX_DEPTH: Final = 16
_WRITE_IT: Final = "write the character itself, not \\ud83d and \\ude00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A template somewhere in `with`, at `where`."""

    where: str
    template: Template


def compile_tree(value: object, steps: Steps, problems: list[MappingProblem]) -> Any:
    """The tree of `with`, with a Leaf for each template. Keys are no templates."""
    if len(steps) > MAX_DEPTH:
        problems.append(MappingProblem(steps=steps, message=f"nested deeper than {MAX_DEPTH} levels"))
    elif isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                problems.append(MappingProblem(steps=(*steps, str(key)), message="expected a key that is text"))
            elif not _is_whole(key):
                problems.append(MappingProblem(steps=steps, message="expected whole characters", hint=_WRITE_IT))
        return {key: compile_tree(entry, (*steps, str(key)), problems) for key, entry in value.items()}
    elif isinstance(value, list):
        return [compile_tree(entry, (*steps, position), problems) for position, entry in enumerate(value)]
    elif isinstance(value, str):
        if not _is_whole(value):
            problems.append(MappingProblem(steps=steps, message="expected whole characters", hint=_WRITE_IT))
            return value
        try:
            template = compile_template(value)
        except BadTemplate as bad:
            problems.append(MappingProblem(steps=steps, message=bad.message, hint=bad.hint))
        else:
            return value if template is None else Leaf(where=dotted(steps), template=template)
    elif isinstance(value, float) and not math.isfinite(value):
        problems.append(MappingProblem(steps=steps, message="expected a number that JSON has"))
    elif value is not None and not isinstance(value, bool | int | float):
        problems.append(MappingProblem(steps=steps, message="expected text, a number, true, false or null"))
    return value


def _is_whole(text: str) -> bool:
    """Without halves of surrogate pairs, which YAML leaves alone where they are escaped as in JSON."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def leaves(params: Any) -> Iterator[Leaf]:
    """All templates of a tree."""
    if isinstance(params, Leaf):
        yield params
    elif isinstance(params, dict | list):
        for entry in params.values() if isinstance(params, dict) else params:
            yield from leaves(entry)


def render_tree(params: Any, scope: Context, mapping: str) -> Any:
    """The tree with values in place of templates. Raises MappingError with the path of the template that failed."""
    if isinstance(params, Leaf):
        try:
            return params.template.render(scope)
        except Fault as fault:
            raise MappingError(mapping, params.where, fault.reason) from None
    if isinstance(params, dict):
        return {key: render_tree(entry, scope, mapping) for key, entry in params.items()}
    if isinstance(params, list):
        return [render_tree(entry, scope, mapping) for entry in params]
    return params
