"""bridge.yaml as typed values: complete, checked, with secrets filled in and kept out of every `repr`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal

from bridge.core.manifest import Budget, Rate
from bridge.core.settings import Settings
from bridge.flow.network import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """One entry of `sources`. `deadline` is how long enrichment waits for the platform's API; `reconcile_every` is None
    where that is left to people.
    """

    name: str
    connector: str
    settings: Settings
    enabled: bool
    deadline: timedelta
    enrich: Literal["all", "needed"]
    budget: Budget
    reconcile_every: timedelta | None
    transport: Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryConfig:
    """Pauses grow from `first_delay` to `max_delay`; after `max_age` a message becomes a dead letter."""

    max_age: timedelta
    first_delay: timedelta
    max_delay: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetConfig:
    """One entry of `targets`. `concurrency` is deliveries at a time, `rate` how many requests all workers may send;
    `retry` is the target's own or the general one.
    """

    name: str
    connector: str
    settings: Settings
    enabled: bool
    concurrency: int
    rate: Rate | None
    retry: RetryConfig
    transport: Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageConfig:
    """`database` is sqlite:////absolute/path or postgresql://…; `redis` is "embedded" or a URL."""

    database: str = field(repr=False)
    redis: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebConfig:
    """`host` comes without brackets. `public_url` has no final slash."""

    host: str
    port: int
    workers: int
    max_body_bytes: int
    console: Literal["local", "on", "off"]
    public_url: str | None
    streams: int
    stream_minutes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersConfig:
    """Worker processes on this host, and the threads with which each of them waits for answers."""

    processes: int
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """`allow_hosts` are lower-case `host` or `host:port` (IPv6 in brackets) that may have any address at all.

    The roads that `network` names are in each source and target.
    """

    allow_hosts: tuple[str, ...]
    allow_private: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    level: Literal["debug", "info", "warning", "error"]
    format: Literal["text", "json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """All of one bridge.yaml. Paths are absolute."""

    file: Path
    sources: Mapping[str, SourceConfig]
    targets: Mapping[str, TargetConfig]
    storage: StorageConfig
    accept: Literal["journal", "ledger"]
    data: Path
    mappings: Path
    web: WebConfig
    workers: WorkersConfig
    network: NetworkConfig
    retry: RetryConfig
    log: LogConfig
