"""Checks and rewrites the syntax of a template before Jinja compiles it.

Every kind of syntax that is not listed is refused. What the sandbox has to meter (loops, comparisons, `~`, calls,
lists that are written out) becomes one of the sandbox's filters.
"""

from __future__ import annotations

from typing import Any, Final

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from bridge.core.errors import BridgeError
from bridge.flow.blank import OPTIONAL, keys_at
from bridge.flow.filters import FILTERS, FUNCTIONS, METHODS, TESTS
from bridge.flow.sandbox import closest
from bridge.flow.values import COMPARISONS, MAX_NUMBER

MAX_NODES: Final = 2_000
MAX_NESTING: Final = 48
MAX_LOOPS: Final = 4

VARIABLES: Final = frozenset(("event", "ev", "delivery", "source"))
"""The names that a mapping sees."""

_TESTS: Final = frozenset((*TESTS, *COMPARISONS))
_METHODS: Final = frozenset(name for table in METHODS.values() for name in table)
_ALLOWED: Final = frozenset((
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Assign, nodes.Name, nodes.Const,
    nodes.Tuple, nodes.List, nodes.Dict, nodes.Pair, nodes.Keyword, nodes.CondExpr, nodes.Filter, nodes.Test,
    nodes.Call, nodes.Getitem, nodes.Getattr, nodes.Slice, nodes.Concat, nodes.Compare, nodes.Operand, nodes.Mul,
    nodes.Div, nodes.FloorDiv, nodes.Add, nodes.Sub, nodes.Mod, nodes.Pow, nodes.And, nodes.Or, nodes.Not, nodes.Neg,
    nodes.Pos,
))  # fmt: skip


class BadTemplate(BridgeError):
    """A template that cannot be compiled: what is wrong with it, and a hint."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = message
        self.hint = hint
        super().__init__(message)


def names_set(tree: nodes.Node) -> frozenset[str]:
    """The names that a template sets. Without recursion, because nothing has bounded the tree's depth yet."""
    found: set[str] = set()
    rest = [tree]
    while rest:
        node = rest.pop()
        if isinstance(node, nodes.Name) and node.ctx == "store":
            found.add(node.name)
        rest.extend(node.iter_child_nodes())
    return frozenset(found)


class Guard(NodeTransformer):
    """Refuses what is not listed, and puts the sandbox's filters where work has to be metered."""

    def __init__(self, variables: frozenset[str], assigned: frozenset[str]) -> None:
        self.variables = variables
        self.assigned = assigned
        self.count = 0
        self._depth = 0
        self._loops = 0

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        if type(node) not in _ALLOWED:
            raise BadTemplate(f"{_in_words(node)} is not available here")
        self.count += 1
        self._depth += 1
        if self.count > MAX_NODES or self._depth > MAX_NESTING:
            raise BadTemplate("too long or nested too deeply")
        try:
            return super().visit(node, *args, **kwargs)
        finally:
            self._depth -= 1

    def get_visitor(self, node: nodes.Node) -> Any:
        return getattr(self, f"on_{type(node).__name__.lower()}", None)

    def on_for(self, node: nodes.For) -> nodes.Node:
        before = self.count
        self._loops += 1
        if node.recursive or self._loops > MAX_LOOPS:
            raise BadTemplate("a loop that calls itself, or loops nested too deeply")
        self.generic_visit(node)
        self._loops -= 1
        node.iter = _sandboxed("_looped", node.iter, nodes.Const(self.count - before, lineno=node.lineno))
        return node

    def on_name(self, node: nodes.Name) -> nodes.Node:
        name = node.name
        if node.ctx != "load":
            if name in VARIABLES | FUNCTIONS | {"loop"} or name.startswith("_"):
                raise BadTemplate(f"{name} cannot be set: the name is taken")
            return node
        if name not in self.variables | self.assigned and not (name == "loop" and self._loops):
            if name in FUNCTIONS:
                raise BadTemplate(f"{name} is a function", f"call it: {name}(…)")
            raise BadTemplate(f"there is no variable {name}", closest(name, self.variables | self.assigned))
        return node

    def on_const(self, node: nodes.Const) -> nodes.Node:
        if isinstance(node.value, int | float) and not abs(node.value) < MAX_NUMBER:
            raise BadTemplate("a number that is too large")
        return node

    def on_getattr(self, node: nodes.Getattr) -> nodes.Node:
        if node.attr.startswith("_"):
            raise BadTemplate(f"{node.attr}: names that begin with _ are closed")
        _check_path(node)
        optional = isinstance(node.node, nodes.Name) and node.node.name in ("event", "ev") and node.attr in OPTIONAL
        self.generic_visit(node)
        return _sandboxed("_optional", node.node, nodes.Const(node.attr, lineno=node.lineno)) if optional else node

    def on_getitem(self, node: nodes.Getitem) -> nodes.Node:
        if isinstance(node.arg, nodes.Slice):
            bounds = [bound or nodes.Const(None) for bound in (node.arg.start, node.arg.stop, node.arg.step)]
            return _sandboxed("_sliced", self.visit(node.node), *(self.visit(bound) for bound in bounds))
        _check_path(node)
        return self.generic_visit(node)

    def on_call(self, node: nodes.Call) -> nodes.Node:
        _refuse_stars(node)
        args = [self.visit(argument) for argument in node.args]
        kwargs = [self.visit(argument) for argument in node.kwargs]
        match node.node:
            case nodes.Name(name=name) if name in FUNCTIONS and args:
                return nodes.Filter(args[0], name, args[1:], kwargs, None, None, lineno=node.lineno)
            case nodes.Name(name=name) if name in FUNCTIONS:
                raise BadTemplate(f"{name}(…) needs an argument")
            case nodes.Name(name=name):
                hint = f"as a filter: … | {name}" if name in FILTERS else closest(name, FUNCTIONS)
                raise BadTemplate(f"there is no function {name}", hint)
            case nodes.Getattr(node=owner, attr=name) if name in _METHODS:
                method = nodes.Const(name, lineno=node.lineno)
                owner = self.visit(owner)
                return nodes.Filter(owner, "_method", [method, *args], kwargs, None, None, lineno=node.lineno)
            case nodes.Getattr(attr=name):
                raise BadTemplate(f"there is no method {name}", closest(name, _METHODS))
        raise BadTemplate("only functions and methods can be called")

    def on_filter(self, node: nodes.Filter) -> nodes.Node:
        if node.name not in FILTERS:
            raise BadTemplate(f"there is no filter {node.name}", closest(node.name, FILTERS))
        _refuse_stars(node)
        return self.generic_visit(node)

    def on_test(self, node: nodes.Test) -> nodes.Node:
        if node.name in ("defined", "undefined"):
            raise BadTemplate("every key of an event is always there", "write `is none` or `is not none`")
        if node.name not in _TESTS:
            raise BadTemplate(f"there is no test {node.name}", closest(node.name, _TESTS))
        _refuse_stars(node)
        return self.generic_visit(node)

    def on_condexpr(self, node: nodes.CondExpr) -> nodes.Node:
        if node.expr2 is None:
            node.expr2 = nodes.Const(None, lineno=node.lineno)
        return self.generic_visit(node)

    def on_concat(self, node: nodes.Concat) -> nodes.Node:
        first, *others = [self.visit(part) for part in node.nodes]
        return _sandboxed("_joined", first, *others)

    def on_compare(self, node: nodes.Compare) -> nodes.Node:
        operations: list[nodes.Expr] = []
        for operand in node.ops:
            operations += [nodes.Const(operand.op, lineno=node.lineno), self.visit(operand.expr)]
        return _sandboxed("_compared", self.visit(node.expr), *operations)

    def on_neg(self, node: nodes.Neg) -> nodes.Node:
        return nodes.Sub(nodes.Const(0), self.visit(node.node), lineno=node.lineno)

    def on_pos(self, node: nodes.Pos) -> nodes.Node:
        return nodes.Add(nodes.Const(0), self.visit(node.node), lineno=node.lineno)

    def on_list(self, node: nodes.List) -> nodes.Node:
        return _sandboxed("_built", self.generic_visit(node))

    def on_dict(self, node: nodes.Dict) -> nodes.Node:
        return _sandboxed("_built", self.generic_visit(node))

    def on_tuple(self, node: nodes.Tuple) -> nodes.Node:
        checked = self.generic_visit(node)
        return checked if node.ctx == "store" else _sandboxed("_built", checked)


def _sandboxed(name: str, value: nodes.Node, *args: nodes.Node) -> nodes.Filter:
    return nodes.Filter(value, name, list(args), [], None, None, lineno=value.lineno)


def _refuse_stars(node: nodes.Call | nodes.Filter | nodes.Test) -> None:
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        raise BadTemplate("arguments with * or ** are not available here")


def _check_path(node: nodes.Getattr | nodes.Getitem) -> None:
    """Refuse a key that no event has, as early as while compiling."""
    path: list[str | int] = []
    step: nodes.Expr = node
    while isinstance(step, nodes.Getattr | nodes.Getitem):
        if isinstance(step, nodes.Getattr):
            path.append(step.attr)
        elif isinstance(step.arg, nodes.Const) and isinstance(step.arg.value, str | int):
            path.append(step.arg.value)
        else:
            return
        step = step.node
        if len(path) > MAX_NESTING:
            raise BadTemplate("too long or nested too deeply")
    path.reverse()
    if not isinstance(step, nodes.Name) or step.name not in ("event", "ev", "delivery"):
        return
    if step.name == "delivery":
        if path != ["key"]:
            raise BadTemplate(f"there is no {_dotted('delivery', path)}", "delivery has one key: delivery.key")
        return
    try:
        keys_at(tuple(path))
    except KeyError as error:
        place: int = error.args[0]
        hint = closest(str(path[place]), keys_at(tuple(path[:place])) or ())
        raise BadTemplate(f"there is no {_dotted(step.name, path[: place + 1])}", hint) from None


def _dotted(name: str, path: list[str | int]) -> str:
    return name + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)


def _in_words(node: nodes.Node) -> str:
    words = {"Macro": "macro", "Include": "include", "Import": "import", "FromImport": "import", "Extends": "extends",
             "Block": "block", "CallBlock": "call", "FilterBlock": "a filter block", "AssignBlock": "a set block",
             "With": "with", "NSRef": "namespace"}  # fmt: skip
    return words.get(type(node).__name__, "this syntax")
