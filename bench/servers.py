"""What is measured, as processes: the bridge, the bare application under the very same gunicorn, and PostgreSQL."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import load
from ruamel.yaml import YAML

from bridge.config.configuration import load_configuration
from bridge.main import registry
from bridge.web.server import settings

_HERE = Path(__file__).parent
_START_SECONDS = 30.0


def configure(folder: Path, target_url: str = "http://127.0.0.1:9", **more: Any) -> int:
    """Write a bridge.yaml with one source, one target and one mapping into a new folder; the port it listens at."""
    (folder / "mappings").mkdir(parents=True)
    port = free_port()
    document = {
        "version": 1,
        "sources": {"wiseflow-main": {"connector": "wiseflow", "secrets": [load.SECRET]}},
        "targets": {"receiver": {"connector": "http", "base_url": target_url}},
        "web": {"bind": f"127.0.0.1:{port}"},
        "network": {"allow_hosts": ["127.0.0.1"]},
        "log": {"level": "warning"},
    }
    mapping = {
        "version": 1,
        "description": "Every event, as it is",
        "events": ["*"],
        "target": "receiver",
        "operation": "request",
        "with": {"method": "POST", "path": "/events/{{ event.sequence }}", "json": "{{ event }}"},
    }
    for name, content in (("bridge.yaml", document | more), ("mappings/everything.yaml", mapping)):
        with (folder / name).open("w", encoding="utf-8") as stream:
            YAML().dump(content, stream)
    return port


def bridge_command(folder: Path, *verb: str) -> list[str]:
    return [sys.executable, "-m", "bridge.main", "--config", str(folder / "bridge.yaml"), *verb]


@contextmanager
def running(folder: Path, command: Sequence[str], **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process with its words in `log` of the folder; it is ended with SIGTERM, and killed if that does not help."""
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            list(command),
            cwd=folder,
            env=dict(os.environ) | environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def web(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`campusbridge web`, once it answers."""
    with running(folder, bridge_command(folder, "web")) as process:
        wait_for(process, port, folder)
        yield process


def gunicorn_settings(folder: Path) -> dict[str, Any]:
    """How a bridge serves, by its own words."""
    known = registry()
    configuration = load_configuration(
        folder / "bridge.yaml", sources=known.sources, targets=known.targets, environ=os.environ
    )
    return settings(f"{configuration.web.host}:{configuration.web.port}", configuration.web.workers)


@contextmanager
def bare(folder: Path, like: dict[str, Any], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The bare application under gunicorn with a bridge's settings; only application and port differ."""
    folder.mkdir()
    lines = [f"{name} = {value!r}" for name, value in (like | {"bind": f"127.0.0.1:{port}"}).items()]
    (folder / "gunicorn.conf.py").write_text("\n".join(lines) + "\n", "utf-8")
    command = [sys.executable, "-m", "gunicorn", "bare:app", "--config", str(folder / "gunicorn.conf.py")]
    with running(folder, command, BENCH_SECRET=load.SECRET, PYTHONPATH=str(_HERE)) as process:
        wait_for(process, port, folder)
        yield process


@contextmanager
def target(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A target that notes what arrives when (see arrivals.py)."""
    with running(folder, [sys.executable, str(_HERE / "arrivals.py"), str(port)]) as process:
        wait_for(process, port, folder)
        yield process


@contextmanager
def postgresql() -> Iterator[str]:
    """The URL of an empty database on a PostgreSQL of our own with its default settings, so with fsync."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))[-1].parent
    folder = Path(tempfile.mkdtemp(prefix="cb-bench-pg-", dir="/var/tmp"))
    account = "postgres" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    if account:
        owner = pwd.getpwnam(account)
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    port, data = free_port(), folder / "data"

    def run(*command: str | Path) -> None:
        subprocess.run(command, check=True, capture_output=True, user=account, cwd=folder)

    try:
        run(programs / "initdb", "-D", data, "-U", "bridge", "-A", "trust", "--no-sync", "-E", "UTF8")
        settings = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
        run(programs / "pg_ctl", "-D", data, "-o", settings, "-l", folder / "log", "-w", "start")
        try:
            yield f"postgresql://bridge@127.0.0.1:{port}/postgres"
        finally:
            run(programs / "pg_ctl", "-D", data, "-m", "fast", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    """Return when something answers at the port, whatever it says. Raises RuntimeError with the end of the log."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"it did not start:\n{(folder / 'log').read_text('utf-8')[-2000:]}")
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
