"""Which addresses webhooks may go to. Pure.

Whoever may write the file of endpoints, or owns a name in it, must not reach what only this machine reaches: its own
ports, the metadata service of its cloud, a neighbour in the private network. So an address is judged at each connection,
after names have been resolved, and not by the URL.
"""

from __future__ import annotations

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
_COMPATIBLE = ipaddress.IPv6Network("::/96")


def parsed(text: str) -> Address | None:
    """The address that a socket is about to connect to, as `getaddrinfo` writes it; None if it is none."""
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 address only stands for: what packets to it reach in the end."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def is_public(address: Address) -> bool:
    """Anybody on the internet reaches it, and it is one machine's."""
    real = inner(address)
    if real.is_multicast or real.is_reserved or real.is_unspecified or real.is_link_local:
        return False
    return real.is_global and not (isinstance(address, ipaddress.IPv6Address) and address in _LOCAL_NAT64)


def is_among(address: Address, networks: tuple[Network, ...]) -> bool:
    """It is in one of the networks that an operator has named."""
    real = inner(address)
    return any(real in network or address in network for network in networks)
