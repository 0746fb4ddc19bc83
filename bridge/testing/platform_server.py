"""A simulated platform's API over HTTP, with faults at the turn of a knob."""

from __future__ import annotations

import threading
import time
from collections import Counter
from types import TracebackType

from bridge.core.simulation import SimulatedPlatform
from bridge.testing.answering import Asked, LocalServer, Reply
from bridge.testing.api_serving import JSON, api_call, http_reply


class PlatformServer:
    """The API of a simulated platform at `url`. The knobs work at any moment:

    `latency`  seconds before every answer
    `hang`     True: no answer at all, until it is False again
    `fail()`   a status instead of answers, for some seconds or some calls

    `answered` counts answers by status, `requests` all requests.
    """

    def __init__(self, platform: SimulatedPlatform, host: str = "127.0.0.1", port: int = 0) -> None:
        self.latency = 0.0
        self.hang = False
        self.answered: Counter[int] = Counter()
        self.requests = 0
        self._platform = platform
        self._lock = threading.Lock()
        self._closed = False
        self._failing: tuple[int, float, int, dict[str, str]] | None = None
        self._server = LocalServer(self._answer, host, port)
        self.url = self._server.url

    def fail(
        self, status: int, *, seconds: float = float("inf"), calls: int | None = None, retry_after: float | None = None
    ) -> None:
        """Answer with a status for so many seconds or calls, whichever ends first; `heal` ends it at once."""
        headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
        with self._lock:
            self._failing = (status, time.monotonic() + seconds, -1 if calls is None else calls, headers)

    def heal(self) -> None:
        """Everything answers as it should again."""
        with self._lock:
            self._failing = None
        self.hang, self.latency = False, 0.0

    def close(self) -> None:
        """Stop; requests that hang end without an answer."""
        self._closed = True
        self._server.close()

    def __enter__(self) -> PlatformServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, asked: Asked) -> Reply | None:
        with self._lock:
            self.requests += 1
        while self.hang:
            if self._closed:
                return None
            time.sleep(0.02)
        if self.latency:
            time.sleep(self.latency)
        reply = self._failure() or self._genuine(asked)
        with self._lock:
            self.answered[reply.status] += 1
        return reply

    def _failure(self) -> Reply | None:
        with self._lock:
            if self._failing is None:
                return None
            status, until, calls, headers = self._failing
            if time.monotonic() >= until or calls == 0:
                self._failing = None
                return None
            self._failing = (status, until, calls - 1, headers)
            return Reply(status, b"{}", {**JSON, **headers})

    def _genuine(self, asked: Asked) -> Reply:
        call = api_call(asked)
        if call.json is None and not call.form and asked.body not in (b"", b"null"):
            return Reply(400, b'{"error":"not JSON"}', JSON)
        return http_reply(self._platform.answer(call))


def serve_platform(platform: SimulatedPlatform, host: str = "127.0.0.1", port: int = 0) -> PlatformServer:
    """Serve a platform's API from now on, in threads of this process; port 0 takes a free one. Close it at the end."""
    return PlatformServer(platform, host, port)
