"""Conformance questions about a connector's simulated platform."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

from bridge.config.validation import with_defaults
from bridge.core.errors import NotGenuine
from bridge.core.manifest import SourceConnector
from bridge.core.settings import Settings
from bridge.core.simulation import Call, SignedCall, SimulatedPlatform
from bridge.core.source import Challenge, Inbound, Verified
from bridge.flow.process import events_of
from bridge.flow.receive import verify
from bridge.testing.conforming_events import UNMAPPED
from bridge.testing.event_schema import faults
from bridge.testing.hostile import Caught, origin

MADE_UP: Final = "a-secret-for-the-simulator-0123456789"
_NOW: Final = datetime(2026, 6, 5, 9, 30, tzinfo=UTC)
_OF_A_DAY: Final = 400


def simulator_speaks_every_kind(connector: SourceConnector) -> list[str]:
    """A call of every kind, signed by the simulator, is proven, and becomes valid events that the manifest names."""
    platform, settings = connector.simulator.platform(seed=7), simulated_settings(connector)
    complaints: list[str] = []
    for kind in connector.manifest.kinds.values():
        with Caught() as caught:
            call = platform.sample(kind.name)
            proven = _proven(connector, platform.sign(call, MADE_UP, attempt=1, now=_NOW), settings, _NOW)
            events = events_of(connector, proven, settings)
            types = [event.type for event in events if event.sourceevent == kind.name]
            complaints += [f"{kind.name}: {fault}" for event in events for fault in faults(event.to_json())]
            if not types:
                complaints.append(f"{kind.name}: its sample is not understood as this kind")
            complaints += [
                f"{kind.name}: became {name}, which the manifest does not say"
                for name in types
                if name not in kind.types
            ]
        if caught.error is not None:
            complaints.append(f"{kind.name}: {_why(caught.error)}")
    return complaints


def simulator_repeats_itself(connector: SourceConnector) -> list[str]:
    """Two attempts at one call have one dedupe key and the same event ids; with another secret it is refused."""
    platform, settings = connector.simulator.platform(seed=7), simulated_settings(connector)
    complaints = []
    for call in samples(connector, platform):
        with Caught() as caught:
            later = _NOW + timedelta(seconds=90)
            first = _proven(connector, platform.sign(call, MADE_UP, attempt=1, now=_NOW), settings, _NOW)
            second = _proven(connector, platform.sign(call, MADE_UP, attempt=2, now=later), settings, later)
            if first.dedupe_key != second.dedupe_key:
                complaints.append(f"{call.kind}: the second attempt has another dedupe key")
            # Where a platform gives no time, an id may hang on when the first copy arrived.
            second = replace(second, inbound=replace(second.inbound, received_at=_NOW))
            if _ids(connector, first, settings) != _ids(connector, second, settings):
                complaints.append(f"{call.kind}: the second attempt has other event ids")
        if caught.error is not None:
            complaints.append(f"{call.kind}: {_why(caught.error)}")
        with Caught() as caught:
            _proven(connector, platform.sign(call, "another-secret", attempt=1, now=_NOW), settings, _NOW)
            complaints.append(f"{call.kind}: accepted with the signature of another secret")
        if caught.error is not None and not isinstance(caught.error, NotGenuine):
            complaints.append(f"{call.kind}: {_why(caught.error)}")
    return complaints


def simulated_day_is_understood(connector: SourceConnector) -> list[str]:
    """The calls of a simulated day are proven, understood, and no two pass for the same; one seed gives one day."""
    settings = simulated_settings(connector)
    platform = connector.simulator.platform(seed=7)
    complaints, seen = [], set()
    calls = list(islice(platform.day(), _OF_A_DAY))
    if calls != list(islice(connector.simulator.platform(seed=7).day(), _OF_A_DAY)):
        complaints.append("the same seed gives another day")
    for number, call in enumerate(calls):
        now = _NOW + timedelta(seconds=number)
        with Caught() as caught:
            proven = _proven(connector, platform.sign(call, MADE_UP, attempt=1, now=now), settings, now)
            if proven.dedupe_key in seen:
                complaints.append(f"call {number} ({call.kind}) passes for a repetition of an earlier one")
            seen.add(proven.dedupe_key)
            if any(event.type == UNMAPPED for event in events_of(connector, proven, settings)):
                complaints.append(f"call {number} ({call.kind}) is not understood")
        if caught.error is not None:
            complaints.append(f"call {number} ({call.kind}): {_why(caught.error)}")
    return complaints[:20]


def simulated_settings(
    connector: SourceConnector, secret: str = MADE_UP, api_url: str = "http://127.0.0.1:9"
) -> Settings:
    """The settings that fit a simulated platform, as the hub would read them from bridge.yaml."""
    return settings_of_entry(connector, connector.simulator.settings(secret, api_url))


def settings_of_entry(connector: SourceConnector, entry: Mapping[str, Any]) -> Settings:
    """The settings of an entry of `sources`, the manifest's defaults filled in."""
    manifest = connector.manifest
    options = {name: value for name, value in entry.items() if name not in ("connector", "secrets", "api", "enabled")}
    api = entry.get("api")
    return Settings(
        name=f"{connector.name}-simulated",
        secrets=tuple(entry.get("secrets", ())),
        options=with_defaults(manifest.options, options),
        api=with_defaults(manifest.api, dict(api)) if api is not None and manifest.api is not None else api,
    )


def samples(connector: SourceConnector, platform: SimulatedPlatform) -> Iterator[Call]:
    """A call of every kind that the simulator knows."""
    for kind in connector.manifest.kinds:
        call: Call | None = None
        with Caught():
            call = platform.sample(kind)
        if call is not None:
            yield call


def as_inbound(signed: SignedCall, source: str, now: datetime) -> Inbound:
    """A signed call as a request that arrived."""
    headers = {name.lower(): value for name, value in signed.headers.items()}
    return Inbound(
        id="simulated", source=source, received_at=now, headers=headers, query=signed.query, body=signed.body
    )


def _proven(connector: SourceConnector, signed: SignedCall, settings: Settings, now: datetime) -> Verified:
    result = verify(connector, as_inbound(signed, settings.name, now), settings)
    if isinstance(result, Challenge):
        if result.keep is None:
            raise AssertionError("answered without being kept")
        return result.keep
    return result


def _ids(connector: SourceConnector, verified: Verified, settings: Settings) -> list[str]:
    return [event.id for event in events_of(connector, verified, settings)]


def _why(error: Exception) -> str:
    return f"{origin(error)}: {error}"
