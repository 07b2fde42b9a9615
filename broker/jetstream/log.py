"""The session log over JetStream partition streams (`broker.interfaces.SessionLog`)."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import orjson
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from broker.codec import decode_at, encode
from broker.config import LogSettings
from broker.errors import CodecError, LogFull, NotPermitted, TopologyError, Unavailable, WrongSequence
from broker.events import Entry, Participant, SessionOwner
from broker.interfaces import Of, Stored
from broker.jetstream.alarms import forget_alarms
from broker.jetstream.answers import CONTENDED, NO_MESSAGE, WRONG_LAST_SEQUENCE, ServerRefused
from broker.jetstream.attachments import forget_before as forget_attachments
from broker.jetstream.connection import Ack, Connection
from broker.jetstream.direct import read_batch
from broker.jetstream.gate import Gate
from broker.jetstream.tailing import JetStreamTail
from broker.jetstream.topology import refuse_newer_format, stored_partitions
from broker.subjects import SessionSubjects, place_of
from broker.tail import StoredEntry

_log = structlog.get_logger("antiphon.log")

_CONTENDED_WAIT_S = 0.002
_STALE_WAIT_S = 0.02
_ASK_AGAIN_S = 0.5
"""Nobody answers a question to a leader that has just died. Asked again, the next one does as soon as there is one."""
_RETRY_MIN_S, _RETRY_MAX_S = 0.02, 1.0


class JetStreamLog:
    """The logs of all sessions. Use as a context: `async with JetStreamLog(connection, settings) as log`.

    The number of partitions is read from the log itself, when it is first needed.
    """

    def __init__(self, connection: Connection, settings: LogSettings) -> None:
        self._connection = connection
        self._metrics = connection.metrics
        self._settings = settings
        self._partitions = settings.partitions
        self._partitions_known = False
        self._epochs: dict[str, str] = {}
        self._gates: dict[str, Gate] = {}
        self._gate = Gate(settings.catchup_reads)
        self._tails: dict[str, set[JetStreamTail]] = {}
        self._advisories: Subscription | None = None
        self._forget: Callable[[], None] | None = None

    async def __aenter__(self) -> Self:
        self._forget = self._connection.on_disturbed(self._on_disturbed)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._forget is not None:
            self._forget()
        if self._advisories is not None:
            await self._connection.unsubscribe(self._advisories)

    async def prepare(self, *, follow: bool = True) -> None:
        """Reads the number of partitions and, to `follow` sessions, starts to listen for new stream leaders.

        Needed once before sessions are used; calling it again costs nothing. Raises Unavailable, TopologyError.
        """
        if not self._partitions_known:
            await refuse_newer_format(self._connection)
            stored = await stored_partitions(self._connection)
            if stored is None:
                raise TopologyError("the streams do not exist yet: run `antiphon topology apply`")
            self._partitions, self._partitions_known = stored, True
        if follow and self._advisories is None:
            subject = "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.>"
            self._advisories = await self._connection.subscribe(subject, self._on_new_leader)

    @property
    def settings(self) -> LogSettings:
        return self._settings

    @property
    def partitions(self) -> int:
        """How many the log was made with. Raises Unavailable if it has not been reached yet."""
        if not self._partitions_known:
            raise Unavailable("NATS has not been reached yet")
        return self._partitions

    def subjects(self, key: str) -> SessionSubjects:
        return SessionSubjects.of(key, self.partitions)

    # --- reading -------------------------------------------------------------------------------------------------

    def reads_waiting(self, subjects: SessionSubjects) -> int:
        gate = self._gates.get(subjects.stream)
        return self._gate.waiting + (0 if gate is None else gate.waiting)

    async def epoch(self, subjects: SessionSubjects) -> str:
        known = self._epochs.get(subjects.stream)
        if known is None:
            info = await self._connection.api(f"STREAM.INFO.{subjects.stream}", again_s=_ASK_AGAIN_S)
            known = self._epochs[subjects.stream] = _epoch_of(info["created"])
        return known

    async def head(self, subjects: SessionSubjects, of: Of = Of.EVERYTHING) -> StoredEntry | None:
        return await self._last_on(subjects, _filter(subjects, of))

    async def read(
        self, subjects: SessionSubjects, after: int, of: Of = Of.EVERYTHING
    ) -> tuple[list[StoredEntry], bool]:
        return await self._page(subjects, _filter(subjects, of), after)

    async def last_input(self, subjects: SessionSubjects) -> int:
        last = await self._last_on(subjects, subjects.inputs)
        return 0 if last is None else last.seq

    async def read_deltas(self, subjects: SessionSubjects, lane: str, after: int) -> tuple[list[StoredEntry], bool]:
        # Whoever takes a run over goes on where the text ends, so a replica that lags must not cut it short.
        subject, deadline = subjects.deltas(lane), asyncio.get_running_loop().time() + self._connection.ack_timeout_s
        last = await self._last_on(subjects, subject)
        if last is None or last.seq <= after:
            return [], True
        while True:
            page, _ = await self._page(subjects, subject, after)
            if page:
                return page, page[-1].seq >= last.seq
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable("a replica of the log stays behind")
            await asyncio.sleep(_STALE_WAIT_S)

    async def holds(self, subjects: SessionSubjects, seq: int) -> bool:
        return await self._get(subjects, {"seq": seq}) is not None

    async def lasts(self, subjects: SessionSubjects, seq: int) -> Mapping[str, int] | None:
        """The last record on each of the session's subjects up to record `seq`, of any copy of the log that has that one;
        None if the copy that was asked does not have it (yet, or any more). Raises Unavailable, TooManySubjects.
        """
        query = orjson.dumps({"multi_last": [subjects.records], "up_to_seq": seq})
        entries, _ = await read_batch(self._connection, subjects.stream, query)
        found = {entry.subject: entry.seq for entry in entries}
        return found if seq in found.values() else None

    async def read_checkpoint(self, subjects: SessionSubjects) -> StoredEntry | None:
        msg = await self._connection.request(
            f"$JS.API.DIRECT.GET.{subjects.stream}", orjson.dumps({"last_by_subj": subjects.checkpoint})
        )
        headers = msg.headers or {}
        if headers.get("Status"):
            return None
        return StoredEntry(int(headers["Nats-Sequence"]), subjects.checkpoint, bytes(msg.data))

    @asynccontextmanager
    async def tail(self, subjects: SessionSubjects, after: int, of: Of = Of.EVERYTHING) -> AsyncIterator[JetStreamTail]:
        tail = JetStreamTail(self, self._connection, subjects, after, of)
        peers = self._tails.setdefault(subjects.stream, set())
        peers.add(tail)
        try:
            async with tail:
                yield tail
        finally:
            peers.discard(tail)

    async def _last_on(self, subjects: SessionSubjects, subject: str) -> StoredEntry | None:
        return await self._get(subjects, {"last_by_subj": subject})

    async def _get(self, subjects: SessionSubjects, query: dict[str, object]) -> StoredEntry | None:
        """One entry, from the stream's leader."""
        try:
            answer = await self._connection.api(f"STREAM.MSG.GET.{subjects.stream}", query, again_s=_ASK_AGAIN_S)
        except ServerRefused as error:
            if error.code == NO_MESSAGE:
                return None
            raise Unavailable(f"NATS refused to read: {error.description}") from error
        message = answer["message"]
        body, stored = base64.b64decode(message.get("data", "")), message.get("time", "")
        return StoredEntry(message["seq"], message["subject"], body, stored)

    async def _page(self, subjects: SessionSubjects, subject: str, after: int) -> tuple[list[StoredEntry], bool]:
        gate = self._gates.setdefault(subjects.stream, Gate(self._settings.catchup_concurrency))
        body = orjson.dumps(
            {
                "seq": after + 1,
                "next_by_subj": subject,
                "batch": self._settings.catchup_batch,
                "max_bytes": self._settings.catchup_bytes,
            }
        )
        # The partition's first: those who wait for one that does not answer must not keep others from reading.
        async with gate, self._gate:
            return await read_batch(self._connection, subjects.stream, body)

    # --- writing -------------------------------------------------------------------------------------------------

    async def append_input(
        self, subjects: SessionSubjects, entry: Entry, message_id: str, expected: int | None = None
    ) -> Stored:
        headers = {"Nats-Msg-Id": f"{subjects.key}:{message_id}"}
        if expected is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(expected)
        ack = await self._retrying(lambda: self._publish(subjects.inputs, encode(entry), headers))
        return Stored(ack.seq, ack.duplicate)

    async def claim(
        self,
        subjects: SessionSubjects,
        lane: str,
        expected: int,
        owner: Participant,
        ts: int,
        can: tuple[str, ...] = (),
        job: int | None = None,
    ) -> int:
        event = SessionOwner(lane, owner.kind, owner.id, can or None, job)
        return await self.own(subjects, lane, expected, _owning(owner, event, ts))

    async def claimed_by(self, subjects: SessionSubjects, lane: str) -> int | None:
        stored = await self._last_on(subjects, subjects.owner(lane))
        place = None if stored is None else place_of(stored.subject)
        if stored is None or place is None:
            return None
        entry, _ = decode_at(place, stored.body)
        return next((event.job for event in entry.events if isinstance(event, SessionOwner)), None)

    async def release(self, subjects: SessionSubjects, lane: str, fence: int, owner: Participant, ts: int) -> None:
        await self.own(subjects, lane, fence, _owning(owner, SessionOwner(lane, "none"), ts))

    async def own(self, subjects: SessionSubjects, lane: str, expected: int, entry: Entry) -> int:
        headers = {"Nats-Expected-Last-Subject-Sequence": str(expected)}
        body = encode(entry)
        subject = subjects.owner(lane)
        deadline = asyncio.get_running_loop().time() + self._settings.lease_s
        try:
            return (await self._publish(subject, body, headers)).seq
        except NotPermitted:
            raise
        except Unavailable as error:
            return await self._find_out(subjects, subject, body, headers, entry.id, deadline, error)

    async def append(self, subjects: SessionSubjects, lane: str, fence: int, entry: Entry) -> int:
        subject = subjects.events(lane) if entry.off is None else subjects.deltas(lane)
        headers = _fence_headers(subjects, lane, fence)
        if entry.off is not None:
            headers["Nats-TTL"] = f"{max(1, round(self._settings.delta_ttl_s))}s"
        body = encode(entry)
        deadline = asyncio.get_running_loop().time() + self._settings.lease_s
        try:
            return (await self._publish(subject, body, headers)).seq
        except NotPermitted:
            raise
        except Unavailable as error:
            return await self._find_out(subjects, subject, body, headers, entry.id, deadline, error)

    async def forget_before(self, subjects: SessionSubjects, seq: int) -> None:
        # Attachments first: what the log still holds of before tells a gateway that a deletion was cut short.
        await forget_attachments(self._connection, subjects.key, seq)
        await forget_alarms(self._connection, subjects.key, seq)
        # Then the ownership records: without them no owner of before can write, a checkpoint least of all.
        await self._connection.purge(subjects.stream, subjects.everything, seq)
        await self._connection.purge(subjects.stream, subjects.checkpoint)

    async def write_checkpoint(self, subjects: SessionSubjects, lane: str, fence: int, body: bytes) -> None:
        headers = _fence_headers(subjects, lane, fence) | {"Nats-Rollup": "sub"}
        await self._publish(subjects.checkpoint, body, headers, "checkpoint")

    async def _find_out(
        self,
        subjects: SessionSubjects,
        subject: str,
        body: bytes,
        headers: dict[str, str],
        write_id: str,
        deadline: float,
        cause: Unavailable,
    ) -> int:
        """After a write whose outcome is not known: reads back, and writes again if it was not stored."""
        wait_s = _RETRY_MIN_S
        while asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
            wait_s = min(wait_s * 2, _RETRY_MAX_S)
            try:
                last = await self._last_on(subjects, subject)
                if last is not None and _id_of(last.body) == write_id:
                    self._metrics.stored.labels("entry").inc()
                    return last.seq
                self._metrics.retries.labels("unknown").inc()
                return (await self._publish(subject, body, headers)).seq
            except Unavailable as error:
                cause = error
            except WrongSequence:
                # An earlier try may have been stored after the read, and (for a claim) be what this one lost to.
                last = await self._last_on(subjects, subject)
                if last is not None and _id_of(last.body) == write_id:
                    self._metrics.stored.labels("entry").inc()
                    return last.seq
                raise
        raise cause

    async def _retrying(self, call: Callable[[], object]) -> Ack:
        """Repeats a write that is made safe by its message id, within the time for one acknowledgement."""
        deadline = asyncio.get_running_loop().time() + self._connection.ack_timeout_s
        wait_s = _RETRY_MIN_S
        while True:
            try:
                return await call()  # type: ignore[misc, no-any-return]
            except NotPermitted:
                raise
            except Unavailable:
                if asyncio.get_running_loop().time() + wait_s > deadline:
                    raise
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, _RETRY_MAX_S)
                self._metrics.retries.labels("unknown").inc()

    async def _publish(self, subject: str, body: bytes, headers: dict[str, str], kind: str = "entry") -> Ack:
        loop, metrics = asyncio.get_running_loop(), self._metrics
        deadline = loop.time() + self._connection.ack_timeout_s
        while True:
            begun, connected = loop.time(), self._connection.connected
            try:
                ack = await self._connection.publish(subject, body, headers)
                metrics.append.observe(loop.time() - begun)
                metrics.stored.labels("duplicate" if ack.duplicate else kind).inc()
                return ack
            except LogFull:
                metrics.full.inc()
                raise
            except NotPermitted:
                raise
            except Unavailable:
                if connected:
                    metrics.unknown.inc()
                raise
            except ServerRefused as error:
                if error.code == WRONG_LAST_SEQUENCE:
                    raise WrongSequence("the lane has been claimed by another owner") from None
                if error.code != CONTENDED or loop.time() > deadline:
                    raise Unavailable(f"NATS refused the write: {error.description}") from error
            metrics.retries.labels("contended").inc()
            await asyncio.sleep(_CONTENDED_WAIT_S)

    # --- disturbances --------------------------------------------------------------------------------------------

    def _on_disturbed(self, sub: Subscription | None) -> None:
        if sub is None:
            self._epochs.clear()
        for tails in self._tails.values():
            for tail in tails:
                if sub is None or tail.follows(sub):
                    tail.disturbed()

    async def _on_new_leader(self, msg: Msg) -> None:
        try:
            stream = orjson.loads(msg.data).get("stream")
        except (orjson.JSONDecodeError, AttributeError):
            return
        for tail in self._tails.get(stream, ()):
            tail.disturbed()


def _owning(owner: Participant, event: SessionOwner, ts: int) -> Entry:
    """An ownership record; its id tells our own from others' after an unknown outcome."""
    id_ = f"own-{owner.id}-{random.getrandbits(40):010x}"
    return Entry(id=id_, ts=ts, events=(event,), lane=event.lane, by=owner)


def _filter(subjects: SessionSubjects, of: Of) -> str:
    return subjects.records if of is Of.RECORDS else subjects.everything


def _fence_headers(subjects: SessionSubjects, lane: str, fence: int) -> dict[str, str]:
    return {
        "Nats-Expected-Last-Subject-Sequence": str(fence),
        "Nats-Expected-Last-Subject-Sequence-Subject": subjects.owner(lane),
    }


def _id_of(body: bytes) -> str | None:
    try:
        value = orjson.loads(body).get("id")
    except (orjson.JSONDecodeError, AttributeError, CodecError):
        return None
    return value if isinstance(value, str) else None


def _epoch_of(created: str) -> str:
    """A short name of a stream's incarnation: its creation time in ms, in base 36."""
    # NATS gives nanoseconds, which Python does not read; tenths of milliseconds are more than enough.
    instant = datetime.strptime(created[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    number, digits = int(instant.timestamp()) * 1000 + int((created[20:23] or "0").rstrip("Z") or 0), ""
    while number:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits
