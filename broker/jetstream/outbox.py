"""The outbox in the stream `HOOKS` (`broker.outbox`), and the partitions as its sender reads them.

===============================================  ======================================================================
``hooks.lease``                                  who sends (rollup); with a TTL, so that it goes with its writer. Its
                                                 sequence is the fence of all other writes here
``hooks.mark``                                   how far the sender has come (rollup)
``hooks.due.<receiver>.<session>.<id>``          a message that waits
``hooks.dead.<receiver>.<session>.<id>``         one that was given up
``hooks.gone.<receiver>``                        the receiver wants nothing any more (rollup)
===============================================  ======================================================================
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

import orjson
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from broker.errors import LogError, Unavailable, WrongSequence
from broker.jetstream.answers import CONTENDED, NO_MESSAGE, NO_SEQUENCE, WRONG_LAST_SEQUENCE, ServerRefused
from broker.jetstream.connection import Ack, Connection
from broker.jetstream.direct import read_batch
from broker.jetstream.topology import HOOKS_STREAM
from broker.outbox import Kept, Term
from broker.subjects import hooks_subject, partition_records, stream_name
from broker.tail import StoredEntry

_log = structlog.get_logger("antiphon.outbox")

_CONTENDED_WAIT_S = 0.002
_BATCH = 256
_PAGE_BYTES = 1 << 20
_LETTING_GO_S = 1.0

_LEASE = hooks_subject("lease")
_MARK = hooks_subject("mark")


class JetStreamOutbox:
    """Over a connection. `holder` names this process; messages are kept for `keep_s`."""

    def __init__(self, connection: Connection, holder: str, *, lease_s: float, keep_s: float) -> None:
        self._connection = connection
        self._holder = holder
        self._lease_s = lease_s
        self._keep_s = keep_s

    @asynccontextmanager
    async def term(self) -> AsyncIterator[Term]:
        """See `broker.outbox.Outbox`."""
        term = await self._claimed()
        try:
            yield term
        finally:
            await term.let_go()

    async def _claimed(self) -> JetStreamTerm:
        said = ""
        while True:
            await self._connection.wait_connected()
            try:
                return await JetStreamTerm.claim(self._connection, self._holder, self._lease_s, self._keep_s)
            except WrongSequence:
                pass
            except LogError as error:
                if str(error) != said:
                    said = str(error)
                    _log.warning("the outbox cannot be used yet", reason=said)
            await asyncio.sleep(self._lease_s / 4)

    async def waiting(self, receiver: str, after: int) -> tuple[list[Kept], bool]:
        return await self._page("due", receiver, after)

    async def given_up(self, receiver: str, after: int) -> tuple[list[Kept], bool]:
        return await self._page("dead", receiver, after)

    async def waiting_since(self, place: int) -> list[Kept]:
        # One at a time, which is slow, but a replica that lags would leave some out.
        found: list[Kept] = []
        while (stored := await _first(self._connection, place, hooks_subject("due", "*", "*", "*"))) is not None:
            found.append(_kept(stored))
            place = stored.seq + 1
        return found

    async def refused(self) -> dict[str, bytes]:
        found, place = {}, 1
        while (stored := await _first(self._connection, place, hooks_subject("gone", "*"))) is not None:
            found[stored.subject.rsplit(".", 1)[1]] = stored.body
            place = stored.seq + 1
        return found

    async def send_again(self, kept: Kept, body: bytes) -> None:
        """Lets a message that was given up wait once more. For an operator, so without a fence. Raises Unavailable."""
        headers = {"Nats-TTL": f"{max(1, round(self._keep_s))}s"}
        await _publish(self._connection, hooks_subject("due", kept.receiver, kept.session, kept.id), body, headers)
        await _delete(self._connection, kept.place)

    async def accept_again(self, receiver: str) -> None:
        """Forgets that a receiver wanted nothing any more. Raises Unavailable."""
        await self._connection.purge(HOOKS_STREAM, hooks_subject("gone", receiver))

    async def _page(self, kind: str, receiver: str, after: int) -> tuple[list[Kept], bool]:
        subject = hooks_subject(kind, receiver, "*", "*")
        query = {"seq": after + 1, "next_by_subj": subject, "batch": _BATCH, "max_bytes": _PAGE_BYTES}
        page, end = await read_batch(self._connection, HOOKS_STREAM, orjson.dumps(query))
        return [_kept(stored) for stored in page], end


class JetStreamTerm:
    """`broker.outbox.Term`. One write is in flight at a time: each names the sequence of the lease as it is then."""

    def __init__(self, connection: Connection, holder: str, lease_s: float, keep_s: float) -> None:
        self._connection = connection
        self._holder = holder
        self._lease_s = lease_s
        self._keep_s = keep_s
        self._fence = 0
        self._until = 0.0
        self._writing = asyncio.Lock()
        self.started: tuple[int, bytes | None] = (0, None)

    @classmethod
    async def claim(cls, connection: Connection, holder: str, lease_s: float, keep_s: float) -> Self:
        """Raises WrongSequence while another has the lease, Unavailable."""
        term = cls(connection, holder, lease_s, keep_s)
        await term.renew()
        mark = await _last(connection, _MARK)
        term.started = (0, None) if mark is None else (mark.seq, mark.body)
        return term

    @property
    def valid(self) -> bool:
        return time.monotonic() < self._until

    async def renew(self) -> None:
        async with self._writing:
            asked = time.monotonic()
            headers = {
                "Nats-Expected-Last-Subject-Sequence": str(self._fence),
                "Nats-TTL": f"{max(1, round(self._lease_s))}s",
                "Nats-Rollup": "sub",
            }
            try:
                self._fence = (await _publish(self._connection, _LEASE, self._holder.encode(), headers)).seq
            except WrongSequence:
                # It may have been stored by a try whose answer was lost.
                last = await _last(self._connection, _LEASE)
                if last is None or last.body != self._holder.encode():
                    self._until = 0.0
                    raise
                self._fence, asked = last.seq, min(asked, self._until - self._lease_s)
            self._until = max(self._until, asked + round(self._lease_s))

    async def let_go(self) -> None:
        """So that another need not wait for the lease to run out. Never raises."""
        self._until = 0.0
        with contextlib.suppress(LogError, TimeoutError):
            async with asyncio.timeout(_LETTING_GO_S):
                await _delete(self._connection, self._fence)

    async def mark(self, body: bytes) -> None:
        await self._write(_MARK, body, {"Nats-Rollup": "sub"})

    async def put(self, receiver: str, session: str, id_: str, body: bytes) -> int:
        return await self._write(hooks_subject("due", receiver, session, id_), body, self._kept())

    async def give_up(self, kept: Kept, body: bytes) -> None:
        await self._write(hooks_subject("dead", kept.receiver, kept.session, kept.id), body, self._kept())
        await self.settle(kept.place)

    async def refuse(self, receiver: str, body: bytes) -> None:
        await self._write(hooks_subject("gone", receiver), body, {"Nats-Rollup": "sub"})

    async def settle(self, place: int) -> None:
        await _delete(self._connection, place)

    async def forget(self, session: str) -> None:
        for kind in ("due", "dead"):
            await self._connection.purge(HOOKS_STREAM, hooks_subject(kind, "*", session, "*"))

    def _kept(self) -> dict[str, str]:
        return {"Nats-TTL": f"{max(1, round(self._keep_s))}s"}

    async def _write(self, subject: str, body: bytes, headers: dict[str, str]) -> int:
        async with self._writing:
            fence = {
                "Nats-Expected-Last-Subject-Sequence": str(self._fence),
                "Nats-Expected-Last-Subject-Sequence-Subject": _LEASE,
            }
            return (await _publish(self._connection, subject, body, fence | headers)).seq


class JetStreamPartitions:
    """`broker.outbox.Partitions`. A context: while it is open, it listens for what is written."""

    def __init__(self, connection: Connection, count: int) -> None:
        self.count = count
        self._connection = connection
        self._news = [asyncio.Event() for _ in range(count)]
        self._sub: Subscription | None = None
        self._forget: Callable[[], None] = lambda: None

    async def __aenter__(self) -> Self:
        self._sub = await self._connection.subscribe(
            f"live.{partition_records('*').removeprefix('s.')}", self._on_record
        )
        self._forget = self._connection.on_disturbed(lambda _: self._wake_all())
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._forget()
        if self._sub is not None:
            await self._connection.unsubscribe(self._sub)

    async def last(self, partition: int) -> int:
        try:
            info = await self._connection.api(f"STREAM.INFO.{stream_name(partition)}")
        except ServerRefused as error:
            raise Unavailable(f"NATS refused to look at a partition: {error.description}") from error
        return int(info["state"]["last_seq"])

    async def read(self, partition: int, after: int) -> tuple[list[StoredEntry], bool]:
        subject = partition_records(f"{partition:02d}")
        query = {"seq": after + 1, "next_by_subj": subject, "batch": _BATCH, "max_bytes": _PAGE_BYTES}
        return await read_batch(self._connection, stream_name(partition), orjson.dumps(query))

    async def written(self, partition: int, wait_s: float) -> None:
        news = self._news[partition]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await news.wait()
        news.clear()

    async def _on_record(self, msg: Msg) -> None:
        partition = msg.subject.split(".", 2)[1]
        if partition.isdigit() and int(partition) < self.count:
            self._news[int(partition)].set()

    def _wake_all(self) -> None:
        for news in self._news:
            news.set()


def _kept(stored: StoredEntry) -> Kept:
    _, _, receiver, session, id_ = stored.subject.split(".")
    return Kept(stored.seq, receiver, session, id_, stored.body, stored.stored)


async def _publish(connection: Connection, subject: str, body: bytes, headers: dict[str, str]) -> Ack:
    deadline = time.monotonic() + connection.ack_timeout_s
    while True:
        try:
            return await connection.publish(subject, body, headers)
        except ServerRefused as error:
            if error.code == WRONG_LAST_SEQUENCE:
                raise WrongSequence("another process sends by now") from None
            if error.code != CONTENDED or time.monotonic() > deadline:
                raise Unavailable(f"NATS refused the write: {error.description}") from error
        await asyncio.sleep(_CONTENDED_WAIT_S)


async def _delete(connection: Connection, place: int) -> None:
    """Raises Unavailable."""
    try:
        await connection.api(f"STREAM.MSG.DELETE.{HOOKS_STREAM}", {"seq": place, "no_erase": True})
    except ServerRefused as error:
        if error.code not in (NO_MESSAGE, NO_SEQUENCE):
            raise Unavailable(f"NATS refused to delete: {error.description}") from error


async def _last(connection: Connection, subject: str) -> StoredEntry | None:
    return await _get(lambda: connection.api(f"STREAM.MSG.GET.{HOOKS_STREAM}", {"last_by_subj": subject}))


async def _first(connection: Connection, place: int, subject: str) -> StoredEntry | None:
    query = {"seq": max(1, place), "next_by_subj": subject}
    return await _get(lambda: connection.api(f"STREAM.MSG.GET.{HOOKS_STREAM}", query))


async def _get(asked: Callable[[], Awaitable[dict[str, object]]]) -> StoredEntry | None:
    """A message, from the stream's leader."""
    try:
        message = (await asked())["message"]
    except ServerRefused as error:
        if error.code == NO_MESSAGE:
            return None
        raise Unavailable(f"NATS refused to read: {error.description}") from error
    assert isinstance(message, dict)
    return StoredEntry(
        message["seq"], message["subject"], base64.b64decode(message.get("data", "")), message.get("time", "")
    )
