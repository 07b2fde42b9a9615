"""A gateway in the test's own process, so that a test can put something in place of a part of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from antiphon.gateway_process import running_gateway
from antiphon.place import make_token
from antiphon.processes import BrokerSettings
from broker.config import LogSettings, NatsSettings
from broker.jetstream.connection import Connection
from broker.jetstream.log import JetStreamLog
from broker.jetstream.topology import Topology
from gateway.config import GatewaySettings

_SECRET = "a secret of more than thirty-two bytes"


@dataclass(frozen=True, slots=True)
class Inside:
    """Its address, and the log that it has, by a connection of the test's own."""

    url: str
    log: JetStreamLog

    def token(self, right: str = "admin") -> str:
        """With that right in all sessions."""
        return make_token(_SECRET, "user-1", None, {"*": [right]})


@asynccontextmanager
async def gateway_inside(nats_url: str, **settings: Any) -> AsyncIterator[Inside]:
    """Serves while it is entered, with these settings. It looks no second time at what a session that is joined may have missed."""
    broker = BrokerSettings(NatsSettings(nats_url=nats_url), LogSettings(partitions=2, join_recheck_s=0.0))
    async with Connection(broker.nats, name="test") as connection, JetStreamLog(connection, broker.log) as log:
        await Topology(connection, broker.log).apply()
        await log.prepare()
        async with running_gateway(broker, GatewaySettings(port=0, jwt_secret=_SECRET, **settings)) as (_, url):
            yield Inside(url, log)
