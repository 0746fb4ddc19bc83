"""The web application with real sources and a real ledger, served over HTTP on this machine."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from werkzeug.serving import make_server

from bridge.config.configuration import load_configuration
from bridge.core.manifest import SourceConnector
from bridge.core.settings import Settings
from bridge.core.signing import sign
from bridge.core.simulation import SignedCall
from bridge.core.source import Accepted
from bridge.engine.assembly import receiving
from bridge.engine.hints import Hints
from bridge.engine.shipper import Lanes
from bridge.ledger.database import Ledger
from bridge.main import registry
from bridge.web.api import Api
from bridge.web.app import WebParts, create_app
from bridge.web.health import Health
from bridge.web.hooks import Receiver
from bridge.web.keeping import in_ledger

SECRET = "a-secret-of-the-tests-4711"
MAX_BODY = 300_000
Sources = Mapping[str, tuple[SourceConnector, Settings]]


def no_redis() -> Any:
    from redis.exceptions import ConnectionError as RedisConnectionError

    raise RedisConnectionError("away")


@dataclass(slots=True, kw_only=True)
class Web:
    """What a test turns, and what it looks at."""

    ledger: Ledger
    sources: Sources
    folder: Path
    keep: Callable[[Accepted], None]
    kept: list[Accepted] = field(default_factory=list)
    console: str = "local"
    ping_redis: Callable[[], None] = lambda: None
    problems: list[str] = field(default_factory=list)
    journal: Path | None = None
    api: Api = field(default_factory=Api)

    def app(self) -> Any:
        return create_app(
            WebParts(
                receiver=Receiver(sources=self.sources, keep=self._keep),
                health=Health(
                    journal=self.journal or self.folder / "journal",
                    accept="journal" if self.journal else "ledger",
                    ledger=lambda: self.ledger,
                    ping_redis=self.ping_redis,
                    mapping_problems=lambda: self.problems,
                ),
                ledger=lambda: self.ledger,
                console=self.console,
                max_body_bytes=MAX_BODY,
                api=self.api,
            )
        )

    def _keep(self, accepted: Accepted) -> None:
        self.keep(accepted)
        self.kept.append(accepted)

    @contextmanager
    def served(self) -> Iterator[Client]:
        server = make_server("127.0.0.1", 0, self.app(), threaded=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield Client(server.server_port)
        finally:
            server.shutdown()
            thread.join(10)
            server.server_close()


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Client:
    """Plain HTTP, so that no library tidies up what is sent."""

    port: int

    def ask(self, method: str, path: str, headers: Mapping[str, str] | None = None, body: Any = None) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body=body, headers=dict(headers or {}), encode_chunked=body is not None)
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def cut_off(self, path: str, headers: Mapping[str, object], part: bytes) -> bytes:
        """What is answered when the sender is gone after a part of the body."""
        lines = [f"POST {path} HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in headers.items())]
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + part)
            connection.shutdown(socket.SHUT_WR)
            return connection.recv(1000)

    def post(self, source: str, signed: SignedCall) -> Reply:
        query = "?" + "&".join(f"{key}={value}" for key, value in signed.query.items()) if signed.query else ""
        return self.ask("POST", f"/hooks/{source}{query}", signed.headers, signed.body)


def build(folder: Path, ledger: Ledger) -> Web:
    """All four platforms as sources of their names, kept in the ledger."""
    known = registry()
    entries = {name: entry.simulator.settings(SECRET, "http://127.0.0.1:9") for name, entry in known.sources.items()}
    file = folder / "bridge.yaml"
    file.write_text(json.dumps({"version": 1, "sources": entries, "network": {"allow_hosts": ["127.0.0.1"]}}), "utf-8")
    configuration = load_configuration(file, sources=known.sources, targets=known.targets, environ={})
    sources = receiving(configuration, known)
    keep = in_ledger(lambda: ledger, Lanes(sources=sources), Hints(no_redis))
    return Web(ledger=ledger, sources=sources, folder=folder, keep=keep)


def genuine(name: str, *, seed: int = 1) -> SignedCall:
    """One signed call of a platform, not one that only wants an answer."""
    platform = registry().sources[name].simulator.platform(seed)
    kinds = {
        "wiseflow": "paper.submission",
        "wise": "MeetingStartedEvent",
        "edusign": "on_course_start",
        "inspera": "user.created",
    }
    return platform.sign(platform.sample(kinds[name]), SECRET, attempt=1, now=datetime.now(UTC))


def signed_bytes(name: str, body: bytes) -> SignedCall:
    """Any bytes, signed as the platform signs."""
    base = genuine(name)
    signatures = {
        "wiseflow": {"Signature": sign(SECRET, body, encoding="base64")},
        "inspera": {"X-Inspera-Signature": sign(SECRET, body, "sha1")},
        "edusign": {"x-edusign-hmac": sign(SECRET, body)},
        "wise": {},
    }[name]
    lower = {key.lower() for key in signatures}
    headers = {key: value for key, value in base.headers.items() if key.lower() not in lower}
    return SignedCall(headers=headers | signatures, body=body, query=base.query)
