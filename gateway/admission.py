"""What all connections and requests of a gateway share of its limits."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from aiohttp import web

from broker.errors import ErrorCode, Refused
from gateway.addresses import Addresses, counted_as
from gateway.config import GatewaySettings
from gateway.limits import CallerLimits, Limit, Place, Places
from gateway.rights import Identity

_COME_BACK_MS = (2_000, 8_000)
"""When somebody with too many connections is to try again: at random, so that they do not all come at once."""


@dataclass(frozen=True, slots=True)
class Admission:
    """One for a gateway. Users are told apart by `Identity.caller`, so whatever wire they use."""

    addresses: Addresses
    requests: CallerLimits
    inputs: CallerLimits
    joins: CallerLimits
    greeting: Places
    """Connections that have not said `hello` yet: all are one's."""
    users: Places
    networks: Places

    @classmethod
    def of(cls, settings: GatewaySettings) -> Admission:
        """Raises ConfigError."""
        return cls(
            addresses=Addresses(settings.trusted_proxies),
            requests=CallerLimits(Limit.REQUESTS, settings.requests_per_second, settings.requests_burst),
            inputs=CallerLimits(Limit.INPUTS, settings.inputs_per_second, settings.inputs_burst),
            joins=CallerLimits(Limit.JOINS, settings.joins_per_second, settings.joins_burst),
            greeting=Places(Limit.GREETING, settings.greeting_connections),
            users=Places(Limit.USER, settings.user_connections),
            networks=Places(Limit.ADDRESS, settings.address_connections),
        )

    def address_of(self, request: web.BaseRequest) -> str:
        """Where a request comes from, as far as that is known."""
        return self.addresses.client(request.remote, request.headers.getall("X-Forwarded-For", ()))

    def connect(self, who: Identity) -> Place:
        """A place among the user's connections. Raises Refused (too_many_connections)."""
        return _taken(self.users, who.caller)

    def connect_from(self, address: str) -> Place:
        """A place among those of the address's network. Raises Refused (too_many_connections)."""
        return _taken(self.networks, counted_as(address))

    def greet(self) -> Place:
        """A place among those who have yet to say who they are. Raises Refused (too_many_connections)."""
        return _taken(self.greeting, "")

    def join(self, who: Identity) -> None:
        """Before a reader joins. Raises Refused (rate_limited)."""
        self.joins.require(who.caller, time.monotonic())

    def send(self, who: Identity) -> None:
        """Before an input is taken. Raises Refused (rate_limited)."""
        self.inputs.require(who.caller, time.monotonic())


def _taken(places: Places, who: str) -> Place:
    place = places.take(who)
    if place is None:
        raise Refused(
            ErrorCode.TOO_MANY_CONNECTIONS,
            f"as many connections are open as may be ({places.most}); close one, or come back later",
            limit=places.most,
            exceeded=places.limit.value,
            retry_after_ms=random.randint(*_COME_BACK_MS),
        )
    return place
