"""Reads bridge.yaml: file → references filled in → checked → typed values, or every problem at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from bridge.config.documents import Document, Steps, read_document
from bridge.config.network import network_problems, transport_of
from bridge.config.references import Resolved, resolve
from bridge.config.schema import bridge_schema, source_schema, target_schema
from bridge.config.soundness import doubts, unsound
from bridge.config.validation import did_you_mean, problems_of, with_defaults
from bridge.config.values import (
    Configuration,
    LogConfig,
    NetworkConfig,
    RetryConfig,
    SourceConfig,
    StorageConfig,
    TargetConfig,
    WebConfig,
    WorkersConfig,
)
from bridge.core.errors import ConfigurationError, Problem
from bridge.core.manifest import Rate, SourceConnector, TargetConnector
from bridge.core.settings import Settings
from bridge.flow.network import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What came of reading a bridge.yaml. `configuration` is there exactly when there are no problems."""

    configuration: Configuration | None
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...] = ()
    document: Document | None = field(default=None, repr=False)


def load_configuration(
    path: Path,
    *,
    sources: Mapping[str, SourceConnector],
    targets: Mapping[str, TargetConnector],
    environ: Mapping[str, str] | None = None,
) -> Configuration:
    """The configuration in a bridge.yaml, or ConfigurationError with everything that is wrong with it.

    `environ` is where `${NAME}` is looked up, by default this process's environment.
    """
    reading = read_configuration(path, sources=sources, targets=targets, environ=environ)
    if reading.configuration is None:
        raise ConfigurationError(reading.problems)
    return reading.configuration


def read_configuration(
    path: Path,
    *,
    sources: Mapping[str, SourceConnector],
    targets: Mapping[str, TargetConnector],
    environ: Mapping[str, str] | None = None,
) -> Reading:
    """As `load_configuration`, but hands out problems and warnings instead of raising."""
    document, problems = read_document(path)
    if document is None:
        return Reading(configuration=None, problems=tuple(problems))
    if document.value is None:
        problems.append(document.problem((), "the file is empty"))
        return Reading(configuration=None, problems=tuple(problems), document=document)
    folder = path.absolute().parent
    resolved = resolve(document, os.environ if environ is None else environ, folder)
    problems += resolved.problems
    told = {problem.where for problem in problems}
    shape = problems_of(bridge_schema(), resolved.value, document, unknown=resolved.unknown)
    shape += _entry_problems(document, resolved, sources, targets)
    problems += [problem for problem in shape if problem.where not in told]
    if not problems:
        problems += unsound(document, resolved.value, sources)
        problems += network_problems(document, resolved.value, folder, sources, targets)
    ordered = tuple(sorted(dict.fromkeys(problems), key=lambda problem: (problem.line or 0, problem.where)))
    if ordered:
        return Reading(configuration=None, problems=ordered, document=document)
    configuration = _configuration(path.absolute(), with_defaults(bridge_schema(), resolved.value), sources, targets)
    warnings = tuple(doubts(document, resolved, sources, targets))
    return Reading(configuration=configuration, problems=(), warnings=warnings, document=document)


def _entry_problems(
    document: Document,
    resolved: Resolved,
    sources: Mapping[str, SourceConnector],
    targets: Mapping[str, TargetConnector],
) -> list[Problem]:
    """What is wrong with single sources and targets, each judged by its own connector's schema."""
    problems: list[Problem] = []

    def judge(section: str, known: Mapping[str, Any], schema_of: Callable[[str], Mapping[str, Any]]) -> None:
        entries = resolved.value.get(section) if isinstance(resolved.value, dict) else None
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            at: Steps = (section, name)
            connector = entry.get("connector") if isinstance(entry, dict) else None
            if isinstance(connector, str) and connector in known:
                problems.extend(problems_of(schema_of(connector), entry, document, at=at, unknown=resolved.unknown))
            elif isinstance(connector, str) and (*at, "connector") not in resolved.unknown:
                hint = did_you_mean(connector, known)
                message = f"there is no {section.removesuffix('s')} connector of this name"
                problems.append(document.problem((*at, "connector"), message, hint))

    judge("sources", sources, lambda connector: source_schema(sources[connector]))
    judge("targets", targets, lambda connector: target_schema(targets[connector]))
    return problems


def _configuration(
    file: Path,
    document: Mapping[str, Any],
    sources: Mapping[str, SourceConnector],
    targets: Mapping[str, TargetConnector],
) -> Configuration:
    folder = file.parent
    network = document["network"]
    return Configuration(
        file=file,
        sources={
            name: _source(name, entry, sources[entry["connector"]], transport_of(entry, network, folder))
            for name, entry in document["sources"].items()
        },
        targets={
            name: _target(
                name, entry, targets[entry["connector"]], document["retry"], transport_of(entry, network, folder)
            )
            for name, entry in document["targets"].items()
        },
        storage=StorageConfig(
            database=_database(document["storage"]["database"], folder),
            redis=document["storage"]["redis"],
        ),
        accept=document["accept"],
        data=folder / document["data"],
        mappings=folder / document["mappings"],
        web=_web(document["web"]),
        workers=WorkersConfig(**document["workers"]),
        network=NetworkConfig(
            allow_hosts=tuple(host.lower() for host in network["allow_hosts"]),
            allow_private=network["allow_private"],
        ),
        retry=_retry(document["retry"]),
        log=LogConfig(**document["log"]),
    )


def _source(name: str, entry: Mapping[str, Any], connector: SourceConnector, transport: Transport) -> SourceConfig:
    manifest = connector.manifest
    seconds = entry.get("enrich_deadline_seconds", manifest.deadline.total_seconds())
    api = with_defaults(manifest.api, entry["api"]) if manifest.api is not None and "api" in entry else None
    options = _options(entry, manifest.options)
    return SourceConfig(
        name=name,
        connector=connector.name,
        settings=Settings(name=name, secrets=tuple(entry.get("secrets", ())), options=options, api=api),
        enabled=entry.get("enabled", True),
        deadline=timedelta(seconds=seconds),
        enrich=entry.get("enrich", "all"),
        budget=manifest.budget.changed(entry.get("budget", {})),
        reconcile_every=timedelta(hours=hours) if (hours := entry.get("reconcile_every_hours", 6)) else None,
        transport=transport,
    )


def _target(
    name: str,
    entry: Mapping[str, Any],
    connector: TargetConnector,
    general: Mapping[str, Any],
    transport: Transport,
) -> TargetConfig:
    return TargetConfig(
        name=name,
        connector=connector.name,
        settings=Settings(name=name, options=_options(entry, connector.manifest.options)),
        enabled=entry.get("enabled", True),
        concurrency=entry.get("concurrency", connector.manifest.concurrency),
        rate=_rate(entry, connector.manifest.rate),
        retry=_retry({**general, **entry.get("retry", {})}),
        transport=transport,
    )


def _rate(entry: Mapping[str, Any], usual: Rate | None) -> Rate | None:
    if "rate" not in entry:
        return usual
    return None if entry["rate"] is None else Rate(**entry["rate"])


def _options(entry: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    given = {key: entry[key] for key in schema.get("properties", {}) if key in entry}
    filled: dict[str, Any] = with_defaults(schema, given)
    return filled


def _retry(document: Mapping[str, Any]) -> RetryConfig:
    return RetryConfig(
        max_age=timedelta(hours=document["max_hours"]),
        first_delay=timedelta(seconds=document["first_delay_seconds"]),
        max_delay=timedelta(seconds=document["max_delay_seconds"]),
    )


def _web(document: Mapping[str, Any]) -> WebConfig:
    host, _, port = document["bind"].rpartition(":")
    public_url = document.get("public_url")
    return WebConfig(
        host=host.strip("[]"),
        port=int(port),
        workers=document["workers"],
        max_body_bytes=document["max_body_bytes"],
        console=document["console"],
        public_url=public_url.rstrip("/") if public_url else None,
        streams=document["streams"],
        stream_minutes=document["stream_minutes"],
    )


def _database(url: str, folder: Path) -> str:
    """A SQLite path is made absolute, so that every process means the same file whatever folder it runs in."""
    scheme, _, path = url.partition(":///")
    return f"sqlite:///{folder / path}" if scheme == "sqlite" else url
