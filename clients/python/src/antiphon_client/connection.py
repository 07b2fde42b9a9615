"""One WebSocket: opening it, reading it, writing to it at a fitting pace, noticing its death.

A connection lives inside `Connection.run` and is never used again. Coming back is the job of
the client. Errors of aiohttp are translated here and nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from ._json import JsonObject, as_str, encode, parse_object
from .bell import Bell
from .errors import AntiphonError, ConnectFailed, FrameTooLarge, Unauthorized, refusal
from .liveness import SOMEWHERE, Address
from .protocol import CONNECT_PATH, SUBPROTOCOL, Welcome
from .reconnect import Action, CloseAdvice, Pacer, classify_close
from .settings import Settings

logger = logging.getLogger("antiphon_client")

HEARTBEATS_MISSED: Final = 2
"""So many heartbeats without any frame mean that the socket is dead (PROTOCOL, section 1)."""

_FINAL_STATUS: Final = frozenset({400, 404, 405, 406, 410, 421, 426})
"""HTTP answers to the upgrade that say: there is no gateway at this address."""

_ABRUPT: Final = CloseAdvice(Action.RECONNECT, None, "lost")
_TOO_BIG: Final = CloseAdvice(Action.RECONNECT, 1009, "frame_too_large")


@dataclass(slots=True)
class Outgoing:
    """A command on its way. `fail` takes the error of one that cannot be sent."""

    frame: JsonObject
    fail: Callable[[AntiphonError], None]
    dropped: bool = False
    """Nobody waits for it any more, so it need not be sent."""
    sends: int = 0


class OpeningRefused(Exception):
    """The gateway answered, but not with `welcome`. Stays inside the package."""

    def __init__(self, advice: CloseAdvice, error: AntiphonError | None = None) -> None:
        super().__init__(advice.code)
        self.advice = advice
        self.error = error


def gateway_url(text: str) -> str:
    """The address to connect to: `http(s)` or `ws(s)`, with the path of section 1 if it has none.

    Raises ValueError for what is no such address.
    """
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https", "ws", "wss") or not parts.hostname:
        raise ValueError(f"not the address of a gateway: {text!r}")
    return urlunsplit(parts._replace(path=CONNECT_PATH)) if parts.path in ("", "/") else text


def http_url(gateway: str, path: str) -> str:
    """The address of a path of the HTTP API at a gateway, whose address is that of its WebSocket."""
    parts = urlsplit(gateway)
    before = parts.path.removesuffix(CONNECT_PATH) if parts.path.endswith(CONNECT_PATH) else ""
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    return urlunsplit((scheme, parts.netloc, before + path, "", ""))


def _origin(url: str) -> str:
    """The part of an address that may be shown: without path, query and user."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


class Connection:
    """An open, welcomed connection; made by `opened`."""

    def __init__(
        self,
        socket: aiohttp.ClientWebSocketResponse,
        welcome: Welcome,
        settings: Settings,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.welcome = welcome
        self._socket = socket
        self._settings = settings
        self._now = loop.time
        self._pacer = Pacer(welcome.limits.commands_per_second, welcome.limits.commands_burst)
        self._outbox: deque[Outgoing] = deque()
        self._to_write = asyncio.Event()
        self._heard_at = loop.time()
        self._paused = False
        self._resumed = asyncio.Event()
        self._dead = False
        self._doubts = asyncio.Event()
        self._heard = Bell()
        self._pings = 0
        self._unanswered = b""
        """The ping that has no answer yet."""

    @property
    def peer(self) -> Address:
        """Where the socket leads: the gateway's address, or that of what stands before it."""
        name = self._socket.get_extra_info("peername")
        return SOMEWHERE if not isinstance(name, tuple) else (str(name[0]), int(name[1]))

    def post(self, outgoing: Outgoing) -> None:
        """Queue a command. How many there are is bounded by the client.

        `Settings.pending_commands`, one for each session, and one for the token.
        """
        self._outbox.append(outgoing)
        self._to_write.set()

    async def pause(self) -> None:
        """Called by whoever handles a frame: leave the socket unread until `resume`."""
        self._resumed.clear()
        self._paused = True
        try:
            await self._resumed.wait()
        finally:
            self._paused = False
            self._heard_at = self._now()

    def doubt(self) -> None:
        """Ask for a sign of life now; the connection is cut if none comes within `liveness_timeout_s`."""
        self._doubts.set()

    def resume(self) -> None:
        """Go on reading, if paused."""
        self._resumed.set()

    async def run(
        self,
        handle: Callable[[JsonObject, int], Awaitable[None]],
        companion: Callable[[], Awaitable[None]],
    ) -> CloseAdvice:
        """Hand each frame and its size in bytes to `handle`, until the connection ends.

        `companion` runs beside it and is cancelled with it. Returns what the end says to do.
        """
        async with asyncio.TaskGroup() as group:
            helpers = [
                group.create_task(self._write()),
                group.create_task(self._watch()),
                group.create_task(_as_coroutine(companion)),
            ]
            try:
                return await self._read(handle)
            finally:
                for helper in helpers:
                    helper.cancel()

    async def _read(self, handle: Callable[[JsonObject, int], Awaitable[None]]) -> CloseAdvice:
        while True:
            message = await self._socket.receive()
            self._heard_at = self._now()
            if message.type is aiohttp.WSMsgType.PONG and bytes(message.data) == self._unanswered:
                self._unanswered = b""
            self._heard.ring()
            match message.type:
                case aiohttp.WSMsgType.TEXT:
                    frame = parse_object(message.data)
                    if frame is None:
                        logger.warning("closing: the gateway sent a frame that is no JSON object")
                        return _ABRUPT
                    await handle(frame, len(message.data))
                case aiohttp.WSMsgType.PING:
                    await self._pong(message.data)
                case aiohttp.WSMsgType.PONG | aiohttp.WSMsgType.BINARY:
                    pass  # a version to come may have a use for them
                case _:
                    return _ABRUPT if self._dead else ending(message)

    async def _pong(self, data: bytes) -> None:
        try:
            await self._socket.pong(data)
        except (aiohttp.ClientError, OSError):
            logger.debug("a ping could not be answered; the next read tells why")

    async def _write(self) -> None:
        while True:
            while not self._outbox:
                self._to_write.clear()
                await self._to_write.wait()
            outgoing = self._outbox.popleft()
            if outgoing.dropped:
                continue
            text = encode(outgoing.frame)
            if self._too_large(text):
                outgoing.fail(FrameTooLarge("frame_too_large", "over limits.frame_bytes"))
                continue
            pause_s = self._pacer.reserve_s(self._now())
            if pause_s > 0:
                await asyncio.sleep(pause_s)
            outgoing.sends += 1
            try:
                await self._socket.send_str(text)
            except (aiohttp.ClientError, OSError):
                return  # the reader finds out why; what was not sent stays with the client

    def _too_large(self, text: str) -> bool:
        limit = self.welcome.limits.frame_bytes
        return len(text) > limit or (len(text) * 4 > limit and len(text.encode()) > limit)

    async def _watch(self) -> None:
        """Cut the connection if nothing at all has been heard for too long, or when it is in doubt."""
        limit_s = HEARTBEATS_MISSED * self.welcome.heartbeat_s
        alive = True
        while alive:
            silent_s = 0.0 if self._paused else self._now() - self._heard_at
            try:
                async with asyncio.timeout(limit_s - silent_s):
                    await self._doubts.wait()
            except TimeoutError:
                alive = self._paused or self._now() - self._heard_at < limit_s
            else:
                self._doubts.clear()
                alive = await self._answers()
        logger.warning("connection %s is dead", self.welcome.connection)
        self._dead = True
        await shut(self._socket, self._settings.close_timeout_s)

    async def _answers(self) -> bool:
        """Whether a ping is answered. A paused reader hears nothing: that is no sign.

        What had come, or was on its way, before the gateway fell silent is no answer; while it comes there is time.
        """
        self._pings += 1
        self._unanswered = b"%d" % self._pings
        try:
            async with asyncio.timeout(self._settings.liveness_timeout_s):
                await self._socket.ping(self._unanswered)
            while self._unanswered:
                async with asyncio.timeout(self._settings.liveness_timeout_s):
                    await self._heard.wait()
        except TimeoutError:
            return self._paused
        except (aiohttp.ClientError, OSError):
            return True  # the reader finds out why
        return True


async def _as_coroutine(work: Callable[[], Awaitable[None]]) -> None:
    await work()


@asynccontextmanager
async def opened(
    http: aiohttp.ClientSession, url: str, hello_frame: JsonObject, settings: Settings
) -> AsyncIterator[Connection]:
    """Connect and say hello; on the way out the socket is closed.

    Raises `OpeningRefused` (the gateway said no), `ConnectFailed` (it could not be reached; if
    `retryable` is False, there is none at this address). Takes `connect_timeout_s` at most.
    """
    try:
        async with asyncio.timeout(settings.connect_timeout_s):
            socket = await _upgrade(http, url, settings)
    except TimeoutError:
        raise ConnectFailed("connect_timeout", f"no answer from {_origin(url)}", retryable=True) from None
    try:
        try:
            async with asyncio.timeout(settings.connect_timeout_s):
                welcome = await _greet(socket, hello_frame)
        except TimeoutError:
            raise ConnectFailed("connect_timeout", f"no welcome from {_origin(url)}", retryable=True) from None
        yield Connection(socket, welcome, settings)
    finally:
        await shut(socket, settings.close_timeout_s)


async def _upgrade(http: aiohttp.ClientSession, url: str, settings: Settings) -> aiohttp.ClientWebSocketResponse:
    try:
        return await http.ws_connect(
            url,
            protocols=(SUBPROTOCOL,),
            autoping=False,  # so that a ping counts as a sign of life
            max_msg_size=settings.max_frame_bytes,
            timeout=aiohttp.ClientWSTimeout(ws_close=settings.close_timeout_s),
        )
    except aiohttp.WSServerHandshakeError as error:
        text = f"{_origin(url)} answered {error.status} to the upgrade"
        if error.status in (401, 403):
            refused = Unauthorized("unauthorized", text)
            raise OpeningRefused(classify_close(4401), refused) from None
        final = error.status in _FINAL_STATUS
        raise ConnectFailed("upgrade_refused", text, retryable=not final) from None
    except (aiohttp.ClientError, OSError) as error:
        text = f"{_origin(url)}: {str(error) or type(error).__name__}"
        raise ConnectFailed("unreachable", text, retryable=True) from error


async def _greet(socket: aiohttp.ClientWebSocketResponse, hello_frame: JsonObject) -> Welcome:
    """Send `hello` and wait for its answer; whatever else comes first is ignored."""
    error: AntiphonError | None = None
    try:
        await socket.send_str(encode(hello_frame))
    except (aiohttp.ClientError, OSError):
        raise OpeningRefused(_ABRUPT) from None
    while True:
        message = await socket.receive()
        if message.type is aiohttp.WSMsgType.PING:
            await socket.pong(message.data)
        elif message.type is aiohttp.WSMsgType.TEXT:
            frame = parse_object(message.data) or {}
            if as_str(frame.get("op")) == "welcome":
                return Welcome.parse(frame)
            if as_str(frame.get("op")) == "error":
                error = refusal(frame)  # the close that follows says what to do
        elif message.type not in (aiohttp.WSMsgType.PONG, aiohttp.WSMsgType.BINARY):
            raise OpeningRefused(ending(message), error)


def ending(message: aiohttp.WSMessage) -> CloseAdvice:
    """What the last message of a socket says to do."""
    if message.type is aiohttp.WSMsgType.CLOSE:
        reason = message.extra if isinstance(message.extra, str) else ""
        return classify_close(message.data, reason)
    error = message.data if message.type is aiohttp.WSMsgType.ERROR else None
    if isinstance(error, aiohttp.WebSocketError) and error.code == _TOO_BIG.close_code:
        return _TOO_BIG
    return _ABRUPT


async def shut(socket: aiohttp.ClientWebSocketResponse, timeout_s: float) -> None:
    """Close a socket, politely if that is quick."""
    try:
        async with asyncio.timeout(2 * timeout_s):
            await socket.close()
    except TimeoutError:
        logger.debug("the closing handshake took too long; the socket was cut")
