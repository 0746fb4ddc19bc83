"""A platform with a list of what happened, its connector, and a line for it: the least that can be compared."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from engine_parts import EVERYTHING, TARGET
from sqlalchemy import Row, select

from bridge.core.events import Event, stamp
from bridge.core.manifest import SourceConnector, TargetConnector, source_manifest
from bridge.core.normalising import canonical
from bridge.core.nouns import Change, Data, Submission
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.core.signing import fingerprint
from bridge.core.simulation import ApiCall, ApiReply, SimulatedPlatform, Simulator
from bridge.core.source import Accepted, ApiAccess, Found, Inbound, Notice, Source, SourceApi, Verified
from bridge.engine.deliver import DeliverStage
from bridge.engine.destination import Destination
from bridge.engine.line import Line, SourceLine, TargetLine
from bridge.engine.process import ProcessStage
from bridge.engine.reconcile import Reconciler, reconcilers
from bridge.engine.shipper import Lanes
from bridge.engine.worker import Stage
from bridge.flow.deliver import Patience
from bridge.flow.mapping import compile_mapping
from bridge.ledger.accepting import accept
from bridge.ledger.database import Ledger, milliseconds
from bridge.ledger.lanes import claim, due_lanes, release, take
from bridge.ledger.tables import deliveries_in, events, messages, repeats
from bridge.main import registry
from bridge.outbound.guard import NetworkPolicy
from bridge.outbound.kept import KeptAnswers
from bridge.outbound.source_api import platform_of
from bridge.outbound.target import target_sender
from bridge.outbound.tokens import TokenCache
from bridge.testing.platform_server import PlatformServer, serve_platform
from bridge.testing.target_server import TargetServer, serve_target

SOURCE = "desk-main"
NOW = datetime.now(UTC).replace(microsecond=0)
PAGE = 100
_POLICY = NetworkPolicy(allow_hosts=frozenset({"127.0.0.1"}), allow_private=False)


@dataclass(slots=True)
class Desk:
    """Papers by their ids, and when each was handed in last; and whether the exam is open, without any date."""

    papers: dict[str, datetime] = field(default_factory=dict)
    state: str | None = None
    asked: int = 0
    failing_from_page: int | None = None

    def hand_in(self, paper: str, at: datetime) -> None:
        self.papers[paper] = at

    def answer(self, call: ApiCall) -> ApiReply:
        if call.path.startswith("/papers/"):
            at = self.papers.get(call.path.removeprefix("/papers/"))
            return ApiReply(json={"at": stamp(at)}) if at else ApiReply(status=404)
        if call.path == "/state":
            return ApiReply(json={"state": self.state})
        self.asked += 1
        page, since = int(call.query["page"]), datetime.fromisoformat(call.query["since"])
        if self.failing_from_page is not None and page >= self.failing_from_page:
            return ApiReply(status=403)
        entries = sorted((at, paper) for paper, at in self.papers.items() if at >= since)
        some = entries[page * PAGE : (page + 1) * PAGE]
        return ApiReply(json=[{"paper": paper, "at": stamp(at)} for at, paper in some])


# --- its connector ----------------------------------------------------------------------------------------------------


def verify(inbound: Inbound, settings: Settings) -> Verified:
    return Verified(
        inbound=inbound,
        proof="secret 1",
        dedupe_key=fingerprint([inbound.body]),
        dedupe_window=timedelta(hours=1),
    )


def parse(verified: Verified, settings: Settings) -> Iterable[Notice]:
    body = Payload.parse(verified.inbound.body).object()
    yield Notice(
        kind=body.at("kind").text(),
        payload=body,
        tenant="school",
        key=body.at("id").maybe_text() or stamp(verified.inbound.received_at),
        occurred_at=body.at("at").maybe_time(),
        received_at=verified.inbound.received_at,
    )


def normalise(notice: Notice, settings: Settings) -> Event:
    if notice.kind == "midnight":
        return canonical(notice, settings, provider="desk", type="source.tick", subject="school/1", data=Data())
    if notice.kind == "moved":
        data = Data(change=Change(field="state", new=notice.payload.at("state").maybe_text()))
        type_ = "assessment.state_changed"
        return canonical(notice, settings, provider="desk", type=type_, subject="flow/1", data=data)
    paper = notice.payload.at("paper").text()
    data = Data(submission=Submission(key=paper))
    subject = f"submission/{paper}"
    return canonical(notice, settings, provider="desk", type="submission.submitted", subject=subject, data=data)


def access(settings: Settings) -> ApiAccess | None:
    return ApiAccess(base_url=str(settings.api["base_url"])) if settings.api else None


def enrich(event: Event, api: SourceApi) -> Iterable[Event]:
    if event.type == "assessment.state_changed":
        shown = api.get("/state")
        new = event.data.change.new if event.data.change else None
        change = Change(field="state", new=new or (shown.at("state").maybe_text() if shown else None))
        yield replace(event, data=replace(event.data, change=change), enrichment="full", observedat=api.now)
        return
    answer = api.get(f"/papers/{event.subject.removeprefix('submission/')}")
    at = answer.at("at").time() if answer else None
    assert event.data.submission is not None
    submission = replace(event.data.submission, submitted_at=at)
    yield replace(event, data=replace(event.data, submission=submission), enrichment="full" if at else "missing")


def happened(since: datetime, api: SourceApi) -> Iterator[Found]:
    page = 0
    while True:
        answer = api.get("/papers", {"since": stamp(since), "page": str(page)})
        entries = list(answer.items()) if answer else []
        for entry in entries:
            paper, at = entry.at("paper").text(), entry.at("at").time()
            body = {"kind": "hand-in", "paper": paper}
            yield Found(kind="hand-in", body=body, occurred_at=at, fact=f"submission/{paper}|{stamp(at)}")
        if len(entries) < PAGE:
            break
        page += 1
    shown = api.get("/state")
    state = shown.at("state").maybe_text() if shown else None
    if state is None:
        return
    last = api.known("flow/1")
    told = last.data.change.new if last is not None and last.data.change is not None else None
    if told != state:
        body = {"kind": "moved", "id": f"list-{last.id if last else ''}"}
        after = last.id if last is not None else None
        yield Found(kind="moved", body=body, occurred_at=api.now, fact=f"flow/1|state|{state}", after=after)


def returns(event: Event) -> bool:
    return event.type == "assessment.state_changed"


def fact(event: Event) -> str | None:
    if event.data.change is not None and event.type == "assessment.state_changed":
        return f"flow/1|state|{event.data.change.new}"
    submission = event.data.submission
    if submission is None or submission.submitted_at is None:
        return None
    return f"{event.subject}|{stamp(submission.submitted_at)}"


CODE = SimpleNamespace(
    verify=verify,
    parse=parse,
    normalise=normalise,
    access=access,
    enrich=enrich,
    happened=happened,
    fact=fact,
    returns=returns,
)
CONNECTOR = SourceConnector(
    name="desk",
    title="Desk",
    about="Papers are handed in",
    folder=Path(),
    manifest=source_manifest(
        {
            "proof": "none",
            "dedupe": {"rule": "equal bodies", "reason": "for tests"},
            "api": {"base_url": {"type": "string"}},
            "kinds": {
                "hand-in": {
                    "about": "A paper was handed in",
                    "types": ["submission.submitted"],
                    "calls": [
                        {
                            "call": "GET /papers/{id}",
                            "fills": ["data.submission.submittedAt"],
                            "failing": "missing",
                            "absent": "missing",
                        }
                    ],
                },
                "moved": {
                    "about": "An exam was opened or closed",
                    "types": ["assessment.state_changed"],
                    "calls": [
                        {
                            "call": "GET /state",
                            "fills": ["data.change.new"],
                            "failing": "missing",
                            "absent": "missing",
                        }
                    ],
                },
                "midnight": {"about": "Every day", "types": ["source.tick"]},
            },
        }
    ),
    code=cast(Source, CODE),
    simulator=cast(Simulator, None),
)


# --- a line for it ----------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Office:
    """The platform, the bridge's line for it, and the target."""

    desk: Desk
    api: PlatformServer
    line: Line
    target: TargetServer
    woken: set[str]
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(4))
    _count: int = 0

    @property
    def ledger(self) -> Ledger:
        return self.line.ledger

    @property
    def reconciler(self) -> Reconciler:
        return reconcilers(self.ledger, self.line.sources, self.line.wake)[SOURCE]

    def receive(self, kind: str = "hand-in", **body: str) -> str:
        """A webhook, verified and stored; its id."""
        self._count += 1
        inbound = Inbound(
            id=f"webhook-{self._count:04d}",
            source=SOURCE,
            received_at=datetime.now(UTC),
            headers={},
            query={},
            body=json.dumps({"kind": kind, "id": str(self._count), **body}).encode(),
        )
        source = self.line.sources[SOURCE]
        lanes = Lanes(sources={SOURCE: (source.connector, source.settings)})
        accept(self.ledger, [lanes.arrival(Accepted(verified=verify(inbound, source.settings)))])
        return inbound.id

    def settle(self, *, later: float = 0.0) -> None:
        """Work until nothing is due, `later` seconds from now."""
        stages: dict[str, Stage] = {
            "process": ProcessStage(self.line, {SOURCE: self.pool}),
            "deliver": DeliverStage(self.line, {TARGET: self.pool}),
        }
        while lanes := due_lanes(self.ledger, now_ms=(now := milliseconds(datetime.now(UTC)) + int(later * 1000))):
            for lane in lanes:
                lease = take(self.ledger, lane, "the test")
                assert lease is not None
                stage = stages[lane.partition(":")[0]]
                rows = claim(self.ledger, lease, now_ms=now, limit=stage.batch)
                if rows:
                    stage.work(lease, rows)
                release(self.ledger, lease)

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(row.body) for row in self.rows(select(events).order_by(events.c.cursor))]

    def deliveries(self) -> list[Row[Any]]:
        return self.rows(select(deliveries_in).order_by(deliveries_in.c.seq))

    def messages(self) -> list[Row[Any]]:
        return self.rows(select(messages).order_by(messages.c.seq))

    def repeats(self) -> list[Row[Any]]:
        return self.rows(select(repeats))

    def rows(self, query: Any) -> list[Row[Any]]:
        with self.ledger.read() as connection:
            return list(connection.execute(query))

    def close(self) -> None:
        self.pool.shutdown()
        self.api.close()
        self.target.close()


def office(ledger: Ledger) -> Office:
    """One source, one target, one mapping that sends every event. Close it at the end."""
    desk = Desk()
    api, target = serve_platform(cast(SimulatedPlatform, desk)), serve_target()
    settings = Settings(name=SOURCE, secrets=("s",), api={"base_url": api.url})
    connected = access(settings)
    assert connected is not None
    woken: set[str] = set()
    mapping = compile_mapping("everything", EVERYTHING)
    http = _http_target()
    crm = Settings(name=TARGET, options={**http.defaults, "base_url": target.url})
    return Office(
        desk=desk,
        api=api,
        target=target,
        woken=woken,
        line=Line(
            ledger=ledger,
            sources={
                SOURCE: SourceLine(
                    name=SOURCE,
                    connector=CONNECTOR,
                    settings=settings,
                    deadline=timedelta(hours=1),
                    needed_only=False,
                    api=platform_of(settings, connected, _POLICY, TokenCache(None), KeptAnswers()).client,
                )
            },
            targets={
                TARGET: TargetLine(
                    name=TARGET,
                    enabled=True,
                    connector=http.connector,
                    settings=crm,
                    concurrency=2,
                    patience=Patience(
                        first_delay=timedelta(seconds=1), max_delay=timedelta(seconds=10), longest=timedelta(hours=72)
                    ),
                    send=target_sender(crm, _POLICY, connections=2),
                    destination=Destination(ledger, TARGET, "", woken.update),
                )
            },
            mappings=lambda: (mapping,),
            wake=woken.update,
        ),
    )


@dataclass(frozen=True, slots=True)
class _Http:
    connector: TargetConnector
    defaults: dict[str, Any]


def _http_target() -> _Http:
    connector = registry().targets["http"]
    properties = connector.manifest.options["properties"]
    return _Http(connector, {name: entry["default"] for name, entry in properties.items() if "default" in entry})
