"""Where an outgoing request may go, as far as that can be told without the network, and by which road.

The same judgement is asked when bridge.yaml is read, before a request is sent, and once more for every address that a
connection is opened to (see outbound/guard.py).

Two tiers: loopback, link-local, metadata, multicast and reserved addresses are open only to a host that is named
exactly; private networks (RFC 1918, CGNAT, ULA) open with one setting, because campus systems live there.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import urlsplit

import idna

from bridge.core.errors import DestinationForbidden
from bridge.flow.addresses import FORBIDDEN, PRIVATE, IPv4, IPv6, literal_address, tier


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A forward proxy, http://host:port, and how to log in to it."""

    url: str
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport:
    """The road: over a proxy or straight; whom to believe, None for the system's authorities; who we are in TLS.

    `key` may be None when the file of `certificate` holds both. All files are PEM.
    """

    proxy: Proxy | None = None
    ca_bundle: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


DIRECT: Final = Transport()


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPolicy:
    """`allow_hosts` are names or addresses as they stand in URLs, `host` or `host:port`, IPv6 in brackets or not."""

    allow_hosts: frozenset[str] = frozenset()
    allow_private: bool = False
    transport: Transport = DIRECT


class Refused(DestinationForbidden):
    """What is refused, why, and what would allow it; neither `reason` nor `hint` holds a value."""

    def __init__(self, subject: str, reason: str, hint: str = "") -> None:
        self.reason = reason
        self.hint = hint
        super().__init__(f"{subject} {reason}" + (f": {hint}" if hint else ""))


_NAME_IT: Final = "name it in network.allow_hosts"
_ALLOW_PRIVATE: Final = "set network.allow_private or name it in network.allow_hosts"
_NAME_PORT: Final = "write host:port into network.allow_hosts"

# RFC 6761: never a public name, whatever a resolver says; the others are what distributions write into /etc/hosts.
_LOOPBACK_NAMES: Final = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"})

# Servers that may take parts of a request for commands of their own: terminals, mail, files, directories, databases.
_OTHER_PROTOCOLS: Final = frozenset(
    {21, 22, 23, 25, 53, 69, 110, 111, 119, 135, 137, 139, 143, 161, 179, 389, 445, 465, 512, 513, 514, 515, 548, 554}
    | {563, 587, 636, 873, 989, 990, 993, 995, 1433, 1521, 1723, 2049, 3306, 3389, 5060, 5061, 5432, 5672, 5900, 6000}
    | {6379, 6380, 11211, 27017}
)

_MAIL_PORTS: Final = frozenset({25, 465, 587, 2525})
_MAIL_SCHEMES: Final = {"smtp": 587, "smtps": 465}

_START: Final = re.compile(r"https?://", re.IGNORECASE)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_LABELS: Final = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")
_URL: Final = "the URL"


def check_url(url: str) -> tuple[str, int]:
    """Host (an address in its usual form, or a name in IDNA) and port of a URL that is sound whatever it resolves to.

    Raises Refused for another scheme, no host, credentials, control characters, and hosts that parsers disagree about.
    """
    if _CONTROL.search(url):
        raise Refused(_URL, "must not hold control characters")
    if not _START.match(url):
        raise Refused(_URL, "must start with http:// or https://")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Refused(_URL, "cannot be read", "is the port a number from 1 to 65535?") from None
    if "@" in parts.netloc:
        raise Refused(_URL, "must not hold credentials", "they have settings of their own")
    if not parts.hostname or port == 0:
        raise Refused(_URL, "must name a host, and a port above 0 if any")
    bracketed, closing, behind = parts.netloc.partition("]")
    if closing and behind and not behind.startswith(":"):
        _no_host()
    host = usual_host(bracketed + closing if closing else parts.hostname)
    return host, port or (443 if parts.scheme == "https" else 80)


def check_destination(url: str, policy: NetworkPolicy) -> tuple[str, int]:
    """As `check_url`, and what host and port tell by themselves: addresses, names of this very host, odd ports.

    Raises Refused with what would allow it.
    """
    return _checked(url, policy, _OTHER_PROTOCOLS)


def check_mail_server(url: str, policy: NetworkPolicy) -> tuple[str, int, bool]:
    """Host and port of smtp://host:587 (STARTTLS) or smtps://host:465, and whether TLS begins with the first byte.

    The ports of mail are what is wanted here; all else is judged, and raises Refused, as with every URL.
    """
    scheme, _, place = url.partition("://")
    if scheme not in _MAIL_SCHEMES:
        raise Refused(_URL, "must start with smtp:// or smtps://")
    place = place.rstrip("/")
    with suppress(ValueError):  # what cannot be read is refused below
        if urlsplit(f"//{place}").port is None:
            place += f":{_MAIL_SCHEMES[scheme]}"
    host, port = _checked(f"https://{place}", policy, _OTHER_PROTOCOLS - _MAIL_PORTS)
    return host, port, scheme == "smtps"


def _checked(url: str, policy: NetworkPolicy, closed: frozenset[int]) -> tuple[str, int]:
    host, port = check_url(url)
    entries = _entries(policy.allow_hosts)
    if (host, port) in entries:
        return host, port
    if port in closed:
        raise Refused(host, f"is called on port {port}, which belongs to another protocol", _NAME_PORT)
    if (host, None) in entries:
        return host, port
    if host in _LOOPBACK_NAMES or host.endswith(".localhost"):
        raise Refused(host, "leads to this very host", _NAME_IT)
    address = literal_address(host)
    if address is not None:
        _judge(address, host, policy)
    return host, port


def check_addresses(name: str, port: int, addresses: list[IPv4 | IPv6], policy: NetworkPolicy) -> None:
    """Refuse a host when a single one of its addresses is forbidden: a mixed answer is an attempt to slip through."""
    host = name.lower().strip("[]").rstrip(".")
    literal = literal_address(host)
    host = host if literal is None else str(literal)
    entries = _entries(policy.allow_hosts)
    if (host, port) in entries or (host, None) in entries:
        return
    for address in addresses:
        _judge(address, host, policy)


def usual_host(host: str) -> str:
    """A URL's host in the one form in which it is compared: 127.0.0.1 for 0x7f.1, ::1 for [0:0:0:0:0:0:0:1].

    Raises Refused for what is neither an address nor a name, a zone (`%eth0`) and a percent-encoded name among them.
    """
    if host.startswith("["):
        literal = literal_address(host.strip("[]"))
        return _no_host() if literal is None or "%" in host else str(literal)
    try:
        # As requests and urllib3 do it, so that full-width digits and dots are judged as what will be called.
        plain = host.lower() if host.isascii() else idna.encode(host, uts46=True).decode()
    except idna.IDNAError:
        _no_host()
    if not _LABELS.fullmatch(plain):
        _no_host()
    plain = plain.rstrip(".")
    literal = literal_address(plain)
    return plain if literal is None else str(literal)


def _no_host() -> NoReturn:
    raise Refused(_URL, "must name a host that is a plain name or address")


@lru_cache(maxsize=64)
def _entries(allow_hosts: frozenset[str]) -> frozenset[tuple[str, int | None]]:
    """What may have any address: hosts in their usual form, with a port or for all of them."""
    found: set[tuple[str, int | None]] = set()
    for entry in allow_hosts:
        host, colon, port = entry.lower().rpartition(":")
        if not colon or not port.isdigit() or (":" in host and not host.endswith("]")):
            host, port = entry.lower(), ""
        plain = host.strip("[]").rstrip(".")
        literal = literal_address(plain)
        found.add((plain if literal is None else str(literal), int(port) if port else None))
    return frozenset(found)


def _judge(address: IPv4 | IPv6, name: str, policy: NetworkPolicy) -> None:
    found = tier(address)
    if found == FORBIDDEN:
        raise Refused(name, "leads to a loopback, link-local, metadata or reserved address", _NAME_IT)
    if found == PRIVATE and not policy.allow_private:
        raise Refused(name, "leads to a private network", _ALLOW_PRIVATE)
