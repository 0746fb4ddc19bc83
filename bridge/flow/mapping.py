"""A mapping: which events go where, and what is made of them. Compiled once, then a pure function of an event."""

from __future__ import annotations

import collections.abc
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

from jsonschema import Draft202012Validator
from referencing import Registry

from bridge.core.errors import MappingError
from bridge.core.events import Event, Json
from bridge.core.signing import canonical_json, fingerprint
from bridge.core.vocabulary import TYPES, matches, short
from bridge.flow.blank import inline_event
from bridge.flow.fields import overlaps
from bridge.flow.guard import BadTemplate
from bridge.flow.leaves import compile_tree, leaves, render_tree
from bridge.flow.mapping_document import MappingProblem, MappingSyntax, Steps, problems_of
from bridge.flow.sandbox import closest
from bridge.flow.templates import Template, compile_condition, scope_of
from bridge.flow.values import Fault

Order = Literal["strict", "latest", "none"]
Requires = Literal["any", "full"]

__all__ = [
    "CompiledMapping", "Decision", "Mapping", "MappingProblem", "MappingSyntax", "compile_mapping", "order_key",
    "run_tests",
]  # fmt: skip

MAX_LEAVES: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether a mapping wants an event, and why not, in words that name the condition.

    `waits` when it may yet want it: as soon as enrichment is full.
    """

    matches: bool
    why: str = ""
    waits: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """A compiled mapping. `version` is a short hash of its document; `types` are the types that `events` stands for.

    `reads` are the fields of the event that its templates look at.
    """

    name: str
    version: str
    description: str
    events: tuple[str, ...]
    types: frozenset[str] = field(repr=False)
    sources: tuple[str, ...] | None
    when: Template | None = field(repr=False)
    order: Order
    requires: Requires
    target: str
    operation: str
    document: Json = field(repr=False)
    tests: tuple[Json, ...] = field(repr=False)
    allow_destructive: bool
    state: str
    reads: frozenset[str] = field(repr=False)
    _params: Any = field(repr=False, compare=False)

    def consider(self, event: Json, source: str) -> Decision:
        """Whether a canonical event (its JSON) from a source of this name matches. Raises MappingError from `when`."""
        type = short(event["type"])
        if type not in self.types:
            return Decision(matches=False, why=f"events: {', '.join(self.events)} does not match {type}")
        if self.sources is not None and source not in self.sources:
            return Decision(matches=False, why=f"sources: {', '.join(self.sources)} does not name {source}")
        if self.requires == "full" and event.get("enrichment") != "full":
            why = f"requires: full, and enrichment is {event.get('enrichment')}"
            return Decision(matches=False, why=why, waits=event.get("enrichment") != "skipped")
        if self.when is not None:
            try:
                wanted = self.when.render(scope_of(event, source=source, delivery=""))
            except Fault as fault:
                raise MappingError(self.name, "when", fault.reason) from None
            if not wanted:
                return Decision(matches=False, why="when: is false")
        return Decision(matches=True)

    def render(self, event: Json, source: str, delivery: collections.abc.Mapping[str, str]) -> Json:
        """The parameters of the operation, new at every call; `delivery` holds `key`, the idempotency key.

        Raises MappingError with the field and the reason; no value of the event is in it.
        """
        scope = scope_of(event, source=source, delivery=delivery["key"])
        return cast(Json, render_tree(self._params, scope, self.name))

    def looks_at(self, name: str) -> bool:
        """Whether a field such as `data.person.email` could make a difference to this mapping."""
        return any(overlaps(path, name) for path in self.reads)

    @property
    def templates(self) -> int:
        """How many leaves are templates."""
        return sum(1 for _ in leaves(self._params))


CompiledMapping = Mapping
"""The same for modules that also use `collections.abc.Mapping`."""


def order_key(mapping: Mapping, event: Event) -> str | None:
    """Messages of one key reach the target one after the other, also those of several mappings that write the same
    state; None when the mapping asks for no order.
    """
    return None if mapping.order == "none" else f"{mapping.state}|{mapping.target}|{event.state_key}"


def compile_mapping(name: str, document: object) -> Mapping:
    """A mapping from its document (plain values); `name` is the file's stem. Raises MappingSyntax with all problems."""
    problems = list(problems_of(document))
    if problems or not isinstance(document, dict):
        raise MappingSyntax(problems)
    when: Template | None = None
    types: set[str] = set()
    for position, pattern in enumerate(document["events"]):
        types |= (found := types_named(pattern))
        if not found:
            problems.append(_unmatched(position, pattern))
    if "when" in document:
        try:
            when = compile_condition(document["when"])
        except BadTemplate as bad:
            problems.append(MappingProblem(steps=("when",), message=bad.message, hint=bad.hint))
    params = compile_tree(document.get("with", {}), ("with",), problems)
    if sum(1 for _ in leaves(params)) > MAX_LEAVES:
        problems.append(MappingProblem(steps=("with",), message=f"more than {MAX_LEAVES} templates"))
    if problems:
        raise MappingSyntax(problems)
    return Mapping(
        name=name,
        version=fingerprint([canonical_json(document)])[:12],
        description=document.get("description", ""),
        events=tuple(document["events"]),
        types=frozenset(types),
        sources=tuple(document["sources"]) if "sources" in document else None,
        when=when,
        order=document.get("order", "strict"),
        requires=document.get("requires", "any"),
        target=document["target"],
        operation=document["operation"],
        document=document,
        tests=tuple(document.get("tests", ())),
        allow_destructive=document.get("allow_destructive", False),
        state=document.get("state", name),
        reads=frozenset().union(*(leaf.template.reads for leaf in leaves(params)), when.reads if when else ()),
        _params=params,
    )


def types_named(pattern: str) -> set[str]:
    """The types that a pattern stands for; internal ones only if it names them."""
    named = pattern.startswith("source.")
    return {name for name, type in TYPES.items() if matches(pattern, name) and (named or not type.internal)}


def _unmatched(position: int, pattern: str) -> MappingProblem:
    hint = f"did you mean {short(pattern)}?" if types_named(short(pattern)) else closest(short(pattern), TYPES)
    return MappingProblem(steps=("events", position), message="matches no canonical type", hint=hint)


# --- the tests inside a mapping ---------------------------------------------------------------------------------------

TEST_KEY: Final = "test-delivery-key"
"""What `delivery.key` is in the tests of a mapping."""


def run_tests(
    mapping: Mapping, fixture: Callable[[str], Sequence[Json]], params_schema: Json | None = None
) -> list[MappingProblem]:
    """What the mapping's own tests find wrong; empty when all pass.

    `fixture` gives the canonical events of a name such as `wiseflow/final-mark`, and raises LookupError for one that
    is not there. With a schema all rendered parameters are checked against it. `expect` is a list where several events
    come of a fixture. Values are shown, because those of tests are made up.
    """
    problems: list[MappingProblem] = []
    for position, test in enumerate(mapping.tests):
        steps: Steps = ("tests", position)
        try:
            events = fixture(test["event"]) if isinstance(test["event"], str) else [inline_event(test["event"])]
        except LookupError:
            problems.append(MappingProblem(steps=(*steps, "event"), message=f"there is no fixture {test['event']}"))
            continue
        except Fault as fault:
            problems.append(MappingProblem(steps=(*steps, "event"), message=fault.reason))
            continue
        problems += _tested(mapping, test, steps, events, params_schema)
    return problems


def _tested(
    mapping: Mapping, test: Json, steps: Steps, events: Sequence[Json], schema: Json | None
) -> Iterator[MappingProblem]:
    source = test.get("source") or (mapping.sources[0] if mapping.sources else "example")
    rendered, why, error = _outcome(mapping, events, source)
    if "expect_error" in test:
        if not error or test["expect_error"] not in error:
            message = f"got another error: {error}" if error else "no error came"
            yield MappingProblem(steps=(*steps, "expect_error"), message=message)
        return
    wanted = test["expect"]
    steps = (*steps, "expect")
    if error:
        yield MappingProblem(steps=steps, message=f"failed at {error}")
    elif wanted == "skipped":
        if rendered:
            yield MappingProblem(steps=steps, message="expected the event to be skipped, but it matches")
    elif not rendered:
        yield MappingProblem(steps=steps, message=f"the event does not match ({why})")
    else:
        yield from _differences(
            rendered if len(rendered) > 1 or isinstance(wanted, list) else rendered[0], wanted, steps
        )
    validator = Draft202012Validator(schema or {}, registry=Registry())
    for flaw in [flaw for params in rendered for flaw in validator.iter_errors(params)]:
        yield MappingProblem(steps=("with", *flaw.absolute_path), message=flaw.message)


def _outcome(mapping: Mapping, events: Sequence[Json], source: str) -> tuple[list[Json], str, str]:
    """The parameters of all events that match, why the last other one does not, and the last error."""
    rendered: list[Json] = []
    why, error = "there is no event", ""
    for event in events:
        try:
            decision = mapping.consider(event, source)
            why = decision.why or why
            if decision.matches:
                rendered.append(mapping.render(event, source, {"key": TEST_KEY}))
        except MappingError as failure:
            error = f"{failure.field}: {failure.reason}"
    return rendered, why, error


def _differences(found: Any, wanted: Any, steps: Steps) -> Iterator[MappingProblem]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in wanted.keys() - found.keys():
            yield MappingProblem(steps=(*steps, key), message="is not in what came out")
        for key in found.keys() - wanted.keys():
            yield MappingProblem(steps=steps, message=f"{key} came out too: {_shown(found[key])}")
        for key in [key for key in wanted if key in found]:
            yield from _differences(found[key], wanted[key], (*steps, key))
    elif isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        for position, (left, right) in enumerate(zip(found, wanted, strict=True)):
            yield from _differences(left, right, (*steps, position))
    elif found != wanted or isinstance(found, bool) != isinstance(wanted, bool):
        yield MappingProblem(steps=steps, message=f"expected {_shown(wanted)}, got {_shown(found)}")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:199] + "…"
