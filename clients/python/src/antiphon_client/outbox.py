"""Messages that wait to be sent: kept in order, through outages, also before the first connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ._json import JsonObject, as_object, as_str, as_strings
from ._trace import headers_of
from .errors import UNDELIVERABLE, AntiphonError, CommandQueueFull, ConnectionClosed
from .receipts import Receipt
from .reconnect import full_jitter_s
from .rules.names import RUN_PREFIX

logger = logging.getLogger("antiphon_client")

_PASSING: Final = frozenset({"rate_limited", "unavailable", "internal", "command_queue_full"})
"""What says nothing of the message: it is sent again, however often."""


@dataclass(frozen=True, slots=True)
class Unsent:
    """A message of which it is not known that it is stored; `trace` has the headers of the span that it is a part of.

    `attachments` are the ids of what belongs to it.
    """

    input_id: str
    content: str
    mode: str | None = None
    trace: Mapping[str, str] = field(default_factory=dict)
    attachments: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, raw: JsonObject) -> Unsent | None:
        """Read what `as_dict` has written; None if it is none."""
        input_id, content = as_str(raw.get("inputId")), as_str(raw.get("content"))
        if input_id is None or content is None:
            return None
        trace, attachments = headers_of(as_object(raw.get("trace")) or {}), as_strings(raw.get("attachments"))
        return cls(input_id, content, as_str(raw.get("mode")), trace, attachments)

    def as_dict(self) -> dict[str, object]:
        """Ready for JSON."""
        about = {"inputId": self.input_id, "content": self.content, "mode": self.mode, "trace": dict(self.trace)}
        return about | ({"attachments": list(self.attachments)} if self.attachments else {})


class Submission:
    """A message in the outbox; made by `Session.submit()`."""

    __slots__ = ("_changed", "_error", "_receipt", "_unsent")

    def __init__(self, unsent: Unsent) -> None:
        self._unsent = unsent
        self._changed = asyncio.Event()
        self._receipt: Receipt | None = None
        self._error: AntiphonError | None = None

    @property
    def input_id(self) -> str:
        """The id of the input."""
        return self._unsent.input_id

    @property
    def run_id(self) -> str:
        """The run that the input starts; it can be cancelled before it exists."""
        return RUN_PREFIX + self._unsent.input_id

    @property
    def receipt(self) -> Receipt | None:
        """The receipt, once the message is stored; None before."""
        return self._receipt

    async def stored(self) -> Receipt:
        """Wait until the message is stored; raises its refusal, or `ClientClosed`. Cancelling the wait is safe."""
        await self._changed.wait()
        if self._error is not None:
            raise self._error
        assert self._receipt is not None, "else there would be an error"
        return self._receipt

    def settle(self, found: Receipt | AntiphonError) -> None:
        """The message is stored, or will not be."""
        if isinstance(found, Receipt):
            self._receipt, self._error = found, None
        else:
            self._error = found
        self._changed.set()


class Outbox:
    """The messages of one session, sent one after the other. `run` lives as long as the session is open."""

    def __init__(
        self,
        send: Callable[[Unsent], Awaitable[Receipt]],
        limit: int,
        rand: Callable[[], float],
    ) -> None:
        self._send = send
        self._limit = limit
        self._rand = rand
        self._waiting: dict[str, tuple[Unsent, Submission]] = {}
        self._added = asyncio.Event()
        self._error: AntiphonError | None = None

    @property
    def waiting(self) -> tuple[Unsent, ...]:
        """What is not known to be stored, next first."""
        return tuple(unsent for unsent, _ in self._waiting.values())

    def add(self, unsent: Unsent) -> Submission:
        """Queue a message; one with the same id is the same. Raises `CommandQueueFull`."""
        if self._error is not None:
            raise self._error
        if unsent.input_id in self._waiting:
            return self._waiting[unsent.input_id][1]
        if len(self._waiting) >= self._limit:
            raise CommandQueueFull("outbox_full", "too many messages wait to be sent", retryable=True)
        submission = Submission(unsent)
        self._waiting[unsent.input_id] = (unsent, submission)
        self._added.set()
        return submission

    async def run(self) -> None:
        """Send what waits, and what comes, until cancelled or the client has stopped."""
        try:
            while True:
                self._added.clear()
                while self._waiting:
                    unsent, submission = next(iter(self._waiting.values()))
                    found = await self._sent(unsent)
                    submission.settle(found)
                    del self._waiting[unsent.input_id]
                await self._added.wait()
        except _Stopped as stopped:
            self.fail(stopped.error)

    async def _sent(self, unsent: Unsent) -> Receipt | AntiphonError:
        attempt = 0
        while True:
            try:
                return await self._send(unsent)
            except AntiphonError as error:
                if isinstance(error, ConnectionClosed) and error.code != UNDELIVERABLE:
                    raise _Stopped(error) from error
                if error.code not in _PASSING:
                    logger.debug("input %s is refused: %s", unsent.input_id, error.code)
                    return error
            await asyncio.sleep(full_jitter_s(attempt, self._rand()))
            attempt += 1

    def fail(self, error: AntiphonError) -> None:
        """Nothing is sent any more: whoever waits learns why. What waits stays to be read."""
        if self._error is None:
            self._error = error
        for _, submission in self._waiting.values():
            submission.settle(error)


class _Stopped(Exception):
    """The client, or the session, has stopped. Stays inside this module."""

    def __init__(self, error: AntiphonError) -> None:
        super().__init__(error.code)
        self.error = error
