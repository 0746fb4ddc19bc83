"""The JSON Schema of bridge.yaml: what the hub knows, joined with what each connector's manifest says."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, Final

from bridge.core.manifest import SourceConnector, TargetConnector

Schema = dict[str, Any]

_REFERENCE: Final[Schema] = {"type": "string", "pattern": r"\$\{.+\}"}


@cache
def bridge_schema() -> Mapping[str, Any]:
    """The hub's own part, with its `$ref`s followed."""
    schema = _shipped("bridge.schema.json")
    shared = schema.pop("$defs")
    inlined: Schema = _inline(schema, shared)
    return inlined


def common_keys(side: str) -> frozenset[str]:
    """The hub's own keys of a `source` or `target`, which no connector's setting may be called."""
    entry = bridge_schema()["properties"][f"{side}s"]["additionalProperties"]
    return frozenset(entry["properties"]) | ({"api"} if side == "source" else frozenset())


def source_schema(connector: SourceConnector) -> Schema:
    """One entry of `sources` for this connector: common keys, the manifest's options beside them, and `api`."""
    common = bridge_schema()["properties"]["sources"]["additionalProperties"]
    schema = _entry(common, connector.name, connector.manifest.options)
    if connector.manifest.api is not None:
        about = "How to reach the platform's API; without it events are not completed"
        schema["properties"]["api"] = {"description": about, **connector.manifest.api}
    return schema


def target_schema(connector: TargetConnector) -> Schema:
    """One entry of `targets` for this connector."""
    common = bridge_schema()["properties"]["targets"]["additionalProperties"]
    return _entry(common, connector.name, connector.manifest.options)


def editor_schema(sources: Mapping[str, SourceConnector], targets: Mapping[str, TargetConnector]) -> Schema:
    """One schema for editors: completion and checks for every connector, `${…}` allowed wherever text is."""
    schema = copy.deepcopy(dict(bridge_schema()))
    source_entries = {name: source_schema(connector) for name, connector in sources.items()}
    target_entries = {name: target_schema(connector) for name, connector in targets.items()}
    for section, entries, abouts in (
        ("sources", source_entries, {name: connector.about for name, connector in sources.items()}),
        ("targets", target_entries, {name: connector.about for name, connector in targets.items()}),
    ):
        common = schema["properties"][section]["additionalProperties"]
        common["properties"]["connector"] = {
            "description": common["properties"]["connector"]["description"],
            "oneOf": [{"const": name, "description": abouts[name].strip()} for name in sorted(entries)],
        }
        common["allOf"] = [
            {
                "if": {"properties": {"connector": {"const": name}}, "required": ["connector"]},
                "then": _with_references(entries[name]),
            }
            for name in sorted(entries)
        ]
    storage = schema["properties"]["storage"]["properties"]
    for key in storage:
        storage[key] = _with_references(storage[key])
    return schema


def mapping_schema() -> Schema:
    """The schema of a mapping file, for editors; the hub itself asks the compiler of mappings."""
    return _shipped("mapping.schema.json")


def secret_names(schema: Any) -> frozenset[str]:
    """The keys inside a schema, at any depth, that are marked `secret: true`."""
    if isinstance(schema, list):
        return frozenset(name for entry in schema for name in secret_names(entry))
    if not isinstance(schema, dict):
        return frozenset()
    marked = {key for key, entry in schema.get("properties", {}).items() if entry.get("secret") is True}
    inner = (*schema.get("properties", {}).values(), schema.get("oneOf"), schema.get("anyOf"))
    return frozenset(marked.union(*(secret_names(entry) for entry in inner)))


def _shipped(name: str) -> Schema:
    schema: Schema = json.loads(resources.files("bridge.config").joinpath(name).read_text("utf-8"))
    return schema


def _entry(common: Mapping[str, Any], name: str, options: Mapping[str, Any]) -> Schema:
    """The hub's keys win over an option of the same name: their meaning is the same for every connector."""
    return {
        "type": "object",
        "description": common["description"],
        "properties": {
            **copy.deepcopy(dict(options.get("properties", {}))),
            **copy.deepcopy(dict(common["properties"])),
            "connector": {"const": name, "description": "The connector's name"},
        },
        "required": [*common["required"], *options.get("required", ())],
        **({"anyOf": options["anyOf"]} if "anyOf" in options else {}),
        "additionalProperties": False,
    }


def _inline(value: Any, shared: Mapping[str, Any]) -> Any:
    """A schema with every `$ref` to `#/$defs/…` replaced by what it names; keys beside it win."""
    if isinstance(value, list):
        return [_inline(entry, shared) for entry in value]
    if not isinstance(value, dict):
        return value
    named = shared[value["$ref"].removeprefix("#/$defs/")] if "$ref" in value else {}
    return {key: _inline(entry, shared) for key, entry in {**named, **value}.items() if key != "$ref"}


def _with_references(schema: Any) -> Any:
    """A schema that takes `${…}` too where it takes text of a certain form."""
    if isinstance(schema, list):
        return [_with_references(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    types = schema.get("type", ())
    if ("string" in types or "enum" in schema) and {"format", "pattern", "enum", "minLength", "maxLength"} & set(
        schema
    ):
        outer = {key: schema[key] for key in ("description", "default") if key in schema}
        return {**outer, "anyOf": [{key: schema[key] for key in schema if key not in outer}, dict(_REFERENCE)]}
    return {key: _with_references(entry) if key != "default" else entry for key, entry in schema.items()}
