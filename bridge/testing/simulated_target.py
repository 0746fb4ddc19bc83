"""A simulated target over HTTP: a connector's own simulator, with faults around it and a memory of every call.

Beside the system's API there are `GET /__sim__/state` (what the system holds), `GET /__sim__/calls` (the last calls),
`GET` and `POST /__sim__/faults` (a JSON list, see target_faults.py) and `POST /__sim__/reset` (a new system; the faults
stay).
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final

from bridge.core.events import Json, stamp
from bridge.core.simulation import SimulatedTarget, TargetSimulator
from bridge.testing.answering import Asked, LocalServer, Reply, Reset
from bridge.testing.api_serving import JSON, api_call, http_reply
from bridge.testing.target_faults import Fault, Faults, fault_of, misanswered

CALLS_KEPT: Final = 1000
BODY_KEPT: Final = 64 * 1024
_LOOK_SECONDS: Final = 0.01


@dataclass(slots=True, kw_only=True)
class SeenCall:
    """A call as it came, and the status of its answer: None while there is none."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    at: datetime
    status: int | None = None


class SimulatedTargetServer:
    """A target's simulator at `url`, from now until it is closed. One call after the other reaches the system."""

    def __init__(
        self,
        simulator: TargetSimulator,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        faults: Sequence[Fault] = (),
        seed: int = 1,
    ) -> None:
        self._simulator = simulator
        self._system = simulator.target()
        self._calls: deque[SeenCall] = deque(maxlen=CALLS_KEPT)
        self._faults = Faults(faults, seed)
        self._lock = threading.Lock()
        self._epoch = 0  # grows when those that hang are to be let go
        self._closed = False
        self._server = LocalServer(self._answer, host, port)
        self.url = self._server.url

    @property
    def system(self) -> SimulatedTarget:
        """The system itself, for what only this one can be told: its own limits and states."""
        return self._system

    def settings(self) -> Json:
        """The entry of bridge.yaml's `targets` for this server."""
        return self._simulator.settings(self.url)

    def effects(self) -> Any:
        """What the system holds now: a copy."""
        with self._lock:
            return json.loads(json.dumps(self._system.effects()))

    def calls(self) -> list[SeenCall]:
        """The last calls, oldest first."""
        with self._lock:
            return list(self._calls)

    def fail(self, *faults: Fault) -> None:
        """These faults from now on and no others; without any it is well again, and lets go of those that hang."""
        self._faults.set(faults)
        self._epoch += 1

    def reset(self) -> None:
        """A new system, and no call was made; the faults stay."""
        with self._lock:
            self._system = self._simulator.target()
            self._calls.clear()

    def close(self) -> None:
        """Stop; requests that hang end without an answer."""
        self._closed = True
        self._server.close()

    def __enter__(self) -> SimulatedTargetServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, asked: Asked) -> Reply | Reset | None:
        path = asked.target.partition("?")[0]
        if path.startswith("/__sim__/"):
            return self._control(asked.method, path.removeprefix("/__sim__/"), asked.body)
        seen = SeenCall(
            method=asked.method,
            target=asked.target,
            headers=asked.headers,
            body=asked.body[:BODY_KEPT],
            at=datetime.now(UTC),
        )
        with self._lock:
            self._calls.append(seen)
        reply = misanswered(self._faults.striking(path), lambda: self._genuine(asked), self._hold)
        seen.status = reply.status if isinstance(reply, Reply) else None
        return reply

    def _genuine(self, asked: Asked) -> Reply:
        call = api_call(asked)
        with self._lock:
            return http_reply(self._system.answer(call))

    def _hold(self, seconds: float) -> None:
        until, epoch = time.monotonic() + seconds, self._epoch
        while not self._closed and epoch == self._epoch and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_SECONDS))

    def _control(self, method: str, name: str, body: bytes) -> Reply:
        match method, name:
            case "GET", "state":
                return _json(self.effects())
            case "GET", "calls":
                return _json([_written(call) for call in self.calls()])
            case "GET", "faults":
                return _json([asdict(fault) for fault in self._faults.all()])
            case "POST", "faults":
                return self._told(body)
            case "POST", "reset":
                self.reset()
                return _json({"ok": True})
        return _json({"error": "there are state, calls, faults and reset"}, 404)

    def _told(self, body: bytes) -> Reply:
        try:
            faults = json.loads(body)
            if not isinstance(faults, list):
                raise TypeError("no list")
            self.fail(*map(fault_of, faults))
        except (ValueError, TypeError, AttributeError) as error:
            return _json({"error": f"expected a list of faults: {error}"}, 400)
        return _json({"ok": True})


def _written(call: SeenCall) -> Json:
    return {
        "method": call.method,
        "path": call.target,
        "headers": dict(call.headers),
        "body": call.body.decode("utf-8", "replace"),
        "time": stamp(call.at),
        "status": call.status,
    }


def _json(document: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(document, ensure_ascii=False).encode(), JSON)
