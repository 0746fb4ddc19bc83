"""What a worker works with: the sources, the targets, the mappings of this moment, and the ways out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from bridge.core.contracts import Answer, Request, Settings, SourceApi
from bridge.core.events import Json
from bridge.core.manifest import SourceConnector, TargetConnector
from bridge.flow.deliver import Patience
from bridge.flow.mapping import Mapping as EventMapping
from bridge.ledger.database import Ledger
from bridge.outbound.source_api import Context


class TracedApi(SourceApi, Protocol):
    """A source API that remembers its calls, for the story of an event, and what `extra` calls could not tell."""

    lacking: list[str]

    def calls(self) -> list[Json]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLine:
    """One source of bridge.yaml. `api` makes a client for one event's enrichment, None where no API is
    configured."""

    name: str
    connector: SourceConnector
    settings: Settings
    deadline: timedelta
    api: Callable[[Context], TracedApi] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetLine:
    """One target of bridge.yaml. `send` raises NotSent, AnswerLost, DestinationForbidden or TargetError.

    One that is not `enabled` keeps its messages waiting.
    """

    name: str
    enabled: bool
    connector: TargetConnector
    settings: Settings
    concurrency: int
    patience: Patience
    send: Callable[[Request], Answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Everything that the two stages need."""

    ledger: Ledger
    sources: Mapping[str, SourceLine]
    targets: Mapping[str, TargetLine]
    mappings: Callable[[], Sequence[EventMapping]]
    wake: Callable[[set[str]], None]
