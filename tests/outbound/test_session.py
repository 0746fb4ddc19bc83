"""What the guarded session does to a request, an answer, and to everything that goes wrong in between."""

from __future__ import annotations

import gzip
import logging
import socket
import ssl
import subprocess
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from loopback import LOCAL, keeping, read_request, serving, talking
from werkzeug.wrappers import Request as Incoming
from werkzeug.wrappers import Response

from bridge.core.errors import DestinationForbidden, TargetError
from bridge.core.target import Request
from bridge.flow.judge import AnswerLost, NoAnswer, NotSent
from bridge.flow.network import Transport
from bridge.outbound.adapter import IDLE_SECONDS
from bridge.outbound.guard import NetworkPolicy
from bridge.outbound.session import API_LIMITS, USER_AGENT, AnswerTooLong, GuardedSession, Limits

QUICK = Limits(connect=1.0, read=0.3, total=0.6)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def post(url: str, body: bytes = b"{}", **headers: str) -> Request:
    return Request(method="POST", url=url, headers=headers, body=body)


def test_the_bytes_arrive_as_they_are_with_our_name_on_them() -> None:
    with serving(lambda request: Response("done", 201, {"X-Made": "7", "Set-Cookie": "a=b"})) as server:
        session = GuardedSession(LOCAL)
        answer = session.send(post(f"{server.url}/a%2Fb/ø?q=1%202&q=x", b"\x00\xff{}", **{"X-One": "1"}))
        session.send(post(server.url, b""))
    assert (answer.status, answer.headers["x-made"], answer.body) == (201, "7", b"done")
    first, second = server.seen
    assert (first.method, first.query, first.body) == ("POST", "q=1%202&q=x", b"\x00\xff{}")
    assert first.headers["x-one"] == "1"
    assert first.headers["user-agent"] == USER_AGENT
    assert first.headers["user-agent"].startswith("CampusBridge/")
    assert second.headers["content-length"] == "0"
    assert "cookie" not in second.headers


def test_connections_are_kept_alive_and_shared_between_threads() -> None:
    with keeping() as server:
        session = GuardedSession(LOCAL, connections=4)
        with ThreadPoolExecutor(4) as pool:
            bodies = [str(number).encode() for number in range(400)]
            answers = list(pool.map(lambda body: session.send(post(server.url, body)).body, bodies))
        assert answers == bodies
        assert len({seen.peer for seen in server.seen}) <= 4


def test_a_connection_that_has_idled_is_not_used_again() -> None:
    with keeping() as server:
        session = GuardedSession(LOCAL)
        session.send(post(server.url))
        session.send(post(server.url))
        time.sleep(IDLE_SECONDS + 0.1)
        session.send(post(server.url))
    assert [seen.peer for seen in server.seen].count(server.seen[0].peer) == 2
    assert len({seen.peer for seen in server.seen}) == 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_answers_and_never_followed(status: int) -> None:
    def answer(request: Incoming) -> Response:
        return Response("", status, {"Location": "/elsewhere"})

    with serving(answer) as server:
        assert GuardedSession(LOCAL).send(post(server.url)).status == status
    assert [seen.path for seen in server.seen] == ["/"]


def test_proxies_and_netrc_of_the_environment_are_not_heeded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ada password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with serving(lambda request: Response("ok")) as server:
        assert GuardedSession(LOCAL).send(post(server.url)).status == 200
    assert "authorization" not in server.seen[0].headers


# --- size -------------------------------------------------------------------------------------------------------------


def test_a_targets_long_answer_is_cut_and_its_connection_given_up() -> None:
    with keeping(b"x" * 5_000_000) as server:
        session = GuardedSession(LOCAL)
        assert session.send(post(server.url)).body == b"x" * 65536
        assert session.send(post(server.url)).body == b"x" * 65536
    assert len({seen.peer for seen in server.seen}) == 2


def test_an_answer_as_long_as_the_limit_is_whole() -> None:
    with serving(lambda request: Response(b"x" * 65536)) as server:
        session = GuardedSession(LOCAL, replace(API_LIMITS, body=65536))
        assert len(session.send(post(server.url)).body) == 65536


def test_an_apis_long_answer_is_refused() -> None:
    with serving(lambda request: Response(b"x" * 100_001)) as server:
        session = GuardedSession(LOCAL, replace(API_LIMITS, body=100_000))
        with pytest.raises(AnswerTooLong, match="more than 100000 bytes"):
            session.send(post(server.url))


@pytest.mark.parametrize(
    ("coding", "packed"), [("gzip", gzip.compress(b'{"a":1}', mtime=0)), ("deflate", zlib.compress(b'{"a":1}'))]
)
def test_compressed_answers_are_read(coding: str, packed: bytes) -> None:
    with serving(lambda request: Response(packed, headers={"Content-Encoding": coding})) as server:
        assert GuardedSession(LOCAL).send(post(server.url)).body == b'{"a":1}'


def test_a_decompression_bomb_does_not_go_off() -> None:
    bomb = gzip.compress(b"\x00" * 200_000_000, 9, mtime=0)
    assert len(bomb) < 1_000_000
    with serving(lambda request: Response(bomb, headers={"Content-Encoding": "gzip"})) as server:
        tracemalloc.start()
        try:
            assert GuardedSession(LOCAL).send(post(server.url)).body == b"\x00" * 65536
            with pytest.raises(AnswerTooLong):
                GuardedSession(LOCAL, API_LIMITS).send(post(server.url))
            assert tracemalloc.get_traced_memory()[1] < 40_000_000
        finally:
            tracemalloc.stop()


def test_a_stream_that_decompresses_to_nothing_ends_too() -> None:
    empty = gzip.compress(b"", 9, mtime=0)[:10] + b"\x00\x00\x00\xff\xff" * 40_000

    def endless(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n")
        connection.sendall(empty)
        while True:
            connection.sendall(empty[10:])

    with talking(endless) as server, pytest.raises((AnswerTooLong, AnswerLost)):
        GuardedSession(LOCAL, replace(API_LIMITS, body=100_000)).send(post(server.url))


@pytest.mark.parametrize("body", [gzip.compress(b"x" * 1000, mtime=0)[:-12], b"no gzip at all"])
def test_a_broken_compressed_answer_is_a_lost_one(body: bytes) -> None:
    with (
        serving(lambda request: Response(body, headers={"Content-Encoding": "gzip"})) as server,
        pytest.raises(AnswerLost),
    ):
        GuardedSession(LOCAL).send(post(server.url))


# --- what was sent and what was not -----------------------------------------------------------------------------------


def test_a_refused_connection_sent_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(NotSent, match="refused"):
        GuardedSession(LOCAL).send(post(f"http://127.0.0.1:{port}/secret-path"))


def test_a_name_that_cannot_be_resolved_sent_nothing() -> None:
    def resolve(host: str, port: int) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(NotSent, match=r"crm\.example could not be resolved"):
        GuardedSession(NetworkPolicy(), resolve=resolve).send(post("https://crm.example/hook-secret"))


def test_a_connection_that_nobody_accepts_sent_nothing() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        began = time.monotonic()
        with pytest.raises(NotSent, match="timed out"):
            GuardedSession(LOCAL, Limits(connect=0.3)).send(post(f"http://127.0.0.1:{deaf.getsockname()[1]}/"))
        assert time.monotonic() - began < 1.0
        for filler in fillers:
            filler.close()


def test_silence_after_the_request_is_ambiguous() -> None:
    def silent(connection: socket.socket) -> None:
        read_request(connection)
        time.sleep(2)

    with talking(silent) as server:
        began = time.monotonic()
        with pytest.raises(AnswerLost, match="no answer in time"):
            GuardedSession(LOCAL, QUICK).send(post(server.url))
        assert time.monotonic() - began < 1.0


def test_a_connection_that_is_closed_without_an_answer_is_ambiguous() -> None:
    def close(connection: socket.socket) -> None:
        read_request(connection)

    with talking(close) as server, pytest.raises(AnswerLost):
        GuardedSession(LOCAL).send(post(server.url))


def test_a_reset_after_the_request_is_ambiguous() -> None:
    def reset(connection: socket.socket) -> None:
        read_request(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")

    with talking(reset) as server, pytest.raises(AnswerLost, match="ConnectionResetError"):
        GuardedSession(LOCAL).send(post(server.url))


def test_a_reset_in_the_middle_of_a_request_sent_nothing_whole() -> None:
    def reset(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")

    with talking(reset) as server, pytest.raises(NotSent):
        GuardedSession(LOCAL).send(post(server.url, b"x" * 30_000_000))


def test_an_early_refusal_in_the_middle_of_a_request_is_still_read() -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1_000_000):
            pass

    with talking(refuse) as server:
        assert GuardedSession(LOCAL).send(post(server.url, b"x" * 10_000_000)).status == 413


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    ],
)
def test_half_an_answer_is_none(answer: bytes) -> None:
    def half(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(answer)

    with talking(half) as server, pytest.raises(AnswerLost):
        GuardedSession(LOCAL).send(post(server.url))


@pytest.mark.parametrize(
    "start", [b"", b"HTTP/1.1 200 OK\r\nX-A: ", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"]
)
def test_an_answer_that_drips_ends_with_the_total_time(start: bytes) -> None:
    def drip(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(start)
        while True:
            connection.sendall(b"x")
            time.sleep(0.05)

    with talking(drip) as server:
        began = time.monotonic()
        with pytest.raises(AnswerLost):
            GuardedSession(LOCAL, QUICK).send(post(server.url))
        assert 0.3 < time.monotonic() - began < 1.5


def test_an_answer_that_stops_in_the_middle_ends_with_the_total_time_too() -> None:
    def stop(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        time.sleep(0.3)
        connection.sendall(b"Content-Length: 10\r\n")
        time.sleep(3)

    with talking(stop) as server:
        began = time.monotonic()
        with pytest.raises(AnswerLost, match="no answer in time"):
            GuardedSession(LOCAL, Limits(read=2.0, total=0.5)).send(post(server.url))
        assert 0.4 < time.monotonic() - began < 1.2


def test_a_kept_connection_that_dies_under_a_request_is_ambiguous_and_the_next_request_gets_a_new_one() -> None:
    count = iter(range(10))

    def second_dies(connection: socket.socket) -> None:
        first = next(count)
        read_request(connection)
        connection.sendall(OK)
        if first == 0 and read_request(connection):
            return
        time.sleep(0.5)

    with talking(second_dies) as server:
        session = GuardedSession(LOCAL)
        assert session.send(post(server.url)).body == b"ok"
        with pytest.raises(AnswerLost):
            session.send(post(server.url))
        assert session.send(post(server.url)).body == b"ok"


def test_a_server_that_hardly_reads_ends_with_the_total_time() -> None:
    def sip(connection: socket.socket) -> None:
        while connection.recv(4096):
            time.sleep(0.05)

    with talking(sip) as server:
        began = time.monotonic()
        with pytest.raises(NotSent):
            GuardedSession(LOCAL, Limits(connect=0.4, total=0.8)).send(post(server.url, b"x" * 30_000_000))
        assert time.monotonic() - began < 2.0


@pytest.mark.parametrize("early", [b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 102 Processing\r\nX: y\r\n\r\n"])
def test_an_answer_before_the_answer_never_becomes_the_next_requests(early: bytes) -> None:
    count = iter(range(10))

    def hint(connection: socket.socket) -> None:
        while read_request(connection):
            if next(count) == 0:
                connection.sendall(early)
                time.sleep(0.1)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst")
            else:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond")

    with talking(hint) as server:
        session = GuardedSession(LOCAL)
        with pytest.raises(AnswerLost, match="no final answer"):
            session.send(post(server.url))
        assert session.send(post(server.url)).body == b"second"


@pytest.mark.parametrize("pause", [0.0, 0.1])
def test_bytes_behind_an_answer_are_never_taken_for_the_next_one(pause: float) -> None:
    count = iter(range(10))

    def forge(connection: socket.socket) -> None:
        while read_request(connection):
            number = next(count)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)
            time.sleep(pause)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")

    with talking(forge) as server:
        session = GuardedSession(LOCAL)
        assert session.send(post(server.url)).body == b"0"
        time.sleep(0.2)
        assert session.send(post(server.url)).body == b"1"


@pytest.mark.parametrize(
    "flood",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 10_000,
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 100_000,
    ],
)
def test_a_flood_of_what_is_no_body_ends(flood: bytes) -> None:
    def pour(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(flood)
        while True:
            connection.sendall(flood if flood.startswith(b"HTTP/1.1 100") else b"X: y\r\n" * 1000)

    with talking(pour) as server:
        began = time.monotonic()
        with pytest.raises(AnswerLost):
            GuardedSession(LOCAL, QUICK).send(post(server.url))
        assert time.monotonic() - began < 1.5


@pytest.mark.parametrize(
    "head", [b"Content-Length: 99999999999999999999", b"Transfer-Encoding: chunked", b"Connection: close"]
)
def test_a_body_without_end_is_cut_or_refused(head: bytes) -> None:
    def pour(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
        while True:
            connection.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")

    with talking(pour) as server:
        assert len(GuardedSession(LOCAL).send(post(server.url)).body) == 65536
        with pytest.raises(AnswerTooLong):
            GuardedSession(LOCAL, replace(API_LIMITS, body=100_000)).send(post(server.url))


@pytest.mark.parametrize("size", [b"10", b"00010", b"10;a=1", b'10 \t; a="b c"', b"10;"])
def test_a_chunk_says_its_size_and_may_say_more(size: bytes) -> None:
    with talking(one_chunk(size)) as server:
        assert GuardedSession(LOCAL).send(post(server.url)).body == b"x" * 16


@pytest.mark.parametrize(
    "size", [b"-1", b"-5", b"+10", b"0x10", b"1_0", b" 10", b"10 ", b"10\x0b", b"10\r", b"", b";a"]
)
def test_a_chunk_of_a_size_that_http_does_not_have_is_no_answer(size: bytes) -> None:
    with talking(one_chunk(size)) as server, pytest.raises(AnswerLost):
        GuardedSession(LOCAL).send(post(server.url))


def test_a_chunk_of_a_negative_size_is_not_read_to_its_end() -> None:
    def pour(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n")
        for _ in range(40):
            connection.sendall(b"x" * 500_000)

    with talking(pour) as server:
        tracemalloc.start()
        try:
            with pytest.raises(AnswerLost):
                GuardedSession(LOCAL).send(post(server.url))
            assert tracemalloc.get_traced_memory()[1] < 5_000_000
        finally:
            tracemalloc.stop()


def one_chunk(size: bytes) -> Callable[[socket.socket], None]:
    """A server whose answer is one chunk of sixteen bytes, and of whatever size it says."""

    def answer(connection: socket.socket) -> None:
        read_request(connection)
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head + size + b"\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n")

    return answer


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "compress", "identity, gzip"])
def test_codings_that_were_not_asked_for_are_not_decoded(coding: str) -> None:
    packed = gzip.compress(gzip.compress(b"\0" * 10_000_000))
    with serving(lambda request: Response(packed, headers={"Content-Encoding": coding})) as server:
        assert GuardedSession(LOCAL).send(post(server.url)).body == packed


def test_a_kept_connection_is_only_for_the_name_that_was_judged() -> None:
    with keeping() as server:
        policy = NetworkPolicy(allow_hosts=frozenset({"a.example"}))
        session = GuardedSession(policy, resolve=to_loopback)
        assert session.send(post(f"http://a.example:{server.port}/", b"one")).body == b"one"
        with pytest.raises(DestinationForbidden):
            session.send(post(f"http://b.example:{server.port}/", b"two"))
    assert [seen.body for seen in server.seen] == [b"one"]


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=crm.example",
         "-addext", "subjectAltName=DNS:crm.example"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return folder


@pytest.fixture
def tls(certificate: Path) -> Iterator[tuple[int, list[str | None], str]]:
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    context.sni_callback = lambda connection, name, context: names.append(name)

    def answer(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(OK)

    with talking(answer, context) as server:
        yield server.port, names, str(certificate / "cert.pem")


TLS_POLICY = NetworkPolicy(allow_hosts=frozenset({"crm.example", "other.example", "127.0.0.1"}))


def trusting(bundle: str) -> NetworkPolicy:
    return replace(TLS_POLICY, transport=Transport(ca_bundle=Path(bundle)))


def to_loopback(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


def test_tls_keeps_the_name_while_the_socket_goes_to_the_checked_address(
    tls: tuple[int, list[str | None], str],
) -> None:
    port, names, bundle = tls
    session = GuardedSession(trusting(bundle), resolve=to_loopback)
    assert session.send(post(f"https://crm.example:{port}/")).body == b"ok"
    assert names == ["crm.example"]


@pytest.mark.parametrize(("host", "trusted"), [("crm.example", False), ("other.example", True)])
def test_a_certificate_that_is_not_good_means_that_nothing_was_sent(
    tls: tuple[int, list[str | None], str], host: str, trusted: bool
) -> None:
    port, _, bundle = tls
    session = GuardedSession(trusting(bundle) if trusted else TLS_POLICY, resolve=to_loopback)
    with pytest.raises(NotSent, match="TLS: "):
        session.send(post(f"https://{host}:{port}/"))


def test_a_handshake_that_hangs_means_that_nothing_was_sent() -> None:
    with talking(lambda connection: time.sleep(1)) as server, pytest.raises(NotSent):
        GuardedSession(TLS_POLICY, Limits(connect=0.3), resolve=to_loopback).send(
            post(f"https://crm.example:{server.port}/")
        )


# --- what HTTP cannot carry -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "one\r\nX-B: two"},
        {"X-A": "one\ntwo"},
        {"X-A\r\nX-B": "v"},
        {"X A": "v"},
        {"X-A": "smile ☺"},
        {"Host": "other.example"},
        {"Content-Length": "3"},
        {"transfer-encoding": "chunked"},
        {"Proxy-Authorization": "Basic two"},
        {"Expect": "100-continue"},
        {"X-A": "one\u2028two"},
        {"X-A": "one\0two"},
        {"": "v"},
    ],
)
def test_headers_that_would_change_the_request_are_refused(headers: dict[str, str]) -> None:
    with serving(lambda request: Response("ok")) as server, pytest.raises(TargetError) as caught:
        GuardedSession(LOCAL).send(post(server.url, **headers))
    assert server.seen == []
    assert "two" not in str(caught.value)


@pytest.mark.parametrize("method", ["GET /x HTTP/1.1\r\nX: y", "", "PO ST"])
def test_a_method_is_one_word(method: str) -> None:
    with pytest.raises(TargetError):
        GuardedSession(LOCAL).send(Request(method=method, url="http://127.0.0.1/"))


def test_line_breaks_in_a_url_do_not_split_a_request() -> None:
    with serving(lambda request: Response("ok")) as server:
        for ending in ("\r\nX-Evil: 1", "\n", "\t", "\0", "?q=\r\n\r\nGET /"):
            with pytest.raises(DestinationForbidden, match="control characters"):
                GuardedSession(LOCAL).send(post(f"{server.url}/a{ending}"))
    assert server.seen == []


def test_no_url_reaches_a_log_or_an_error(caplog: pytest.LogCaptureFixture) -> None:
    def broken(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nno header at all\r\n\r\nok")

    with caplog.at_level(logging.DEBUG), talking(broken) as server:
        session = GuardedSession(LOCAL)
        session.send(post(f"{server.url}/hooks/catch/hook-secret"))
        with pytest.raises(NoAnswer) as caught:
            session.send(post("http://127.0.0.1:1/hooks/catch/hook-secret"))
    assert "hook-secret" not in str(caught.value)
    assert "hook-secret" not in caplog.text
