"""Revocations in a stream: the last one on each subject, for as long as it says (`broker.interfaces.Revocations`)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import orjson
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from broker.errors import CodecError, LogError, LogFull, Unavailable
from broker.jetstream.answers import ServerRefused
from broker.jetstream.connection import Connection
from broker.jetstream.direct import read_batch
from broker.jetstream.topology import REVOKED_STREAM
from broker.revocations import Revocation

_log = structlog.get_logger("antiphon.revocations")

_SUBJECTS = "revoked.>"
_BATCH = 1024
_RECHECK_S = 1.0
"""How often the stream is looked at for what did not come by itself: a subscription may lose messages."""


class JetStreamRevocations:
    """A context, within that of the connection. What is revoked comes by the subject itself, at once, and by the stream."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._tasks = asyncio.TaskGroup()
        self._followers: list[_Follower] = []
        self._following: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for task in self._following:
            task.cancel()
        await self._tasks.__aexit__(exc_type, exc, tb)

    def follow(self, take: Callable[[list[Revocation]], None]) -> None:
        follower = _Follower(self._connection, take)
        self._followers.append(follower)
        self._following.append(self._tasks.create_task(follower.run(), name="revocations"))

    async def read(self, within_s: float) -> None:
        """Returns when all who follow have been given what there is, or have not in time. Not while NATS is away."""
        if not self._connection.connected:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                for follower in self._followers:
                    await follower.complete.wait()

    async def revoke(self, revocation: Revocation) -> None:
        ttl_s = max(1, revocation.until - int(time.time()))
        headers = {"Nats-TTL": f"{ttl_s}s"}
        try:
            await self._connection.publish(f"revoked.{revocation.key}", revocation.encode(), headers)
        except LogFull:
            raise LogFull("as many revocations as may be are in force: change the keys of the tokens instead") from None
        except ServerRefused as error:
            raise Unavailable(f"NATS refused the revocation: {error.description}") from error

    async def listed(self) -> list[Revocation]:
        found: dict[str, Revocation] = {}
        position, end = 0, False
        while not end:
            page, position, end = await _page(self._connection, position)
            found |= {revocation.key: revocation for revocation in page}
        return list(found.values())


class _Follower:
    """Reads all there are, then what is new."""

    def __init__(self, connection: Connection, take: Callable[[list[Revocation]], None]) -> None:
        self._connection = connection
        self._take = take
        self._position = 0
        self.complete = asyncio.Event()
        """All there are have been taken once."""
        self._wake = asyncio.Event()

    async def run(self) -> None:
        off = self._connection.on_disturbed(self._disturbed)
        subscription: Subscription | None = None
        try:
            while True:
                await self._connection.wait_connected()
                self._wake.clear()
                try:
                    if subscription is None:
                        subscription = await self._connection.subscribe(_SUBJECTS, self._heard)
                        await self._connection.flush()
                    await self._read()
                except LogError:
                    # What is known stays in force; `/readyz` tells of the rest.
                    await asyncio.sleep(0.1)
                    continue
                await self._woken()
        finally:
            off()

    async def _read(self) -> None:
        """Takes what the stream has beyond the position. Raises Unavailable, TopologyError."""
        # Of the leader, so that a stream which is not there is told from one that holds nothing.
        state = (await self._connection.api(f"STREAM.INFO.{REVOKED_STREAM}"))["state"]
        if state["last_seq"] < self._position:
            self._position = 0
        found: list[Revocation] = []
        position, end = self._position, False
        while not end:
            page, position, end = await _page(self._connection, position)
            found += page
        self._position = position
        self._take(found)
        self.complete.set()

    async def _woken(self) -> None:
        try:
            async with asyncio.timeout(_RECHECK_S):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _heard(self, msg: Msg) -> None:
        # Until all are known, a few would look like all of them; what is missed here is read a moment later.
        if self.complete.is_set():
            self._take(_decoded([msg.data]))

    def _disturbed(self, subscription: Subscription | None) -> None:
        if subscription is None:
            # Perhaps another log, with other sequences.
            self._position = 0
        self._wake.set()


async def _page(connection: Connection, position: int) -> tuple[list[Revocation], int, bool]:
    body = orjson.dumps({"seq": position + 1, "next_by_subj": _SUBJECTS, "batch": _BATCH})
    page, end = await read_batch(connection, REVOKED_STREAM, body)
    return _decoded([stored.body for stored in page]), page[-1].seq if page else position, end


def _decoded(bodies: list[bytes]) -> list[Revocation]:
    found = []
    for body in bodies:
        try:
            found.append(Revocation.decode(body))
        except CodecError as error:
            _log.warning("a revocation that is none was ignored", reason=str(error))
    return found
