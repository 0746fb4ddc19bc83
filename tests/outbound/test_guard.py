"""Where an outgoing connection may go."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from loopback import serving
from werkzeug.wrappers import Response

from bridge.core.errors import DestinationForbidden
from bridge.core.target import Request
from bridge.flow.judge import NotSent
from bridge.flow.network import check_destination
from bridge.outbound.guard import NetworkPolicy, check_url, checked_addresses, system_resolve
from bridge.outbound.session import GuardedSession

STRICT = NetworkPolicy()
PRIVATE = NetworkPolicy(allow_private=True)

PUBLIC = ["93.184.216.34", "1.1.1.1", "100.63.255.255", "100.128.0.0", "172.32.0.1", "2606:2800:220:1::1"]
PRIVATE_ONLY = [
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "fc00::1",
    "fd12:3456::1",
    "fec0::1",
    "::ffff:10.0.0.1",
    "64:ff9b::192.168.1.1",
    "2002:0a00:0001::",
    "::10.0.0.1",
]
NEVER = [
    "0.0.0.1",
    "0.1.2.3",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "169.254.0.1",
    "168.63.129.16",
    "100.100.100.200",
    "192.0.0.192",
    "192.0.2.1",
    "198.51.100.1",
    "203.0.113.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0.0.0.0",
    "::ffff:168.63.129.16",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::7f00:1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001::7f00:1",
    "2001:db8::1",
    "3fff::1",
    "fe80::1",
    "fe80::1%eth0",
    "ff02::1",
    "100::1",
    "4000::1",
    "fd00:ec2::254",
    "fd20:ce::254",
]


def allowed(address: str, policy: NetworkPolicy) -> bool:
    try:
        checked_addresses("crm.example", 443, policy, lambda host, port: [address])
    except DestinationForbidden:
        return False
    return True


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_open(address: str) -> None:
    assert allowed(address, STRICT)


@pytest.mark.parametrize("address", PRIVATE_ONLY)
def test_private_networks_open_with_one_setting(address: str) -> None:
    assert not allowed(address, STRICT)
    assert allowed(address, PRIVATE)


@pytest.mark.parametrize("address", NEVER)
def test_loopback_metadata_and_reserved_addresses_stay_closed_to_every_setting_but_the_exact_name(
    address: str,
) -> None:
    assert not allowed(address, STRICT)
    assert not allowed(address, PRIVATE)
    assert allowed(address, NetworkPolicy(allow_hosts=frozenset({"crm.example"})))


@pytest.mark.parametrize(
    ("host", "port", "entry", "open"),
    [
        ("crm.example", 443, "crm.example", True),
        ("CRM.example.", 443, "crm.Example", True),
        ("crm.example", 8443, "crm.example:8443", True),
        ("crm.example", 443, "crm.example:8443", False),
        ("evil.crm.example", 443, "crm.example", False),
        ("crm.example.evil", 443, "crm.example", False),
        ("[::1]", 9000, "[::1]:9000", True),
        ("::1", 9000, "[::1]", True),
        ("::1", 9001, "[::1]:9000", False),
        ("127.0.0.2", 80, "127.0.0.1", False),
    ],
)
def test_a_host_is_named_exactly(host: str, port: int, entry: str, open: bool) -> None:
    policy = NetworkPolicy(allow_hosts=frozenset({entry}))
    if open:
        assert checked_addresses(host, port, policy, lambda host, port: ["127.0.0.1"]) == ["127.0.0.1"]
    else:
        with pytest.raises(DestinationForbidden):
            checked_addresses(host, port, policy, lambda host, port: ["127.0.0.1"])


def test_one_forbidden_address_among_many_closes_the_host() -> None:
    with pytest.raises(DestinationForbidden):
        checked_addresses("crm.example", 443, PRIVATE, lambda host, port: ["93.184.216.34", "127.0.0.1"])


@pytest.mark.parametrize(
    "url",
    [
        "ftp://crm.example/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_x",
        "crm.example/x",
        "http://",
        "http:///x",
        "https://user@crm.example/",
        "https://user:secret@crm.example/",
        "http://crm.example:99999/",
        "http://crm.example:0/",
        "http://[::1/",
    ],
)
def test_what_no_url_may_be(url: str) -> None:
    with pytest.raises(DestinationForbidden) as caught:
        check_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_every_spelling_of_loopback_is_refused_before_a_connection_is_made(host: str) -> None:
    with serving(lambda request: Response("never")) as server:
        session = GuardedSession(PRIVATE)
        with pytest.raises((DestinationForbidden, NotSent)):
            session.send(Request(method="GET", url=f"http://{host}:{server.port}/"))
        assert server.seen == []


def test_a_name_that_changes_its_address_after_the_check_gains_nothing() -> None:
    answers = iter([["93.184.216.34", "127.0.0.1"], ["127.0.0.1"]])
    with serving(lambda request: Response("never")) as server:
        session = GuardedSession(STRICT, resolve=lambda host, port: next(answers))
        for _ in range(2):
            with pytest.raises(DestinationForbidden):
                session.send(Request(method="GET", url=f"http://rebinding.example:{server.port}/"))
        assert server.seen == []


def test_the_connection_goes_to_the_checked_address_under_the_original_name() -> None:
    asked: list[tuple[str, int]] = []

    def resolve(host: str, port: int) -> Sequence[str]:
        asked.append((host, port))
        return ["127.0.0.1"]

    with serving(lambda request: Response("here")) as server:
        policy = NetworkPolicy(allow_hosts=frozenset({f"no-such-name.example:{server.port}"}))
        session = GuardedSession(policy, resolve=resolve)
        answer = session.send(Request(method="GET", url=f"http://no-such-name.example:{server.port}/x"))
        assert (answer.status, answer.body) == (200, b"here")
        assert asked == [("no-such-name.example", server.port)]
        assert server.seen[0].headers["host"] == f"no-such-name.example:{server.port}"


def test_the_next_address_is_tried_when_the_first_does_not_answer() -> None:
    with serving(lambda request: Response("here")) as server:
        policy = NetworkPolicy(allow_hosts=frozenset({"two.example"}))
        session = GuardedSession(policy, resolve=lambda host, port: ["127.0.0.9", "127.0.0.1"])
        assert session.send(Request(method="GET", url=f"http://two.example:{server.port}/")).body == b"here"


@pytest.mark.parametrize("allowed", [[], ["crm.example"], ["crm.example:443"], ["other.example:25"]])
def test_a_port_of_another_protocol_opens_only_where_it_is_written(allowed: list[str]) -> None:
    policy = NetworkPolicy(allow_hosts=frozenset(allowed), allow_private=True)
    with pytest.raises(DestinationForbidden, match="port 25, which belongs to another protocol"):
        check_destination("http://crm.example:25/", policy)
    named = NetworkPolicy(allow_hosts=frozenset([*allowed, "crm.example:25"]))
    assert check_destination("http://crm.example:25/", named) == ("crm.example", 25)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("HTTPS://CRM.Example./a", ("crm.example", 443)),
        ("http://0x7F.1", ("127.0.0.1", 80)),
        ("http://[0:0::0:1]:8080/", ("::1", 8080)),
        ("http://b\u00fccher.example/", ("xn--bcher-kva.example", 80)),
        ("http://x_y.example?a@b", ("x_y.example", 80)),
    ],
)
def test_a_host_is_compared_in_one_form(url: str, place: tuple[str, int]) -> None:
    assert check_url(url) == place


@pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".example", "a" * 300])
def test_what_is_no_name_at_all_cannot_be_resolved(name: str) -> None:
    with pytest.raises(OSError, match="name"):
        system_resolve(name, 80)
