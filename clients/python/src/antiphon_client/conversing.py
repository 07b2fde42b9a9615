"""The part of a `Session` that is about people and what they say: presence, messages, answers."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime

from ._host import Host
from ._trace import current
from .acting import Acting
from .answers import Answer
from .attachments import Named
from .buffer import EventStream
from .deciding import Decide
from .errors import AntiphonError, CommandQueueFull, CommandRefused
from .following import Following
from .frames import check_text
from .outbox import Outbox, Submission, Unsent
from .presence import STATES, Presence, PresenceBoard
from .protocol import Cursor
from .receipts import Receipt
from .steering import Steering
from .tools import Tool


class Conversing(Steering):
    """What a session offers to those who take part in it. How it is read is up to `Session`."""

    def __init__(
        self, host: Host, name: str, cursor: Cursor | None, tools: Mapping[str, Tool], decide: Decide | None
    ) -> None:
        super().__init__(host, name)
        settings = host.settings
        self._error: AntiphonError | None = None
        self._outbox = Outbox(self._send, settings.outbox_inputs, host.rand)
        self._acting = Acting(host, name, tools, decide, self._outbox)
        self._following = Following(cursor, settings.transcript_messages, self._acting)
        self._presence = PresenceBoard()
        self._says = "active"
        self._unsettled = 0

    # ---- what `Session` adds

    @property
    def error(self) -> AntiphonError | None:
        """Why the session cannot be read; None while it can, or nobody has tried."""
        return self._error or self._host.failure

    def events(self) -> EventStream:
        """Iterate over what happens."""
        raise NotImplementedError

    def follow(self) -> None:
        """Read the session from now on, if it is not being read (or could not be, before)."""
        raise NotImplementedError

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
        """Send a message."""
        raise NotImplementedError

    async def _send(self, unsent: Unsent) -> Receipt:
        sending = self.send(
            unsent.content, unsent.input_id, unsent.mode, attachments=unsent.attachments, trace=unsent.trace
        )
        return await sending

    async def _wait_settled(self) -> None:
        raise NotImplementedError

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While inside, somebody waits for an entry: the socket is read whatever happens."""
        with self._host.waiting():
            yield

    @contextmanager
    def _place_to_wait(self) -> Iterator[None]:
        """One of as many as may wait for a reply: those who send before there is a connection are bounded, too."""
        if self._unsettled >= self._host.settings.pending_commands:
            raise CommandQueueFull("command_queue_full", "too many commands wait", retryable=True)
        self._unsettled += 1
        try:
            yield
        finally:
            self._unsettled -= 1

    # ---- messages and answers

    @property
    def outbox(self) -> tuple[Unsent, ...]:
        """The submitted messages of which it is not known that they are stored, next first."""
        return self._outbox.waiting

    def submit(
        self,
        content: str,
        input_id: str | None = None,
        mode: str | None = None,
        *,
        attachments: Iterable[Named] = (),
    ) -> Submission:
        """Queue a message to be sent as soon as can be; returns at once, also without a connection.

        Submitted messages are sent one after the other, for as long as it takes: through outages, and
        when the first connection comes (`Settings.first_connect_timeout_s` None). What is not sent when
        the client closes is in `outbox` and in `save()`. At most `Settings.outbox_inputs` wait, else
        `CommandQueueFull`. Raises ValueError for an empty text.
        """
        self._check_open()
        ids = tuple(each if isinstance(each, str) else each.id for each in attachments)
        check_text(content, ids)
        chosen = uuid.uuid4().hex if input_id is None else input_id
        submission = self._outbox.add(Unsent(chosen, content, mode, current(), ids))
        self._acting.begin()
        return submission

    def ask(self, content: str, input_id: str | None = None, mode: str | None = None) -> Answer:
        """Ask the agent: iterate over the `Answer` for its text as it streams, or `await answer.text()`.

        With the `input_id` of a question that was asked before, it is not asked again: the answer is
        that of the first time.
        """
        self._check_open()
        check_text(content)
        chosen = uuid.uuid4().hex if input_id is None else input_id
        return Answer(self, self._following, content, chosen, mode)

    async def answer(self, content: str, input_id: str | None = None, mode: str | None = None) -> str:
        """Ask the agent, and wait for the whole answer: `ask(…).text()`."""
        return await self.ask(content, input_id, mode).text()

    # ---- presence

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
