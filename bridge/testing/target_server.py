"""An HTTP target for tests and demonstrations: it counts what arrives, and fails on request.

    python -m bridge.testing.target_server 9000

`GET /__sim__/state` answers with the figures, `POST /__sim__/knobs` with a JSON object such as
`{"fail_share": 0.2, "latency": 0.1, "down": false}` turns the knobs, `POST /__sim__/reset` forgets everything.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
import zlib
from collections import Counter, OrderedDict
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Final

from bridge.testing.answering import Asked, LocalServer, Reply

_JSON: Final = {"Content-Type": "application/json"}
_KEY: Final = "idempotency-key"
_DONE: Final = Reply(200, b'{"ok":true}', _JSON)


@dataclass(slots=True, kw_only=True)
class Knobs:
    """How a target misbehaves.

    `latency` is seconds before each answer; `fail_share` of the requests get `fail_status` and are not taken; `down`
    cuts every connection without an answer; `hang` leaves requests without an answer until it is False again.
    """

    latency: float = 0.0
    fail_share: float = 0.0
    fail_status: int = 503
    retry_after: float | None = None
    down: bool = False
    hang: bool = False


@dataclass(slots=True, kw_only=True)
class Figures:
    """What came. `unique` counts different Idempotency-Key values among what was taken, `repeated` the rest of it.

    `changed` are those of the repeated whose body was not that of the time before.
    """

    requests: int = 0
    taken: int = 0
    unique: int = 0
    repeated: int = 0
    changed: int = 0
    without_key: int = 0
    failed: int = 0
    cut: int = 0
    bytes: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    paths: Counter[str] = field(default_factory=Counter)


class TargetServer:
    """A target at `url`, any path. `knobs` may be changed at any moment.

    How often each key was taken, and its last body's checksum, are remembered; of the bodies the last `bodies_kept`.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, *, bodies_kept: int = 1000, seed: int = 1) -> None:
        self.knobs = Knobs()
        self._figures = Figures()
        self._counts: dict[str, int] = {}
        self._last: dict[str, int] = {}
        self._bodies: OrderedDict[str, bytes] = OrderedDict()
        self._bodies_kept = bodies_kept
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._closed = False
        self._server = LocalServer(self._answer, host, port)
        self.url = self._server.url

    def state(self) -> dict[str, Any]:
        """The figures and the knobs, as `GET /__sim__/state` answers them."""
        with self._lock:
            figures = asdict(self._figures)
            # JSON has only texts as keys; paths could be without end.
            figures["statuses"] = {str(status): count for status, count in self._figures.statuses.items()}
            figures["paths"] = dict(self._figures.paths.most_common(50))
            return figures | {"most_often": max(self._counts.values(), default=0), "knobs": asdict(self.knobs)}

    def keys(self) -> dict[str, int]:
        """How often each Idempotency-Key was taken."""
        with self._lock:
            return dict(self._counts)

    def body(self, key: str) -> bytes | None:
        """The last body that was taken with a key, if it is among those kept."""
        with self._lock:
            return self._bodies.get(key)

    def reset(self) -> None:
        """Forget all that came; the knobs stay."""
        with self._lock:
            self._figures = Figures()
            self._counts.clear()
            self._last.clear()
            self._bodies.clear()

    def close(self) -> None:
        """Stop; requests that hang end without an answer."""
        self._closed = True
        self._server.close()

    def __enter__(self) -> TargetServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, asked: Asked) -> Reply | None:
        if asked.target.startswith("/__sim__/"):
            return self._control(asked)
        knobs = self.knobs
        while knobs.hang:
            if self._closed:
                self._cut()
                return None
            time.sleep(0.02)
        if knobs.latency:
            time.sleep(knobs.latency)
        if knobs.down:
            self._cut()
            return None
        with self._lock:
            figures = self._figures
            figures.requests += 1
            if knobs.fail_share and self._chance.random() < knobs.fail_share:
                figures.failed += 1
                figures.statuses[knobs.fail_status] += 1
                retry = {} if knobs.retry_after is None else {"Retry-After": f"{knobs.retry_after:g}"}
                return Reply(knobs.fail_status, b'{"ok":false}', {**_JSON, **retry})
            figures.statuses[200] += 1
            self._take(asked)
        return _DONE

    def _take(self, asked: Asked) -> None:
        figures = self._figures
        figures.taken += 1
        figures.bytes += len(asked.body)
        path = asked.target.partition("?")[0]
        if path in figures.paths or len(figures.paths) < 1000:
            figures.paths[path] += 1
        key = asked.headers.get(_KEY)
        if key is None:
            figures.without_key += 1
            return
        seen = self._counts.get(key, 0)
        self._counts[key] = seen + 1
        last, self._last[key] = self._last.get(key), zlib.crc32(asked.body)
        if seen:
            figures.repeated += 1
            figures.changed += self._last[key] != last
        else:
            figures.unique += 1
        self._bodies[key] = asked.body
        if len(self._bodies) > self._bodies_kept:
            self._bodies.popitem(last=False)

    def _cut(self) -> None:
        with self._lock:
            self._figures.requests += 1
            self._figures.cut += 1

    def _control(self, asked: Asked) -> Reply:
        name = asked.target.removeprefix("/__sim__/").partition("?")[0]
        if (asked.method, name) == ("GET", "state"):
            return Reply(200, json.dumps(self.state()).encode(), _JSON)
        if (asked.method, name) == ("POST", "reset"):
            self.reset()
            return _DONE
        if (asked.method, name) == ("POST", "knobs"):
            try:
                self._turn(json.loads(asked.body))
            except (ValueError, TypeError, AttributeError):
                return Reply(400, b'{"error":"expected an object of knobs"}', _JSON)
            return _DONE
        return Reply(404, b"{}", _JSON)

    def _turn(self, wanted: dict[str, Any]) -> None:
        known = asdict(self.knobs)
        if wanted.keys() - known.keys():
            raise ValueError("unknown knob")
        for name, value in wanted.items():
            if isinstance(known[name], bool) != isinstance(value, bool) or not isinstance(value, int | float | None):
                raise TypeError(name)
        for name, value in wanted.items():
            setattr(self.knobs, name, value)


def serve_target(host: str = "127.0.0.1", port: int = 0, *, bodies_kept: int = 1000, seed: int = 1) -> TargetServer:
    """Serve a target from now on, in threads of this process; port 0 takes a free one. Close it at the end."""
    return TargetServer(host, port, bodies_kept=bodies_kept, seed=seed)


def main() -> None:
    """Serve until the process is ended; the only argument is the port."""
    server = serve_target(port=int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    sys.stdout.write(f"{server.url}\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main()
