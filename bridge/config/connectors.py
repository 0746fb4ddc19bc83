"""Reads connector manifests and puts them together with the connectors' code."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeVar

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from bridge.config.documents import Document, Steps, read_document
from bridge.config.schema import common_keys
from bridge.config.validation import problems_of
from bridge.core.authentication import preset_schema, presets
from bridge.core.errors import ConfigurationError, Problem
from bridge.core.manifest import SourceConnector, TargetConnector, source_manifest, target_manifest
from bridge.core.simulation import Simulator, TargetSimulator
from bridge.core.source import Source
from bridge.core.target import Target

_C = TypeVar("_C")

_REFERENCES: Final = ("$ref", "$dynamicRef")
_IN_PLACE: Final = frozenset(("allOf", "anyOf", "oneOf", "not", "if", "then", "else"))
"""Keywords whose schemas are about the same value as the one that they stand in."""


class Lazily(Mapping[str, _C]):
    """Connectors by name, each made when it is first asked for: to read a manifest takes a tenth of a second."""

    def __init__(self, made: Mapping[str, Callable[[], _C]]) -> None:
        self._make = made
        self._made: dict[str, _C] = {}

    def __getitem__(self, name: str) -> _C:
        if name not in self._made:
            self._made[name] = self._make[name]()
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._make

    def __iter__(self) -> Iterator[str]:
        return iter(self._make)

    def __len__(self) -> int:
        return len(self._make)


def source_connector(folder: Path, code: Source, simulator: Simulator) -> SourceConnector:
    """A source from its folder and modules. Raises ConfigurationError for a manifest with mistakes."""
    document = read_manifest(folder)
    return SourceConnector(
        name=document["name"],
        title=document["title"],
        about=document["about"],
        folder=folder,
        manifest=source_manifest(document["source"]),
        code=code,
        simulator=simulator,
    )


def target_connector(
    folder: Path, code: Target | None = None, simulator: TargetSimulator | None = None
) -> TargetConnector:
    """A target from its folder and, where it has them, its modules. Raises ConfigurationError as above."""
    document = read_manifest(folder)
    return TargetConnector(
        name=document["name"],
        title=document["title"],
        about=document["about"],
        folder=folder,
        manifest=target_manifest(document["target"]),
        code=code,
        simulator=simulator,
    )


def read_manifest(folder: Path) -> Mapping[str, Any]:
    """`manifest.yaml` of a folder, checked against the schema and against the folder's name."""
    document, problems = read_document(folder / "manifest.yaml")
    if document is not None:
        problems += problems_of(manifest_schema(), document.value, document)
    if document is not None and not problems and document.value["name"] != folder.name:
        problems.append(document.problem(("name",), f"expected the folder's name, {folder.name}"))
    if document is not None and not problems:
        problems += auth_problems(document)
    if document is None or problems:
        raise ConfigurationError(problems)
    checked: Mapping[str, Any] = document.value
    return checked


def manifest_problems(folder: Path) -> list[Problem]:
    """Everything that a look at every schema inside a manifest finds; too slow for each start, right for tests.

    Settings may not be called like one of the hub's own keys, defaults must satisfy their own schemas, and what is
    required must exist.
    """
    try:
        value = read_manifest(folder)
    except ConfigurationError as error:
        return list(error.problems)
    document, _ = read_document(folder / "manifest.yaml")
    return list(inner_problems(document, value)) if document is not None else []


def auth_problems(document: Document) -> Iterator[Problem]:
    """A kind of authentication that is offered twice, and settings that a kind does not have."""
    seen: set[str] = set()
    for position, preset in enumerate(presets(document.value.get("target", {}).get("auth", ()))):
        at: Steps = ("target", "auth", position)
        yield from problems_of(preset_schema(preset["kind"]), preset, document, at=at)
        if preset["kind"] in seen:
            yield document.problem(at, "this kind is offered twice")
        seen.add(preset["kind"])


def inner_problems(document: Document, value: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with the schemas inside a manifest, which is valid itself."""
    for side in ("source", "target"):
        part = value.get(side, {})
        for key in part.get("options", {}):
            if key in common_keys(side):
                yield document.problem((side, "options", key), "this key is one of the hub's own")
        yield from _settings_problems(document, (side, "options"), part.get("options", {}), part.get("required", []))
        yield from _settings_problems(document, (side, "api"), part.get("api", {}), part.get("api_required", []))
        for name, operation in part.get("operations", {}).items():
            at: Steps = (side, "operations", name, "params")
            wrong = list(_schema_problems(document, at, operation["params"]))
            yield from wrong or _reference_problems(document, at, operation["params"])


def _settings_problems(
    document: Document, steps: Steps, properties: Mapping[str, Any], required: list[str]
) -> Iterator[Problem]:
    for key in required:
        if key not in properties:
            yield document.problem(steps, f"'{key}' is required but not described")
    for key, schema in properties.items():
        found = list(_schema_problems(document, (*steps, key), schema))
        for place, _ in _references(schema):
            message = "the schema of a setting cannot refer to another one"
            found.append(document.problem((*steps, key, *place), message, "write it out"))
        yield from found
        if not found and "default" in schema:
            yield from problems_of(schema, schema["default"], document, at=(*steps, key, "default"))


def _schema_problems(document: Document, steps: Steps, schema: Mapping[str, Any]) -> Iterator[Problem]:
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        yield document.problem((*steps, *error.absolute_path), "not valid JSON Schema")


def _reference_problems(document: Document, steps: Steps, schema: Mapping[str, Any]) -> Iterator[Problem]:
    """References to anything but a schema within this one, and those that come back to themselves without a step."""
    known: Registry[Any] = Registry().with_resource("", DRAFT202012.create_resource(schema))
    for place, reference in _references(schema):
        if place[-1] == "$id":
            yield document.problem((*steps, *place), "only a whole schema can have an $id")
        elif not reference.startswith("#"):
            message = "expected a reference that begins with #"
            yield document.problem((*steps, *place), message, "nothing is fetched: put the schema into $defs")
        elif _referred(known, reference) is None:
            yield document.problem((*steps, *place), "refers to nothing that is a schema")
        elif reference in _reached(known, reference):
            yield document.problem((*steps, *place), "refers to itself without end")


def _references(schema: Any, place: Steps = ()) -> Iterator[tuple[Steps, str]]:
    """All references at any depth, and where they stand; an `$id` too that gives those below it another meaning."""
    if isinstance(schema, Mapping | list):
        for key, entry in schema.items() if isinstance(schema, Mapping) else enumerate(schema):
            if isinstance(entry, str) and (key in _REFERENCES or (key == "$id" and place)):
                yield (*place, key), entry
            else:
                yield from _references(entry, (*place, key))


def _referred(known: Registry[Any], reference: str) -> Any:
    try:
        found = known.resolver().lookup(reference).contents
        Draft202012Validator.check_schema(found)
    except (Unresolvable, SchemaError, ValueError, TypeError):  # the last two of steps into what is no schema
        return None
    return found


def _reached(known: Registry[Any], reference: str) -> set[str]:
    """The references that are followed for one value because of this one."""
    reached: set[str] = set()
    rest = [_referred(known, reference)]
    while rest:
        for found in set(_in_place(rest.pop())) - reached:
            reached.add(found)
            rest.append(_referred(known, found))
    return reached


def _in_place(schema: Any) -> Iterator[str]:
    """The references in a schema that are about the same value as the schema itself."""
    if isinstance(schema, list):
        for entry in schema:
            yield from _in_place(entry)
    elif isinstance(schema, Mapping):
        yield from (schema[key] for key in _REFERENCES if key in schema)
        yield from _in_place([schema[key] for key in _IN_PLACE & schema.keys()])
        yield from _in_place(list(schema.get("dependentSchemas", {}).values()))


@cache
def manifest_schema() -> Mapping[str, Any]:
    """The schema of `manifest.yaml`."""
    schema: Mapping[str, Any] = json.loads(
        resources.files("bridge.core").joinpath("manifest.schema.json").read_text("utf-8")
    )
    return schema
