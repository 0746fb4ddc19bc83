"""gunicorn, run from here: how many processes and threads take webhooks was chosen by measuring (see bench/)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from flask import Flask
from gunicorn.app.base import BaseApplication

THREADS: Final = 8


def settings(address: str, workers: int) -> dict[str, Any]:
    """gunicorn's settings. Threads, because a slow sender must not keep a whole process waiting for its body."""
    return {
        "bind": address,
        "workers": workers,
        "worker_class": "gthread",
        "threads": THREADS,
        "preload_app": True,
        "keepalive": 15,
        "timeout": 60,
        "graceful_timeout": 10,
        "loglevel": "warning",
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
