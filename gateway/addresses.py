"""Where somebody comes from: the peer of the connection, or what proxies that are trusted say of it. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from broker.errors import ConfigError

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_HOPS_MAX = 32
"""Entries of `X-Forwarded-For` that are looked at, from its end."""
_V6_PREFIX = 64
"""What one subscriber of an IPv6 network has at least (RFC 6177): whoever may choose among 2^64 addresses is not
counted by any of them."""


class Addresses:
    """Finds the addresses of clients. Nobody is believed but the proxies of the setting."""

    def __init__(self, trusted: str) -> None:
        """`trusted`: networks, separated by commas. Raises ConfigError."""
        self._trusted = tuple(_network(part.strip()) for part in trusted.split(",") if part.strip())

    def is_trusted(self, peer: str | None) -> bool:
        """Whether what the peer says of those it speaks for is believed."""
        address = _read(peer or "")
        return address is not None and self._trusts(address)

    def client(self, peer: str | None, forwarded: Iterable[str]) -> str:
        """The client's address. `forwarded` are the lines of `X-Forwarded-For`, to which each proxy adds at the end.

        It is the last address that is not one of a trusted proxy. What is before it anybody may have written.
        """
        found = _read(peer or "")
        if found is None or not self._trusts(found):
            return peer or "" if found is None else str(found)
        hops = [hop for line in forwarded for hop in line.split(",")][-_HOPS_MAX:]
        for hop in reversed(hops):
            address = _read(hop)
            if address is None:
                break  # a proxy of ours has written what is after it
            found = address
            if not self._trusts(address):
                break
        return str(found)

    def _trusts(self, address: _Address) -> bool:
        return any(address in network for network in self._trusted)


def counted_as(address: str) -> str:
    """Whose places an address's connections take: its own, or with IPv6 its network's."""
    read = _read(address)
    if isinstance(read, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((read, _V6_PREFIX), strict=False))
    return address


def _read(text: str) -> _Address | None:
    """An address, perhaps with a port. One of IPv4 that is written as IPv6 is one of IPv4."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _network(text: str) -> _Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ConfigError(f"ANTIPHON_TRUSTED_PROXIES: {text[:60]!r} is no network; write 10.0.0.0/8") from None
