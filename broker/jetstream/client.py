"""nats-py's client, with a short way for the messages of live sessions.

nats-py parses each message with regular expressions, makes an object and a dictionary of headers of it, and puts it into
a queue of its subscription, from where a task takes it. For what a gateway gets most of, the entries of live sessions,
that is more than half of all it costs to pass them on (ADR 29). Here they are cut out of what the socket gave, and the
handler of their subscription is called with the bytes. Everything else goes nats-py's way.

This relies on parts of nats-py that it does not promise: `Parser.parse`, `reset`, `buf`, `state` and `needed`, and in the client `_ps`, `_sid`
(the number of the newest subscription), `_process_msg` and `_remove_sub`. `tests/integration/test_connection.py` fails
if they change.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog
from nats.aio.subscription import Subscription
from nats.protocol.parser import AWAITING_CONTROL_LINE, MAX_CONTROL_LINE_SIZE, Parser

from broker.config import NatsSettings
from broker.jetstream.strict import StrictClient

_log = structlog.get_logger("antiphon.nats")

_LINE_END = b"\r\n"

LiveHandler = Callable[[bytes, bytes], None]
"""Called with the headers of a message, as they came, and its payload. It must not wait, nor take long."""


_LIVE = b"HMSG live."
"""How a message of a live session begins on the wire: it has headers."""
_WORDS = 4
"""Of the line that begins it: subject, number of the subscription, size of the headers, size in all. No reply."""
_SHORT_WAY_BYTES = 1 << 18
"""A message that is longer is gathered by nats-py, which copies less."""


class LiveParser(Parser):
    """Cuts out messages of live sessions, and gives nats-py all else, message by message."""

    def __init__(self, client: LiveClient) -> None:
        self._partial = b""
        super().__init__(client)

    def reset(self) -> None:
        """For a new connection."""
        self._partial = b""
        super().reset()

    async def parse(self, data: bytes = b"") -> None:
        if self._partial:
            data, self._partial = self._partial + data, b""
        at = 0
        while at < len(data):
            if not self._amid():
                at, more = self._take(data, at)
                if more:
                    self._partial = data[at:]
                    return
            end = self._end_of_part(data, at)
            if at < end:
                await super().parse(data[at:end])
                at = end

    def _amid(self) -> bool:
        """nats-py has the beginning of something."""
        return bool(self.buf) or self.state != AWAITING_CONTROL_LINE

    def _end_of_part(self, data: bytes, at: int) -> int:
        """How far nats-py can go without getting at the next message: to the end of a line, or of a payload."""
        if self.state == AWAITING_CONTROL_LINE:
            end = data.find(_LINE_END, at)
            return len(data) if end < 0 else end + len(_LINE_END)
        return min(len(data), at + self.needed + len(_LINE_END) - len(self.buf))

    def _take(self, data: bytes, at: int) -> tuple[int, bool]:
        """Hands over the messages of live sessions that stand at `at`: where they end, and whether what follows is the
        beginning of another one.
        """
        handlers = self.nc.live_handlers
        while data.startswith(_LIVE, at):
            end = data.find(_LINE_END, at)
            if end < 0:
                return at, len(data) - at < MAX_CONTROL_LINE_SIZE
            words = data[at + 5 : end].split(b" ")
            handler = handlers.get(int(words[1])) if len(words) == _WORDS else None
            if handler is None:
                return at, False
            body, stop = end + 2 + int(words[2]), end + 2 + int(words[3])
            if len(data) < stop + 2:
                return at, stop - at < _SHORT_WAY_BYTES
            try:
                handler(data[end + 2 : body], data[body:stop])
            except Exception:  # noqa: BLE001 (a fault in one session must not end the connection of all)
                _failed()
            at = stop + 2
        return at, False


class LiveClient(StrictClient):
    """A client that can also subscribe without a queue."""

    def __init__(self, settings: NatsSettings) -> None:
        super().__init__(settings)
        self.live_handlers: dict[int, LiveHandler] = {}
        """By the number of their subscription."""
        self._ps = LiveParser(self)

    async def subscribe_live(self, subject: str, handler: LiveHandler) -> Subscription:
        """Calls `handler` for each message, in order, as it is read from the socket. Nothing is dropped here: what the
        handler keeps is bounded by the handler.
        """
        # Nothing runs between here and the number's being taken.
        sid = self._sid + 1
        self.live_handlers[sid] = handler
        sub = await self.subscribe(subject)
        assert sub._id == sid  # noqa: SLF001 (see above)
        return sub

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        handler = self.live_handlers.get(sid)
        if handler is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        try:
            handler(headers or b"", data)
        except Exception:  # noqa: BLE001 (see above)
            _failed()

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        self.live_handlers.pop(sid, None)
        super()._remove_sub(sid, max_msgs)


def _failed() -> None:
    _log.exception("a live message could not be taken")
