"""A PostgreSQL cluster of a test's own, which can be taken away under a running bridge."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType


class Cluster:
    """A server on a port of its own. `stop` pulls the plug, `start` brings it back with its data."""

    def __init__(self) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        assert found, "PostgreSQL is missing: run `make setup` as root, or install the package postgresql"
        self._programs = found[-1].parent
        self._folder = Path(tempfile.mkdtemp(prefix="cb-e2e-"))
        self._account = None
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            self._account = "postgres"
            owner = pwd.getpwnam(self._account)
            os.chown(self._folder, owner.pw_uid, owner.pw_gid)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]

    def __enter__(self) -> Cluster:
        self._run("initdb", "-U", "bridge", "-A", "trust", "--no-sync", "-E", "UTF8")
        self.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def database(self, name: str) -> str:
        """The URL of a new, empty database."""
        where = ["-h", str(self._folder), "-p", str(self._port), "-U", "bridge"]
        subprocess.run([str(self._programs / "createdb"), *where, name], check=True, capture_output=True, timeout=60)
        return f"postgresql://bridge@127.0.0.1:{self._port}/{name}"

    def start(self) -> None:
        settings = f"-p {self._port} -k {self._folder} -c listen_addresses=127.0.0.1 -c shared_buffers=32MB"
        self._run("pg_ctl", "-o", settings, "-l", str(self._folder / "log"), "-w", "-t", "30", "start")

    def stop(self) -> None:
        """As a crash does: connections are cut, and the next start recovers from the write-ahead log."""
        self._run("pg_ctl", "-m", "immediate", "-w", "-t", "30", "stop", check=False)

    def _run(self, program: str, *words: str, check: bool = True) -> None:
        command = [str(self._programs / program), "-D", str(self._folder / "data"), *words]
        # Into a file: a server that is started keeps what it is given open.
        with (Path(tempfile.gettempdir()) / f"{self._folder.name}.out").open("wb") as out:
            subprocess.run(command, check=check, stdout=out, stderr=out, user=self._account, timeout=60)
        Path(out.name).unlink()
