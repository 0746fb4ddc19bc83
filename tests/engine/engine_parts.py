"""A whole line built by hand: real connectors, a ledger, a simulated platform's API and a target on this machine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Row, select

from bridge.config.configuration import load_configuration
from bridge.core.manifest import SourceConnector, TargetConnector
from bridge.core.settings import Settings
from bridge.core.simulation import Call, SimulatedPlatform
from bridge.core.source import Accepted, Challenge, Inbound
from bridge.engine.deliver import DeliverStage
from bridge.engine.destination import Destination
from bridge.engine.line import Line, SourceLine, TargetLine
from bridge.engine.process import ProcessStage
from bridge.engine.shipper import Lanes
from bridge.engine.worker import Stage
from bridge.flow.deliver import Patience
from bridge.flow.mapping import Mapping as EventMapping
from bridge.flow.mapping import compile_mapping
from bridge.flow.receive import verify
from bridge.ledger.accepting import accept
from bridge.ledger.byhand import resume
from bridge.ledger.database import Ledger, milliseconds
from bridge.ledger.lanes import claim, due_lanes, release, take
from bridge.ledger.tables import attempts, deliveries_in, events, messages
from bridge.main import registry
from bridge.outbound.guard import NetworkPolicy
from bridge.outbound.kept import KeptAnswers
from bridge.outbound.source_api import platform_of
from bridge.outbound.target import target_sender
from bridge.outbound.tokens import TokenCache
from bridge.testing.answering import Asked, LocalServer, Reply
from bridge.testing.platform_server import PlatformServer, serve_platform
from bridge.testing.target_server import TargetServer, serve_target

SECRET = "a-secret-of-the-tests"
SOURCE = "exams"
TARGET = "crm"
_POLICY = NetworkPolicy(allow_hosts=frozenset({"127.0.0.1"}), allow_private=False)

PAPERS: dict[str, Any] = {
    "version": 1,
    "events": ["submission.*"],
    "target": TARGET,
    "operation": "request",
    "with": {
        "method": "PUT",
        "path": "/papers",
        "json": {
            "subject": "{{ event.subject }}",
            "status": "{{ event.data.submission.status }}",
            "enrichment": "{{ event.enrichment }}",
        },
    },
}
EVERYTHING: dict[str, Any] = {
    "version": 1,
    "events": ["*"],
    "order": "none",
    "target": TARGET,
    "operation": "request",
    "with": {"method": "POST", "path": "/events", "json": {"id": "{{ event.id }}", "type": "{{ event.type }}"}},
}


@dataclass(slots=True, kw_only=True)
class Parts:
    """What a test turns: one source, one target, the mappings, and the ledger between them."""

    ledger: Ledger
    line: Line
    source: SourceConnector
    settings: Settings
    platform: SimulatedPlatform
    api: PlatformServer
    target: TargetServer
    mappings: dict[str, EventMapping]
    woken: set[str] = field(default_factory=set)
    pools: list[ThreadPoolExecutor] = field(default_factory=list)
    _count: int = 0

    # --- coming in ----------------------------------------------------------------------------------------------------

    def receive(self, call: Call, *, called: float = 0.0, at: datetime | None = None, attempt: int = 1) -> str:
        """A call that the platform made `called` seconds from now, verified and stored as it came; its id."""
        moment = datetime.now(UTC) + timedelta(seconds=called)
        signed = self.platform.sign(call, SECRET, attempt=attempt, now=moment)
        return self.receive_bytes(signed.body, signed.headers, query=signed.query, at=at)

    def receive_bytes(
        self,
        body: bytes,
        headers: Mapping[str, str],
        *,
        query: Mapping[str, str] | None = None,
        at: datetime | None = None,
    ) -> str:
        self._count += 1
        inbound = Inbound(
            id=f"delivery-{self._count:04d}",
            source=SOURCE,
            received_at=at or datetime.now(UTC),
            headers={name.lower(): value for name, value in headers.items()},
            query=query or {},
            body=body,
        )
        proven = verify(self.source, inbound, self.settings)
        assert not isinstance(proven, Challenge)
        lanes = Lanes(sources={SOURCE: (self.source, self.settings)})
        accept(self.ledger, [lanes.arrival(Accepted(verified=proven))])
        return inbound.id

    # --- working ------------------------------------------------------------------------------------------------------

    def stages(self) -> dict[str, Stage]:
        if not self.pools:
            self.pools = [ThreadPoolExecutor(4), ThreadPoolExecutor(4)]
        process, deliver = self.pools
        return {
            "process": ProcessStage(self.line, dict.fromkeys(self.line.sources, process)),
            "deliver": DeliverStage(self.line, dict.fromkeys(self.line.targets, deliver)),
        }

    def settle(self, *, later: float = 0.0, rounds: int = 20, stage: str = "") -> None:
        """Work on all lanes that are due `later` seconds from now, until none is, or for some rounds."""
        stages = self.stages()
        if later:
            resume(self.ledger, TARGET, who="the test")  # by then, whatever pause the target was given is over
        for _ in range(rounds):
            now = milliseconds(datetime.now(UTC)) + int(later * 1000)
            due = [lane for lane in due_lanes(self.ledger, now_ms=now) if lane.startswith(stage)]
            if not due:
                return
            for lane in due:
                self.work(stages, lane, now)

    def work(self, stages: Mapping[str, Stage], lane: str, now_ms: int) -> None:
        lease = take(self.ledger, lane, "the test")
        assert lease is not None
        try:
            stage = stages[lane.partition(":")[0]]
            rows = claim(self.ledger, lease, now_ms=now_ms, limit=stage.batch)
            if rows:
                stage.work(lease, rows)
        finally:
            release(self.ledger, lease)

    # --- changing the line --------------------------------------------------------------------------------------------

    def map(self, name: str, document: dict[str, Any]) -> None:
        self.mappings[name] = compile_mapping(name, document)

    def change_source(self, **changes: Any) -> None:
        source = replace(self.line.sources[SOURCE], **changes)
        self.line = replace(self.line, sources={SOURCE: source})

    def change_target(self, **changes: Any) -> None:
        target = replace(self.line.targets[TARGET], **changes)
        self.line = replace(self.line, targets={TARGET: target})

    # --- looking ------------------------------------------------------------------------------------------------------

    def deliveries(self) -> Sequence[Row[Any]]:
        return self._all(select(deliveries_in).order_by(deliveries_in.c.seq))

    def events(self) -> Sequence[Row[Any]]:
        return self._all(select(events).order_by(events.c.cursor))

    def messages(self) -> Sequence[Row[Any]]:
        return self._all(select(messages).order_by(messages.c.seq))

    def attempts(self) -> Sequence[Row[Any]]:
        return self._all(select(attempts).order_by(attempts.c.seq))

    def sent(self, message: Row[Any]) -> Any:
        """The JSON body that the target last took for a message; None when it took none."""
        body = self.target.body(message.key)
        return None if body is None else json.loads(body)

    def _all(self, query: Any) -> Sequence[Row[Any]]:
        with self.ledger.read() as connection:
            return connection.execute(query).all()

    def close(self) -> None:
        self.api.close()
        self.target.close()
        for pool in self.pools:
            pool.shutdown(wait=True)


def parts_for(
    ledger: Ledger,
    folder: Path,
    *,
    source: str = "wiseflow",
    with_api: bool = True,
    options: Mapping[str, Any] | None = None,
    target_options: Mapping[str, Any] | None = None,
    deadline: timedelta = timedelta(hours=1),
    patience: Patience | None = None,
) -> Parts:
    """The line for one platform, with an http target that `PAPERS` and `EVERYTHING` fit. Close it at the end."""
    connector = registry().sources[source]
    platform = connector.simulator.platform()
    api, target = serve_platform(platform), serve_target()
    entry = connector.simulator.settings(SECRET, api.url) | dict(options or {})
    if not with_api:
        entry.pop("api", None)
    crm = {"connector": "http", "base_url": target.url} | dict(target_options or {})
    network = {"allow_hosts": ["127.0.0.1"]}
    document = {"version": 1, "sources": {SOURCE: entry}, "targets": {TARGET: crm}, "network": network}
    file = folder / "bridge.yaml"
    (folder / "mappings").mkdir(exist_ok=True)
    file.write_text(json.dumps(document), "utf-8")
    known = registry()
    configuration = load_configuration(file, sources=known.sources, targets=known.targets, environ={})
    settings = configuration.sources[SOURCE].settings
    mappings: dict[str, EventMapping] = {}
    woken: set[str] = set()
    line = Line(
        ledger=ledger,
        sources={
            SOURCE: SourceLine(
                name=SOURCE,
                connector=connector,
                settings=settings,
                deadline=deadline,
                needed_only=False,
                api=_api(connector, settings),
            )
        },
        targets={
            TARGET: TargetLine(
                name=TARGET,
                enabled=True,
                connector=known.targets["http"],
                settings=configuration.targets[TARGET].settings,
                concurrency=2,
                patience=patience
                or Patience(
                    first_delay=timedelta(seconds=1), max_delay=timedelta(seconds=10), longest=timedelta(hours=72)
                ),
                send=target_sender(configuration.targets[TARGET].settings, _POLICY, connections=4),
                destination=Destination(ledger, TARGET, "", woken.update),
            )
        },
        mappings=lambda: tuple(mappings.values()),
        wake=woken.update,
    )
    return Parts(
        ledger=ledger,
        line=line,
        source=connector,
        settings=settings,
        platform=platform,
        api=api,
        target=target,
        mappings=mappings,
        woken=woken,
    )


def _api(connector: SourceConnector, settings: Settings) -> Callable[..., Any] | None:
    access = connector.code.access(settings)
    if access is None:
        return None
    return platform_of(settings, access, _POLICY, TokenCache(None), KeptAnswers()).client


@dataclass(frozen=True, slots=True)
class BrokenSource:
    """The code of a source with a bug: `normalise` fails as only a programming error does."""

    code: Any

    def verify(self, inbound: Any, settings: Any) -> Any:
        return self.code.verify(inbound, settings)

    def parse(self, verified: Any, settings: Any) -> Iterable[Any]:
        return self.code.parse(verified, settings)  # type: ignore[no-any-return]

    def normalise(self, notice: Any, settings: Any) -> Any:
        return {}["a secret value"]

    def access(self, settings: Any) -> Any:
        return self.code.access(settings)

    def enrich(self, event: Any, api: Any) -> Iterable[Any]:
        return self.code.enrich(event, api)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class BrokenTarget:
    """The code of a target with a bug, before the request goes out or when the answer is there."""

    connector: TargetConnector
    breaks_at: str
    only: str = ""

    def prepare(self, message: Any, settings: Any) -> Any:
        if self.breaks_at == "prepare" and self.only in json.dumps(message.params):
            raise KeyError("a secret value")
        assert self.connector.code is not None
        return self.connector.code.prepare(message, settings)

    def judge(self, answer: Any, message: Any, settings: Any) -> Any:
        if self.breaks_at == "judge" and self.only in json.dumps(message.params):
            raise KeyError("a secret value")
        return None


class Recorder:
    """A target that remembers the bodies that it took, in their order, and answers with what `reply` is."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.reply = Reply(200, b'{"id": "crm-1"}', {"Content-Type": "application/json"})
        self._server = LocalServer(self._answer)
        self.url = self._server.url
        self.close = self._server.close

    def _answer(self, asked: Asked) -> Reply:
        reply = self.reply
        if reply.status == 200:
            self.bodies.append(json.loads(asked.body))
        return reply


def soon(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
