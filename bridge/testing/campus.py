"""A whole campus on one machine: simulated platforms, the bridge with its processes, and a target that counts."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from urllib.parse import urlencode

from ruamel.yaml import YAML

from bridge.config.documents import read_document
from bridge.config.shipped import shipped_mappings
from bridge.core.manifest import SourceConnector
from bridge.core.simulation import Call, SimulatedPlatform
from bridge.journal.reader import oldest_record, segments
from bridge.ledger.database import Ledger
from bridge.ledger.reading import closing, unfinished
from bridge.testing.platform_server import PlatformServer, serve_platform
from bridge.testing.report import Report, report_of
from bridge.testing.sender import Plan, Sender
from bridge.testing.target_server import TargetServer, serve_target

_TARGETS: Final[Mapping[str, Mapping[str, Any]]] = {
    "alerts": {"connector": "webhook"},
    "crm": {"connector": "http"},
    "events": {"connector": "cloudevents"},
    "flow": {"connector": "power_automate"},
    "lms": {"connector": "http"},
    "lrs": {"connector": "http"},
    "make": {"connector": "make"},
    "n8n": {"connector": "n8n"},
    "pabbly": {"connector": "pabbly"},
    "sis": {"connector": "webhook"},
    "zap": {"connector": "zapier"},
}
"""Targets that shipped mappings name; here all of them are the same counting server."""

_SHARES: Final[Mapping[str, float]] = {"wiseflow": 0.35, "edusign": 0.35, "wise": 0.2, "inspera": 0.1}
_MARK: Final = "# Written by the demo; every run writes it anew.\n"
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 40.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """What to simulate: how many webhooks, at which rate a second (None: as fast as it goes), with which mishaps."""

    calls: int
    rate: float | None = 200.0
    duplicates: float = 0.05
    disorder: float = 0.03
    forgeries: float = 0.02
    time_scale: float = 0.01
    seed: int = 1


class NoCampus(Exception):
    """Nothing was started, and the message says why."""


@dataclass(slots=True, kw_only=True)
class Campus:
    """Use as a context manager: everything that it starts ends with it.

    `targets` are entries of bridge.yaml; those without an address of their own get that of the counting server.
    `settings` are further entries of bridge.yaml.
    """

    folder: Path
    sources: Mapping[str, SourceConnector]
    mappings: Path
    port: int = 0
    database: str | None = None
    redis: str = "embedded"
    accept: str = "journal"
    targets: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: _TARGETS)
    settings: Mapping[str, Any] = field(default_factory=dict)
    target: TargetServer = field(init=False)
    _platforms: dict[str, tuple[SimulatedPlatform, PlatformServer, str]] = field(default_factory=dict, init=False)
    _days: dict[str, Iterator[Call]] = field(default_factory=dict, init=False)
    _stack: ExitStack = field(default_factory=ExitStack, init=False)
    _bridge: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _ledger: Ledger | None = field(default=None, init=False)

    def __enter__(self) -> Campus:
        self._clear()
        (self.folder / "secrets").mkdir(parents=True)
        self.port = self.port if self.port and _free(self.port) else _any_port()
        self.target = self._stack.enter_context(serve_target())
        for name, connector in self.sources.items():
            platform = connector.simulator.platform()
            server = self._stack.enter_context(serve_platform(platform))
            self._platforms[name] = (platform, server, secrets.token_hex(16))
        if self.mappings == shipped_mappings():
            self.mappings = self._those_that_fit()
        self._write_configuration()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop_bridge()
        if self._ledger is not None:
            self._ledger.close()
        self._stack.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def configuration(self) -> Path:
        return self.folder / "bridge.yaml"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def _command(self) -> list[str]:
        return [sys.executable, "-m", "bridge.main", "--config", str(self.configuration)]

    @property
    def ledger(self) -> Ledger:
        if self._ledger is None:
            self._ledger = Ledger(self.database or f"sqlite:///{self.folder.resolve()}/data/bridge.db")
        return self._ledger

    def start_bridge(self) -> None:
        """Start all processes of the bridge; return when it takes webhooks. Raises NoCampus with the log's end."""
        log = self.folder / "bridge.log"
        with log.open("ab") as stream:
            self._bridge = subprocess.Popen(
                [*self._command, "up", "--end-with", str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(f"{self.url}/healthz"):
            if self._bridge.poll() is not None or time.monotonic() > deadline:
                raise NoCampus(f"the bridge did not start:\n{log.read_text('utf-8')[-2000:]}")
            time.sleep(0.1)

    def stop_bridge(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End all processes of the bridge: in good order, or with SIGKILL for the one that watches over the others."""
        if self._bridge is not None and self._bridge.poll() is None:
            self._bridge.send_signal(number)
            self._bridge.wait(_STOP_SECONDS)
        self._bridge = None

    def pids(self) -> dict[str, int]:
        """The bridge's processes by name, "supervisor" among them; empty when it does not run."""
        try:
            found = json.loads((self.data / "processes.json").read_text("utf-8"))
        except OSError:
            return {}
        return {str(name): int(pid) for name, pid in found.items()}

    def run(self, *words: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run `campusbridge` with these words, as a person would beside the running bridge."""
        return subprocess.run([*self._command, *words], capture_output=True, text=True, timeout=timeout, check=False)

    def signed(self, source: str, *, kind: str | None = None, secret: str | None = None) -> urllib.request.Request:
        """The next webhook of a platform's day, or one of a kind, as a request to the bridge, signed with its secret or
        another one.
        """
        platform, _server, right = self._platforms[source]
        days = self._days
        call = platform.sample(kind) if kind else next(days.setdefault(source, platform.day()))
        signed = platform.sign(call, secret or right, attempt=1, now=datetime.now(UTC))
        address = f"{self.url}/hooks/{source}-main" + (f"?{urlencode(signed.query)}" if signed.query else "")
        return urllib.request.Request(address, signed.body, dict(signed.headers), method="POST")  # noqa: S310  loopback

    def senders(self, day: Day) -> dict[str, Sender]:
        """The platforms, ready to send their shares of a day."""
        shares = {name: _SHARES.get(name, 0.25) for name in self._platforms}
        whole = sum(shares.values())
        calls = {name: int(day.calls * share / whole) for name, share in shares.items()}
        calls[next(iter(calls))] += day.calls - sum(calls.values())
        return {
            name: Sender(
                platform,
                self.sources[name].simulator.RULE,
                secret=secret,
                url=f"{self.url}/hooks/{name}-main",
                plan=Plan(
                    rate=day.rate * shares[name] / whole if day.rate else None,
                    calls=calls[name],
                    threads=8,
                    duplicates=day.duplicates,
                    disorder=day.disorder,
                    forgeries=day.forgeries,
                    time_scale=day.time_scale,
                    seed=day.seed,
                ),
            )
            for name, (platform, _server, secret) in self._platforms.items()
        }

    def finished(self, patience: float, progress: Callable[[], None] = lambda: None) -> bool:
        """Wait until nothing is on its way any more; False when nothing has moved for `patience` seconds."""
        last, since = (-1, -1, -1), time.monotonic()
        while True:
            progress()
            left = unfinished(self.ledger)
            waiting = sum(path.stat().st_size for path in segments(self.data / "journal") if path.exists())
            if left == 0 and self._shipped():
                return True
            state = (left, waiting, self.target.state()["requests"])
            if state != last:
                last, since = state, time.monotonic()
            elif time.monotonic() - since > patience:
                return False
            time.sleep(0.2)

    def report(self, senders: Mapping[str, Sender], began: float) -> Report:
        """The account, from what the platforms were answered, what the ledger says and what the target counted."""
        return report_of(senders, closing(self.ledger), self.target.keys(), seconds=time.monotonic() - began)

    def _clear(self) -> None:
        """Delete what an earlier run left, and nothing else: a person may have named any folder."""
        if self.configuration.is_file() and self.configuration.read_text("utf-8").startswith(_MARK):
            shutil.rmtree(self.folder)
        elif self.folder.is_dir() and any(self.folder.iterdir()):
            raise NoCampus(f"{self.folder} holds something else than an earlier run: name another folder")

    def _shipped(self) -> bool:
        return oldest_record(self.data / "journal") is None

    def _those_that_fit(self) -> Path:
        """A folder with the shipped mappings whose targets are here: there are more systems than this campus has."""
        folder = self.folder / "mappings"
        folder.mkdir(exist_ok=True)
        for file in sorted(self.mappings.glob("*.yaml")):
            document, _ = read_document(file)
            if document is not None and document.value["target"] in self.targets:
                shutil.copy(file, folder)
        return folder

    def _write_configuration(self) -> None:
        document: dict[str, Any] = {
            "version": 1,
            "sources": {},
            "targets": {},
            "storage": {"database": self.database or "sqlite:///data/bridge.db", "redis": self.redis},
            "accept": self.accept,
            "mappings": str(self.mappings.resolve()),
            "web": {"bind": f"127.0.0.1:{self.port}"},
            "network": {"allow_hosts": ["127.0.0.1"]},
            "log": {"level": "warning"},
        }
        for name, (_platform, server, secret) in self._platforms.items():
            file = self._secret(name, secret)
            entry = self.sources[name].simulator.settings(secret, server.url)
            document["sources"][f"{name}-main"] = entry | {"secrets": [file]}
        for name, target in self.targets.items():
            entry = dict(target)
            if not {"url", "base_url"} & entry.keys():
                entry["base_url" if target["connector"] == "http" else "url"] = f"{self.target.url}/{name}"
            if target["connector"] == "webhook":
                entry["secrets"] = [self._secret(f"target-{name}", f"whsec_{_base64_secret()}")]
            document["targets"][name] = entry
        document |= self.settings
        with self.configuration.open("w", encoding="utf-8") as stream:
            stream.write(_MARK)
            YAML().dump(document, stream)

    def _secret(self, name: str, value: str) -> str:
        path = self.folder / "secrets" / name
        path.write_text(value, "utf-8")
        path.chmod(0o600)
        return f"${{file:secrets/{name}}}"


def _base64_secret() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310  our own address on loopback
            return bool(answer.status == 200)
    except OSError:
        return False


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
