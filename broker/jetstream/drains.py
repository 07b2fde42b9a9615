"""Drains in the log's own stream: one record of all that are in force, replaced by compare-and-set (`broker.drains`)."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from broker.drains import Drain, decode_drains, encode_drains
from broker.errors import CodecError, LogError, TopologyError, Unavailable
from broker.jetstream.answers import NO_MESSAGE, WRONG_LAST_SEQUENCE, ServerRefused
from broker.jetstream.connection import Connection
from broker.jetstream.topology import META_DRAINS, META_STREAM

_TRIES: Final = 5
"""Times that a change is made when others make theirs at the same time."""
_REREAD_S: Final = 10.0
"""How often the record is looked at for what did not come by itself, and a drain for whether its time is over."""
_RETRY_S: Final = 0.25

_log = structlog.get_logger("antiphon.drains")


class JetStreamDrains:
    """Over a connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def read(self) -> tuple[Drain, ...]:
        """All that the record has, those that are over among them. Raises Unavailable, CodecError, TopologyError."""
        return (await self._read())[0]

    async def change(self, make: Callable[[tuple[Drain, ...]], tuple[Drain, ...]]) -> None:
        """Puts what `make` makes of the drains in their place; it may be called more than once.

        Raises Unavailable (also if others change them all the time), CodecError, TopologyError, and what `make` does.
        """
        for _ in range(_TRIES):
            drains, revision = await self._read()
            headers = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
            try:
                await self._connection.publish(META_DRAINS, encode_drains(make(drains)), headers)
            except ServerRefused as error:
                if error.code != WRONG_LAST_SEQUENCE:
                    raise Unavailable(f"NATS refused the write: {error.description}") from error
            else:
                return
        raise Unavailable("others change the drains at the same time: try again")

    async def follow(self, take: Callable[[Sequence[Drain]], None]) -> None:
        """Calls `take` with all drains, first once they are known, then when they change and now and then; through outages
        of NATS, during which what was known stays. A record that cannot be read changes nothing: it must not keep all
        workers from their jobs. Does not return. Safe to cancel.
        """
        wake = asyncio.Event()
        known: tuple[Drain, ...] = ()
        off = self._connection.on_disturbed(lambda _: wake.set())
        subscription: Subscription | None = None

        async def heard(_: Msg) -> None:
            # What it says is read from the leader: so a late message cannot put an older record in force again.
            wake.set()

        try:
            while True:
                await self._connection.wait_connected()
                wake.clear()
                try:
                    if subscription is None:
                        subscription = await self._connection.subscribe(META_DRAINS, heard)
                        await self._connection.flush()
                    known = await self._known()
                except LogError:
                    await asyncio.sleep(_RETRY_S)
                    continue
                except CodecError as error:
                    _log.error("the drains cannot be read: what was known of them stays", reason=str(error))
                take(known)
                await _woken(wake)
        finally:
            off()

    async def _known(self) -> tuple[Drain, ...]:
        """As `read`; nothing of a log that has not been made, or is being made anew."""
        try:
            return await self.read()
        except TopologyError:
            return ()

    async def _read(self) -> tuple[tuple[Drain, ...], int]:
        try:
            msg = await self._connection.api(f"STREAM.MSG.GET.{META_STREAM}", {"last_by_subj": META_DRAINS})
        except ServerRefused as error:
            if error.code == NO_MESSAGE:
                return (), 0
            raise Unavailable(f"NATS refused to read the drains: {error.description}") from error
        found = msg["message"]
        return decode_drains(base64.b64decode(found["data"])), int(found["seq"])


async def _woken(wake: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(_REREAD_S):
            await wake.wait()
    except TimeoutError:
        return
