"""Roads: authorities, client certificates and proxies, against real servers on 127.0.0.1."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from authority import Authority
from loopback import Server, read_request, serving, talking
from werkzeug.wrappers import Response

from bridge.core.errors import DestinationForbidden
from bridge.core.target import Request
from bridge.flow.judge import NotSent
from bridge.flow.network import NetworkPolicy, Proxy, Transport
from bridge.outbound.session import GuardedSession, Limits

NAMES = frozenset({"crm.example", "other.example"})
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"))


def to_loopback(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


def post(url: str, body: bytes = b"{}") -> Request:
    return Request(method="POST", url=url, body=body)


def session(transport: Transport, limits: Limits | None = None) -> GuardedSession:
    policy = NetworkPolicy(allow_hosts=NAMES, transport=transport)
    return GuardedSession(policy, limits or Limits(connect=2.0), resolve=to_loopback)


@contextmanager
def secured(context: ssl.SSLContext) -> Iterator[tuple[Server, list[bytes]]]:
    requests: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        while request := read_request(connection):
            requests.append(request)
            connection.sendall(OK)

    with talking(answer, context) as server:
        yield server, requests


# --- whom to believe --------------------------------------------------------------------------------------------------


def test_a_bundle_is_believed_and_nothing_else(authority: Authority, stranger: Authority) -> None:
    certificate = authority.issue("crm.example")
    with secured(authority.server(certificate)) as (server, requests):
        url = f"https://crm.example:{server.port}/"
        assert session(Transport(ca_bundle=authority.bundle)).send(post(url)).body == b"ok"
        for transport in (Transport(), Transport(ca_bundle=stranger.bundle)):
            with pytest.raises(NotSent, match="TLS: "):
                session(transport).send(post(url))
    assert len(requests) == 1


@pytest.mark.parametrize(("name", "days", "reason"), [("other.example", 2, "mismatch"), ("crm.example", -1, "expired")])
def test_a_wrong_name_or_an_old_certificate_is_refused(authority: Authority, name: str, days: int, reason: str) -> None:
    certificate = authority.issue(name, days=days, file=f"bad-{name}")
    believing = session(Transport(ca_bundle=authority.bundle))
    with (
        secured(authority.server(certificate)) as (server, requests),
        pytest.raises(NotSent, match=f"TLS: .*{reason}"),
    ):
        believing.send(post(f"https://crm.example:{server.port}/"))
    assert requests == []


def test_a_certificate_for_a_name_is_not_one_for_its_address(authority: Authority) -> None:
    with secured(authority.server(authority.issue("crm.example"))) as (server, requests):
        policy = NetworkPolicy(allow_hosts=frozenset({"127.0.0.1"}), transport=Transport(ca_bundle=authority.bundle))
        with pytest.raises(NotSent, match="TLS: "):
            GuardedSession(policy).send(post(f"https://127.0.0.1:{server.port}/"))
    assert requests == []


def test_a_server_that_hardly_reads_ends_with_the_total_time_in_tls_too(authority: Authority) -> None:
    def sip(connection: socket.socket) -> None:
        while connection.recv(4096):
            time.sleep(0.05)

    with talking(sip, authority.server(authority.issue("crm.example"))) as server:
        believing = session(Transport(ca_bundle=authority.bundle), Limits(connect=0.6, total=1.0))
        began = time.monotonic()
        with pytest.raises(NotSent):
            believing.send(post(f"https://crm.example:{server.port}/", b"x" * 30_000_000))
        assert time.monotonic() - began < 3.0


# --- who we are -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_that_wants_a_certificate_gets_ours(
    authority: Authority, stranger: Authority, version: ssl.TLSVersion
) -> None:
    certificate, key = authority.issue("bridge.example")
    foreign, foreign_key = stranger.issue("bridge.example")
    known = Transport(ca_bundle=authority.bundle, certificate=certificate, key=key)
    context = authority.server(authority.issue("crm.example"), wants_client=True)
    context.minimum_version = context.maximum_version = version
    with secured(context) as (server, requests):
        url = f"https://crm.example:{server.port}/"
        assert session(known).send(post(url)).body == b"ok"
        for transport in (
            replace(known, certificate=None, key=None),
            replace(known, certificate=foreign, key=foreign_key),
        ):
            with pytest.raises(NotSent, match="TLS: "):
                session(transport).send(post(url))
    assert len(requests) == 1


def test_certificate_and_key_may_share_a_file(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("bridge.example")
    both = tmp_path / "both.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    with secured(authority.server(authority.issue("crm.example"), wants_client=True)) as (server, _):
        transport = Transport(ca_bundle=authority.bundle, certificate=both)
        assert session(transport).send(post(f"https://crm.example:{server.port}/")).body == b"ok"


# --- over a proxy -----------------------------------------------------------------------------------------------------


@dataclass
class Relay:
    """What a forward proxy was asked; it takes every name for 127.0.0.1."""

    port: int = 0
    heads: list[bytes] = field(default_factory=list)

    @property
    def road(self) -> Proxy:
        return Proxy(url=f"http://proxy.example:{self.port}", username="ada", password="l\u00f6ve")


@contextmanager
def relaying(answer: bytes | None = None) -> Iterator[Relay]:
    relay = Relay()

    def behave(connection: socket.socket) -> None:
        request = read_request(connection)
        head = request.partition(b"\r\n\r\n")[0]
        relay.heads.append(head)
        if answer is not None:
            connection.sendall(answer)
            return
        if not head.startswith(b"CONNECT "):
            connection.sendall(OK)
            return
        port = int(head.split(b" ")[1].rpartition(b":")[2])
        with socket.create_connection(("127.0.0.1", port)) as inner:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            threading.Thread(target=_pass_on, args=(inner, connection), daemon=True).start()
            _pass_on(connection, inner)

    with talking(behave) as server:
        relay.port = server.port
        yield relay


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while block := source.recv(65536):
            target.sendall(block)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def proxied(transport: Transport, *more: str, limits: Limits | None = None) -> GuardedSession:
    def resolve(host: str, port: int) -> list[str]:
        assert host == "proxy.example", "only the proxy is looked up"
        return ["127.0.0.1"]

    policy = NetworkPolicy(allow_hosts=frozenset({"proxy.example", *more}), transport=transport)
    return GuardedSession(policy, limits or Limits(connect=2.0), resolve=resolve)


LOGIN = b"Proxy-Authorization: Basic " + base64.b64encode("ada:l\u00f6ve".encode())


def test_a_proxy_is_asked_for_the_whole_address() -> None:
    with relaying() as relay:
        answer = proxied(Transport(proxy=relay.road)).send(post("http://crm.example:8080/a?b=c"))
    assert answer.body == b"ok"
    lines = relay.heads[0].split(b"\r\n")
    assert lines[0] == b"POST http://crm.example:8080/a?b=c HTTP/1.1"
    assert b"Host: crm.example:8080" in lines
    assert LOGIN in lines


def test_tls_goes_through_a_proxy_unopened(authority: Authority) -> None:
    with secured(authority.server(authority.issue("crm.example"))) as (server, requests), relaying() as relay:
        road = Transport(proxy=relay.road, ca_bundle=authority.bundle)
        calls = proxied(road)
        for _ in range(2):
            assert calls.send(post(f"https://crm.example:{server.port}/hook")).body == b"ok"
        with pytest.raises(NotSent, match="TLS: "):
            proxied(road).send(post(f"https://other.example:{server.port}/hook"))
    head = relay.heads[0].split(b"\r\n")
    assert head[0].startswith(b"CONNECT crm.example:%d HTTP/1." % server.port)
    assert LOGIN in head
    assert len(requests) == 2
    assert b"Proxy-Authorization" not in b"".join(requests)
    assert requests[0].startswith(b"POST /hook HTTP/1.1")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_proxys_own_address_is_judged(scheme: str) -> None:
    with relaying() as relay:
        policy = NetworkPolicy(allow_private=True, transport=Transport(proxy=relay.road))
        with pytest.raises(DestinationForbidden, match=r"proxy\.example leads to a loopback"):
            GuardedSession(policy, resolve=to_loopback).send(post(f"{scheme}://crm.example/"))
    assert relay.heads == []


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/", "https://169.254.169.254/", "http://[::1]/", "http://localhost/", "http://0x7f.1/"]
)
def test_addresses_that_tell_by_themselves_are_not_left_to_the_proxy(url: str) -> None:
    with relaying() as relay, pytest.raises(DestinationForbidden):
        proxied(Transport(proxy=relay.road)).send(post(url))
    assert relay.heads == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "the proxy answered 407"),
        (b"HTTP/1.1 403 No\r\n\r\n", "the proxy answered 403"),
        (b"", "could not be sent"),
        (b"SSH-2.0-x\r\n", "could not be sent"),
    ],
)
def test_a_proxy_that_does_not_connect_means_that_nothing_was_sent(answer: bytes, reason: str) -> None:
    with relaying(answer) as relay, pytest.raises(NotSent, match=reason):
        proxied(Transport(proxy=relay.road)).send(post("https://crm.example/"))
    assert len(relay.heads) == 1


def test_a_login_that_the_proxy_wants_is_not_the_targets_answer() -> None:
    with (
        relaying(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n") as relay,
        pytest.raises(NotSent, match="the proxy wants a login"),
    ):
        proxied(Transport(proxy=relay.road)).send(post("http://crm.example/"))


def test_a_proxy_that_drips_ends_with_the_total_time() -> None:
    def drip(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            connection.sendall(b"y")
            time.sleep(0.05)

    with talking(drip) as server:
        road = Transport(proxy=Proxy(url=f"http://proxy.example:{server.port}"))
        began = time.monotonic()
        with pytest.raises(NotSent):
            proxied(road, limits=Limits(connect=0.4, read=0.4, total=0.8)).send(post("https://crm.example/"))
        assert time.monotonic() - began < 2.0


def test_without_a_proxy_none_is_used() -> None:
    with relaying() as relay, serving(lambda request: Response("straight")) as server:
        policy = NetworkPolicy(allow_hosts=frozenset({"127.0.0.1"}))
        assert GuardedSession(policy).send(post(server.url)).body == b"straight"
    assert relay.heads == []
