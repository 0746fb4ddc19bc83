"""Puts the parts together as bridge.yaml wants them. Nothing here decides anything."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import structlog
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from bridge.config.live import LiveMappings, Snapshot
from bridge.config.mappings import load_mappings, loader
from bridge.config.values import Configuration, SourceConfig, TargetConfig
from bridge.core.manifest import Registry, SourceConnector
from bridge.core.settings import Settings
from bridge.core.signing import canonical_json, fingerprint
from bridge.core.target import Answer, Request
from bridge.engine.deliver import DeliverStage
from bridge.engine.destination import Destination
from bridge.engine.hints import Hints
from bridge.engine.line import Line, SourceLine, TargetLine, TracedApi
from bridge.engine.owners import is_dead, this_process
from bridge.engine.process import ProcessStage
from bridge.engine.redis_server import connector, pinger
from bridge.engine.shipper import PROCESS_SHARDS
from bridge.engine.worker import Stage
from bridge.flow.deliver import Patience
from bridge.flow.network import DIRECT, Transport
from bridge.ledger.database import Ledger
from bridge.outbound.budget import rules_of
from bridge.outbound.gate import Gate
from bridge.outbound.guard import NetworkPolicy
from bridge.outbound.kept import KeptAnswers
from bridge.outbound.pace import in_turn, rules_for
from bridge.outbound.shared_answers import SharedAnswers
from bridge.outbound.shared_server import SharedServer
from bridge.outbound.source_api import Context, credential_of, platform_of
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


def running_redis(configuration: Configuration) -> Redis | None:
    """A client of the Redis that is there; None, and no embedded one is started, when there is none."""
    try:
        pinger(configuration.storage.redis, redis_folder(configuration))()
    except (RedisError, OSError):
        return None
    return _optional(redis_of(configuration, timeout=2.0))


def sources_of(configuration: Configuration, registry: Registry, redis: Redis | None) -> dict[str, SourceLine]:
    """Every source with its way to the platform's API."""
    # Without Redis nobody knows of the others: there may be as many processes elsewhere as here.
    among = _Among(tokens=TokenCache(redis), server=_server(redis), shares=2 * configuration.workers.processes)
    return {
        name: SourceLine(
            name=name,
            connector=registry.sources[source.connector],
            settings=source.settings,
            deadline=source.deadline,
            needed_only=source.enrich == "needed",
            api=_api(registry.sources[source.connector], source, _policy(configuration, source.transport), among),
        )
        for name, source in configuration.sources.items()
    }


def line_of(configuration: Configuration, registry: Registry, ledger: Ledger, hints: Hints) -> Line:
    """The line as a worker runs it; mappings are looked after by a thread of its own."""
    mappings = LiveMappings(
        folder=configuration.mappings,
        data=configuration.data,
        load=loader(configuration, registry.sources, registry.targets),
        every=_LOOK_SECONDS,
        on_change=_tell,
    )
    mappings.current()
    threading.Thread(target=_keep_looking, args=(mappings,), name="mappings", daemon=True).start()
    redis = _optional(redis_of(configuration, timeout=2.0))
    sources = sources_of(configuration, registry, redis)
    ways = _Ways(
        policy=_policy(configuration),
        tokens=TokenCache(redis),
        ledger=ledger,
        server=_server(redis),
        shares=2 * configuration.workers.processes,
    )
    return Line(
        ledger=ledger,
        sources=sources,
        targets={
            name: _target(target, registry, ways, _destination(target, ledger, hints))
            for name, target in configuration.targets.items()
        },
        mappings=lambda: tuple(mappings.current().mappings.values()),
        wake=hints.wake,
    )


def stages_of(line: Line, threads: int) -> dict[str, Stage]:
    """Both stages, each source and each target with threads of its own: a hanging one takes nobody else's."""
    return {
        "process": ProcessStage(line, {name: _pool(name, threads) for name in line.sources}, width=threads),
        "deliver": DeliverStage(line, {name: _pool(name, target.concurrency) for name, target in line.targets.items()}),
    }


def slots_for(line: Line) -> int:
    """As many lanes as there are, so that none waits until one whose target hangs has left its slot.

    And one for the lanes of what is no longer in bridge.yaml: their rows are only put off.
    """
    return 1 + PROCESS_SHARDS * len(line.sources) + sum(target.concurrency for target in line.targets.values())


def _policy(configuration: Configuration, transport: Transport = DIRECT) -> NetworkPolicy:
    network = configuration.network
    return NetworkPolicy(
        allow_hosts=frozenset(network.allow_hosts), allow_private=network.allow_private, transport=transport
    )


def _pool(name: str, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=threads, thread_name_prefix=name)


def _destination(target: TargetConfig, ledger: Ledger, hints: Hints) -> Destination:
    how: list[str | bytes] = [
        canonical_json(dict(target.settings.options)),
        repr(target.transport),
        *target.settings.secrets,
    ]
    destination = Destination(ledger, target.name, fingerprint(how), hints.wake)
    destination.begin()
    return destination


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ways:
    """What the ways to all targets share, and among how many processes a rate is divided without Redis."""

    policy: NetworkPolicy
    tokens: TokenCache
    ledger: Ledger
    server: SharedServer | None
    shares: int


def _target(target: TargetConfig, registry: Registry, ways: _Ways, destination: Destination) -> TargetLine:
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
        send=_paced(target, ways, _sender(target, ways)),
        destination=destination,
    )


def _sender(target: TargetConfig, ways: _Ways) -> Callable[[Request], Answer]:
    return target_sender(
        target.settings,
        replace(ways.policy, transport=target.transport),
        connections=target.concurrency,
        tokens=ways.tokens,
        ledger=ways.ledger,
    )


def _paced(target: TargetConfig, ways: _Ways, send: Callable[[Request], Answer]) -> Callable[[Request], Answer]:
    """Two targets with one account, as far as their settings tell, keep to its rate together."""
    if target.rate is None:
        return send
    options = target.settings.options
    account = fingerprint([target.connector, canonical_json(options.get("auth") or dict(options))])
    rules = rules_for(target.rate, timeout=float(options.get("timeout", 60.0)))
    gate = Gate(
        f"target:{target.name}",
        rules,
        server=ways.server,
        credential=account,
        shares=ways.shares,
        owner=this_process(),
        is_dead=is_dead,
    )
    return in_turn(send, gate)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Among:
    """What workers share of the platforms' APIs, and among how many processes a budget is divided without Redis."""

    tokens: TokenCache
    server: SharedServer | None
    shares: int


def _api(
    connector: SourceConnector, source: SourceConfig, policy: NetworkPolicy, among: _Among
) -> Callable[[Context], TracedApi] | None:
    access = connector.code.access(source.settings)
    if access is None:
        return None
    gate = Gate(
        source.name,
        rules_of(source.budget),
        server=among.server,
        credential=credential_of(access),
        shares=among.shares,
        owner=this_process(),
        is_dead=is_dead,
    )
    kept = KeptAnswers(shared=None if among.server is None else SharedAnswers(among.server))
    return platform_of(source.settings, access, policy, among.tokens, kept, gate=gate).client


def _server(redis: Redis | None) -> SharedServer | None:
    if redis is None:
        return None
    redis.set_retry(Retry(NoBackoff(), 0))  # what is in Redis can be done without; waiting for it cannot
    return SharedServer(lambda: redis)


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
