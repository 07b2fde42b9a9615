"""Which pages may use a gateway: those of its own origin, and those that the settings name. Pure.

Nothing that a browser sends by itself says who its user is (tokens are given by the page), so a page of another origin has
nobody's rights. This keeps it from using the gateway at all, should it have got a token, and from taking places.
"""

from __future__ import annotations

from broker.errors import ConfigError

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
ANY = "*"


class Origins:
    """`origins` is a list separated by commas; `*`: all; empty: none but the own one."""

    def __init__(self, origins: str) -> None:
        """Raises ConfigError."""
        named = (origin.strip().rstrip("/") for origin in origins.split(","))
        self.named = frozenset(origin for origin in named if origin)
        for origin in self.named:
            if origin not in (ANY, "null") and not origin.partition("://")[2]:
                text = f"ANTIPHON_CORS_ORIGINS: {origin[:60]!r} is no origin; write https://app.example"
                raise ConfigError(text)

    def allows(self, origin: str | None, hosts: tuple[str, ...]) -> bool:
        """Whether a page may connect. `origin` is what its browser says, None for who is no browser; `hosts` are the names
        (and ports) by which the gateway was reached.

        Its own origin is one of those hosts. Whether by http or https is not compared: who ends TLS for a gateway does
        not tell it. `null` (a page without an origin, as one in a sandbox) is none of ours.
        """
        if origin is None or ANY in self.named or origin in self.named:
            return True
        scheme, _, authority = origin.lower().partition("://")
        port = _DEFAULT_PORTS.get(scheme)
        if port is None:
            return False
        own = authority.removesuffix(port)
        return bool(own) and any(own == host.strip().lower().removesuffix(port) for host in hosts)
