"""gunicorn, run from here. How many processes take webhooks, and why without threads, was measured (see bench/)."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.util import close_graceful
from gunicorn.workers.sync import SyncWorker

PATIENCE_SECONDS: Final = 5.0
"""How long a sender may be silent in the middle of a request. A proxy in front, which TLS needs anyway, never is."""


ASIDE: Final = "/api/"
"""What is asked under this address is answered beside the webhooks."""

_MOST_ASIDE: Final = 40  # more than the application lets in: the others are refused, which takes no time
_END_SECONDS: Final = 3.0


class PatientWorker(SyncWorker):  # type: ignore[misc]
    """One request at a time: with threads the interpreter's switches made the slowest answers three times slower.

    Those who pull events are the exception. They read slowly, or for minutes: each gets a thread, which sleeps most of
    the time, and no webhook waits for any of them.
    """

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        client.settimeout(PATIENCE_SECONDS)
        super().handle(listener, client, addr)

    def handle_request(self, listener: Any, req: Any, client: Any, addr: Any) -> None:
        if not req.path.startswith(ASIDE) or len(self._aside) >= _MOST_ASIDE:
            super().handle_request(listener, req, client, addr)
            return
        own = socket.socket(fileno=client.detach())  # gunicorn closes the one it knows when this returns
        own.settimeout(PATIENCE_SECONDS)
        thread = threading.Thread(target=self._answer, args=(listener, req, own, addr), name="aside", daemon=True)
        self._aside.add(thread)
        thread.start()

    def _answer(self, listener: Any, req: Any, client: Any, addr: Any) -> None:
        try:
            # StopIteration is gunicorn's word for an answer that broke off; OSError: the other side is gone, or slow.
            with contextlib.suppress(OSError, StopIteration):
                super().handle_request(listener, req, client, addr)
        finally:
            close_graceful(client)
            self._aside.discard(threading.current_thread())

    def load_wsgi(self) -> None:
        super().load_wsgi()
        self._aside: set[threading.Thread] = set()
        self._ending = threading.Event()
        app: Any = self.wsgi

        def told(environ: dict[str, Any], start_response: Any) -> Any:
            environ["campusbridge.ending"] = self._ending
            environ["campusbridge.crowded"] = threading.current_thread() is threading.main_thread()
            return app(environ, start_response)

        self.wsgi: Any = told

    def run(self) -> None:
        super().run()
        self._ending.set()
        until = time.monotonic() + _END_SECONDS
        for thread in list(self._aside):
            thread.join(max(0.0, until - time.monotonic()))


def settings(address: str, workers: int) -> dict[str, Any]:
    """gunicorn's settings."""
    return {
        "bind": address,
        "workers": workers,
        "worker_class": "bridge.web.server.PatientWorker",
        "preload_app": True,
        "backlog": 2048,  # a burst waits in the kernel, not at the sender
        "timeout": 30,
        "graceful_timeout": 10,
        "loglevel": "critical",
        "control_socket_disable": True,
        # A heartbeat file on a disk that is busy syncing would make gunicorn kill healthy workers.
        "worker_tmp_dir": "/dev/shm" if Path("/dev/shm").is_dir() else None,  # noqa: S108
        "limit_request_line": 8190,
        "limit_request_fields": 100,
        "forwarder_headers": "",  # by default anybody on this host may say SCRIPT_NAME, and a wrong one ends in a 500
    }


class _Server(BaseApplication):  # type: ignore[misc]
    """gunicorn's way of being told things in code."""

    def __init__(self, make: Callable[[], Flask], options: dict[str, Any]) -> None:
        self._make = make
        self._options = options
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            if value is not None:
                self.cfg.set(name, value)

    def load(self) -> Flask:
        return self._make()


def serve(make: Callable[[], Flask], address: str, workers: int) -> None:
    """Serve the application until a signal; does not return."""
    _Server(make, settings(address, workers)).run()
