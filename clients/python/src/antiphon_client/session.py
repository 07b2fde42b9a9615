"""One session: its events, its folded state, and the commands into it."""

from __future__ import annotations

import asyncio
import logging
import uuid
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ._host import Host
from ._json import JsonObject, as_count, as_objects, as_str
from .buffer import EventBuffer
from .errors import AntiphonError, ClientClosed
from .fold import Fold
from .protocol import (
    Backoff,
    CaughtUp,
    Cursor,
    Entry,
    Gap,
    Reset,
    SessionEvent,
    Snapshot,
    history,
    input_cancel,
    input_send,
    run_cancel,
)
from .receipts import Receipt, ReceiptBook
from .state import State
from .subscription import Disturbance, Output, Pause, Phase, Refused, Subscription
from .transcript import Message

logger = logging.getLogger("antiphon_client")


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Whole messages, oldest first. Pass `before` on for the page before; None: there is none."""

    messages: tuple[Message, ...]
    before: int | None


class EventStream:
    """The iterator that `Session.events()` returns. While it lives, the socket waits for it."""

    __slots__ = ("__weakref__", "_advance")

    def __init__(self, advance: Callable[[EventStream], Awaitable[SessionEvent | None]]) -> None:
        self._advance = advance

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> SessionEvent:
        """The next event. Cancelling the wait is safe: no event is lost."""
        event = await self._advance(self)
        if event is None:
            raise StopAsyncIteration
        return event


class Session:
    """A session of a `Client`; made by `Client.session()`.

    It is read from the first `events()` or `send()` on. What arrives is folded at once into
    `state` and `messages`, and waits in a bounded buffer for `events()`. If that is full, the
    socket is left unread until there is room. But if somebody waits for something else on it
    (a reply, a receipt, another session's events), or nobody iterates, reading goes on: what
    does not fit is dropped, and read again from the log when there is room. So nothing is
    skipped, memory stays bounded, and awaiting a reply inside the loop cannot deadlock.
    """

    def __init__(self, host: Host, name: str, cursor: Cursor | None = None, *, every: bool = False) -> None:
        settings = host.settings
        self._host = host
        self._name = name
        self._sub = Subscription(name, cursor, every=every, chain_retries=settings.chain_retries)
        self._buffer = EventBuffer(settings.buffer_events, settings.buffer_bytes, cursor)
        self._backoff = Backoff(settings.backoff_base_s, settings.backoff_cap_s)
        self._fold = self._new_fold(State(partial=cursor is not None))
        self._folded_seq = -1 if cursor is None else cursor.seq
        self._handled = cursor
        self._behind = False
        self._book = ReceiptBook()
        self._error: AntiphonError | None = None
        self._closed = False
        self._retry: asyncio.TimerHandle | None = None
        self._arrived = asyncio.Event()
        self._settled = asyncio.Event()
        self._stream: Callable[[], EventStream | None] = lambda: None

    # ---- reading

    @property
    def name(self) -> str:
        """The session's name."""
        return self._name

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
        return self._fold.state

    @property
    def messages(self) -> list[Message]:
        """The messages since the snapshot (or cursor) that reading began with, folded likewise.

        Older ones come by `history()`.
        """
        return self._fold.messages

    @property
    def error(self) -> AntiphonError | None:
        """Why the session cannot be read; None while it can, or nobody has tried."""
        return self._error or self._host.failure

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
        """Stop reading; a running iteration ends, waits for receipts raise `ClientClosed`."""
        if self._closed:
            return
        self._closed = True
        self._sub.wanted = False
        self._cancel_retry()
        self._drive()
        self.fail(ClientClosed("closed", f"session {self._name} was closed"))
        self._host.forget(self._name)

    # ---- commands

    async def send(self, text: str, input_id: str | None = None, mode: str | None = None) -> Receipt:
        """Send a message; returns once it is stored.

        `input_id` is unique for the session's life (one is made if None): sending again with the
        same one is safe and counts once. Raises ValueError for an empty text, `CommandRefused`,
        `CommandQueueFull`, and `ConnectionClosed` when the client has stopped. If the call is
        cancelled, the message may or may not have been stored.
        """
        self._check_open()
        _check_text(text)
        chosen = uuid.uuid4().hex if input_id is None else input_id
        progress = self._book.open(chosen, self._fold.state, self._folded_seq)
        if self._error is None:  # a token may give `send` without `read`
            self.follow()
            await self._wait_settled()
        reply = await self._host.call(lambda command_id: input_send(command_id, self._name, chosen, text, mode))
        self._book.stored(progress, reply, readable=self._error is None)
        return Receipt(progress, self, reply)

    async def cancel(self, run_id: str) -> str:
        """Stop a run, even before it starts; safe to repeat. Returns `cancelling` or `cancelled`.

        Raises `NotFound`, `TooLate` (it has ended), other `CommandRefused`.
        """
        self._check_open()
        reply = await self._host.call(lambda command_id: run_cancel(command_id, self._name, run_id))
        return as_str(reply.get("status")) or "cancelling"

    async def cancel_input(self, input_id: str) -> None:
        """Take back an input that still waits. Raises `NotFound`, `TooLate`, `NotAllowed`."""
        self._check_open()
        await self._host.call(lambda command_id: input_cancel(command_id, self._name, input_id))

    async def history(self, before: int | None = None, limit: int = 50) -> HistoryPage:
        """Up to `limit` (1 to 200) whole messages that end before the entry `before`."""
        self._check_open()
        reply = await self._host.call(lambda command_id: history(command_id, self._name, before, limit))
        found = (Message.from_dict(raw) for raw in as_objects(reply.get("messages")))
        messages = tuple(message for message in found if message is not None)
        return HistoryPage(messages, as_count(reply.get("before")))

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

    def fail(self, error: AntiphonError) -> None:
        """The session cannot be read, because of `error`."""
        self._error = error
        self._book.wake()
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
                self._begin_fold(output)
                await self._offer(output, size_bytes)
            case Entry():
                self._backoff.reset()
                self._host.progressed()
                self._fold_in(output)
                await self._offer(output, size_bytes)
            case CaughtUp():
                self._host.progressed()
                await self._offer(output, size_bytes)
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
                self._forget_fold()
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

    def _new_fold(self, state: State) -> Fold:
        return Fold(state, message_limit=self._host.settings.transcript_messages)

    def _forget_fold(self) -> None:
        self._fold = self._new_fold(State())
        self._folded_seq = -1

    def _begin_fold(self, snapshot: Snapshot) -> None:
        if snapshot.as_of <= self._folded_seq:
            return  # read again for `events()`; the fold is further on
        self._fold = self._new_fold(State.from_dict(snapshot.state))
        self._folded_seq = snapshot.as_of
        self._book.restart(self._fold.state, snapshot.as_of)

    def _fold_in(self, entry: Entry) -> None:
        if entry.seq <= self._folded_seq:
            return
        self._folded_seq = entry.seq
        self._book.observe(self._fold.apply(entry))

    # ---- the subscription's commands

    def _drive(self) -> None:
        if self._retry is None:
            self._host.post(self._sub.command, self._on_reply)

    def _on_reply(self, frame: JsonObject) -> None:
        for output in self._sub.on_reply(frame):
            self._disturbed(output)
        if self._sub.phase is Phase.LIVE:
            self._settled.set()
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

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed("closed", f"session {self._name} was closed")

    async def _wait_settled(self) -> None:
        """Until the subscription is answered, so that the run's entries come after its start."""
        with self.waiting():
            await self._settled.wait()


def _check_text(text: str) -> None:
    """Refuse what no gateway would take, before it costs a trip."""
    if not text:
        raise ValueError("the text of an input is not empty")
    text.encode()  # half a surrogate pair is no text: UnicodeEncodeError is a ValueError
