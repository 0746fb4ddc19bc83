"""Sends what the connectors' own tests.yaml say to their simulators: real conversations, the real guarded way out."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from bridge.config.validation import with_defaults
from bridge.core.manifest import TargetConnector
from bridge.core.settings import Settings
from bridge.core.target import Answer, Message, Outcome, Request, Verdict
from bridge.engine.talk import Said, talk
from bridge.flow.conversation import unique_key
from bridge.ledger.database import Ledger
from bridge.main import registry
from bridge.outbound.guard import NetworkPolicy
from bridge.outbound.target import target_sender
from bridge.outbound.tokens import TokenCache
from bridge.testing.simulated_target import SimulatedTargetServer
from bridge.testing.target_cases import cases, messages_of

GOOD: Final = frozenset({Verdict.OK, Verdict.DUPLICATE, Verdict.SUPERSEDED})
"""Done: now, before, or by something newer."""

TARGETS: Final = registry().targets
_SPACE: Final = uuid.UUID(int=4)

Send = Callable[[Request], Answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """What a test of a connector sends: messages of one operation, and the settings that it wants besides."""

    name: str
    messages: tuple[Message, ...]
    settings: Mapping[str, Any]

    @property
    def operation(self) -> str:
        return self.messages[0].operation

    def keyed(self, series: str) -> Example:
        """The same messages as others, with keys and events of their own; one series has the same each time."""
        return replace(
            self,
            messages=tuple(
                replace(
                    message,
                    key=_uuid(series, self.name, place),
                    event={**message.event, "id": _uuid(series, self.name, place, "event")},
                    sent_at=datetime.now(UTC),
                )
                for place, message in enumerate(self.messages)
            ),
        )


class Way:
    """A way to one simulated target: tokens and rotating credentials are shared by all that goes over it."""

    def __init__(self, connector: TargetConnector, url: str, settings: Mapping[str, Any], folder: Path) -> None:
        self.connector = connector
        self._url = url
        self._settings = settings
        self._tokens = TokenCache(None)
        self._folder = folder

    def send(self, example: Example, *, timeout: float = 20.0) -> Sequence[Outcome]:
        """The example's messages as they are keyed."""
        return self.said(example, timeout=timeout).outcomes

    def said(self, example: Example, *, timeout: float = 20.0) -> Said:
        properties = self.connector.manifest.options["properties"]
        given = {key: value for key, value in {**example.settings, **self._settings}.items() if key in properties}
        options = with_defaults(self.connector.manifest.options, given) | {"timeout": timeout}
        settings = Settings(name=self.connector.name, options=options)
        policy = NetworkPolicy(allow_hosts=frozenset({urlsplit(self._url).netloc}))
        send = target_sender(settings, policy, connections=1, tokens=self._tokens, ledger=self._ledger(options))
        return talk(self.connector, list(example.messages), settings, send)

    def _ledger(self, options: Mapping[str, Any]) -> Ledger | None:
        """Refresh tokens that rotate are kept in one."""
        if not (options.get("auth") or {}).get("rotating"):
            return None
        ledger = Ledger(f"sqlite:///{self._folder / 'rotation.db'}")
        if not ledger.is_current():
            ledger.upgrade()
        return ledger


def way_to(server: SimulatedTargetServer, connector: TargetConnector, folder: Path) -> Way:
    return Way(connector, server.url, server.settings(), folder)


def not_logging_in(settings: Mapping[str, Any]) -> str:
    """A pattern for the paths of a target that are not its token endpoint."""
    endpoint = urlsplit((settings.get("auth") or {}).get("token_url", "")).path
    return f"^(?!{re.escape(endpoint)}$)" if endpoint else ""


def good(outcomes: Sequence[Outcome]) -> bool:
    return all(outcome.verdict in GOOD for outcome in outcomes)


def told(connector: TargetConnector) -> list[Example]:
    """The cases of a connector's tests.yaml that end well, in their order."""
    tests = cases(connector)
    found = []
    for case in tests.get("cases", ()):
        wanted = case["outcomes"] if "outcomes" in case else [case["outcome"]]
        if all(outcome["as"] in ("ok", "duplicate") for outcome in wanted):
            settings = case.get("settings", {})
            found.append(Example(name=case["name"], messages=tuple(messages_of(case, tests)), settings=settings))
    return found


@cache
def examples(name: str, folder: Path) -> tuple[Example, ...]:
    """Those that the connector's simulator takes too, the second time as well as the first, and batches of them."""
    connector = TARGETS[name]
    assert connector.simulator is not None
    folder.mkdir(parents=True, exist_ok=True)
    with SimulatedTargetServer(connector.simulator) as server:
        way = way_to(server, connector, folder)
        found = [example for example in told(connector) if good(way.send(example.keyed("first")))]
        found = [example for example in found if good(way.send(example.keyed("second")))]
        batches = [batch for batch in _batches(connector, found) if good(way.send(batch.keyed("third")))]
    return tuple(found + batches)


def _batches(connector: TargetConnector, found: Sequence[Example]) -> list[Example]:
    """One batch for each operation that has one and is not shown with several messages: what was sent one by one."""
    made = []
    for operation in connector.manifest.operations.values():
        alike = [example for example in found if example.operation == operation.name and not example.settings]
        if operation.batch is None or any(len(example.messages) > 1 for example in alike):
            continue
        settings = Settings(name=connector.name, options=with_defaults(connector.manifest.options, {}))
        messages: dict[str, Message] = {}
        for message in (example.messages[0] for example in alike):
            what = unique_key(connector, message, settings) or json.dumps(message.params, sort_keys=True)
            messages.setdefault(what, message)
        if len(messages) > 1:
            name = f"a batch of {operation.name}"
            made.append(Example(name=name, messages=tuple(messages.values())[: operation.batch.most], settings={}))
    return made


def send_all(name: str, url: str, settings: Mapping[str, Any], folder: str, series: str) -> None:
    """Every idempotent example, one after the other. For a process that may be killed while it does so."""
    way = Way(TARGETS[name], url, settings, Path(folder))
    for example in idempotent(name, Path(folder)):
        way.send(example.keyed(series))


def idempotent(name: str, folder: Path) -> list[Example]:
    operations = TARGETS[name].manifest.operations
    return [example for example in examples(name, folder) if operations[example.operation].idempotent]


def _uuid(*parts: object) -> str:
    return str(uuid.uuid5(_SPACE, " ".join(map(str, parts))))
