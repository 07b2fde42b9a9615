"""One session's presence, as one process follows it: what it announces, asks and hears (`broker.jetstream.presence`)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from broker.errors import CodecError, LogError, Unavailable
from broker.presence import Announcement, Board, Member, Present, decode, encode
from broker.subjects import SessionSubjects

if TYPE_CHECKING:
    from broker.jetstream.presence import NatsPresence

_log = structlog.get_logger("antiphon.presence")

_ANSWER_WAIT_S: Final = 0.5
"""How long the answers to a question may take; then it is asked again, `_ASKS` times in all."""
_ASKS: Final = 3
_ANSWER_EVERY_S: Final = 0.2
"""Questions that come closer together get one answer."""
_PENDING: Final = 1024
_PENDING_BYTES: Final = 32 << 20
"""Announcements that wait to be read; beyond that they are dropped, and asked for again."""


class PresenceRoom:
    """One session, as this process follows it (`PresenceWatch`, `Attendance`)."""

    def __init__(self, presence: NatsPresence, subjects: SessionSubjects, on_change: Callable[[], None]) -> None:
        self.session = subjects.key
        self._presence = presence
        self._subjects = subjects
        self._on_change = on_change
        self._board = Board()
        self._sub: Subscription | None = None
        self._closed = False
        self._own: Announcement | None = None
        self._own_due = False
        self._own_sent_at = 0.0
        self._ask_due = True
        self._asked = 0
        self._answered: set[str] = set()
        self._missing: frozenset[str] = frozenset()
        self._ready = asyncio.Event()
        self._version = self._version_seen = 0
        self._change = asyncio.Event()
        self._answering: asyncio.TimerHandle | None = None
        self._awaiting: asyncio.TimerHandle | None = None
        self._expiring: asyncio.TimerHandle | None = None

    # --- for who looks -----------------------------------------------------------------------------------------------

    @property
    def participants(self) -> tuple[Present, ...]:
        return self._board.participants if self._ready.is_set() else ()

    @property
    def more(self) -> int:
        return self._board.more

    @property
    def is_ready(self) -> bool:
        return self._ready.is_set()

    async def ready(self) -> None:
        await self._ready.wait()

    async def changed(self) -> None:
        while self._version == self._version_seen:
            self._change.clear()
            await self._change.wait()
        self._version_seen = self._version

    def announce(self, members: tuple[Member, ...], more: int) -> None:
        presence = self._presence
        self._own = Announcement(presence.gateway, members, more, presence.life_s, presence.grace_s)
        self._own_due = True
        presence.say(self)
        # Who announces looks at the result next: no call of `on_change`.
        if self._board.take(self._own):
            self._version += 1
            self._change.set()

    # --- for NatsPresence ----------------------------------------------------------------------------------------------

    def follows(self, sub: Subscription) -> bool:
        return self._sub is sub

    async def speak(self) -> None:
        """Sends what is due. Raises Unavailable: it is still due then."""
        connection = self._presence.connection
        if self._sub is None:
            subject = self._subjects.presence_all if self._presence.gateway else self._subjects.presence
            self._sub = await connection.subscribe(
                subject, self._on_message, max_messages=_PENDING, max_bytes=_PENDING_BYTES
            )
            if self._closed:
                await connection.unsubscribe(self._sub)
                return
        await self._speak_own()
        if self._ask_due:
            # After the subscription, on the same connection: what is answered is heard.
            await connection.send(self._subjects.presence_ask, self._presence.gateway.encode())
            self._ask_due = False
            self._asked += 1
            self._await_answers()

    async def close(self) -> None:
        """Sends what is due, if that can be, and listens no more."""
        self._closed = True
        for timer in (self._answering, self._awaiting, self._expiring):
            if timer is not None:
                timer.cancel()
        with suppress(LogError):
            await self._speak_own()
        if self._sub is not None:
            await self._presence.connection.unsubscribe(self._sub)

    def ask(self) -> None:
        """Asks the gateways again; those that do not answer have nobody here any more."""
        if not self._ask_due:
            self._ask_due = True
            self._asked = 0
            self._presence.say(self)

    def start_again(self) -> None:
        """Others may have missed what we said, and we what they did."""
        self._own_due = self._own is not None
        self.ask()
        self._presence.say(self)

    def lose(self, gateway: str) -> None:
        self._settle(self._board.lose(gateway, time.monotonic()))

    async def _speak_own(self) -> None:
        if self._own is not None and self._own_due:
            self._own_due = False
            try:
                await self._presence.connection.send(self._subjects.presence, encode(self._own))
            except Unavailable:
                self._own_due = True
                raise
            self._own_sent_at = time.monotonic()

    # --- what comes in -------------------------------------------------------------------------------------------------

    async def _on_message(self, msg: Msg) -> None:
        if self._closed:
            return
        if msg.subject == self._subjects.presence_ask:
            if msg.data.decode("utf-8", "replace") != self._presence.gateway:
                self._answer_soon()
            return
        try:
            announcement = decode(msg.data)
        except CodecError as error:
            _log.warning("an announcement was ignored", session=self.session, reason=str(error))
            return
        if announcement.gateway == self._presence.gateway:
            return
        self._presence.heard(announcement.gateway, announcement.life_s)
        self._answered.add(announcement.gateway)
        changed = self._board.take(announcement)
        if not self._ready.is_set() and self._asked and self._presence.all_among(self._answered):
            self._become_ready()
        self._settle(changed)

    def _answer_soon(self) -> None:
        if self._own is None or self._own_due or self._answering is not None:
            return
        wait_s = max(0.0, self._own_sent_at + _ANSWER_EVERY_S - time.monotonic())
        self._answering = asyncio.get_running_loop().call_later(wait_s, self._answer)

    def _answer(self) -> None:
        self._answering = None
        self._own_due = True
        self._presence.say(self)

    def _await_answers(self) -> None:
        if self._asked == 1:
            self._answered.clear()
            self._missing = self._board.gateways - {self._presence.gateway}
        if self._awaiting is not None:
            self._awaiting.cancel()
        self._awaiting = asyncio.get_running_loop().call_later(_ANSWER_WAIT_S, self._count_answers)
        if not self._ready.is_set() and self._presence.all_among(self._answered):
            self._become_ready()

    def _count_answers(self) -> None:
        self._awaiting = None
        if not self._ready.is_set():
            self._become_ready()
        missing = self._missing - self._answered
        if missing and self._asked < _ASKS:
            self._ask_due = True
            self._presence.say(self)
            return
        for gateway in missing:
            self.lose(gateway)

    def _become_ready(self) -> None:
        self._ready.set()
        self._settle(True)

    def _settle(self, changed: bool) -> None:
        """After anything that may have changed the board."""
        if self._expiring is not None:
            self._expiring.cancel()
            self._expiring = None
        if not self._closed and (due := self._board.due) is not None:
            wait_s = max(0.0, due - time.monotonic())
            self._expiring = asyncio.get_running_loop().call_later(wait_s, self._expire)
        if changed:
            self._version += 1
            self._change.set()
            self._on_change()

    def _expire(self) -> None:
        self._expiring = None
        self._settle(self._board.expire(time.monotonic()))
