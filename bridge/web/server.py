"""gunicorn, run from here. How many processes take webhooks, and why without threads, was measured (see bench/)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.workers.sync import SyncWorker

PATIENCE_SECONDS: Final = 5.0
"""How long a sender may be silent in the middle of a request. A proxy in front, which TLS needs anyway, never is."""


class PatientWorker(SyncWorker):  # type: ignore[misc]
    """One request at a time: with threads the interpreter's switches made the slowest answers three times slower."""

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        client.settimeout(PATIENCE_SECONDS)
        super().handle(listener, client, addr)


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
