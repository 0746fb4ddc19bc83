"""Every outgoing connection goes to an address that was judged, and to no other.

A name is resolved once, every address it has is judged, and the socket is opened to a judged address, while `Host`
and SNI keep the name; so a name that changes its answer between check and use (DNS rebinding) gains nothing, and odd
spellings such as `http://2130706433/` are judged by what they resolve to. The rules are in flow/network.py.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence

from bridge.flow.network import NetworkPolicy, check_addresses, check_url

__all__ = ["NetworkPolicy", "Resolve", "check_url", "checked_addresses", "system_resolve"]

Resolve = Callable[[str, int], Sequence[str]]
"""Host and port to the textual addresses of the host; raises OSError when there are none."""


def system_resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a host in the order in which the system would try them."""
    try:
        answers = socket.getaddrinfo(host, port, socket.AF_UNSPEC, socket.SOCK_STREAM)
    except UnicodeError:  # the codec of names, for labels that are empty or too long
        raise OSError("no name that could be resolved") from None
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def checked_addresses(host: str, port: int, policy: NetworkPolicy, resolve: Resolve = system_resolve) -> Sequence[str]:
    """All addresses of a host, every one of them allowed.

    Raises DestinationForbidden when a single one is not, OSError as `resolve` does.
    """
    name = host.strip("[]")
    addresses = resolve(name, port)
    if not addresses:
        raise OSError("the name has no address")
    check_addresses(name, port, [ipaddress.ip_address(address) for address in addresses], policy)
    return addresses
