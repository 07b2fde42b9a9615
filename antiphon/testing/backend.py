"""What a test of an agent stands on: an embedded nats-server with the streams, and a gateway in this process."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from antiphon.gateway_process import running_gateway
from antiphon.place import make_token
from antiphon.processes import BrokerSettings
from broker.codec import decode_at
from broker.config import LogSettings, NatsSettings
from broker.events import Entry
from broker.interfaces import SessionLog
from broker.jetstream.connection import Connection
from broker.jetstream.log import JetStreamLog
from broker.jetstream.server import EmbeddedServer, ServerOptions
from broker.jetstream.topology import WORK_STREAM, Topology
from broker.subjects import place_of
from gateway.config import GatewaySettings

LEASE_S = 1.0
"""How long a job of a worker process that died waits for another: as short as it may be."""
LEAVE_GRACE_S = 0.2
REPAIR_S = 0.5
_PARTITIONS = 2
_UNLIMITED = 1_000_000


class Backend:
    """`async with Backend() as backend`: give it to any number of harnesses, so that they need not start their own.

    `pools` are the names by which agents may be asked (`ctx.ask`); there is a pool `default` besides. Its data is in a
    temporary directory, and gone at the end. Entering raises ServerError: without the extra `embedded` there is no
    nats-server. For one event loop.
    """

    def __init__(self, pools: Sequence[str] = ()) -> None:
        names = dict.fromkeys(("default", *pools))
        self._log_settings = LogSettings(partitions=_PARTITIONS, pools=",".join(names), lease_s=LEASE_S)
        self._secret = secrets.token_urlsafe(48)
        self._stack = AsyncExitStack()
        self._connection: Connection | None = None
        self._log: JetStreamLog | None = None
        self.url = ""
        """Where its gateway serves."""
        self.nats_url = ""
        """Where its nats-server listens."""

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="antiphon-"))
            options = ServerOptions(data_dir=Path(directory), sync_always=False)
            server = await stack.enter_async_context(EmbeddedServer(options))
            self.nats_url = server.url
            settings = self.broker
            connection = await stack.enter_async_context(Connection(settings.nats, name="harness"))
            await Topology(connection, settings.log).apply()
            log = await stack.enter_async_context(JetStreamLog(connection, settings.log))
            await log.prepare()
            _, self.url = await stack.enter_async_context(running_gateway(settings, self._gateway()))
            self._connection, self._log = connection, log
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        # What the test raised is the test's: it must not come out wrapped in what a group of tasks makes of it.
        await self._stack.aclose()

    def _gateway(self) -> GatewaySettings:
        return GatewaySettings(
            port=0,
            jwt_secret=self._secret,
            leave_grace_s=LEAVE_GRACE_S,
            job_repair_s=REPAIR_S,
            commands_per_second=_UNLIMITED,
            commands_burst=_UNLIMITED,
        )

    @property
    def broker(self) -> BrokerSettings:
        """How a process reaches the log."""
        return BrokerSettings(NatsSettings(nats_url=self.nats_url, ack_timeout_s=2.0), self._log_settings)

    @property
    def log(self) -> SessionLog:
        """The log itself."""
        assert self._log is not None, "the backend has not been entered"
        return self._log

    def token(self, user: str, roles: Sequence[str] = ()) -> str:
        """A token for all sessions, with all rights."""
        return make_token(self._secret, user, None, {"*": ["admin"]}, roles=roles)

    async def entries(self, session: str) -> list[tuple[int, Entry]]:
        """All that the log holds of a session now, records and deltas, each with its sequence."""
        subjects, found = self.log.subjects(session), list[tuple[int, Entry]]()
        position, end = 0, False
        while not end:
            page, end = await self.log.read(subjects, position)
            for stored in page:
                position, place = stored.seq, place_of(stored.subject)
                if place is not None:
                    found.append((stored.seq, decode_at(place, stored.body)[0]))
        return found

    async def jobs(self) -> int:
        """Lanes, of all sessions, that have work or are being worked on."""
        assert self._connection is not None, "the backend has not been entered"
        info = await self._connection.api(f"STREAM.INFO.{WORK_STREAM}")
        return int(info["state"]["messages"])
