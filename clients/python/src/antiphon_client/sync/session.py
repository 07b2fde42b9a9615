"""A session, with calls that wait instead of coroutines."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from antiphon_client._json import JsonObject
from antiphon_client.attachments import Attachment, Named, Source
from antiphon_client.errors import AntiphonError
from antiphon_client.following import View
from antiphon_client.outbox import Unsent
from antiphon_client.presence import Presence
from antiphon_client.protocol import Cursor, SessionEvent, cursor_after
from antiphon_client.session import Session as AsyncSession
from antiphon_client.state import State
from antiphon_client.steering import Created, HistoryPage, Response
from antiphon_client.transcript import Message

from ._portal import Portal
from ._wrapped import Iteration, Wrapped, one_by_one
from .receipts import Answer, Receipt, Submission

if TYPE_CHECKING:
    from .client import Client

EVENTS_AT_ONCE: Final = 64
"""Events that cross from one thread to the other together: one by one would cost more than they do."""


class Session(Wrapped[AsyncSession]):
    """A session of a `Client`; see `antiphon_client.Session`, whose methods and errors these are.

    Each call that waits takes a `timeout_s` (None: the client's, `math.inf`: none) and raises
    TimeoutError. What was asked for may have been done nevertheless, as when a coroutine is cancelled.
    In the iterations it is the longest wait for one item, None is none, and they can be gone on with.
    """

    __slots__ = ("_client", "_given", "_handled")

    def __init__(self, client: Client, portal: Portal, inner: AsyncSession) -> None:
        super().__init__(portal, inner)
        self._client = client  # a session keeps its client open
        self._handled = None if inner.cursor is None else Cursor.parse(inner.cursor)
        self._given: deque[SessionEvent] = deque()

    # ---- reading

    @property
    def name(self) -> str:
        """The session's name."""
        return self._inner.name

    @property
    def cursor(self) -> str | None:
        """The place after the last event that `events()` gave out; None before the first."""
        return None if self._handled is None else str(self._handled)

    @property
    def state(self) -> State:
        """The folded state, as it stands now."""
        return self._portal.read(lambda: self._inner.view.state)

    @property
    def messages(self) -> list[Message]:
        """The messages, as they stand now."""
        return self._portal.read(lambda: self._inner.messages)

    @property
    def view(self) -> View:
        """`state` and `messages` as they stand now, together."""
        return self._portal.read(lambda: self._inner.view)

    @property
    def error(self) -> AntiphonError | None:
        """Why the session cannot be read; None while it can, or nobody has tried."""
        return self._portal.read(lambda: self._inner.error)

    @property
    def presence(self) -> Presence | None:
        """Who is there, as the gateway said last; None before it did."""
        return self._portal.read(lambda: self._inner.presence)

    @property
    def outbox(self) -> tuple[Unsent, ...]:
        """The submitted messages of which it is not known that they are stored, next first."""
        return self._portal.read(lambda: self._inner.outbox)

    def events(self, *, timeout_s: float | None = None) -> Iteration[SessionEvent]:
        """Iterate over what happens: `Snapshot`, `Entry`, `CaughtUp`, `Gap` and `Reset` objects."""
        stream = self._portal.read(self._inner.events)

        async def pull(ready: deque[SessionEvent]) -> None:
            async for event in stream:
                ready.append(event)
                if len(ready) >= EVENTS_AT_ONCE or not stream.ready:
                    return

        return Iteration(self._portal, pull, timeout_s, ready=self._given, close=stream.close, gave=self.gave)

    def changes(self, *, timeout_s: float | None = None) -> Iteration[View]:
        """Iterate over `view`: as it is now, then whenever something has been folded."""
        return Iteration(self._portal, one_by_one(self._inner.changes()), timeout_s)

    def presence_changes(self, *, timeout_s: float | None = None) -> Iteration[Presence]:
        """Iterate over `presence`: as it is now, then whenever it changes."""
        return Iteration(self._portal, one_by_one(self._inner.presence_changes()), timeout_s)

    def history_pages(
        self, before: int | None = None, limit: int = 50, *, timeout_s: float | None = None
    ) -> Iteration[HistoryPage]:
        """Iterate over the pages of `history`, the newest first."""
        return Iteration(self._portal, one_by_one(self._inner.history_pages(before, limit)), timeout_s)

    def follow(self) -> None:
        """Read the session from now on, if it is not being read."""
        self._portal.read(self._inner.follow)

    def save(self) -> dict[str, object]:
        """All of it, as JSON, for `Client.session(saved=…)` in a later process."""
        return self._portal.read(lambda: self._inner.save_at(self._handled))

    def close(self, *, timeout_s: float | None = None) -> None:
        """Stop reading; a running iteration ends."""
        self._portal.wait(self._inner.close(), timeout_s)

    # ---- messages and answers

    def send(
        self,
        content: str,
        input_id: str | None = None,
        mode: str | None = None,
        *,
        at: datetime | None = None,
        after_s: float | None = None,
        attachments: Iterable[Named] = (),
        trace: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Receipt:
        """Send a message; returns once it is stored."""
        sending = self._inner.send(
            content, input_id, mode, at=at, after_s=after_s, attachments=attachments, trace=trace
        )
        return Receipt(self._portal, self._portal.wait(sending, timeout_s))

    def submit(
        self,
        content: str,
        input_id: str | None = None,
        mode: str | None = None,
        *,
        attachments: Iterable[Named] = (),
    ) -> Submission:
        """Queue a message to be sent as soon as can be; returns at once."""
        submit = partial(self._inner.submit, content, input_id, mode, attachments=attachments)
        return Submission(self._portal, self._portal.read(submit))

    def ask(self, content: str, input_id: str | None = None, mode: str | None = None) -> Answer:
        """Ask the agent: iterate over the `Answer` for its text as it streams, or wait for its `text()`."""
        return Answer(self._portal, self._portal.read(lambda: self._inner.ask(content, input_id, mode)))

    def answer(
        self, content: str, input_id: str | None = None, mode: str | None = None, *, timeout_s: float | None = None
    ) -> str:
        """Ask the agent, and wait for the whole answer."""
        return self._portal.wait(self._inner.answer(content, input_id, mode), timeout_s)

    def set_presence(self, state: str, *, timeout_s: float | None = None) -> None:
        """Say what the user is doing on this device."""
        self._portal.wait(self._inner.set_presence(state), timeout_s)

    # ---- steering

    def cancel_run(self, run_id: str, mode: str | None = None, *, timeout_s: float | None = None) -> str:
        """Stop a run, even before it starts."""
        return self._portal.wait(self._inner.cancel_run(run_id, mode), timeout_s)

    cancel = cancel_run

    def cancel_input(self, input_id: str, *, timeout_s: float | None = None) -> None:
        """Take back an input that still waits."""
        self._portal.wait(self._inner.cancel_input(input_id), timeout_s)

    def history(self, before: int | None = None, limit: int = 50, *, timeout_s: float | None = None) -> HistoryPage:
        """Up to `limit` whole messages that were added before the entry `before`."""
        return self._portal.wait(self._inner.history(before, limit), timeout_s)

    def respond(
        self, approval_id: str, option: str, payload: object = None, *, timeout_s: float | None = None
    ) -> Response:
        """Decide a pending approval, or answer a question."""
        return self._portal.wait(self._inner.respond(approval_id, option, payload), timeout_s)

    def revoke(self, key: str, *, timeout_s: float | None = None) -> None:
        """Have asked again what was decided for always."""
        self._portal.wait(self._inner.revoke(key), timeout_s)

    def claim_handoff(
        self, lane: str = "main", handoff_id: str | None = None, *, timeout_s: float | None = None
    ) -> int | None:
        """Take a lane from its agent; returns the fence under which it is yours."""
        return self._portal.wait(self._inner.claim_handoff(lane, handoff_id), timeout_s)

    def return_handoff(
        self, note: str = "", lane: str = "main", input_id: str | None = None, *, timeout_s: float | None = None
    ) -> str:
        """Give the lane back to the agent; returns the id of the `note` as an input."""
        return self._portal.wait(self._inner.return_handoff(note, lane, input_id), timeout_s)

    def create(
        self,
        title: str | None = None,
        metadata: JsonObject | None = None,
        config: JsonObject | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Created:
        """Say what the session is before anything is written to it."""
        return self._portal.wait(self._inner.create(title, metadata, config), timeout_s)

    def update(
        self,
        title: str | None = None,
        metadata: JsonObject | None = None,
        config: JsonObject | None = None,
        *,
        timeout_s: float | None = None,
    ) -> int | None:
        """Change what is given, and of `config` its fields; returns the entry."""
        return self._portal.wait(self._inner.update(title, metadata, config), timeout_s)

    def close_session(self, *, timeout_s: float | None = None) -> None:
        """Have the session take no inputs, for everybody."""
        self._portal.wait(self._inner.close_session(), timeout_s)

    def reopen_session(self, *, timeout_s: float | None = None) -> None:
        """Have the session take inputs again."""
        self._portal.wait(self._inner.reopen_session(), timeout_s)

    def delete(self, *, timeout_s: float | None = None) -> None:
        """Delete the session, for everybody and for good."""
        self._portal.wait(self._inner.delete(), timeout_s)

    def fork(self, to: str, before: int | None = None, *, timeout_s: float | None = None) -> int:
        """Make the session `to`, which begins with this one's messages before the entry `before`."""
        return self._portal.wait(self._inner.fork(to, before), timeout_s)

    # ---- files

    def upload(
        self,
        source: Source,
        *,
        name: str | None = None,
        media_type: str | None = None,
        attachment_id: str | None = None,
        timeout_s: float | None = None,
    ) -> Attachment:
        """Store a file in the session, for `send(…, attachments=[…])`."""
        uploading = self._inner.upload(source, name=name, media_type=media_type, attachment_id=attachment_id)
        return self._portal.wait(uploading, timeout_s)

    def download(self, attachment: Named, *, limit_bytes: int = 64 << 20, timeout_s: float | None = None) -> bytes:
        """The content of an attachment, checked against its digest."""
        return self._portal.wait(self._inner.download(attachment, limit_bytes=limit_bytes), timeout_s)

    def download_to(self, attachment: Named, path: str | os.PathLike[str], *, timeout_s: float | None = None) -> None:
        """Write an attachment into a file, which is there once it is whole."""
        self._portal.wait(self._inner.download_to(attachment, path), timeout_s)

    def pieces(self, attachment: Named, *, timeout_s: float | None = None) -> Iteration[bytes]:
        """Iterate over the content of an attachment, piece by piece."""
        return Iteration(self._portal, one_by_one(self._inner.pieces(attachment)), timeout_s)

    def attachments(self, *, timeout_s: float | None = None) -> list[Attachment]:
        """All attachments of the session, oldest first."""
        return self._portal.wait(self._inner.attachments(), timeout_s)

    def delete_attachment(self, attachment: Named, *, timeout_s: float | None = None) -> None:
        """Delete one that no message refers to (an admin: any)."""
        self._portal.wait(self._inner.delete_attachment(attachment), timeout_s)

    def stands_for(self, inner: AsyncSession) -> bool:
        """Whether this is the one."""
        return self._inner is inner

    def gave(self, event: SessionEvent) -> None:
        """An event has been given out: `cursor` moves on."""
        self._handled = cursor_after(event, self._handled)
