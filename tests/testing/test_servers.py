"""The simulated API and the simulated target: what they answer, count and break."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import requests
from toy import simulator

from bridge.testing.answering import LocalServer, Reply
from bridge.testing.platform_server import PlatformServer, serve_platform
from bridge.testing.target_server import TargetServer, serve_target


@pytest.fixture
def api() -> Iterator[PlatformServer]:
    with serve_platform(simulator.platform()) as server:
        yield server


@pytest.fixture
def target() -> Iterator[TargetServer]:
    with serve_target(bodies_kept=3) as server:
        yield server


@pytest.fixture
def web() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def put(web: requests.Session, target: TargetServer, key: str, body: bytes = b"{}") -> requests.Response:
    return web.post(f"{target.url}/crm", data=body, headers={"Idempotency-Key": key}, timeout=5)


def test_the_api_answers_as_the_platform_says(api: PlatformServer, web: requests.Session) -> None:
    answer = web.get(f"{api.url}/papers/p-1", params={"page": "2", "blank": ""}, timeout=5)
    assert answer.json() == {"email": "ada@example.test", "query": {"page": "2", "blank": ""}}
    missing = web.get(f"{api.url}/nowhere", timeout=5)
    assert (missing.status_code, missing.text, missing.headers["X-Toy"]) == (404, "<h1>Not here</h1>", "yes")
    assert "text/html" in missing.headers["Content-Type"]
    assert api.answered == {200: 1, 404: 1}


def test_forms_and_json_reach_the_platform(api: PlatformServer, web: requests.Session) -> None:
    form = web.post(f"{api.url}/token", data={"grant_type": "x", "empty": ""}, headers={"User-Agent": "me"}, timeout=5)
    assert form.json() == {"form": {"grant_type": "x", "empty": ""}, "json": None, "agent": "me"}
    document = web.post(f"{api.url}/things", json={"a": [1]}, timeout=5)
    assert document.json()["json"] == {"a": [1]}
    assert web.post(f"{api.url}/things", data=b"{", timeout=5).status_code == 400


def test_the_api_fails_for_some_calls(api: PlatformServer, web: requests.Session) -> None:
    api.fail(429, calls=2, retry_after=7)
    answers = [web.get(f"{api.url}/papers/p-1", timeout=5) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].headers["Retry-After"] == "7"


def test_the_api_fails_for_some_time_or_until_it_is_healed(api: PlatformServer, web: requests.Session) -> None:
    api.fail(503, seconds=0.2)
    assert web.get(f"{api.url}/papers/p-1", timeout=5).status_code == 503
    time.sleep(0.25)
    assert web.get(f"{api.url}/papers/p-1", timeout=5).status_code == 200
    api.fail(503)
    assert web.get(f"{api.url}/papers/p-1", timeout=5).status_code == 503
    api.heal()
    assert web.get(f"{api.url}/papers/p-1", timeout=5).status_code == 200


def test_the_api_can_be_slow_or_hang(api: PlatformServer, web: requests.Session) -> None:
    api.latency = 0.2
    began = time.monotonic()
    web.get(f"{api.url}/papers/p-1", timeout=5)
    assert time.monotonic() - began >= 0.2
    api.heal()
    api.hang = True
    with pytest.raises(requests.ReadTimeout):
        web.get(f"{api.url}/papers/p-1", timeout=0.2)
    api.hang = False
    assert web.get(f"{api.url}/papers/p-1", timeout=5).status_code == 200


def test_the_target_counts_messages_and_repetitions(target: TargetServer, web: requests.Session) -> None:
    for key, body in (("a", b"1"), ("b", b"2"), ("a", b"3")):
        assert put(web, target, key, body).status_code == 200
    web.post(target.url, data=b"x", timeout=5)
    state = web.get(f"{target.url}/__sim__/state", timeout=5).json()
    wanted = {"requests": 4, "taken": 4, "unique": 2, "repeated": 1, "without_key": 1, "most_often": 2, "bytes": 4}
    assert {name: state[name] for name in wanted} == wanted
    assert state["paths"] == {"/crm": 3, "/": 1}
    assert target.keys() == {"a": 2, "b": 1}
    assert target.body("a") == b"3"


def test_the_target_keeps_only_the_last_bodies(target: TargetServer, web: requests.Session) -> None:
    for key in "abcd":
        put(web, target, key)
    assert target.body("a") is None
    assert target.body("d") == b"{}"
    assert len(target.keys()) == 4
    target.reset()
    assert target.keys() == {}
    assert target.state()["requests"] == 0


def test_a_share_of_failures_takes_nothing(target: TargetServer, web: requests.Session) -> None:
    target.knobs.fail_share, target.knobs.retry_after = 0.5, 3
    answers = [put(web, target, str(number)) for number in range(100)]
    failed = [answer for answer in answers if answer.status_code == 503]
    assert 25 < len(failed) < 75
    assert failed[0].headers["Retry-After"] == "3"
    state = target.state()
    assert (state["failed"], state["taken"], state["unique"]) == (len(failed), 100 - len(failed), 100 - len(failed))


def test_knobs_turn_over_http(target: TargetServer, web: requests.Session) -> None:
    knobs = f"{target.url}/__sim__/knobs"
    assert web.post(knobs, json={"fail_share": 1, "fail_status": 500}, timeout=5).status_code == 200
    assert put(web, target, "a").status_code == 500
    for wrong in ({"nonsense": 1}, {"latency": "much"}, {"down": 1}, {"latency": True}, [1], 5):
        assert web.post(knobs, json=wrong, timeout=5).status_code == 400
    assert web.post(f"{target.url}/__sim__/reset", timeout=5).status_code == 200
    assert web.get(f"{target.url}/__sim__/nothing", timeout=5).status_code == 404


def test_a_target_that_is_down_cuts_connections_but_can_be_asked(target: TargetServer, web: requests.Session) -> None:
    target.knobs.down = True
    with pytest.raises(requests.ConnectionError):
        put(web, target, "a")
    state = web.get(f"{target.url}/__sim__/state", timeout=5).json()
    assert (state["cut"], state["taken"]) == (1, 0)


def test_a_target_that_hangs_goes_on_when_let(target: TargetServer, web: requests.Session) -> None:
    target.knobs.hang = True
    answers: list[int] = []
    waiting = threading.Thread(target=lambda: answers.append(put(web, target, "a").status_code))
    waiting.start()
    time.sleep(0.2)
    assert answers == []
    target.knobs.hang = False
    waiting.join(5)
    assert answers == [200]


def test_the_target_runs_as_a_program(web: requests.Session) -> None:
    program = subprocess.Popen(
        [sys.executable, "-m", "bridge.testing.target_server"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert program.stdout is not None
        url = program.stdout.readline().strip()
        assert web.get(f"{url}/__sim__/state", timeout=5).json()["requests"] == 0
    finally:
        program.kill()
        program.communicate()


def test_a_connection_serves_many_requests_and_odd_ones_only_end_it() -> None:
    with LocalServer(lambda asked: Reply(body=asked.body)) as server:
        with socket.create_connection((server.host, server.port)) as connection:
            chunks = b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: x\r\n\r\n"
            connection.sendall(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
            connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nfgh")
            received = b""
            while received.count(b"HTTP/1.1 200") < 2 or not received.endswith(b"fgh"):
                received += connection.recv(4096)
            assert b"\r\n\r\nabcde" in received
        with socket.create_connection((server.host, server.port)) as connection:
            connection.sendall(b"nonsense\r\n\r\n")
            assert connection.recv(4096) == b""
        assert requests.head(server.url, timeout=5).status_code == 200


@pytest.mark.parametrize(
    "part",
    [
        b"POST /crm HTTP/1.1\r\nIdempotency-Key: k\r\nContent-Length: 9\r\n\r\n{}",
        b"POST /crm HTTP/1.1\r\nIdempotency-Key: k\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{}",
        b"POST /crm HTTP/1.1\r\nIdempotency-Key: k\r\n",
    ],
)
def test_what_a_killed_client_sent_of_a_message_is_not_taken(target: TargetServer, part: bytes) -> None:
    address = target.url.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1])), timeout=5) as connection:
        connection.sendall(part)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(4096) == b""
    assert target.state()["requests"] == 0


def test_a_closed_server_answers_nobody() -> None:
    server = LocalServer(lambda asked: Reply())
    server.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((server.host, server.port), timeout=1)
