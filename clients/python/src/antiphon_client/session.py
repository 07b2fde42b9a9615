"""One session: its events, its folded state, and the commands into it."""

from __future__ import annotations

import asyncio
import logging
import uuid
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from ._host import Host
from ._json import JsonObject
from ._trace import current
from .buffer import EventBuffer, EventStream
from .errors import AntiphonError, ClientClosed, CommandRefused
from .executor import Executor
from .following import Following
from .frames import check_text, command, input_send
from .marks import Mark, Marks
from .presence import STATES, Presence, PresenceBoard
from .protocol import (
    Backoff,
    CaughtUp,
    Cursor,
    Entry,
    Gap,
    Reset,
    SessionEvent,
    Snapshot,
)
from .receipts import Receipt
from .state import State
from .steering import Steering
from .subscription import Disturbance, Output, Pause, Phase, Refused, Subscription
from .tools import NO_TOOLS, Tool, how
from .transcript import Message

logger = logging.getLogger("antiphon_client")


class Session(Steering):
    """A session of a `Client`; made by `Client.session()`.

    It is read from the first `events()` or `send()` on. What arrives is folded at once into
    `state` and `messages`, and waits in a bounded buffer for `events()`. If that is full, the
    socket is left unread until there is room. But if somebody waits for something else on it
    (a reply, a receipt, another session's events), or nobody iterates, reading goes on: what
    does not fit is dropped, and read again from the log when there is room. So nothing is
    skipped, memory stays bounded, and awaiting a reply inside the loop cannot deadlock.
    """

    def __init__(
        self,
        host: Host,
        name: str,
        cursor: Cursor | None = None,
        *,
        every: bool = False,
        tools: Mapping[str, Tool] = NO_TOOLS,
        watching: bool = True,
    ) -> None:
        super().__init__(host, name)
        settings = host.settings
        declared = how(every=every, tools=tools.values(), watching=watching)
        self._sub = Subscription(name, cursor, declared=declared, chain_retries=settings.chain_retries)
        self._buffer = EventBuffer(settings.buffer_events, settings.buffer_bytes, cursor)
        self._backoff = Backoff(settings.backoff_base_s, settings.backoff_cap_s)
        self._handled = cursor
        self._behind = False
        self._error: AntiphonError | None = None
        self._executor = Executor(host, name, tools) if tools else None
        self._following = Following(cursor, settings.transcript_messages, self._executor)
        self._executing: asyncio.Task[None] | None = None
        self._presence = PresenceBoard()
        self._marks = Marks(host, name)
        self._says = "active"
        self._retry: asyncio.TimerHandle | None = None
        self._arrived = asyncio.Event()
        self._settled = asyncio.Event()
        self._stream: Callable[[], EventStream | None] = lambda: None

    # ---- reading

    @property
    def cursor(self) -> str | None:
        """The place after the last event that `events()` gave out; None before the first.

        Store it once that event is handled, and pass it to `Client.session()` later.
        """
        return None if self._handled is None else str(self._handled)

    @property
    def state(self) -> State:
        """The folded state of everything that has arrived (so it may be ahead of `events()`).

        After a start from a stored cursor it knows only what came after that cursor.
        """
        return self._following.fold.state

    @property
    def messages(self) -> list[Message]:
        """The messages since the snapshot (or cursor) that reading began with, folded likewise.

        Older ones come by `history()`.
        """
        return self._following.fold.messages

    @property
    def error(self) -> AntiphonError | None:
        """Why the session cannot be read; None while it can, or nobody has tried."""
        return self._error or self._host.failure

    @property
    def presence(self) -> Presence | None:
        """Who is there, as the gateway said last; None before it did.

        While the connection is lost the last word is kept, marked `stale`.
        """
        return self._presence.now

    async def presence_changes(self) -> AsyncIterator[Presence]:
        """Iterate over `presence`: as it is now, then whenever it changes (also when it gets stale).

        Who is slow gets the latest one; those between are left out. Ends when the session is
        closed; raises when it cannot be read. Any number of iterations may go on at once.
        """
        self.follow()
        given: Presence | None = None
        while not self._closed:
            if self._presence.now is not None and self._presence.now is not given:
                given = self._presence.now
                yield given
                continue
            if self.error is not None:
                raise self.error
            with self.waiting():
                await self._presence.changed()

    async def set_presence(self, state: str) -> None:
        """Say what the user is doing on this device: `active` (to begin with), `typing`, `idle`, `away`.

        It is said again after each reconnect. Raises ValueError for another state, and the session's
        error if it cannot be read.
        """
        if state not in STATES:
            raise ValueError(f"not a state of presence: {state!r}")
        self._check_open()
        self.follow()
        await self._wait_settled()
        if self.error is not None:
            raise self.error
        try:
            await self._ask("presence.set", state=state)
        except CommandRefused as refused:
            if refused.code != "not_subscribed":
                raise
        self._says = state  # if the place is just being read again: it is said with the next subscription

    def events(self) -> EventStream:
        """Iterate over what happens: `Snapshot`, `Entry`, `CaughtUp`, `Gap` and `Reset` objects.

        Goes on after `cursor`: leaving the loop and entering it again misses nothing. One
        iteration at a time (RuntimeError). Raises when the session cannot be read: the typed
        refusal, or `ConnectionClosed`; what had arrived before is given out first.
        """
        if self._stream() is not None:
            raise RuntimeError(f"session {self._name} is being iterated already")
        stream = EventStream(self._next_event)
        # weak, so that a loop left by `break` or an error stops counting as a consumer
        self._stream = weakref.ref(stream, lambda _ref: self._host.wake_reader())
        self.follow()
        return stream

    def follow(self) -> None:
        """Read the session from now on, if it is not being read (or could not be, before)."""
        if self._closed or self._host.failure is not None or self._sub.wanted:
            return
        self._sub.wanted = True
        self._error = None
        self._settled.clear()
        self._drive()

    async def close(self) -> None:
        """Stop reading; a running iteration ends, waits for receipts raise `ClientClosed`.

        Tools that are being executed are cancelled first, and their calls let go of, which takes
        `Settings.tool_release_timeout_s` at most (if they heed their cancellation).
        """
        if self._closed:
            return
        self._closed = True
        try:
            if self._executing is not None and self._executing.cancel():
                await asyncio.wait([self._executing])
        finally:
            self._leave()

    def _leave(self) -> None:
        self._sub.wanted = False
        self._cancel_retry()
        self._drive()
        self.fail(ClientClosed("closed", f"session {self._name} was closed"))
        self._host.forget(self._name)

    # ---- commands

    async def send(
        self,
        content: str,
        input_id: str | None = None,
        mode: str | None = None,
        *,
        trace: Mapping[str, str] | None = None,
    ) -> Receipt:
        """Send a message; returns once it is stored.

        `input_id` is unique for the session's life (one is made if None): sending again with the same
        one is safe and counts once. `mode` says what becomes of it while a run is active: `auto`,
        `inject`, `enqueue`, `interrupt`, `rollback` or `reject`; None is the session's own
        (`state.config.on_busy`). `trace` has the headers of the span that it is a part of; None: those
        of the current OpenTelemetry span, if any. If the call is cancelled, it may have been stored.
        Raises ValueError for an empty text, `QueueFull`, `SessionFull`, `SessionClosed`, `ModeRefused`,
        `ContentTooLarge` and other `CommandRefused`, `CommandQueueFull`, and `ConnectionClosed`.
        """
        self._check_open()
        check_text(content)
        chosen = uuid.uuid4().hex if input_id is None else input_id
        progress = self._following.book.open(chosen, self._following.fold.state, self._following.seq)
        if self._error is None:  # a token may give `send` without `read`
            self.follow()
            await self._wait_settled()
        headers = current() if trace is None else trace
        build = partial(input_send, session=self._name, input_id=chosen, content=content, mode=mode, trace=headers)
        reply = await self._host.call(build)
        self._following.book.stored(progress, reply, self._following.fold.state, readable=self._error is None)
        return Receipt(progress, self, reply)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While inside, somebody waits for an entry: the socket is read whatever happens."""
        with self._host.waiting():
            yield

    # ---- driven by the client

    def connected(self) -> None:
        """There is a connection: subscribe."""
        self._drive()

    def disconnected(self) -> None:
        """The connection has ended; the buffer and the fold stay as they are."""
        self._cancel_retry()
        self._sub.lost()
        self._marks.lost()
        self._presence.lost()

    def fail(self, error: AntiphonError) -> None:
        """The session cannot be read, because of `error`."""
        self._error = error
        self._following.book.wake()
        self._presence.lost()
        self._presence.wake()
        self._arrived.set()
        self._settled.set()
        self._host.wake_reader()

    async def accept(self, frame: JsonObject, size_bytes: int) -> None:
        """Take a frame of this session; waits while the buffer is full (backpressure)."""
        for output in self._sub.on_frame(frame):
            await self._take(output, size_bytes)
        self._drive()

    # ---- inside

    async def _next_event(self, stream: EventStream) -> SessionEvent | None:
        if self._stream() is not stream:
            if self._closed:
                return None
            raise RuntimeError("this iteration is over; call events() again")
        while True:
            # whoever asks for the next event has handled those before
            self._marks.handled(-1 if self._handled is None else self._handled.seq)
            event = self._buffer.take()
            if event is not None:
                self._moved(event)
                return event
            error = self.error
            if error is not None:
                # whoever keeps the exception keeps the iterator: it counts no more from here on
                self._stream = lambda: None
                if self._closed:
                    return None
                raise error
            self._arrived.clear()
            with self.waiting():  # a slow consumer of another session must not hold this one up
                await self._arrived.wait()

    def _moved(self, event: SessionEvent) -> None:
        """An event is given out: move the cursor, and let in what there is room for now."""
        match event:
            case Entry():
                self._handled = Cursor(event.epoch, event.seq)
            case Snapshot():
                self._handled = Cursor(event.epoch, event.as_of)
            case Gap() | Reset():
                self._handled = None
            case CaughtUp():
                pass
        if not self._buffer.low:
            return
        self._host.wake_reader()
        if self._behind:
            self._behind = False
            self._sub.rewind(self._buffer.tail)
            self._drive()

    async def _take(self, output: Output, size_bytes: int) -> None:
        match output:
            case Snapshot():
                self._following.begin(output)
                await self._offer(output, size_bytes)
            case Entry():
                self._backoff.reset()
                self._host.progressed()
                self._following.take(output)
                await self._offer(output, size_bytes)
            case CaughtUp():
                self._host.progressed()
                await self._offer(output, size_bytes)
            case Presence():
                self._presence.put(output)
            case Mark():
                self._marks.asked(output, self._following.seq if self._stream() is None else -1)
                self._arrived.set()
            case Pause() | Refused() | Gap() | Reset():
                self._disturbed(output)

    def _disturbed(self, output: Disturbance) -> None:
        match output:
            case Pause():
                wished_s, own_s = output.retry_after_s, self._backoff.next_s(self._host.rand())
                self._wait_before_next(own_s if wished_s is None else wished_s)
            case Refused():
                logger.warning("session %s: not readable: %s", self._name, output.error.code)
                self.fail(output.error)
            case Gap() | Reset():
                self._following.forget()
                if self._behind or self._buffer.full:
                    self._buffer.restart()
                    self._behind = False
                self._put(output, 0)

    async def _offer(self, event: SessionEvent, size_bytes: int) -> None:
        """Put an event into the buffer, or drop it and remember to come back for it."""
        if self._buffer.full and not self._behind:
            await asyncio.sleep(0)  # a consumer that is being woken is about to make room
        while self._buffer.full and not self._behind:
            if self._stream() is None or self._host.someone_waits or self._error is not None:
                self._behind = True
            else:
                await self._host.pause_reading()
        if not self._behind:
            self._put(event, size_bytes)

    def _put(self, event: SessionEvent, size_bytes: int) -> None:
        self._buffer.put(event, size_bytes)
        if isinstance(event, Gap | Reset):
            self._buffer.tail = None
        self._arrived.set()

    # ---- the subscription's commands

    def _drive(self) -> None:
        if self._executor is not None and self._executing is None and self._host.connected:
            self._executing = self._host.start(self._executor.run())
        if self._retry is None:
            self._host.post(self._sub.command, self._on_reply)

    def _on_reply(self, frame: JsonObject) -> None:
        for output in self._sub.on_reply(frame):
            self._disturbed(output)
        if self._sub.phase is Phase.LIVE:
            self._settled.set()
            if self._says != "active":
                says = partial(command, "presence.set", session=self._name, state=self._says)
                self._host.post(says, lambda _reply: None)
        self._drive()

    def _wait_before_next(self, pause_s: float) -> None:
        self._cancel_retry()
        self._retry = asyncio.get_running_loop().call_later(pause_s, self._retry_now)

    def _retry_now(self) -> None:
        self._retry = None
        self._drive()

    def _cancel_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    async def _wait_settled(self) -> None:
        """Until the subscription is answered, so that the run's entries come after its start."""
        with self.waiting():
            await self._settled.wait()
