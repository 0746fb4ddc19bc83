"""Puts the parts together as bridge.yaml wants them. Nothing here decides anything."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog
from redis import Redis
from redis.exceptions import RedisError

from bridge.config.live import LiveMappings, Snapshot
from bridge.config.mappings import load_mappings, loader
from bridge.config.values import Configuration, TargetConfig
from bridge.core.contracts import Settings
from bridge.core.manifest import Registry, SourceConnector
from bridge.engine.deliver import DeliverStage
from bridge.engine.hints import Hints
from bridge.engine.line import Line, SourceLine, TargetLine, TracedApi
from bridge.engine.process import ProcessStage
from bridge.engine.redis_server import connector
from bridge.engine.worker import Stage
from bridge.flow.deliver import Patience
from bridge.ledger.database import Ledger
from bridge.outbound.guard import NetworkPolicy
from bridge.outbound.kept import KeptAnswers
from bridge.outbound.source_api import Context, platform_of
from bridge.outbound.target import target_sender
from bridge.outbound.tokens import TokenCache

_LOOK_SECONDS = 1.5
_log = structlog.get_logger(__name__)


def redis_folder(configuration: Configuration) -> Path:
    """Where an embedded Redis-compatible server lives."""
    return configuration.data / "redis"


def journal_folder(configuration: Configuration) -> Path:
    return configuration.data / "journal"


def redis_of(configuration: Configuration, *, timeout: float | None = None) -> Callable[[], Redis]:
    return connector(configuration.storage.redis, redis_folder(configuration), timeout=timeout)


def receiving(configuration: Configuration, registry: Registry) -> dict[str, tuple[SourceConnector, Settings]]:
    """The sources that take webhooks, by their names."""
    return {
        name: (registry.sources[source.connector], source.settings)
        for name, source in configuration.sources.items()
        if source.enabled
    }


def mapping_problems(configuration: Configuration, registry: Registry) -> Callable[[], list[str]]:
    """Says what is wrong with the mapping files as they are now; files that did not change are not read again."""
    known: dict[tuple[tuple[str, int, int], ...], list[str]] = {}

    def problems() -> list[str]:
        state = _state(configuration.mappings)
        if state not in known:
            known.clear()
            found = load_mappings(configuration, registry.sources, registry.targets)[1]
            known[state] = [str(problem) for problem in found]
        return known[state]

    return problems


def _state(folder: Path) -> tuple[tuple[str, int, int], ...]:
    try:
        entries = [(entry.name, entry.stat()) for entry in os.scandir(folder)]
    except OSError:
        return ()
    return tuple(sorted((name, status.st_mtime_ns, status.st_size) for name, status in entries))


def line_of(configuration: Configuration, registry: Registry, ledger: Ledger, hints: Hints) -> Line:
    """The line as a worker runs it; mappings are looked after by a thread of its own."""
    policy = NetworkPolicy(
        allow_hosts=frozenset(configuration.network.allow_hosts), allow_private=configuration.network.allow_private
    )
    tokens = TokenCache(_optional(redis_of(configuration, timeout=2.0)))
    mappings = LiveMappings(
        folder=configuration.mappings,
        data=configuration.data,
        load=loader(configuration, registry.sources, registry.targets),
        every=_LOOK_SECONDS,
        on_change=_tell,
    )
    mappings.current()
    threading.Thread(target=_keep_looking, args=(mappings,), name="mappings", daemon=True).start()
    return Line(
        ledger=ledger,
        sources={
            name: SourceLine(
                name=name,
                connector=registry.sources[source.connector],
                settings=source.settings,
                deadline=source.deadline,
                needed_only=source.enrich == "needed",
                api=_api(registry.sources[source.connector], source.settings, policy, tokens),
            )
            for name, source in configuration.sources.items()
        },
        targets={name: _target(target, registry, policy) for name, target in configuration.targets.items()},
        mappings=lambda: tuple(mappings.current().mappings.values()),
        wake=hints.wake,
    )


def stages_of(line: Line, threads: int) -> dict[str, Stage]:
    """Both stages, each source and each target with threads of its own: a hanging one takes nobody else's."""
    return {
        "process": ProcessStage(line, {name: _pool(name, threads) for name in line.sources}, width=threads),
        "deliver": DeliverStage(line, {name: _pool(name, target.concurrency) for name, target in line.targets.items()}),
    }


def _pool(name: str, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=threads, thread_name_prefix=name)


def _target(target: TargetConfig, registry: Registry, policy: NetworkPolicy) -> TargetLine:
    return TargetLine(
        name=target.name,
        enabled=target.enabled,
        connector=registry.targets[target.connector],
        settings=target.settings,
        concurrency=target.concurrency,
        patience=Patience(
            first_delay=target.retry.first_delay,
            max_delay=target.retry.max_delay,
            longest=target.retry.max_age,
        ),
        send=target_sender(target.settings, policy, connections=target.concurrency),
    )


def _api(
    source: SourceConnector, settings: Settings, policy: NetworkPolicy, tokens: TokenCache
) -> Callable[[Context], TracedApi] | None:
    access = source.code.access(settings)
    if access is None:
        return None
    return platform_of(settings, access, policy, tokens, KeptAnswers()).client


def _optional(connect: Callable[[], Redis]) -> Redis | None:
    try:
        return connect()
    except RedisError:
        return None


def _keep_looking(mappings: LiveMappings) -> None:
    """A change of a file counts from the second look that sees it: within 4 s, whether events come in or not."""
    pause = threading.Event()
    while not pause.wait(_LOOK_SECONDS / 2):
        mappings.current()


def _tell(snapshot: Snapshot) -> None:
    _log.info("mappings", names=sorted(snapshot.mappings))
    for problem in snapshot.problems:
        _log.error("mapping_broken", problem=str(problem), held=sorted(snapshot.held))
