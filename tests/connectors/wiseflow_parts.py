"""What WISEflow's tests share: a bridge's view of a simulated WISEflow, with what it remembers of earlier events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bridge.config.connectors import source_connector
from bridge.core.events import Event
from bridge.core.payload import Payload
from bridge.core.signing import canonical_json
from bridge.core.simulation import Call
from bridge.core.source import Found, Inbound, Verified
from bridge.flow.process import enriched, events_of
from bridge.outbound.source_api import Context, HttpSourceApi, Platform
from bridge.testing.conforming_simulator import as_inbound, simulated_settings
from bridge.testing.simulated_api import SimulatedSender, simulated_api
from connectors.wiseflow import simulator, source

CONNECTOR = source_connector(Path(simulator.__file__).parent, source, simulator)
SETTINGS = simulated_settings(CONNECTOR)


@dataclass(slots=True, kw_only=True)
class Bridge:
    """Takes calls as they come, completes them, and remembers the newest event of each subject."""

    platform: simulator.Platform
    wanted: bool = True
    memory: dict[str, Event] = field(default_factory=dict)
    shared: Platform = field(init=False)
    sender: SimulatedSender = field(init=False)

    def __post_init__(self) -> None:
        client, self.sender = simulated_api(CONNECTOR, self.platform, SETTINGS)
        self.shared = client.platform

    def client(self, offered: dict[str, Payload] | None = None, *, last_try: bool = False) -> HttpSourceApi:
        context = Context(
            known=self.memory.get,
            wants=lambda _: self.wanted,
            last_try=last_try,
            offered={} if offered is None else offered,
        )
        return self.shared.client(context)

    def event(self, call: Call, at: datetime | None = None) -> Event:
        now = at or datetime.now(UTC)
        signed = self.platform.sign(call, SETTINGS.secrets[0], attempt=1, now=now)
        [event] = events_of(CONNECTOR, source.verify(as_inbound(signed, SETTINGS.name, now), SETTINGS), SETTINGS)
        return event

    def found_event(self, found: Found) -> Event:
        """The event of a body that reconciliation made; nobody signed it."""
        request = Inbound(
            id="found",
            source=SETTINGS.name,
            received_at=datetime.now(UTC),
            headers={},
            query={},
            body=canonical_json(found.body),
        )
        proven = Verified(inbound=request, proof="reconciled", dedupe_key="", dedupe_window=timedelta(0))
        [event] = events_of(CONNECTOR, proven, SETTINGS)
        return replace(event, origin="reconciled")

    def complete(self, event: Event, client: HttpSourceApi | None = None) -> Event:
        [done] = enriched(CONNECTOR, event, client or self.client())
        self.memory[done.subject] = done
        return done

    def take(self, call: Call) -> Event:
        return self.complete(self.event(call))

    def happened(self, since: datetime) -> list[Found]:
        return list(source.happened(since, self.client()))

    def asked(self) -> int:
        """Calls so far, those for a token aside."""
        return sum(times for call, times in self.sender.asked.items() if "oauth2" not in call)


def bridge(*, seed: int = 11, people: int = 60, wanted: bool = True) -> Bridge:
    return Bridge(platform=simulator.platform(seed=seed, people=people), wanted=wanted)


def batches(events: Iterable[Event], size: int = 100) -> Iterator[list[Event]]:
    batch: list[Event] = []
    for event in events:
        batch.append(event)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
