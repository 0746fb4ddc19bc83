"""A simulated target over HTTP: what it keeps and tells, and each way in which it misbehaves, byte by byte."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from click.testing import CliRunner

from bridge.cli.app import campusbridge
from bridge.cli.context import Context
from bridge.main import registry, web_app
from bridge.testing.simulated_target import CALLS_KEPT, SimulatedTargetServer
from bridge.testing.target_faults import ELSEWHERE, NAMES, Fault, fault_in
from connectors.pabbly import simulator

HOOK = "/workflow/sendwebhookdata/abc"
ANSWER = {"status": "success", "message": "Response Accepted"}


@pytest.fixture
def server() -> Iterator[SimulatedTargetServer]:
    with SimulatedTargetServer(simulator) as made:
        yield made


@pytest.fixture
def web() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def post(web: requests.Session, server: SimulatedTargetServer, document: object = 1) -> requests.Response:
    return web.post(f"{server.url}{HOOK}", json=document, timeout=5, allow_redirects=False)


def raw(server: SimulatedTargetServer) -> bytes:
    """All bytes that come back for one call, until the connection ends."""
    parts = urlsplit(server.url)
    with socket.create_connection((str(parts.hostname), parts.port or 0), 5) as connection:
        connection.sendall(
            f"POST {HOOK} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\n1".encode()
        )
        received = b""
        while block := connection.recv(65536):
            received += block
        return received


def runs(server: SimulatedTargetServer) -> int:
    return len(server.effects()["runs"])


def test_it_keeps_what_it_was_told_and_every_call(server: SimulatedTargetServer, web: requests.Session) -> None:
    assert post(web, server, {"grade": "Ærø"}).json() == ANSWER
    assert web.get(f"{server.url}/nowhere?a=1", timeout=5).status_code == 404

    assert web.get(f"{server.url}/__sim__/state", timeout=5).json() == {"runs": [{"grade": "Ærø"}]}
    first, second = web.get(f"{server.url}/__sim__/calls", timeout=5).json()
    assert (first["method"], first["path"], first["status"]) == ("POST", HOOK, 200)
    assert json.loads(first["body"]) == {"grade": "Ærø"}
    assert first["headers"]["content-type"] == "application/json"
    assert abs((datetime.now(UTC) - datetime.fromisoformat(first["time"])).total_seconds()) < 60
    assert (second["path"], second["status"]) == ("/nowhere?a=1", 404)


def test_it_forgets(server: SimulatedTargetServer, web: requests.Session) -> None:
    post(web, server)
    assert web.post(f"{server.url}/__sim__/reset", timeout=5).status_code == 200
    assert (server.effects(), server.calls()) == ({"runs": []}, [])


def test_calls_are_bounded(server: SimulatedTargetServer) -> None:
    with requests.Session() as web:
        web.trust_env = False
        for number in range(CALLS_KEPT + 5):
            post(web, server, number)
    assert len(server.calls()) == CALLS_KEPT
    assert runs(server) == CALLS_KEPT + 5


def test_a_status_strikes_so_often(server: SimulatedTargetServer, web: requests.Session) -> None:
    server.fail(Fault(name="status", status=500, after=1, calls=2))
    assert [post(web, server).status_code for _ in range(4)] == [200, 500, 500, 200]
    assert runs(server) == 2


def test_a_share_is_the_same_for_the_same_seed() -> None:
    def statuses(seed: int) -> list[int]:
        fault = Fault(name="status", share=0.3)
        with SimulatedTargetServer(simulator, faults=[fault], seed=seed) as server, requests.Session() as web:
            web.trust_env = False
            return [post(web, server).status_code for _ in range(40)]

    assert statuses(1) == statuses(1) != statuses(2)
    assert 3 < statuses(1).count(503) < 25


def test_faults_keep_to_their_path(server: SimulatedTargetServer, web: requests.Session) -> None:
    server.fail(Fault(name="status", path="^/nowhere"))
    assert post(web, server).status_code == 200
    assert web.get(f"{server.url}/nowhere", timeout=5).status_code == 503


@pytest.mark.parametrize(("name", "taken"), [("drop", 1), ("reset", 0), ("hang", 0)])
def test_no_answer(server: SimulatedTargetServer, web: requests.Session, name: str, taken: int) -> None:
    server.fail(Fault(name=name, seconds=0.1))
    with pytest.raises(requests.ConnectionError):
        post(web, server)
    assert runs(server) == taken
    assert [call.status for call in server.calls()] == [None]


def test_a_reset_is_a_reset_and_a_close_is_none(server: SimulatedTargetServer) -> None:
    server.fail(Fault(name="reset"))
    with pytest.raises(ConnectionResetError):
        raw(server)
    server.fail(Fault(name="drop"))
    assert raw(server) == b""


def test_a_fault_may_come_after_the_call_was_taken(server: SimulatedTargetServer, web: requests.Session) -> None:
    server.fail(Fault(name="status", status=504, taken=True))
    assert post(web, server).status_code == 504
    assert runs(server) == 1


def test_healing_lets_go_of_those_that_hang(server: SimulatedTargetServer, web: requests.Session) -> None:
    server.fail(Fault(name="hang", seconds=60))
    with pytest.raises(requests.ReadTimeout):
        web.post(f"{server.url}{HOOK}", json=1, timeout=0.2)
    began = time.monotonic()
    server.fail()
    assert post(web, server).status_code == 200
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("given", "header"),
    [(None, None), ("7", "7"), ("-5", "-5"), ("soon", "soon"), ("999999999999999999", "999999999999999999")],
)
def test_throttling(
    server: SimulatedTargetServer, web: requests.Session, given: str | None, header: str | None
) -> None:
    server.fail(Fault(name="throttle", retry_after=given))
    answer = post(web, server)
    assert (answer.status_code, answer.headers.get("Retry-After")) == (429, header)
    assert runs(server) == 0


def test_throttling_until_a_date(server: SimulatedTargetServer, web: requests.Session) -> None:
    server.fail(Fault(name="throttle", retry_after="date+60"))
    moment = parsedate_to_datetime(post(web, server).headers["Retry-After"])
    assert 50 < (moment - datetime.now(UTC)).total_seconds() <= 60


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects(server: SimulatedTargetServer, web: requests.Session, status: int) -> None:
    server.fail(Fault(name="redirect", status=status, calls=1))
    answer = post(web, server)
    assert (answer.status_code, answer.headers["Location"], runs(server)) == (status, ELSEWHERE, 0)


def test_a_page_instead_of_json(server: SimulatedTargetServer, web: requests.Session) -> None:
    server.fail(Fault(name="html"))
    answer = post(web, server)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert answer.text.startswith("<!doctype html>")


def test_half_an_answer_is_whole_to_http(server: SimulatedTargetServer) -> None:
    whole = json.dumps(ANSWER).encode()
    server.fail(Fault(name="truncate"))
    head, _, body = raw(server).partition(b"\r\n\r\n")
    assert body == whole[: len(whole) // 2]
    assert f"Content-Length: {len(body)}".encode() in head


def test_a_broken_off_answer_is_not(server: SimulatedTargetServer) -> None:
    whole = json.dumps(ANSWER).encode()
    server.fail(Fault(name="break_off"))
    head, _, body = raw(server).partition(b"\r\n\r\n")
    assert body == whole[: len(whole) // 2]
    assert f"Content-Length: {len(whole)}".encode() in head


def test_a_compressed_answer(server: SimulatedTargetServer) -> None:
    server.fail(Fault(name="gzip"))
    head, _, body = raw(server).partition(b"\r\n\r\n")
    assert b"Content-Encoding: gzip" in head
    assert json.loads(gzip.decompress(body)) == ANSWER


def test_a_flood(server: SimulatedTargetServer) -> None:
    server.fail(Fault(name="flood", bytes=200_001))
    head, _, body = raw(server).partition(b"\r\n\r\n")
    assert b"Content-Length: 200001" in head
    assert body == b" " * 200_001
    assert runs(server) == 1


def test_another_clock(server: SimulatedTargetServer, web: requests.Session) -> None:
    server.fail(Fault(name="skew", seconds=3600))
    moment = parsedate_to_datetime(post(web, server).headers["Date"])
    assert 3590 < (datetime.now(UTC) - moment).total_seconds() < 3650


def test_the_connection_closes(server: SimulatedTargetServer) -> None:
    server.fail(Fault(name="close"))
    parts = urlsplit(server.url)
    with socket.create_connection((str(parts.hostname), parts.port or 0), 5) as connection:
        connection.sendall(f"POST {HOOK} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1".encode())
        received = b""
        while block := connection.recv(65536):
            received += block
    assert b"Connection: close" in received
    assert received.endswith(json.dumps(ANSWER).encode())


def test_faults_turn_over_http(server: SimulatedTargetServer, web: requests.Session) -> None:
    faults = f"{server.url}/__sim__/faults"
    assert web.post(faults, json=[{"name": "status", "status": 500, "calls": 1}], timeout=5).status_code == 200
    assert web.get(faults, timeout=5).json()[0]["status"] == 500
    assert [post(web, server).status_code for _ in range(2)] == [500, 200]
    assert web.get(faults, timeout=5).json() == []
    for wrong in ({}, [{"name": "nonsense"}], [{"name": "status", "status": "much"}], [{"name": "drop", "x": 1}], 5):
        assert web.post(faults, json=wrong, timeout=5).status_code == 400
    assert web.get(f"{server.url}/__sim__/nothing", timeout=5).status_code == 404


def test_faults_on_the_command_line() -> None:
    assert fault_in("drop") == Fault(name="drop")
    assert fault_in("status:status=500,calls=3,share=0.5,path=^/api,taken=true") == Fault(
        name="status", status=500, calls=3, share=0.5, path="^/api", taken=True
    )
    assert fault_in("throttle:retry_after=7").retry_after == "7"
    for wrong in ("nonsense", "status:500", "status:status=x", "status:calls=1.5", "drop:share=true"):
        with pytest.raises(ValueError, match=r"a fault|expected"):
            fault_in(wrong)


def test_every_fault_is_explained_on_the_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bridge.main", "simulate", "target", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    words = " ".join(done.stdout.split())
    assert all(f"{name}: " in words for name in NAMES)


def test_the_command_plays_a_target(tmp_path: Path, web: requests.Session) -> None:
    command = [sys.executable, "-m", "bridge.main", "--config", str(tmp_path / "bridge.yaml")]
    command += ["simulate", "target", "pabbly", "--json", "--fault", "status:status=500,calls=1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        statuses = [web.post(told["settings"]["url"], json=1, timeout=5).status_code for _ in range(2)]
        state = web.get(f"{told['url']}/__sim__/state", timeout=5).json()
        process.terminate()

    assert told["settings"] == {"connector": "pabbly", "url": f"{told['url']}{HOOK}"}
    assert (statuses, state) == ([500, 200], {"runs": [1]})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["target", "nonsense"], "is no target"),
        (["target", "pabbly", "--fault", "nonsense"], "one of these names"),
        (["nonsense"], "is not a source"),
        (["--count", "1", "nonsense"], "is not a source"),
        (["source", "target", "--secret", "x" * 16], "is not a source"),
    ],
)
def test_what_cannot_be_played_is_said(tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "bridge.yaml").write_text(
        "version: 1\nsources: {w: {connector: wiseflow, secrets: [abcdefghijklmnop]}}\n"
    )
    result = CliRunner().invoke(
        campusbridge,
        ["--config", str(tmp_path / "bridge.yaml"), "simulate", *arguments],
        obj=Context(registry=registry(), web_app=web_app),
    )
    assert result.exit_code != 0
    assert words in result.output
