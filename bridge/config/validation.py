"""JSON Schema errors as sentences for people: what was expected and where, never the value that was found."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final, cast
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError
from referencing import Registry

from bridge.config.documents import Document, Steps
from bridge.core.errors import Problem

_KINDS: Final = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping of keys to values",
    "null": "nothing",
}

_FORMATS: Final = FormatChecker(formats=())


@_FORMATS.checks("uri")
def _is_url(value: object) -> bool:
    """An http or https URL with a host; other texts with this format are mistakes that show only on the first call."""
    if not isinstance(value, str):
        return True
    try:
        parts = urlsplit(value)
        valid_port = parts.port is None or parts.port > 0
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and valid_port and not set(value) & set(" \t\n")


def validator(schema: Mapping[str, Any]) -> Draft202012Validator:
    """A validator that checks formats too, `uri` means an http(s) URL with a host, and that fetches no other schema."""
    return Draft202012Validator(schema, format_checker=_FORMATS, registry=Registry())


def problems_of(
    schema: Mapping[str, Any],
    value: Any,
    document: Document,
    *,
    at: Steps = (),
    unknown: Collection[Steps] = (),
    ignore: Callable[[ValidationError], bool] = lambda error: False,
) -> list[Problem]:
    """Everything wrong with a value that stands at `at` in a document, in the order of the file.

    Nothing is said about the places in `unknown`, nor about errors that `ignore` wants left out.
    """
    problems = [
        problem
        for error in validator(schema).iter_errors(value)
        for place, problem in _explained(error, document, at, ignore)
        if place not in unknown
    ]
    unique = dict.fromkeys(problems)
    return sorted(unique, key=lambda problem: (problem.line or 0, problem.where))


def with_defaults(schema: Mapping[str, Any], value: Any) -> Any:
    """A copy of a value in which missing keys have their schema's `default`, at every depth that is there."""
    properties = _chosen(schema, value).get("properties")
    if not isinstance(value, dict) or not isinstance(properties, Mapping):
        return value
    filled = {
        key: copy.deepcopy(entry["default"])
        for key, entry in properties.items()
        if isinstance(entry, Mapping) and "default" in entry and key not in value
    }
    return {
        key: with_defaults(properties[key], entry) if isinstance(properties.get(key), Mapping) else entry
        for key, entry in {**value, **filled}.items()
    }


def _chosen(schema: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    """Of several shapes that are told apart by a constant, `kind: basic`, the one that the value names."""
    for branch in schema.get("oneOf", ()) if isinstance(value, dict) else ():
        marks = {key: entry["const"] for key, entry in branch.get("properties", {}).items() if "const" in entry}
        if marks and all(value.get(key) == mark for key, mark in marks.items()):
            return cast(Mapping[str, Any], branch)
    return schema


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that names the nearest known word, or all of them when none is near and they are few."""
    names = sorted(known)
    near = get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    return f"known: {', '.join(names)}" if 0 < len(names) <= 12 else ""


def _explained(
    error: ValidationError, document: Document, at: Steps, ignore: Callable[[ValidationError], bool]
) -> Iterator[tuple[Steps, Problem]]:
    """One jsonschema error as problems, each with the place it is about."""
    steps = (*at, *error.absolute_path)
    schema: Any = error.schema
    value: Any = error.instance
    limit: Any = error.validator_value
    if ignore(error):
        return
    if error.validator in ("oneOf", "anyOf") and error.context:
        yield from _nearest_branch(error, document, at, ignore)
    elif error.validator == "additionalProperties" and isinstance(value, Mapping):
        known = schema.get("properties", {})
        for key in value:
            if key not in known:
                problem = document.problem((*steps, key), f"unknown key '{key}'", did_you_mean(key, known))
                yield (*steps, key), problem
    elif error.validator == "required":
        for key in limit:
            if key not in value:
                about = _about(schema.get("properties", {}).get(key))
                yield (*steps, key), document.problem(steps, f"the key '{key}' is missing", about)
    elif "propertyNames" in error.absolute_schema_path:
        yield (*steps, value), document.problem((*steps, value), _sentence(error), _about(schema) or f"as in {limit}")
    else:
        yield steps, document.problem(steps, _sentence(error), _hint(error))


def _nearest_branch(
    error: ValidationError, document: Document, at: Steps, ignore: Callable[[ValidationError], bool]
) -> Iterator[tuple[Steps, Problem]]:
    """Of several allowed shapes the mistakes of the one that the value has, or else all kinds that are allowed."""
    branches: dict[Any, list[ValidationError]] = {}
    for inner in error.context or ():
        branches.setdefault(inner.schema_path[0], []).append(inner)
    if any(all(ignore(inner) for inner in inners) for inners in branches.values()):
        return
    shaped = [inners for inners in branches.values() if not any(_other_kind(inner, error) for inner in inners)]
    marks = [[inner for inner in inners if inner.validator == "const"] for inners in shaped]
    if shaped and all(marks):  # it calls itself what none of them is called
        place = (*at, *marks[0][0].absolute_path)
        names: list[Any] = [found.validator_value for branch in marks for found in branch]
        yield place, document.problem(place, f"expected one of {_listed(names)}", _about(error.schema))
        return
    if shaped:
        named = [inners for inners, found in zip(shaped, marks, strict=True) if not found]
        for inner in min(named, key=len):
            yield from _explained(inner, document, at, ignore)
        return
    steps = (*at, *error.absolute_path)
    types: list[Any] = [inner.validator_value for inners in branches.values() for inner in inners]
    expected = " or ".join(dict.fromkeys(_kinds(entry) for entry in types if isinstance(entry, str | list)))
    yield steps, document.problem(steps, f"expected {expected or 'another shape'}", _about(error.schema))


def _other_kind(inner: ValidationError, outer: ValidationError) -> bool:
    return inner.validator == "type" and len(inner.absolute_path) == len(outer.absolute_path)


def _sentence(error: ValidationError) -> str:
    """What was expected."""
    limit: Any = error.validator_value
    if error.validator == "type":
        return f"expected {_kinds(limit)}, found {_kind_of(error.instance)}"
    if error.validator in ("minLength", "minItems", "minProperties") and limit == 1:
        return "must not be empty"
    words = _SENTENCES.get(str(error.validator))
    return words(limit) if words else "is not allowed here"


_SENTENCES: Final[Mapping[str, Callable[[Any], str]]] = {
    "enum": lambda limit: f"expected one of {_listed(limit)}",
    "const": lambda limit: f"expected {_listed([limit])}",
    "minimum": lambda limit: f"expected at least {limit}",
    "maximum": lambda limit: f"expected at most {limit}",
    "exclusiveMinimum": lambda limit: f"expected more than {limit}",
    "exclusiveMaximum": lambda limit: f"expected less than {limit}",
    "minLength": lambda limit: f"expected at least {limit} characters",
    "maxLength": lambda limit: f"expected at most {limit} characters",
    "minItems": lambda limit: f"expected at least {limit} entries",
    "maxItems": lambda limit: f"expected at most {limit} entries",
    "minProperties": lambda limit: f"expected at least {limit} keys",
    "maxProperties": lambda limit: f"expected at most {limit} keys",
    "uniqueItems": lambda limit: "the same entry is there twice",
    "format": lambda limit: "expected an http or https URL" if limit == "uri" else f"expected the format {limit}",
    "not": lambda limit: "these keys do not go together" if "required" in str(limit) else "is not allowed here",
    "pattern": lambda limit: "does not have the expected form",
    "dependentRequired": lambda limit: (
        "needs another key beside it: " + "; ".join(f"{key} needs {_listed(others)}" for key, others in limit.items())
    ),
}


def _hint(error: ValidationError) -> str:
    """The schema's own description, unless a word is nearly right or only the pattern tells."""
    value, limit, about = error.instance, error.validator_value, _about(error.schema)
    if error.validator == "enum" and isinstance(value, str) and isinstance(limit, list):
        near = get_close_matches(value, [str(entry) for entry in limit], n=1)
        return f"did you mean {near[0]}?" if near else about
    return about or (f"it has to match {limit}" if error.validator == "pattern" else "")


def _about(schema: Any) -> str:
    return str(schema.get("description", "")) if isinstance(schema, Mapping) else ""


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(value if isinstance(value, str) else json.dumps(value) for value in values)


def _kinds(expected: str | list[str]) -> str:
    names = [expected] if isinstance(expected, str) else expected
    return " or ".join(_KINDS.get(name, name) for name in names)


def _kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return _KINDS["boolean"]
    for kind, name in (((int, float), "number"), (str, "string"), (list, "array"), (dict, "object")):
        if isinstance(value, kind):
            return _KINDS[name]
    return _KINDS["null"]
