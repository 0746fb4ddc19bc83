"""What kind of place an IP address is, in whatever form it is written or wrapped."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

IPv4 = ipaddress.IPv4Address
IPv6 = ipaddress.IPv6Address

PUBLIC, PRIVATE, FORBIDDEN = range(3)
"""Open to all; a network of somebody's own; loopback, link-local, metadata, multicast and what is reserved."""

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
# Metadata inside ULA: AWS (with its pods' and clocks'), Oracle, Google, Scaleway, Linode.
_METADATA_V6: Final = tuple(
    map(
        ipaddress.IPv6Network,
        ("fd00:ec2::/32", "fd00:c1::a9fe:a9fe", "fd20:ce::254", "fd00:42::42", "fd00:a9fe:a9fe::/64"),
    )
)
_PRIVATE_V6: Final = tuple(map(ipaddress.IPv6Network, ("fc00::/7", "fec0::/10")))
_GLOBAL_V6: Final = ipaddress.IPv6Network("2000::/3")
# Inside 2000::/3: Teredo and other IETF assignments, documentation.
_RESERVED_V6: Final = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "3fff::/20")))
_V4_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP: Final = 0x5EFE  # RFC 5214: interface ids 0000:5efe:a.b.c.d and 0200:5efe:a.b.c.d
_NUMBER: Final = re.compile(r"0x[0-9a-f]*|[0-9]+")


def literal_address(host: str) -> IPv4 | IPv6 | None:
    """The address that a host is, in every form that inet_aton(3) takes: 2130706433, 0x7f.1, 0177.0.0.1, 127.1."""
    if ":" in host:
        try:
            return IPv6(host)
        except ValueError:
            return None
    parts = host.rstrip(".").split(".")
    if len(parts) > 4 or not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    try:
        numbers = [int(part, 16 if part[:2] == "0x" else 8 if part[:1] == "0" else 10) for part in parts]
    except ValueError:
        return None
    *first, last = numbers
    if any(number > 255 for number in first) or last >= 256 ** (4 - len(first)):
        return None
    return IPv4(sum(number << 8 * (3 - place) for place, number in enumerate(first)) + last)


def tier(address: IPv4 | IPv6) -> int:
    """PUBLIC, PRIVATE or FORBIDDEN; of an address that wraps another the worse of both."""
    if isinstance(address, IPv6):
        # Without its zone: an address with one compares unequal to the same address.
        return _tier_v6(IPv6(int(address)))
    if any(address in network for network in _FORBIDDEN_V4):
        return FORBIDDEN
    return PRIVATE if any(address in network for network in _PRIVATE_V4) else PUBLIC


def _tier_v6(address: IPv6) -> int:
    tunnelled = _tunnelled(address)
    outer = _tier_of_prefix(address)
    return outer if tunnelled is None else max(outer, tier(tunnelled))


def _tier_of_prefix(address: IPv6) -> int:
    embedded = _embedded(address)
    if embedded is not None:
        return tier(embedded)
    if any(address in network for network in _METADATA_V6):
        return FORBIDDEN
    if any(address in network for network in _PRIVATE_V6):
        return PRIVATE
    if address not in _GLOBAL_V6 or any(address in network for network in _RESERVED_V6):
        return FORBIDDEN
    return PUBLIC


def _embedded(address: IPv6) -> IPv4 | None:
    """The IPv4 address that an IPv6 form stands for: mapped, compatible, NAT64 or 6to4.

    Teredo, NAT64's local prefix 64:ff9b:1::/48 and translated ::ffff:0:a.b.c.d are not public ones to begin with.
    """
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64 or address in _V4_COMPATIBLE:
        # `::` and `::1` come out as 0.0.0.0 and 0.0.0.1, which are as forbidden as they are themselves.
        return IPv4(int(address) & 0xFFFFFFFF)
    return None


def _tunnelled(address: IPv6) -> IPv4 | None:
    """The IPv4 address to which a router would tunnel, whatever the prefix."""
    interface = int(address) & 0xFFFFFFFFFFFFFFFF
    if (interface >> 32) & ~0x02000000 == _ISATAP:
        return IPv4(interface & 0xFFFFFFFF)
    return None
