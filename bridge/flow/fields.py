"""Which fields of the event a template reads: what nobody reads need not be asked of a platform."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from jinja2 import nodes

_EVENT: Final = frozenset({"event", "ev"})


def fields_read(tree: nodes.Node) -> frozenset[str]:
    """Dotted paths below the event, such as `data.person.email`; an empty one stands for the whole event.

    A path ends where the template goes on in a way that is only known when it runs.
    """
    return frozenset(_paths(tree))


def overlaps(path: str, field: str) -> bool:
    """Whether who reads `path` sees `field`: it is the same, a part of it, or holds it."""
    return not path or path == field or field.startswith(f"{path}.") or path.startswith(f"{field}.")


def _paths(tree: nodes.Node) -> Iterator[str]:
    todo = [tree]  # not by recursion: a template may be nested deeper than Python's stack
    while todo:
        steps: list[str] = []
        at = todo.pop()
        while isinstance(at, nodes.Getattr | nodes.Getitem):
            if isinstance(at, nodes.Getattr):
                steps.append(at.attr)
            elif isinstance(at.arg, nodes.Const) and isinstance(at.arg.value, str):
                steps.append(at.arg.value)
            else:
                steps.clear()
                todo.append(at.arg)
            at = at.node
        if isinstance(at, nodes.Name):
            if at.name in _EVENT:
                yield ".".join(reversed(steps))
        else:
            todo.extend(at.iter_child_nodes())
