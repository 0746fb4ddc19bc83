"""What a connector says about itself in `manifest.yaml`, as typed values.

The manifest is the one place for a connector's table of kinds, its settings (as JSON Schema), its dedupe rule and, for
targets, its operations and answer rules; pages, checks and the conformance suite are made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from bridge.core.contracts import Simulator, Source, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One native event. `types` are the canonical short types that it can become; `calls` what enrichment asks."""

    name: str
    about: str
    types: tuple[str, ...]
    calls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceManifest:
    """`signed_body` is False where the platform proves only who sent, not what; `deadline` bounds enrichment."""

    proof: str
    signed_body: bool
    dedupe_rule: str
    dedupe_reason: str
    deadline: timedelta
    options: Mapping[str, Any]
    api: Mapping[str, Any] | None
    kinds: Mapping[str, Kind]
    waivers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """Something a target can do. `params` is the JSON Schema of a mapping's `with`; `request` the declared request."""

    name: str
    about: str
    params: Mapping[str, Any]
    idempotent: bool
    request: Mapping[str, Any] | None = None
    answers: tuple[Mapping[str, Any], ...] = ()
    destructive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetManifest:
    """`answers` are the rules asked before the generic ones, first match wins; `concurrency` is lanes at a time."""

    options: Mapping[str, Any]
    operations: Mapping[str, Operation]
    answers: tuple[Mapping[str, Any], ...] = ()
    concurrency: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConnector:
    """One system that sends: its manifest, its code, and its simulator."""

    name: str
    title: str
    about: str
    folder: Path
    manifest: SourceManifest
    code: Source
    simulator: Simulator


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetConnector:
    """One system that receives. One whose `code` is None is made of data alone."""

    name: str
    title: str
    about: str
    folder: Path
    manifest: TargetManifest
    code: Target | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """The connectors that this installation has."""

    sources: Mapping[str, SourceConnector]
    targets: Mapping[str, TargetConnector]


def source_manifest(document: Mapping[str, Any]) -> SourceManifest:
    """The typed values of a manifest's `source`, which must be valid against `manifest.schema.json`."""
    return SourceManifest(
        proof=document["proof"],
        signed_body=document.get("signed_body", True),
        dedupe_rule=document["dedupe"]["rule"],
        dedupe_reason=document["dedupe"]["reason"],
        deadline=timedelta(seconds=document.get("enrich_deadline_seconds", 3600)),
        options=_schema(document.get("options", {})),
        api=_schema(document["api"], required=document.get("api_required", [])) if "api" in document else None,
        kinds={
            name: Kind(
                name=name,
                about=entry["about"],
                types=tuple(entry["types"]),
                calls=tuple(entry.get("calls", ())),
            )
            for name, entry in document["kinds"].items()
        },
        waivers=document.get("waivers", {}),
    )


def target_manifest(document: Mapping[str, Any]) -> TargetManifest:
    """The typed values of a manifest's `target`, which must be valid against `manifest.schema.json`."""
    return TargetManifest(
        options=_schema(document.get("options", {}), required=document.get("required", [])),
        operations={
            name: Operation(
                name=name,
                about=entry["about"],
                params=entry["params"],
                idempotent=entry["idempotent"],
                request=entry.get("request"),
                answers=tuple(entry.get("answers", ())),
                destructive=entry.get("destructive", False),
            )
            for name, entry in document["operations"].items()
        },
        answers=tuple(document.get("answers", ())),
        concurrency=document.get("concurrency", 4),
    )


def _schema(properties: Mapping[str, Any], required: list[str] | None = None) -> Mapping[str, Any]:
    """The JSON Schema of an object with these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": required or [],
        "additionalProperties": False,
    }
