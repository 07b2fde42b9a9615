"""One connection to NATS: publishing with acknowledgements, requests, and word of disturbances.

nats-py's `publish_async` futures never resolve when the server refuses, and hang after the server has died, so
acknowledgements come to one inbox of ours, each to a future with a time-out. Errors of nats-py are translated here and
nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

import nats.errors
import orjson
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from prometheus_client import CollectorRegistry

from broker.config import NatsSettings
from broker.errors import NotPermitted, Unavailable
from broker.jetstream.answers import ServerRefused, answer_of, raise_for
from broker.jetstream.client import LiveClient, LiveHandler
from broker.jetstream.refusals import Refusals, fail
from broker.metrics import LogMetrics

_log = structlog.get_logger("antiphon.nats")

MessageHandler = Callable[[Msg], Awaitable[None]]

_CANCEL_AGAIN_S = 0.1
_INBOX_HINT = "set ANTIPHON_NATS_INBOX to the prefix that its user has, and start it again"


@dataclass(frozen=True, slots=True)
class Ack:
    """A stored message: its sequence, and whether it had been stored before (same message id)."""

    seq: int
    duplicate: bool


class Connection:
    """A connection that is kept up for as long as the context is open.

    It may be entered while NATS is away: operations raise Unavailable until it is there. `on_disturbed` callbacks
    are called after a reconnect (with None) and when messages may have been lost on one subscription (with it).

    Making one raises ConfigError if a certificate or a credential cannot be used.
    """

    def __init__(self, settings: NatsSettings, *, name: str, metrics: LogMetrics | None = None) -> None:
        self._settings = settings
        self._name = name
        self.metrics = metrics or LogMetrics(CollectorRegistry())
        self._nc = LiveClient(settings)
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._queues: dict[str, asyncio.Queue[Msg | NotPermitted]] = {}
        self._token = 0
        self._inbox = ""
        self._has_inbox = True
        self._tasks = asyncio.TaskGroup()
        self._connecting: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._listeners: set[Callable[[Subscription | None], None]] = set()
        self._watchers: list[Callable[[bool], None]] = []
        self.refusals = Refusals(self.metrics)
        self.last_error: str = "not connected yet"

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._connecting = self._tasks.create_task(self._connect(), name="nats-connect")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._connecting), self._settings.connect_timeout_s)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        assert self._connecting is not None
        while not self._connecting.done():
            # nats-py loses a cancellation now and then, and would go on connecting for ever.
            self._connecting.cancel()
            await asyncio.wait({self._connecting}, timeout=_CANCEL_AGAIN_S)
        try:
            await self._tasks.__aexit__(exc_type, exc, tb)
        finally:
            self._ready.clear()
            self._fail_waiting(Unavailable("the connection is closed"))
            with contextlib.suppress(Exception):
                # A task of its own: nats-py's `close` may end in a cancellation that was meant for its last connection.
                async with asyncio.timeout(2), asyncio.TaskGroup() as closing:
                    closing.create_task(self._nc.close())

    @property
    def connected(self) -> bool:
        return self._ready.is_set() and self._nc.is_connected

    @property
    def server_info(self) -> Mapping[str, Any]:
        """What the server has said of itself when we connected last: its name, version, cluster and limits."""
        return self._nc._server_info  # noqa: SLF001 (nats-py gives its version alone)

    async def wait_connected(self) -> None:
        """Returns when NATS is there. Safe to cancel."""
        await self._ready.wait()

    @property
    def inbox_prefix(self) -> str:
        """What the subjects begin with that answers come to."""
        return self._settings.nats_inbox

    @property
    def ack_timeout_s(self) -> float:
        return self._settings.ack_timeout_s

    def on_disturbed(self, callback: Callable[[Subscription | None], None]) -> Callable[[], None]:
        """Registers `callback`; returns what takes it off again."""
        self._listeners.add(callback)
        return lambda: self._listeners.discard(callback)

    def on_connectivity(self, callback: Callable[[bool], None]) -> None:
        """Calls `callback` now and at each change: True when NATS is there, False when it is away."""
        self._watchers.append(callback)
        callback(self.connected)

    async def publish(
        self, subject: str, body: bytes, headers: Mapping[str, str] | None = None, *, timeout_s: float | None = None
    ) -> Ack:
        """Publishes to a stream and returns when it is stored.

        Raises Unavailable when nothing is known of the outcome, LogFull, NotPermitted, or ServerRefused. Cancelling
        leaves the outcome unknown.
        """
        msg = await self.request(subject, body, headers, timeout_s=timeout_s)
        answer = answer_of(msg)
        raise_for(answer)
        seq = answer.get("seq")
        if not isinstance(seq, int):
            raise Unavailable(
                f"no stream took the message on {subject.split('.', maxsplit=1)[0]}.…: run `antiphon topology apply`"
            )
        return Ack(seq, bool(answer.get("duplicate")))

    async def request(
        self,
        subject: str,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float | None = None,
        again_s: float | None = None,
    ) -> Msg:
        """One answer to one message. Raises Unavailable when none comes in time or nobody listens, NotPermitted.

        With `again_s` the message is sent again after so long without an answer, for questions that change nothing: what
        was lost with a leader is answered by its heir.
        """
        self._require_connected()
        future: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        refusal = self.refusals.begin(subject, partial(fail, future))
        with self._awaiting(future) as reply:
            try:
                async with asyncio.timeout(timeout_s or self._settings.ack_timeout_s):
                    await self._send(subject, body, headers, reply)
                    while again_s is not None and not (await asyncio.wait({future}, timeout=again_s))[0]:
                        await self._send(subject, body, headers, reply)
                    msg = await future
            except TimeoutError:
                raise Unavailable("NATS did not answer in time; the outcome is not known") from None
            finally:
                self.refusals.end(refusal)
        if msg.headers and msg.headers.get("Status") == "503":
            raise Unavailable("no NATS server answers for this subject (no leader, or no stream)")
        return msg

    async def api(
        self, operation: str, body: Mapping[str, Any] | None = None, *, again_s: float | None = None
    ) -> dict[str, Any]:
        """A JetStream API call. Raises ServerRefused with the server's error code, Unavailable, LogFull, NotPermitted."""
        return await self.call(f"$JS.API.{operation}", b"" if body is None else orjson.dumps(body), again_s=again_s)

    async def call(self, subject: str, body: bytes = b"", *, again_s: float | None = None) -> dict[str, Any]:
        """A question whose answer is JSON; `again_s` as for `request`. Raises as `api` does."""
        answer = answer_of(await self.request(subject, body, again_s=again_s))
        raise_for(answer)
        return answer

    async def purge(self, stream: str, subjects: str, before: int | None = None) -> None:
        """Deletes the messages of a stream on these subjects, or only those before sequence `before`. Raises Unavailable."""
        wanted: dict[str, Any] = {"filter": subjects}
        if before is not None:
            wanted["seq"] = before
        try:
            await self.api(f"STREAM.PURGE.{stream}", wanted)
        except ServerRefused as error:
            raise Unavailable(f"NATS refused to delete: {error.description}") from error

    @contextlib.contextmanager
    def inbox(self) -> Iterator[tuple[str, asyncio.Queue[Msg | NotPermitted]]]:
        """A reply subject for answers that are many, and where they come; as many as the request asked for."""
        self._require_connected()
        self._token += 1
        token = str(self._token)
        queue: asyncio.Queue[Msg | NotPermitted] = asyncio.Queue()
        self._queues[token] = queue
        try:
            yield f"{self._inbox}.{token}", queue
        finally:
            del self._queues[token]

    async def send(
        self, subject: str, body: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Publishes without waiting for anything. Raises Unavailable while NATS is away."""
        self._require_connected()
        await self._send(subject, body, headers, reply)

    def new_inbox(self) -> str:
        """A subject that nobody else has."""
        return self._nc.new_inbox()

    async def subscribe(
        self, subject: str, handler: MessageHandler, *, max_messages: int = 65536, max_bytes: int = 64 << 20
    ) -> Subscription:
        """A core subscription. Beyond the limits messages are dropped, and `on_disturbed` callbacks told."""
        self._require_connected()
        with _translated():
            return await self._nc.subscribe(
                subject, cb=handler, pending_msgs_limit=max_messages, pending_bytes_limit=max_bytes
            )

    async def subscribe_live(self, subject: str, handler: LiveHandler) -> Subscription:
        """A core subscription whose handler is called with bytes, without a queue between. Raises Unavailable."""
        self._require_connected()
        with _translated():
            return await self._nc.subscribe_live(subject, handler)

    async def confirm(self, sub: Subscription) -> None:
        """Returns when the server has taken in a subscription. Raises NotPermitted, and ends it; Unavailable."""
        await self.flush()
        if (refusal := self.refusals.of_subscription(sub)) is not None:
            await self.unsubscribe(sub)
            raise refusal

    async def unsubscribe(self, sub: Subscription) -> None:
        """Ends a subscription; does nothing if the connection is gone."""
        self.refusals.forget(sub)
        with contextlib.suppress(nats.errors.Error, ConnectionError):
            await sub.unsubscribe()

    async def drain(self, sub: Subscription) -> None:
        """Ends a subscription; returns when its handler has had all that the server had sent until then.

        Does nothing if the connection is gone.
        """
        with contextlib.suppress(Unavailable, nats.errors.Error, OSError):
            # As nats-py's `drain` does, but for its `flush` (see below).
            await self._nc._send_unsubscribe(sub._id)  # noqa: SLF001 (see above)
            await self.flush()
            await sub._pending_queue.join()  # noqa: SLF001 (see above)
        await self.unsubscribe(sub)

    async def flush(self) -> None:
        """Returns when the server has processed everything sent before. Raises Unavailable."""
        self._require_connected()
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        with self._awaiting(answered):
            try:
                async with asyncio.timeout(self._settings.ack_timeout_s):
                    # Not nats-py's `flush`: it cancels what waits for the answer when it gives up, and the answer to a
                    # PING whose waiter is cancelled ends its read loop: a connection that looks up and hears nothing.
                    await self._nc._send_ping(answered)  # noqa: SLF001 (see above)
                    await asyncio.shield(answered)
            except TimeoutError:
                raise Unavailable("NATS did not answer in time") from None

    async def _connect(self) -> None:
        options = self._options()
        while True:
            try:
                await self._nc.connect(**options)
                break
            except (OSError, nats.errors.Error, TimeoutError) as error:
                self.last_error = _reason(error)
                await asyncio.sleep(self._settings.reconnect_wait_s)
        self._inbox = self._nc.new_inbox()
        await self._nc.subscribe(
            f"{self._inbox}.*", cb=self._on_answer, pending_msgs_limit=1 << 20, pending_bytes_limit=256 << 20
        )
        # nats-py returns from `connect` also when the server has hung up on it. It goes on trying, then, and restores the
        # subscription. Flushing here would raise, or wait for an answer that was lost.
        while not self._nc.is_connected:  # noqa: ASYNC110 (nats-py tells nobody)
            await asyncio.sleep(self._settings.reconnect_wait_s)
        self.last_error = ""
        self._ready.set()
        self._announce(True)
        _log.info("connected", server=self.server_info.get("server_name", ""))

    def _options(self) -> dict[str, Any]:
        s = self._settings
        return {
            "servers": [url.strip() for url in s.nats_url.split(",")],
            "name": self._name,
            "allow_reconnect": True,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": s.reconnect_wait_s,
            "connect_timeout": s.connect_timeout_s,
            "ping_interval": s.ping_interval_s,
            "max_outstanding_pings": 2,
            # A write that waits in a buffer through a reconnect arrives after its fence has gone: never buffer.
            "pending_size": 0,
            "inbox_prefix": s.nats_inbox,
            "error_cb": self._on_error,
            "disconnected_cb": self._on_disconnected,
            "reconnected_cb": self._on_reconnected,
        } | self._nc.credentials()

    async def _on_answer(self, msg: Msg) -> None:
        token = msg.subject.rpartition(".")[2]
        future = self._waiting.get(token)
        if future is not None:
            if not future.done():
                future.set_result(msg)
        elif (queue := self._queues.get(token)) is not None:
            queue.put_nowait(msg)

    async def _on_error(self, error: Exception) -> None:
        if isinstance(error, nats.errors.SlowConsumerError):
            self.metrics.slow_consumer.inc()
            _log.warning("slow consumer: messages dropped, checking against the log")
            self._tell(error.sub)
            return
        if self._refused(str(error)):
            return
        self.last_error = _reason(error)

    def _refused(self, text: str) -> bool:
        """Whether this is about permissions; then whoever waits for what was refused has been told."""
        refusal = self.refusals.take(text, self._nc._subs.values())  # noqa: SLF001 (nats-py does not say which one it was)
        if refusal is not None and refusal.subject == f"{self._inbox}.*":
            self._has_inbox = False
            self._fail_waiting(self._no_inbox())
        return refusal is not None

    async def _on_disconnected(self) -> None:
        if not self._nc.is_closed:
            _log.warning("NATS is away", reason=self.last_error or "connection lost")
        self._fail_waiting(Unavailable("NATS went away; the outcome is not known"))
        self.refusals.clear()
        self._has_inbox = True
        self._announce(False)

    async def _on_reconnected(self) -> None:
        self.last_error = ""
        self.metrics.reconnects.inc()
        _log.info("NATS is back")
        self._tell(None)
        self._announce(True)

    @contextlib.contextmanager
    def _awaiting(self, future: asyncio.Future[Any]) -> Iterator[str]:
        """While inside, the future fails when the connection does; gives a reply subject whose answer it gets."""
        self._token += 1
        token = str(self._token)
        self._waiting[token] = future
        try:
            yield f"{self._inbox}.{token}"
        finally:
            del self._waiting[token]

    def _tell(self, sub: Subscription | None) -> None:
        for callback in tuple(self._listeners):
            callback(sub)

    def _announce(self, connected: bool) -> None:
        self.metrics.connected.set(connected)
        for watcher in self._watchers:
            watcher(connected)

    def _fail_waiting(self, error: Unavailable) -> None:
        for future in self._waiting.values():
            fail(future, error)

    def _no_inbox(self) -> NotPermitted:
        return NotPermitted("subscribe", f"{self._inbox}.*", _INBOX_HINT)

    def _require_connected(self) -> None:
        if not self.connected:
            raise Unavailable(f"NATS is away: {self.last_error or 'reconnecting'}")
        if not self._has_inbox:
            raise self._no_inbox()

    async def _send(self, subject: str, body: bytes, headers: Mapping[str, str] | None, reply: str) -> None:
        with _translated():
            await self._nc.publish(subject, body, reply=reply, headers=dict(headers) if headers else None)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except nats.errors.MaxPayloadError:
        raise
    except (nats.errors.Error, OSError) as error:
        raise Unavailable(f"NATS is away: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
