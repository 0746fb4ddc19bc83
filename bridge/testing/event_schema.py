"""Whether a canonical event is fit to be stored and sent."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

import jsonschema_rs

from bridge.core.events import Json


def faults(document: Json) -> list[str]:
    """What is wrong with an event: against the schema, formats included, or not storable as JSON text."""
    found = [f"{error.instance_path}: {error.kind.name}" for error in _validator().iter_errors(document)]
    # The ledger orders by it in 64 bits.
    if "sequence" in document and abs(int(document["sequence"])) >= 2**63:
        found.append("has a sequence of more than 64 bits")
    try:
        text = json.dumps(document, ensure_ascii=False, allow_nan=False)
        text.encode()
    except ValueError:
        return [*found, "has a number or a text that JSON cannot carry"]
    # PostgreSQL keeps no NUL in a text.
    return [*found, "has a NUL in a text"] if "\\u0000" in text else found


@cache
def fields() -> frozenset[str]:
    """Every field of every noun, as in `data.person.givenName`."""
    schema = _schema()
    nouns = {
        noun: schema["$defs"][choice["$ref"].rpartition("/")[2]]["properties"]
        for noun, entry in schema["properties"]["data"]["properties"].items()
        for choice in entry.get("anyOf", [entry])
        if "$ref" in choice
    }
    return frozenset(f"data.{noun}.{name}" for noun, names in nouns.items() for name in names)


@cache
def _validator() -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(_schema(), validate_formats=True)


def _schema() -> Json:
    schema: Json = json.loads(resources.files("bridge.core").joinpath("event.schema.json").read_text("utf-8"))
    return schema
