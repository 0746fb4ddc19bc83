"""Mapping files → compiled mappings that are known to fit bridge.yaml, or every problem of each file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from jsonschema.exceptions import ValidationError

from bridge.config.documents import Document, parse_document
from bridge.config.validation import did_you_mean, problems_of
from bridge.config.values import Configuration
from bridge.core.errors import Problem
from bridge.core.events import Json
from bridge.core.manifest import Operation, SourceConnector, TargetConnector
from bridge.flow.guard import BadTemplate
from bridge.flow.leaves import compile_tree
from bridge.flow.mapping import Mapping as CompiledMapping
from bridge.flow.mapping import compile_mapping, run_tests
from bridge.flow.mapping_document import MappingSyntax
from bridge.flow.templates import compile_template

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")
_FIXTURE: Final = re.compile(
    r"(?P<connector>[a-z][a-z0-9_]*)/(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]*)(?:#(?P<number>[1-9][0-9]?))?\Z"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """One mapping file: `mapping` is there exactly when there are no problems; `tests` counts those inside it."""

    mapping: CompiledMapping | None
    problems: tuple[Problem, ...] = ()
    tests: int = 0


class Load(Protocol):
    """Makes a mapping of a file's bytes; `file` is how messages call it, `tested` runs the file's own tests too."""

    def __call__(self, name: str, raw: bytes, *, file: str, tested: bool = True) -> Loaded: ...


def loader(
    configuration: Configuration,
    sources: Mapping[str, SourceConnector],
    targets: Mapping[str, TargetConnector],
) -> Load:
    """How mapping files are loaded under this configuration."""
    return partial(load_mapping, configuration=configuration, sources=sources, targets=targets)


def load_mappings(
    configuration: Configuration,
    sources: Mapping[str, SourceConnector],
    targets: Mapping[str, TargetConnector],
    folder: Path | None = None,
) -> tuple[dict[str, CompiledMapping], list[Problem]]:
    """All mappings of a folder, by default the configuration's, and what is wrong with the files that have none.

    A broken file does not stop the others. A folder that is not there holds no mappings.
    """
    mappings: dict[str, CompiledMapping] = {}
    problems: list[Problem] = []
    folder = folder or configuration.mappings
    load = loader(configuration, sources, targets)
    try:
        files = mapping_files(folder)
    except FileNotFoundError:
        files = {}
    except OSError as error:
        message = f"the folder cannot be read: {error.strerror}"
        return {}, [Problem(file=str(folder), line=None, where="", message=message)]
    for name, path in files.items():
        loaded, _ = read_mapping(name, path, load)
        problems += loaded.problems
        if loaded.mapping is not None:
            mappings[name] = loaded.mapping
    return mappings, problems


def read_mapping(name: str, path: Path, load: Load) -> tuple[Loaded, bytes]:
    """One mapping from its file, and the bytes that were read."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        problem = Problem(file=str(path), line=None, where="", message=f"cannot be read: {error.strerror}")
        return Loaded(mapping=None, problems=(problem,)), b""
    return load(name, raw, file=str(path)), raw


def mapping_files(folder: Path) -> dict[str, Path]:
    """The mapping files of a folder by name, sorted; OSError when it cannot be read.

    `*.yml` is listed under its whole file name, so that loading it fails with words instead of never happening.
    """
    paths = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".") and path.is_file()]
    misnamed = [path for path in paths if path.suffix != ".yaml" and path.suffix.lower() in (".yml", ".yaml")]
    return {path.stem: path for path in paths if path.suffix == ".yaml"} | {path.name: path for path in misnamed}


def load_mapping(
    name: str,
    raw: bytes,
    *,
    file: str,
    configuration: Configuration,
    sources: Mapping[str, SourceConnector],
    targets: Mapping[str, TargetConnector],
    tested: bool = True,
) -> Loaded:
    """One mapping from its file's bytes; see `Load`."""
    if not _NAME.match(name):
        hint = "lower-case letters, digits, - and _, and the ending .yaml"
        problem = Problem(
            file=file, line=None, where="", message="a mapping file has another name than this", hint=hint
        )
        return Loaded(mapping=None, problems=(problem,))
    document, problems = parse_document(raw, file=file)
    mapping: CompiledMapping | None = None
    if document is not None:
        try:
            mapping = compile_mapping(name, document.value)
        except MappingSyntax as syntax:
            found = list(syntax.problems)
            if isinstance(document.value, dict):
                # Compiling stops at wrong keys; the templates are looked at all the same.
                compile_tree(document.value.get("with", {}), ("with",), found)
            problems += [document.problem(flaw.steps, flaw.message, flaw.hint) for flaw in found]
        if isinstance(document.value, dict):
            problems += _misfits(document, document.value, configuration, targets)
        if mapping is not None and not problems and tested:
            problems += _test_problems(document, mapping, configuration, sources, targets)
    ordered = tuple(sorted(dict.fromkeys(problems), key=lambda problem: (problem.line or 0, problem.where)))
    tests = 0 if mapping is None else len(mapping.tests)
    return Loaded(mapping=None if ordered else mapping, problems=ordered, tests=tests)


def fixture_events(reference: str, sources: Mapping[str, SourceConnector]) -> Sequence[Json]:
    """The canonical events behind `connector/fixture`, after enrichment where it has that; `…#2` is the second alone.

    Raises LookupError where there is no such connector, fixture or event.
    """
    match = _FIXTURE.match(reference)
    if match is None or match["connector"] not in sources:
        raise LookupError(reference)
    path = sources[match["connector"]].folder / "fixtures" / f"{match['name']}.json"
    if not path.is_file():
        raise LookupError(reference)
    expected = json.loads(path.read_text("utf-8"))
    events: list[Json] = expected.get("enriched") or expected.get("events") or []
    if match["number"] is None:
        return events
    return [events[int(match["number"]) - 1]]


def _test_problems(
    document: Document,
    mapping: CompiledMapping,
    configuration: Configuration,
    sources: Mapping[str, SourceConnector],
    targets: Mapping[str, TargetConnector],
) -> list[Problem]:
    """What the mapping's own tests find, with the operation's schema asked about everything that they render."""
    connector = targets[configuration.targets[mapping.target].connector]
    schema = dict(connector.manifest.operations[mapping.operation].params)
    found = run_tests(mapping, lambda reference: fixture_events(reference, sources), schema)
    return [document.problem(problem.steps, problem.message, problem.hint) for problem in found]


def _misfits(
    document: Document, value: Mapping[str, Any], configuration: Configuration, targets: Mapping[str, TargetConnector]
) -> Iterator[Problem]:
    """Where a mapping does not fit bridge.yaml or the target's operation."""
    names = value.get("sources")
    for position, name in enumerate(names if isinstance(names, list) else ()):
        if isinstance(name, str) and name not in configuration.sources:
            hint = did_you_mean(name, configuration.sources)
            yield document.problem(("sources", position), "there is no source of this name in bridge.yaml", hint)
    target = value.get("target")
    if not isinstance(target, str):
        return
    if target not in configuration.targets:
        hint = did_you_mean(target, configuration.targets)
        yield document.problem(("target",), "there is no target of this name in bridge.yaml", hint)
        return
    connector = targets[configuration.targets[target].connector]
    name = value.get("operation")
    if not isinstance(name, str):
        return
    operation = connector.manifest.operations.get(name)
    if operation is None:
        hint = did_you_mean(name, connector.manifest.operations)
        yield document.problem(("operation",), f"{connector.title} has no operation of this name", hint)
        return
    if operation.destructive and value.get("allow_destructive") is not True:
        hint = "write allow_destructive: true if that is what you want"
        yield document.problem(("operation",), "this operation takes something away from the target", hint)
    if isinstance(value.get("with", {}), dict):
        yield from _parameter_problems(document, value.get("with", {}), operation)


def _parameter_problems(document: Document, value: Mapping[str, Any], operation: Operation) -> list[Problem]:
    """`with` against the operation's schema. What a template will become is not known, except that it is text if
    something stands around it; so keys are checked everywhere and values where they are literal."""
    return problems_of(operation.params, value, document, at=("with",), ignore=_open)


def _open(error: ValidationError) -> bool:
    """Whether an error is about a value that only rendering will tell."""
    value: Any = error.instance
    if isinstance(value, str):
        try:
            template = compile_template(value)
        except BadTemplate:
            return True
        return template is not None and (template.lone or error.validator != "type")
    if error.validator == "not" and _about_keys(error.validator_value):
        return False
    judged_whole = error.validator in ("enum", "const", "not", "uniqueItems", "contains")
    return (judged_whole or (error.validator in ("oneOf", "anyOf") and not error.context)) and _has_template(value)


def _about_keys(schema: Any) -> bool:
    """Whether a schema speaks only of which keys there are."""
    if not isinstance(schema, dict) or not schema.keys() <= {"anyOf", "allOf", "oneOf", "not", "required"}:
        return False
    inner = [schema["not"]] if "not" in schema else []
    inner += [entry for key in ("anyOf", "allOf", "oneOf") for entry in schema.get(key, ())]
    return all(_about_keys(entry) for entry in inner)


def _has_template(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(_has_template(entry) for entry in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and ("{{" in value or "{%" in value)
