"""Targets that an admin writes: one YAML file each, a manifest with its tests, in a folder beside bridge.yaml."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

from bridge.config.connectors import auth_problems, inner_problems, manifest_schema
from bridge.config.documents import Document, Steps, read_document
from bridge.config.validation import problems_of
from bridge.core.errors import Problem
from bridge.core.manifest import TargetConnector, target_manifest
from bridge.flow.declared import compile_declared
from bridge.flow.guard import BadTemplate

FOLDER: Final = "connectors"
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnConnector:
    """One file: the connector that it makes, and the tests in it."""

    connector: TargetConnector
    document: Document = field(repr=False)

    @property
    def tests(self) -> Mapping[str, Any]:
        tests: Mapping[str, Any] = self.document.value.get("tests", {})
        return tests


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnConnectors:
    """Those that can be used, by name, and everything that is wrong with the others."""

    connectors: Mapping[str, OwnConnector]
    problems: tuple[Problem, ...] = ()


def own_connectors(bridge_file: Path, *, taken: Collection[str]) -> OwnConnectors:
    """The connectors beside a bridge.yaml, or in the folder that its `connectors` names.

    A file's name is the connector's; one that is `taken` already is refused, so that nothing is ever hidden.
    """
    folder, problems = _folder(bridge_file)
    found: dict[str, OwnConnector] = {}
    for file in _files(folder):
        own, wrong = _read(file, taken)
        problems += wrong
        if own is not None and not wrong:
            found[file.stem] = own
    return OwnConnectors(connectors=found, problems=tuple(problems))


def folder_beside(bridge_file: Path) -> Path:
    """Where they are, or would be."""
    return _folder(bridge_file)[0]


def _folder(bridge_file: Path) -> tuple[Path, list[Problem]]:
    base = bridge_file.absolute().parent
    try:
        said = re.search(rb"^[\"']?connectors[\"']?\s*:", bridge_file.read_bytes(), re.MULTILINE)
    except OSError:
        said = None
    document = read_document(bridge_file)[0] if said else None
    named = document.value.get(FOLDER) if document is not None and isinstance(document.value, dict) else None
    if document is None or not isinstance(named, str):
        return base / FOLDER, []
    folder = base / named
    return folder, [] if folder.is_dir() else [document.problem((FOLDER,), "there is no such folder")]


def _files(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    return [path for path in entries if path.suffix.lower() in (".yaml", ".yml") and not path.name.startswith(".")]


def _read(file: Path, taken: Collection[str]) -> tuple[OwnConnector | None, list[Problem]]:
    name = file.stem
    if file.suffix != ".yaml" or not _NAME.fullmatch(name):
        message = "a connector's file is called <name>.yaml, the name in lower-case letters, digits and _"
        return None, [Problem(file=str(file), line=None, where="", message=message)]
    if name in taken:
        message = "there is a connector of this name already"
        return None, [Problem(file=str(file), line=None, where="", message=message, hint="call the file otherwise")]
    document, problems = read_document(file)
    if document is None:
        return None, problems
    problems += problems_of(_schema(), document.value, document)
    if problems:
        return None, problems
    problems += [*_name_problems(document, name), *auth_problems(document), *inner_problems(document, document.value)]
    for operation, declared in document.value["target"]["operations"].items():
        problems += _operation_problems(document, operation, declared)
    problems += _pattern_problems(document, document.value["target"], ("target",))
    if problems:
        return None, problems
    connector = TargetConnector(
        name=name,
        title=document.value["title"],
        about=document.value["about"],
        folder=file.parent,
        manifest=target_manifest(document.value["target"]),
        code=None,
    )
    return OwnConnector(connector=connector, document=document), []


def _name_problems(document: Document, name: str) -> Iterator[Problem]:
    if document.value.get("name", name) != name:
        yield document.problem(("name",), f"expected the file's name, {name}", "or leave it out")


def _operation_problems(document: Document, name: str, declared: Mapping[str, Any]) -> Iterator[Problem]:
    """What no schema can say: that there is something to send, and that every template can be read."""
    at: Steps = ("target", "operations", name)
    if "request" not in declared and "steps" not in declared and "request" not in declared.get("batch", {}):
        yield document.problem(at, "expected a request, steps, or a batch with a request")
    if "batch" in declared and not declared["idempotent"]:
        yield document.problem((*at, "batch"), "only an idempotent operation can have a batch")
    for step, entry in enumerate(declared.get("steps", ())):
        yield from _template_problems(document, (*at, "steps", step, "request"), entry["request"])
        yield from _template_problems(document, (*at, "steps", step, "keep"), entry.get("keep"))
        yield from _template_problems(document, (*at, "steps", step, "when"), _expression(entry.get("when")))
    yield from _template_problems(document, (*at, "request"), declared.get("request"))
    batch = declared.get("batch", {})
    for key in ("item", "request"):
        yield from _template_problems(document, (*at, "batch", key), batch.get(key))
    yield from _template_problems(document, (*at, "batch", "unique"), _expression(batch.get("unique")))
    for key, text in batch.get("match", {}).items():
        yield from _template_problems(document, (*at, "batch", "match", key), _expression(text))


def _expression(text: str | None) -> str | None:
    return None if text is None else f"{{{{ {text} }}}}"


def _template_problems(document: Document, at: Steps, value: Any) -> Iterator[Problem]:
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _template_problems(document, (*at, key), entry)
    elif isinstance(value, list):
        for place, entry in enumerate(value):
            yield from _template_problems(document, (*at, place), entry)
    elif isinstance(value, str):
        try:
            compile_declared(value)
        except BadTemplate as bad:
            yield document.problem(at, f"not a template: {bad.message}", bad.hint)


def _pattern_problems(document: Document, value: Any, at: Steps) -> Iterator[Problem]:
    """Patterns of answers that are none."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if key == "body_regex" and isinstance(entry, str):
                try:
                    re.compile(entry)
                except re.error as error:
                    yield document.problem((*at, key), f"not a regular expression: {error.msg}")
            else:
                yield from _pattern_problems(document, entry, (*at, key))
    elif isinstance(value, list):
        for place, entry in enumerate(value):
            yield from _pattern_problems(document, entry, (*at, place))


def schema_of_tests() -> Mapping[str, Any]:
    """The schema of a target's tests: `tests` of a connector of one's own, `tests.yaml` of one that ships."""
    schema: Mapping[str, Any] = json.loads(
        resources.files("bridge.config").joinpath("target_tests.schema.json").read_text("utf-8")
    )
    return schema


@cache
def _schema() -> Mapping[str, Any]:
    """A manifest of a target alone, with `tests`, and without a name if its file's is enough."""
    schema = copy.deepcopy(dict(manifest_schema()))
    tests = {key: value for key, value in schema_of_tests().items() if key[0] != "$"}
    schema["$defs"] |= schema_of_tests()["$defs"] | {"tests": tests}
    schema["properties"] = {
        **{key: schema["properties"][key] for key in ("name", "title", "about", "target")},
        "tests": {"$ref": "#/$defs/tests"},
    }
    schema["required"] = ["title", "about", "target"]
    del schema["anyOf"]
    return schema
