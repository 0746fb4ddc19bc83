"""Attempts to make the bridge call what it should not, each with where it is refused and what would allow it.

`{port}` in a URL or a permission is the port of a server on 127.0.0.1 that must see nothing, or, with the permission,
the request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bridge.outbound.guard import NetworkPolicy, Resolve, system_resolve

NOWHERE = "3ffe::1%lo"
"""A public address as far as anybody can tell, on an interface that cannot send to it: nothing leaves the host."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """`answers` is what the name is resolved to, one answer after the other; none at all asks the system.

    `refused` is when: in saving already, or in connecting, when the name's addresses are known. `permission` is None
    where nothing allows it. With its permission an attempt reaches the server unless `reaches` is False: then it leads
    to another address or port, and only the guard is asked.
    """

    url: str
    answers: tuple[tuple[str, ...], ...] = ()
    refused: Literal["saving", "connecting"] = "saving"
    hosts: tuple[str, ...] = ()
    private: bool = False
    reaches: bool = True

    def url_at(self, port: int) -> str:
        return self.url.replace("{port}", str(port))

    def permission_at(self, port: int) -> NetworkPolicy | None:
        if not self.hosts and not self.private:
            return None
        hosts = frozenset(host.replace("{port}", str(port)) for host in self.hosts)
        return NetworkPolicy(allow_hosts=hosts, allow_private=self.private)

    def resolver(self) -> Resolve:
        """A resolver of its own: each call takes the next answer, the last one is for ever."""
        if not self.answers:
            return system_resolve
        left = list(self.answers)

        def resolve(host: str, port: int) -> Sequence[str]:
            return left.pop(0) if len(left) > 1 else left[0]

        return resolve


def _spelled(host: str, allowed: str, *answer: str) -> Attempt:
    return Attempt(url=f"http://{host}:{{port}}/hook", answers=(answer,) if answer else (), hosts=(allowed,))


def _literal(host: str) -> Attempt:
    """An address that the guard must know by itself; were it resolved, it would lead to the server."""
    return _spelled(host, host, "127.0.0.1")


def _named(*answers: tuple[str, ...], name: str = "crm.example", private: bool = False) -> Attempt:
    return Attempt(
        url=f"http://{name}:{{port}}/hook",
        answers=answers,
        refused="connecting",
        hosts=() if private else (f"{name}:{{port}}",),
        private=private,
        reaches=("127.0.0.1",) in answers,
    )


SPELLINGS = [
    _spelled(host, "127.0.0.1")
    for host in (
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7F.1",
        "0x7f.0.0.0x1",
        "0177.0.0.1",
        "0177.0.0.01",
        "017700000001",
        "\uff11\uff12\uff17.\uff10.\uff10.\uff11",  # full-width digits
        "127\u30020\uff610\uff0e1",  # ideographic and full-width dots
        "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460",  # circled digits
        "127.0.0\u00ad.1",  # a soft hyphen, which is mapped to nothing
    )
] + [
    _spelled("127.0.0.1.", "127.0.0.1", "127.0.0.1"),
    Attempt(url="HtTp://127.0.0.1:{port}/hook", hosts=("127.0.0.1",)),
    Attempt(url="http://127.0.0.1:{port}?@good.example/", hosts=("127.0.0.1:{port}",)),
    Attempt(url="http://127.0.0.1:{port}#@good.example/", hosts=("127.0.0.1:{port}",)),
    _spelled("[::ffff:127.0.0.1]", "[::ffff:7f00:1]"),
    _spelled("[::FFFF:7F00:1]", "[::ffff:127.0.0.1]:{port}"),
    _spelled("[0:0:0:0:0:0:0:1]", "[::1]", "127.0.0.1"),
    _spelled("localhost", "localhost", "127.0.0.1"),
    _spelled("LOCALHOST.", "localhost", "127.0.0.1"),
    _spelled("\uff4cocalhost", "localhost", "127.0.0.1"),
    _spelled("anything.localhost", "anything.localhost", "127.0.0.1"),
    _spelled("localhost.localdomain", "localhost.localdomain", "127.0.0.1"),
    _spelled("ip6-loopback", "ip6-loopback", "127.0.0.1"),
]

LITERALS = [
    _literal(host)
    for host in (
        "0.0.0.000",
        "0",
        "0.1.2.3",
        "127.255.255.254",
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "169.254.170.2",  # containers of AWS
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "198.18.0.1",
        "198.19.255.254",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "[::]",
        "[::1]",
        "[::127.0.0.1]",
        "[::ffff:169.254.169.254]",
        "[::ffff:0:127.0.0.1]",  # translated, RFC 2765
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b::a9fe:a9fe]",
        "[64:ff9b:1::a00:1]",  # NAT64 of this very site, RFC 8215
        "[2002:7f00:1::]",
        "[2002:a9fe:a9fe::1]",
        "[2001::1:2:80ff:fffe]",  # Teredo around 127.0.0.1
        "[2a00:1450::5efe:127.0.0.1]",  # ISATAP
        "[2a00:1450::200:5efe:a9fe:a9fe]",
        "[2002:808:808::5efe:7f00:1]",  # ISATAP behind a public 6to4
        "[2001:db8::1]",
        "[3fff::1]",
        "[100::1]",
        "[5f00::1]",
        "[fe80::1]",
        "[fe80::a9fe:a9fe]",
        "[ff02::1]",
        "[ff0e::1]",
        "[fd00:ec2::254]",
        "[fd00:ec2::23]",
        "[fd00:c1::a9fe:a9fe]",
        "[fd20:ce::254]",
        "[fd00:42::42]",
        "[fd00:a9fe:a9fe::1]",
    )
]

PRIVATE = [
    Attempt(url=f"http://{host}:8080/hook", private=True, reaches=False)
    for host in (
        "10.0.0.1",
        "0xa.1",
        "167772161",
        "172.16.0.1",
        "172.31.255.254",
        "192.168.1.1",
        "192.168.257",
        "100.64.0.1",
        "[fd12:3456::1]",
        "[fec0::1]",
        "[::ffff:10.0.0.1]",
        "[64:ff9b::10.0.0.1]",
        "[2002:a00:1::]",
        "[2a00:1450::5efe:10.0.0.1]",
    )
]

NAMES = [
    _named(("127.0.0.1",)),
    _named(("127.0.0.1",), name="crm.example."),
    replace(_named(("127.0.0.1",), name="b\u00fccher.example"), hosts=("xn--bcher-kva.example",)),
    _named(("169.254.169.254",), name="metadata.google.internal"),
    _named(("0.0.0.1",)),
    _named(("::1",)),
    _named(("::ffff:169.254.169.254",)),
    _named(("64:ff9b:1::7f00:1",)),
    _named(("fe80::1%lo",)),
    _named(("fd00:ec2::254%lo",)),
    _named(("100.100.100.200",)),
    _named((NOWHERE, "127.0.0.1")),
    _named(("127.0.0.1", NOWHERE)),
    _named((NOWHERE, "10.0.0.1"), private=True),
    _named(("10.20.30.40",), private=True),
    _named(("fd12::1",), private=True),
    # Rebinding: public when it is looked up first, this host afterwards.
    _named((NOWHERE,), ("127.0.0.1",), name="rebinding.example"),
    _named((NOWHERE,), (NOWHERE, "127.0.0.1"), ("127.0.0.1",), name="rebinding.example"),
]

PORTS = [
    Attempt(url=f"http://{host}:{port}/hook", hosts=(f"{host}:{port}",), reaches=False)
    for host in ("127.0.0.1", "crm.example")
    for port in (21, 22, 25, 53, 389, 587, 3306, 5432, 6379, 11211, 27017)
]

FORMS = [
    Attempt(url=url, answers=(("127.0.0.1",),))
    for url in (
        # schemes
        "file:///etc/passwd",
        "file://127.0.0.1/etc/passwd",
        "ftp://127.0.0.1:{port}/",
        "gopher://127.0.0.1:{port}/_SET%20x",
        "dict://127.0.0.1:{port}/d:x",
        "ldap://127.0.0.1:{port}/",
        "unix:///var/run/docker.sock",
        "http+unix://%2Fvar%2Frun%2Fdocker.sock/info",
        "ws://127.0.0.1:{port}/",
        "socks5://127.0.0.1:{port}/",
        "data:text/plain,x",
        "javascript:alert(1)",
        "//127.0.0.1:{port}/",
        "127.0.0.1:{port}/",
        "url:http://127.0.0.1:{port}/",
        # hosts
        "http:127.0.0.1:{port}/",
        "http:/127.0.0.1:{port}/",
        "http:///127.0.0.1:{port}/",
        "http:////127.0.0.1:{port}/",
        "http:\\\\127.0.0.1:{port}\\",
        "http://",
        "http://:{port}/",
        "http://.:{port}/",
        "http://*:{port}/",
        "http://a..b:{port}/",
        "http://.crm.example:{port}/",
        f"http://{'a' * 64}.example:{{port}}/",
        "http://127.0.0.%31:{port}/",
        "http://%31%32%37.0.0.1:{port}/",
        "http://127.0.0.1%00.example:{port}/",
        "http://127.0.0.1%2f.example:{port}/",
        "http://127.0.0.1\uff05.example:{port}/",
        "http://127.0.0.1,crm.example:{port}/",
        "http://127.0.0.1;crm.example:{port}/",
        "http://crm.example&127.0.0.1:{port}/",
        "http://[fe80::1%25lo]:{port}/",
        "http://[::1%25lo]:{port}/",
        "http://[::1]crm.example:{port}/",
        "http://crm[::1]:{port}/",
        "http://[::1:{port}/",
        "http://[127.0.0.1]:{port}/",
        "http://[v1.x]:{port}/",
        # credentials, and what looks like them to one reader and not to another
        "http://ada@127.0.0.1:{port}/",
        "http://ada:lovelace@127.0.0.1:{port}/",
        "http://@127.0.0.1:{port}/",
        "http://:@127.0.0.1:{port}/",
        "http://crm.example@127.0.0.1:{port}/",
        "http://crm.example:80@127.0.0.1:{port}/",
        "http://crm.example\\@127.0.0.1:{port}/",
        "http://127.0.0.1:{port}\\@crm.example/",
        "http://127.0.0.1:{port}\\.crm.example/",
        "http://crm.example%40127.0.0.1:{port}/",
        "http://crm.example\uff20127.0.0.1:{port}/",
        "http://crm.example\uff0f@127.0.0.1:{port}/",
        # what some readers leave out
        " http://127.0.0.1:{port}/",
        "\thttp://127.0.0.1:{port}/",
        "\x01http://127.0.0.1:{port}/",
        "ht\ttp://127.0.0.1:{port}/",
        "http://127.0.\t0.1:{port}/",
        "http://127.0.0.1\n:{port}/",
        "http://127.0.0.1:{port}/\r\nX-Evil: 1",
        "http://127.0.0.1\x00.crm.example:{port}/",
        "http://127.0.0.1 .crm.example:{port}/",
        "http://127.0.0.1 :{port}/",
        # ports
        "http://127.0.0.1:0/",
        "http://127.0.0.1:65536/",
        "http://127.0.0.1:-1/",
        "http://127.0.0.1:+80/",
        "http://127.0.0.1: 80/",
        "http://127.0.0.1:8_0/",
        "http://127.0.0.1:0x50/",
        "http://127.0.0.1:80:80/",
        "http://127.0.0.1:\u0668\u0660/",
        "http://127.0.0.1:http/",
    )
]

CORPUS = [*SPELLINGS, *LITERALS, *PRIVATE, *NAMES, *PORTS, *FORMS]
