"""One session: its events, its folded state, and the commands into it."""

from __future__ import annotations

import asyncio
import logging
import uuid
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import datetime
from functools import partial

from ._host import Host
from ._json import JsonObject
from ._trace import current
from .attachments import Named, references
from .buffer import EventBuffer, EventStream
from .conversing import Conversing
from .deciding import Decide
from .errors import AntiphonError, ClientClosed, ConnectionClosed
from .following import View
from .frames import check_can_schedule, check_text, command, input_send, later
from .marks import Mark, Marks
from .presence import Presence
from .protocol import (
    Backoff,
    CaughtUp,
    Cursor,
    Entry,
    Gap,
    Reset,
    SessionEvent,
    Snapshot,
    cursor_after,
)
from .receipts import Receipt
from .saved import Saved, dump_fold
from .state import State
from .subscription import Disturbance, Output, Pause, Phase, Refused, Subscription
from .tools import NO_TOOLS, Tool, how
from .transcript import Message

logger = logging.getLogger("antiphon_client")


class Session(Conversing):
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
        decide: Decide | None = None,
        saved: Saved | None = None,
    ) -> None:
        super().__init__(host, name, cursor, tools, decide)
        settings = host.settings
        cursor = cursor if saved is None else saved.begin
        declared = how(every=every, tools=tools.values(), watching=watching)
        self._sub = Subscription(name, cursor, declared=declared, chain_retries=settings.chain_retries)
        self._buffer = EventBuffer(settings.buffer_events, settings.buffer_bytes, cursor)
        self._backoff = Backoff(settings.backoff_base_s, settings.backoff_cap_s)
        self._handled = cursor
        self._behind = False
        self._marks = Marks(host, name)
        self._iterated = saved is not None and saved.handled is not None
        self._retry: asyncio.TimerHandle | None = None
        self._arrived = asyncio.Event()
        self._settled = asyncio.Event()
        self._stream: Callable[[], EventStream | None] = lambda: None
        if saved is not None:
            self._following.resume(saved)
            for unsent in saved.unsent:
                self._outbox.add(unsent)

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
    def view(self) -> View:
        """`state` and `messages` as they stand now, together; what is returned does not change later."""
        return self._following.view

    async def changes(self) -> AsyncIterator[View]:
        """Iterate over `view`: as it is now, then whenever something has been folded.

        Who is slow gets the latest one; those between are left out. Ends when the session is
        closed; raises when it cannot be read. Any number of iterations may go on at once.
        """
        self.follow()
        given: Cursor | None = None
        first = True
        while not self._closed:
            if first or self._following.place != given:
                first, given = False, self._following.place
                yield self._following.view
                continue
            if self.error is not None:
                raise self.error
            with self.waiting():
                await self._following.bell.wait()

    def save(self) -> dict[str, object]:
        """All of it, as JSON: what is folded, the cursor, and the `outbox`.

        Keep it, and pass it to `Client.session(saved=…)` in a later process: that goes on from here, in
        the middle of a run, too, with `state` and `messages` as they are now. `events()` goes on after
        what it has given out here.
        """
        return self.save_at(self._handled)

    def save_at(self, handled: Cursor | None) -> dict[str, object]:
        """The same, for a reader who has handled the events up to there, and not yet those that came since."""
        place, fold = self._following.place, dump_fold(self._following.fold)
        return Saved(self._name, place, handled if self._iterated else None, fold, self.outbox).as_dict()

    def events(self) -> EventStream:
        """Iterate over what happens: `Snapshot`, `Entry`, `CaughtUp`, `Gap` and `Reset` objects.

        Goes on after `cursor`: leaving the loop and entering it again misses nothing. One
        iteration at a time (RuntimeError). Raises when the session cannot be read: the typed
        refusal, or `ConnectionClosed`; what had arrived before is given out first.
        """
        if self._stream() is not None:
            raise RuntimeError(f"session {self._name} is being iterated already")
        stream = EventStream(self)
        self._iterated = True
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
            await self._acting.end()
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
        at: datetime | None = None,
        after_s: float | None = None,
        attachments: Iterable[Named] = (),
        trace: Mapping[str, str] | None = None,
    ) -> Receipt:
        """Send a message; returns once it is stored.

        `input_id` is unique for the session's life (one is made if None): sending again with the same one is safe and
        counts once. `mode` says what becomes of it while a run is active (None: what `state.config.on_busy` says): `auto`,
        `inject`, `enqueue`, `interrupt`, `rollback`, `reject`. `at` (a time of a time zone) or `after_s` (seconds from now) have
        it sent then, whether this client is there or not. `attachments` are what `upload` has given, or ids. `trace`
        has the headers of the span that it is a part of (None: the current OpenTelemetry span). If the call is cancelled,
        it may have been stored. Raises ValueError for an empty text without attachments, `CommandQueueFull`, the refusals
        `QueueFull`, `SessionFull`, `SessionClosed`, `ModeRefused`, `ContentTooLarge`, `NotFound`, `ScheduleRefused`, and
        `ConnectionClosed`.
        """
        self._check_open()
        refers = references(attachments)
        check_text(content, refers)
        when = later(at, after_s)
        chosen = uuid.uuid4().hex if input_id is None else input_id
        progress = self._following.book.open(chosen, self._following.fold.state, self._following.seq)
        if self._error is None:  # a token may give `send` without `read`
            self.follow()
            with self._place_to_wait():
                await self._wait_settled()
        if when:
            check_can_schedule(self._host.welcome)
        headers = current() if trace is None else trace
        send = partial(input_send, session=self._name, input_id=chosen, content=content, mode=mode)
        reply = await self._host.call(partial(send, trace=headers, attachments=refers, when=when))
        self._following.book.stored(progress, reply, self._following.fold.state, readable=self._error is None)
        return Receipt(progress, self, reply)

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
        if isinstance(error, ConnectionClosed):
            self._outbox.fail(error)
        self._following.book.wake()
        self._following.bell.ring()
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

    # ---- driven by the iteration

    @property
    def has_event(self) -> bool:
        """Whether an event is there to be given out."""
        return len(self._buffer) > 0

    def leave(self, stream: EventStream) -> None:
        """This iteration is over."""
        if self._stream() is stream:
            self._stream = lambda: None
            self._arrived.set()
            self._host.wake_reader()

    async def next_event(self, stream: EventStream) -> SessionEvent | None:
        """The next event; None at the end."""
        if self._stream() is not stream and not self._closed:
            raise RuntimeError("this iteration is over; call events() again")
        while self._stream() is stream:
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
        return None

    # ---- inside

    def _moved(self, event: SessionEvent) -> None:
        """An event is given out: move the cursor, and let in what there is room for now."""
        self._handled = cursor_after(event, self._handled)
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
        self._acting.begin()
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
