"""Connecting to where messages go, and nowhere else."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from contextlib import suppress

from dstack.errors import ForbiddenError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Allowed = Collection[tuple[str, int]] | None
"""The hosts and ports that a target may have in addition to public addresses; None for any address."""


def connect(host: str, port: int, seconds: float, allowed: Allowed) -> socket.socket:
    """Connect to a host; `seconds` apply to connecting and to every read and write. The address that is checked is the
    one that is used: a name can't mean another one a moment later. Raises OSError, and ForbiddenError if not all of
    the host's addresses are public and it is not `allowed`."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if allowed is not None and (host, port) not in allowed:
        check(host, [str(entry[4][0]) for entry in found])
    last: OSError = ConnectionError(f"{host} has no address")
    for family, kind, protocol, _, address in found:
        opened = socket.socket(family, kind, protocol)
        opened.settimeout(seconds)
        try:
            opened.connect(address)
        except OSError as error:
            opened.close()
            last = error
        else:
            return opened
    raise last


def check(host: str, addresses: Collection[str]) -> None:
    """Raise ForbiddenError unless all of a host's addresses are public."""
    if not all(public(address) for address in addresses):
        raise ForbiddenError(
            f"{host} is not a public address, and a member's messages may not go where only the server gets",
            hint="ask an admin to add a URL with this host and port: dstack config --notify URL",
        )


def public(text: str) -> bool:
    """Whether everybody on the internet reaches the address."""
    address = meant(ipaddress.ip_address(text.partition("%")[0]))
    return address.is_global and not address.is_multicast


def meant(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, if it does: mapped, 6to4 or by NAT64 (RFC 6052)."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in ipaddress.ip_network("64:ff9b::/96"):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def hang_up(opened: socket.socket) -> None:
    """End a connection, whatever another thread waits for there."""
    with suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)
