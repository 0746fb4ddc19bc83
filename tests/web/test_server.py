"""The real server, gunicorn with the settings of `campusbridge web`, on a machine whose log cannot be written."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from web_parts import Client

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("web")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    document = {
        "version": 1,
        "sources": {"wiseflow": {"connector": "wiseflow", "secrets": ["a-secret-of-the-tests-4711"]}},
        "web": {"bind": f"127.0.0.1:{port}", "workers": 1},
    }
    (folder / "bridge.yaml").write_text(json.dumps(document), "utf-8")
    command = [sys.executable, "-m", "bridge.main", "-c", folder / "bridge.yaml", "web"]
    with open("/dev/full", "w") as log:
        process = subprocess.Popen(command, stderr=log)
    client = Client(port)
    try:
        end = time.monotonic() + 60
        while not answers(client):
            assert time.monotonic() < end, "it takes too long"
            time.sleep(0.02)
        yield client
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def answers(client: Client) -> bool:
    try:
        return client.ask("GET", "/healthz").status == 200
    except OSError:
        return False


@pytest.mark.parametrize("name", ["SCRIPT_NAME", "PATH_INFO", "REMOTE_USER", "Script-Name"])
def test_no_header_moves_the_address_that_was_asked_for(client: Client, name: str) -> None:
    assert client.ask("GET", "/healthz", {name: "/x"}).status == 200
    assert client.ask("POST", "/hooks/wiseflow", {name: "/x"}, b"{}").status == 401


def test_who_is_refused_hears_so_also_when_the_log_cannot_be_written(client: Client) -> None:
    assert client.ask("POST", "/hooks/wiseflow", {}, b"{}").status == 401
