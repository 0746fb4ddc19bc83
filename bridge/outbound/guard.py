"""Where an outgoing connection may go, decided on the very address that is connected to.

A name is resolved once, every address it has is judged, and the socket is opened to a judged address, while `Host`
and SNI keep the name; so a name that changes its answer between check and use (DNS rebinding) gains nothing, and odd
spellings such as `http://2130706433/` are judged by what they resolve to.

Two tiers: loopback, link-local, metadata, multicast and reserved addresses are open only to a host that is named
exactly; private networks (RFC 1918, CGNAT, ULA) open with one setting, because campus systems live there.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from bridge.core.errors import DestinationForbidden

IPv4 = ipaddress.IPv4Address
IPv6 = ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]
"""Host and port to the textual addresses of the host; raises OSError when there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPolicy:
    """`allow_hosts` are names or addresses as they stand in URLs, `host` or `host:port`, IPv6 in brackets or not."""

    allow_hosts: frozenset[str] = frozenset()
    allow_private: bool = False


# IANA special-purpose registries, and the metadata services that live in ordinary ranges.
_FORBIDDEN_V4: Final = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8",
            "127.0.0.0/8",
            "169.254.0.0/16",  # link-local; 169.254.169.254 is most clouds' metadata
            "192.0.0.0/24",  # IETF protocol assignments; Oracle's metadata is 192.0.0.192
            "192.0.2.0/24",
            "192.88.99.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
            "100.100.100.200/32",  # Alibaba Cloud metadata, inside CGNAT
            "168.63.129.16/32",  # Azure's host agent, a public address
        ),
    )
)
_PRIVATE_V4: Final = tuple(
    map(ipaddress.IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"))
)
_METADATA_V6: Final = frozenset(map(IPv6, ("fd00:ec2::254", "fd00:c1::a9fe:a9fe", "fd20:ce::254")))
_PRIVATE_V6: Final = tuple(map(ipaddress.IPv6Network, ("fc00::/7", "fec0::/10")))
_GLOBAL_V6: Final = ipaddress.IPv6Network("2000::/3")
# Inside 2000::/3: Teredo and other IETF assignments, documentation.
_RESERVED_V6: Final = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "3fff::/20")))
_V4_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


def system_resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a host in the order in which the system would try them."""
    answers = socket.getaddrinfo(host, port, socket.AF_UNSPEC, socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def checked_addresses(host: str, port: int, policy: NetworkPolicy, resolve: Resolve = system_resolve) -> Sequence[str]:
    """All addresses of a host, every one of them allowed.

    Raises DestinationForbidden when a single one is not: an answer that mixes public and forbidden addresses is an
    attempt to slip through. Raises OSError as `resolve` does.
    """
    name = host.strip("[]")
    addresses = resolve(name, port)
    if not addresses:
        raise OSError("the name has no address")
    if not _named(name, port, policy):
        for address in addresses:
            _judge(ipaddress.ip_address(address), name, policy)
    return addresses


def check_url(url: str) -> None:
    """Refuse what no request may have, whatever it resolves to: another scheme, no host, credentials in the URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise DestinationForbidden("the URL cannot be read") from None
    if parts.scheme not in ("http", "https"):
        raise DestinationForbidden("the URL must start with http:// or https://")
    if not parts.hostname or port == 0:
        raise DestinationForbidden("the URL must name a host, and a port above 0 if any")
    if "@" in parts.netloc:
        raise DestinationForbidden("credentials do not belong in the URL")


def _named(name: str, port: int, policy: NetworkPolicy) -> bool:
    if not policy.allow_hosts:
        return False
    plain = name.lower().rstrip(".")
    spellings = {plain, f"{plain}:{port}"}
    if ":" in plain:
        spellings = {plain, f"[{plain}]", f"[{plain}]:{port}"}
    return any(entry.lower().rstrip(".") in spellings for entry in policy.allow_hosts)


def _judge(address: IPv4 | IPv6, name: str, policy: NetworkPolicy) -> None:
    tier = _tier(address)
    if tier == "forbidden":
        raise DestinationForbidden(
            f"{name} leads to a loopback, link-local, metadata or reserved address: name it in network.allow_hosts"
        )
    if tier == "private" and not policy.allow_private:
        raise DestinationForbidden(
            f"{name} leads to a private network: set network.allow_private or name it in network.allow_hosts"
        )


def _tier(address: IPv4 | IPv6) -> str:
    if isinstance(address, IPv6):
        return _tier_v6(address)
    if any(address in network for network in _FORBIDDEN_V4):
        return "forbidden"
    return "private" if any(address in network for network in _PRIVATE_V4) else "public"


def _tier_v6(address: IPv6) -> str:
    embedded = _embedded(address)
    if embedded is not None:
        return _tier(embedded)
    if address in _METADATA_V6:
        return "forbidden"
    if any(address in network for network in _PRIVATE_V6):
        return "private"
    if address not in _GLOBAL_V6 or any(address in network for network in _RESERVED_V6):
        return "forbidden"
    return "public"


def _embedded(address: IPv6) -> IPv4 | None:
    """The IPv4 address that an IPv6 form stands for: mapped, compatible, NAT64 or 6to4."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64 or address in _V4_COMPATIBLE:
        # `::` and `::1` come out as 0.0.0.0 and 0.0.0.1, which are as forbidden as they are themselves.
        return IPv4(int(address) & 0xFFFFFFFF)
    return None
