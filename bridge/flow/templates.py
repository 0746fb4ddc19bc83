"""From the text of a template to something that renders: Jinja's syntax, checked and rewritten before it is compiled.

A lone `{{ expression }}` keeps its type, blanks around it do not matter; anything else around it makes text, in which
null is nothing and truth is `true` or `false`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jinja2
from jinja2 import nodes
from jinja2.exceptions import TemplateError, TemplateSyntaxError
from jinja2.runtime import Context

from bridge.core.events import Json
from bridge.flow.fields import fields_read
from bridge.flow.guard import VARIABLES, BadTemplate, Guard, names_set
from bridge.flow.sandbox import BUDGET, Sandbox
from bridge.flow.values import Budget, Fault, plain

MAX_SOURCE: Final = 16 * 1024
"""Characters of one template."""

_SANDBOX: Final = Sandbox()
_NOTHING: Final = _SANDBOX.from_string("")


def scope_of(event: Json, *, source: str, delivery: str) -> Context:
    """What the templates of one render see, and their common budget. `delivery` is the idempotency key.

    `source` is the name of the source in bridge.yaml.
    """
    return context_of({"event": event, "ev": event, "delivery": {"key": delivery}, "source": source, BUDGET: Budget()})


def context_of(names: Mapping[str, Any]) -> Context:
    """What templates see that were compiled for names of another place; the budget is among them."""
    return _NOTHING.new_context(dict(names), shared=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """One compiled template. `lone` ones keep the type of their expression; `steps` is what one render costs.

    One that sets names has them for itself; all others of a render share one context, which is half of the speed.
    `reads` are the event's fields that it looks at.
    """

    source: str
    lone: bool
    steps: int
    sets_names: bool
    reads: frozenset[str]
    code: jinja2.Template = field(repr=False)

    def render(self, scope: Context) -> Any:
        """The value, made of plain JSON types. Raises Fault; what it says holds no value of the event."""
        budget: Budget = scope.parent[BUDGET]
        try:
            budget.work(self.steps)
            context = self.code.new_context(scope.parent, shared=True) if self.sets_names else scope
            if self.lone:
                for _ in self.code.root_render_func(context):
                    pass
                return plain(context.vars["result"], budget)
            parts = []
            for part in self.code.root_render_func(context):
                budget.write(len(part))
                parts.append(part)
            return "".join(parts)
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise Fault(_reason(error)) from None


def compile_template(source: str, variables: frozenset[str] = VARIABLES) -> Template | None:
    """A text as a template, or None when it holds no Jinja at all. Raises BadTemplate.

    `variables` are the names that it may use, by default those of a mapping.
    """
    if not any(mark in source for mark in ("{{", "{%", "{#")):
        return None
    tree = _parse(source.strip()) if source.strip().startswith(("{{", "{#")) else _parse(source)
    match tree.body:
        case [nodes.Output(nodes=[expression])] if not isinstance(expression, nodes.TemplateData):
            return _compile(source, tree, expression, variables)
    return _compile(source, _parse(source), None, variables)


def compile_condition(source: str) -> Template:
    """A bare expression, as in `when`. Raises BadTemplate."""
    if "{{" in source or "{%" in source:
        raise BadTemplate("expected a bare expression", "leave out {{ and }}")
    tree = _parse("{{ " + source + " }}")
    match tree.body:
        case [nodes.Output(nodes=[expression])] if not isinstance(expression, nodes.TemplateData):
            return _compile(source, tree, expression, VARIABLES)
    raise BadTemplate("expected one expression")


def _parse(source: str) -> nodes.Template:
    if len(source) > MAX_SOURCE:
        raise BadTemplate(f"longer than {MAX_SOURCE} characters")
    try:
        return _SANDBOX.parse(source)
    except TemplateSyntaxError as error:
        # The message speaks of the template's own words; values of events are not known yet.
        raise BadTemplate(f"no valid Jinja: {error.message}") from None
    except RecursionError:
        raise BadTemplate("nested too deeply") from None
    except ValueError:
        raise BadTemplate("a number that is too large") from None


def _compile(source: str, tree: nodes.Template, expression: nodes.Expr | None, variables: frozenset[str]) -> Template:
    assigned, reads = names_set(tree), fields_read(tree)
    guard = Guard(variables, assigned)
    if expression is None:
        checked = guard.visit(tree)
    else:
        target = nodes.Name("result", "store", lineno=1)
        checked = nodes.Template([nodes.Assign(target, guard.visit(expression), lineno=1)], lineno=1)
    checked.set_environment(_SANDBOX)
    try:
        code = _SANDBOX.from_string(checked)
    except (TemplateError, SyntaxError, RecursionError, MemoryError):
        raise BadTemplate("too complicated for Jinja") from None
    return Template(
        source=source,
        lone=expression is not None,
        steps=guard.count,
        sets_names=bool(assigned),
        reads=reads,
        code=code,
    )


def _reason(error: Exception) -> str:
    """An error of Jinja or Python in words. Their own messages may quote values, so they are never repeated."""
    match error:
        case jinja2.UndefinedError():
            return "a name that has no value here"
        case ZeroDivisionError():
            return "division by zero"
        case ArithmeticError():
            return "a number that is too large"
        case TypeError() | AttributeError():
            return "a filter, method or operator got a value, or arguments, that it does not take"
        case _:
            return "a filter, method or operator cannot use its value"
