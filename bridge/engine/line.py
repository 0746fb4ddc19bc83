"""What a worker works with: the sources, the targets, the mappings of this moment, and the ways out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from bridge.core.events import Json
from bridge.core.manifest import SourceConnector, TargetConnector
from bridge.core.settings import Settings
from bridge.core.source import SourceApi
from bridge.core.target import Answer, Request
from bridge.engine.destination import Destination
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
    """One source of bridge.yaml. `api` makes a client for one event's enrichment, None without one.

    With `needed_only` the platform is asked only for what a mapping looks at.
    """

    name: str
    connector: SourceConnector
    settings: Settings
    deadline: timedelta
    needed_only: bool
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
    destination: Destination


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Everything that the two stages need."""

    ledger: Ledger
    sources: Mapping[str, SourceLine]
    targets: Mapping[str, TargetLine]
    mappings: Callable[[], Sequence[EventMapping]]
    wake: Callable[[set[str]], None]

    def wants(self, source: SourceLine, field: str) -> bool:
        """Whether a field of this source's events is worth a call to its platform."""
        if not source.needed_only:
            return True
        for mapping in self.mappings():
            target = self.targets.get(mapping.target)
            if target is None or (mapping.sources is not None and source.name not in mapping.sources):
                continue
            if target.connector.manifest.whole_event or mapping.looks_at(field):
                return True
        return False
