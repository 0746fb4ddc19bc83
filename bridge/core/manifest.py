"""What a connector says about itself in `manifest.yaml`, as typed values.

The manifest is the one place for a connector's table of kinds, its settings (as JSON Schema), its dedupe rule and, for
targets, its operations and answer rules; pages, checks and the conformance suite are made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal

from bridge.core.authentication import auth_schema
from bridge.core.simulation import Simulator, TargetSimulator
from bridge.core.source import Source
from bridge.core.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrichingCall:
    """One call of an enrichment: `GET /path/{id}`, and the fields of the event that it fills (`data.grade.value`).

    `failing` is what the event is marked when the call keeps failing until the deadline: `missing` where nothing is
    known without it, `partial` where the rest is. `absent` is what a 404 does: `waits` a little and then goes on as
    `failing` says, goes on at once as `partial` or `missing`, or `tells`: that it is gone is the news.
    """

    call: str
    fills: tuple[str, ...]
    failing: Literal["missing", "partial"]
    absent: Literal["waits", "partial", "missing", "tells"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """At most so many requests in so many seconds, by all workers together."""

    calls: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How many calls a credential may make in how many seconds, and how many at a time; `also` are further limits."""

    calls: int
    seconds: float
    concurrent: int
    also: tuple[Rate, ...] = ()

    def changed(self, entry: Mapping[str, Any]) -> Budget:
        """This budget with what a manifest or bridge.yaml says of one instead."""
        if "also" in entry:
            entry = {**entry, "also": tuple(Rate(**rate) for rate in entry["also"])}
        return replace(self, **entry)


DEFAULT_BUDGET: Final = Budget(calls=600, seconds=60.0, concurrent=8)
"""For platforms that document no limit: ten calls a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One native event. `types` are the canonical short types that it can become; `calls` what enrichment asks.

    `deadline` bounds its enrichment where it is not that of the source.
    """

    name: str
    about: str
    types: tuple[str, ...]
    calls: tuple[EnrichingCall, ...] = ()
    deadline: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceManifest:
    """`signed_body` is False where the platform proves only who sent, not what; `deadline` bounds enrichment.

    `setup` are the steps that a person takes where the platform has no API for subscriptions; `{url}` in them stands
    for the address of the hook.
    """

    proof: str
    signed_body: bool
    dedupe_rule: str
    dedupe_reason: str
    deadline: timedelta
    options: Mapping[str, Any]
    api: Mapping[str, Any] | None
    kinds: Mapping[str, Kind]
    budget: Budget = DEFAULT_BUDGET
    setup: tuple[str, ...] = ()
    waivers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One request of an operation that takes several. It is left out unless `when` (an expression) is true.

    `keep` are expressions over `answer` (status, headers, body), found later as `steps.<name>.<key>`.
    """

    name: str
    request: Mapping[str, Any]
    when: str | None = None
    harmless: bool = False
    answers: tuple[Mapping[str, Any], ...] = ()
    keep: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Several messages in one request: up to `most`, collected for `window`, none twice with the same `unique`.

    `item` is rendered per message and found as `items` in `request`. `results` are dotted paths of lists in the answer;
    a result belongs to the item at its place, or, with `match_item` and `match_result`, to that with the same key.
    Each is judged by `item_answers`; an item without one is judged `missing`. Without a `request` it is left to code.
    """

    most: int
    window: timedelta
    unique: str | None = None
    item: Any = None
    request: Mapping[str, Any] | None = None
    results: tuple[str, ...] = ()
    match_item: str | None = None
    match_result: str | None = None
    item_answers: tuple[Mapping[str, Any], ...] = ()
    missing: str = "retry"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """Something a target can do. `params` is the JSON Schema of a mapping's `with`; `request` the declared request, or
    `steps` several of them.
    """

    name: str
    about: str
    params: Mapping[str, Any]
    idempotent: bool
    request: Mapping[str, Any] | None = None
    steps: tuple[Step, ...] = ()
    batch: Batch | None = None
    answers: tuple[Mapping[str, Any], ...] = ()
    destructive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetManifest:
    """`answers` are the rules asked before the generic ones, first match wins; `concurrency` is lanes at a time, `rate`
    how many requests in how many seconds.

    With `whole_event` the event itself goes out, whatever a mapping's `with` says.
    """

    options: Mapping[str, Any]
    operations: Mapping[str, Operation]
    answers: tuple[Mapping[str, Any], ...] = ()
    concurrency: int = 4
    rate: Rate | None = None
    whole_event: bool = False


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
    simulator: TargetSimulator | None = None


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
                calls=tuple(_call(call) for call in entry.get("calls", ())),
                deadline=timedelta(seconds=entry["enrich_deadline_seconds"])
                if "enrich_deadline_seconds" in entry
                else None,
            )
            for name, entry in document["kinds"].items()
        },
        budget=DEFAULT_BUDGET.changed(document.get("budget", {})),
        setup=tuple(document.get("setup", ())),
        waivers=document.get("waivers", {}),
    )


def _call(entry: Mapping[str, Any]) -> EnrichingCall:
    return EnrichingCall(
        call=entry["call"], fills=tuple(entry["fills"]), failing=entry["failing"], absent=entry["absent"]
    )


def target_manifest(document: Mapping[str, Any]) -> TargetManifest:
    """The typed values of a manifest's `target`, which must be valid against `manifest.schema.json`."""
    return TargetManifest(
        options=_target_options(document),
        operations={
            name: Operation(
                name=name,
                about=entry["about"],
                params=entry["params"],
                idempotent=entry["idempotent"],
                request=entry.get("request"),
                steps=tuple(_step(step) for step in entry.get("steps", ())),
                batch=_batch(entry["batch"]) if "batch" in entry else None,
                answers=tuple(entry.get("answers", ())),
                destructive=entry.get("destructive", False),
            )
            for name, entry in document["operations"].items()
        },
        answers=tuple(document.get("answers", ())),
        concurrency=document.get("concurrency", 4),
        rate=Rate(**document["rate"]) if "rate" in document else None,
        whole_event=document.get("whole_event", False),
    )


def _target_options(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options with `auth` among them, where the manifest names the kinds that the target takes."""
    options, required = document.get("options", {}), document.get("required", [])
    if "auth" in document:
        options = {**options, "auth": auth_schema(document["auth"])}
    if document.get("auth_required", False):
        required = [*required, "auth"]
    schema = _schema(options, required=required)
    if "either" in document:
        return {**schema, "anyOf": [{"required": [name]} for name in document["either"]]}
    return schema


def _step(entry: Mapping[str, Any]) -> Step:
    return Step(
        name=entry["name"],
        request=entry["request"],
        when=entry.get("when"),
        harmless=entry.get("harmless", entry["request"]["method"] == "GET"),
        answers=tuple(entry.get("answers", ())),
        keep=entry.get("keep", {}),
    )


def _batch(entry: Mapping[str, Any]) -> Batch:
    match = entry.get("match", {})
    return Batch(
        most=entry["most"],
        window=timedelta(milliseconds=entry.get("window_ms", 200)),
        unique=entry.get("unique"),
        item=entry.get("item"),
        request=entry.get("request"),
        results=tuple(entry.get("results", ())),
        match_item=match.get("item"),
        match_result=match.get("result"),
        item_answers=tuple(entry.get("item_answers", ())),
        missing=entry.get("missing", "retry"),
    )


def _schema(properties: Mapping[str, Any], required: list[str] | None = None) -> Mapping[str, Any]:
    """The JSON Schema of an object with these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": required or [],
        "additionalProperties": False,
    }
