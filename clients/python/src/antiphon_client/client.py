"""The client: one WebSocket that carries many sessions, and comes back by itself."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version
from types import TracebackType
from typing import Final, Self

import aiohttp

from ._json import JsonObject, as_str
from ._tasks import running
from .connection import Connection, OpeningRefused, gateway_url, http_url, opened
from .deciding import Decide
from .errors import (
    AntiphonError,
    ClientClosed,
    ConnectFailed,
    ConnectionClosed,
    FrameTooLarge,
    Unauthorized,
)
from .frames import auth_refresh, hello
from .hosting import Hosting
from .listing import SessionInfo, WaitingHandoff, listed, waiting_handoffs
from .protocol import Cursor, Welcome
from .reconnect import Action, CloseAdvice
from .saved import Saved
from .session import Session
from .settings import Settings
from .tokens import TokenProvider, Tokens, TokenUnavailable, renewed
from .tools import Tool, declared

logger = logging.getLogger("antiphon_client")

_LOST: Final = CloseAdvice(Action.RECONNECT, None, "lost")
_DEVICE: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Client(Hosting):
    """A connection to Antiphon, kept up for as long as the client is open.

    ::

        async with Client("https://host", token) as client:
            session = client.session("demo")
            receipt = await session.send("Hello")
            async for event in session.events():
                ...

    `url` is a gateway's address, or several that are tried in turn. Give a `token`, or (in its
    place or by name) a function that is asked for one whenever one is needed, or both: then the token is
    tried first. A coroutine function is called in the event loop, any other in a thread.
    `device` (1 to 64 of `A-Z a-z 0-9 _ -`) names this device in presence and to tools that are for
    one device alone; keep it to be the same after a restart. By default each `Client` is another.
    `rand` returns random numbers in [0, 1) for the back-off.

    Entering waits for the first connection (unless `Settings.first_connect_timeout_s` is None); it
    raises `ConnectFailed` or `Unauthorized`, or what the provider raised. From then on losing the connection is nobody's concern: the client comes
    back, reads on after the last entry, and sends again what has no reply yet, with the same
    ids. If a gateway says not to come back, everything that waits raises `ConnectionClosed`.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        token: str | TokenProvider | None = None,
        *,
        token_provider: TokenProvider | None = None,
        name: str | None = None,
        device: str | None = None,
        settings: Settings | None = None,
        rand: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(Settings() if settings is None else settings, rand)
        addresses = [url] if isinstance(url, str) else list(url)
        if not addresses:
            raise ValueError("give the address of at least one gateway")
        self._urls = [gateway_url(address) for address in addresses]
        self._url_index = 0
        if callable(token):
            token, token_provider = None, token
        self._tokens = Tokens(token, token_provider)
        self._name = name or f"antiphon-client/{version('antiphon-client')}"
        self.device = uuid.uuid4().hex if device is None else device
        if _DEVICE.fullmatch(self.device) is None:
            raise ValueError(f"not the name of a device: {self.device!r}")
        self._sessions: dict[str, Session] = {}
        self._welcome: Welcome | None = None
        self._log_away = False
        self._last_error: AntiphonError | None = None
        self._started: asyncio.Event | None = None
        self._stack = AsyncExitStack()
        self._http: aiohttp.ClientSession | None = None

    # ---- lifetime

    async def __aenter__(self) -> Self:
        if self._started is not None:
            raise RuntimeError("a client is entered once")
        self._started = asyncio.Event()
        async with AsyncExitStack() as stack:
            timeout = aiohttp.ClientTimeout(total=None)
            http = self._http = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
            await stack.enter_async_context(running(self._keep_vigil()))
            await stack.enter_async_context(running(self._run(http, self._started)))
            stack.callback(self._fail, ClientClosed("closed", "the client was closed"))
            await stack.enter_async_context(self._beside)
            await self._first_connection(self._started)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # 1. tools let go of their calls; 2. whoever waits learns that it is over; 3. the socket; 4. the HTTP session
        await self._stack.aclose()

    async def _first_connection(self, started: asyncio.Event) -> None:
        if self._settings.first_connect_timeout_s is None:
            return
        try:
            async with asyncio.timeout(self._settings.first_connect_timeout_s):
                await started.wait()
        except TimeoutError:
            last = self._last_error
            text = "no gateway answered in time" if last is None else last.message
            raise ConnectFailed("unreachable", text, retryable=True) from last
        if self._failure is not None:
            raise self._failure

    # ---- use

    @property
    def welcome(self) -> Welcome | None:
        """What the gateway said of itself, its limits and the user; the latest one."""
        return self._welcome

    @property
    def connected(self) -> bool:
        """Whether there is a connection right now."""
        return self._connection is not None

    @property
    def log_away(self) -> bool:
        """Whether the gateway says that it cannot reach the log; reading goes on by itself later."""
        return self._log_away

    def session(
        self,
        name: str,
        cursor: str | None = None,
        *,
        every: bool = False,
        tools: Iterable[Tool] = (),
        watching: bool = True,
        decide: Decide | None = None,
        saved: Mapping[str, object] | None = None,
    ) -> Session:
        """The session of that name; the same object until it is closed.

        `cursor` (stored from `Session.cursor` or `Entry.cursor`) says after which entry to read;
        None begins with a snapshot. `every` asks for each entry that the log still holds, one by
        one, instead of merged text. `tools` are executed here, from now on, when an agent calls them
        and this client is who they are for (with a `cursor`, calls that were open before it are not
        seen). `watching` False says that nobody looks at it (a bot, an export): it does not count as
        presence. `decide` is asked about each approval and question that is pending, from now on.
        `saved` (what `Session.save` returned, in this or an earlier process) goes on from there, and
        sends what had not been sent. None of these is heeded if the session is open already: that is a
        ValueError, as is what may not be declared, `cursor` beside `saved`, and what is not the
        `saved` of this session. Raises `CursorInvalid` if `cursor` is none.
        """
        found, by_name = self._sessions.get(name), declared(tools)
        asked = cursor is not None or every or by_name or not watching or decide is not None or saved is not None
        if found is not None:
            if asked:
                raise ValueError(f"session {name} is open; close it to open it otherwise")
            return found
        if cursor is not None and saved is not None:
            raise ValueError("what is saved has its own cursor")
        after = None if cursor is None else Cursor.parse(cursor)
        known = None if saved is None else Saved.parse(saved, name)
        found = Session(self, name, after, every=every, tools=by_name, watching=watching, decide=decide, saved=known)
        self._sessions[name] = found
        if by_name or decide is not None or (known is not None and known.unsent):
            found.follow()
        return found

    def sessions(self, page_size: int = 50) -> AsyncIterator[SessionInfo]:
        """The sessions that this user created or wrote to, the newest activity first.

        They are asked for a page (of 1 to 200) at a time; raises `CommandRefused`.
        """
        return listed(self.call, page_size)

    async def handoffs(self, limit: int | None = None) -> list[WaitingHandoff]:
        """Up to `limit` (1 to 200, None: 50) hand-overs that wait for this user's roles, oldest first."""
        return await waiting_handoffs(self.call, limit)

    @asynccontextmanager
    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        data: object = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A request to the gateway that the client is connected to, with its token. For the sessions."""
        if self._failure is not None:
            raise self._failure
        assert self._http is not None, "the client is entered"
        try:
            token = await self._tokens.get(time.time())
        except TokenUnavailable as error:
            raise ConnectFailed("no_token", "the token provider failed", retryable=True) from error
        sent = {"Authorization": f"Bearer {token}", **(headers or {})}
        limits = self._settings
        timeout = aiohttp.ClientTimeout(sock_connect=limits.connect_timeout_s, sock_read=limits.transfer_timeout_s)
        url = http_url(self._urls[self._url_index], path)
        async with self._http.request(
            method, url, headers=sent, params=params, data=data, timeout=timeout, allow_redirects=False
        ) as response:
            yield response

    def forget(self, name: str) -> None:
        """The session was closed."""
        self._sessions.pop(name, None)

    # ---- the connection's life

    async def _run(self, http: aiohttp.ClientSession, started: asyncio.Event) -> None:
        """Connect, serve, come back, until that makes no sense any more."""
        try:
            while True:
                advice = await self._attempt(http, started)
                self._is("waiting")
                await self._stay_away(self._pause_s(advice))
        except AntiphonError as error:
            self._fail(error)
        except Exception as error:
            logger.exception("the client has stopped because of a fault in itself")
            self._fault(error)
        finally:
            started.set()

    async def _attempt(self, http: aiohttp.ClientSession, started: asyncio.Event) -> CloseAdvice:
        """One connection, from end to end. Raises what ends the client."""
        url = self._urls[self._url_index]
        self._is("connecting")
        begun_at = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                token = await self._tokens.get(time.time())
            frame = hello(self._commands.next_id(), token, self._name, self.device)
            async with opened(http, url, frame, self._settings) as connection:
                self._tokens.accepted(connection.welcome.token_expires_at)
                self._welcome = connection.welcome
                started.set()
                return await self._serve(connection)
        except OpeningRefused as refused:
            return self._judge(refused.advice, refused.error)
        except ConnectFailed as error:
            self._last_error = error
            if not (error.retryable or started.is_set() or len(self._urls) > 1):
                raise
        except (TokenUnavailable, TimeoutError) as error:
            awaited = not started.is_set() and self._settings.first_connect_timeout_s is not None
            if awaited and isinstance(error.__cause__, Exception):
                raise Unauthorized("token_provider", repr(error.__cause__)) from error.__cause__
            logger.warning("the token provider failed; it will be asked again")
        finally:
            lasted_s = asyncio.get_running_loop().time() - begun_at
            if self._connection is not None and lasted_s >= self._settings.stable_after_s:
                self._backoff.reset()
            self._connection = None
        return _LOST

    async def _serve(self, connection: Connection) -> CloseAdvice:
        """Subscribe, send what waits, and hand out frames until the connection ends."""
        self._connection = connection
        self._log_away = False
        self._commands.connection = connection
        logger.debug("connected: %s", connection.welcome.connection)
        for session in list(self._sessions.values()):
            session.connected()
        self._commands.send_again()
        self._is("connected")
        try:
            advice = await connection.run(self._handle, lambda: self._keep_fresh(connection))
        finally:
            self._commands.lost()
            for session in list(self._sessions.values()):
                session.disconnected()
        return self._judge(advice, None)

    def _judge(self, advice: CloseAdvice, error: AntiphonError | None) -> CloseAdvice:
        """Raise what ends the client, else pass the advice on. `error`: the reply to `hello`."""
        logger.debug("connection ended: %s %s", advice.close_code, advice.code)
        code = advice.code if error is None else error.code
        text = f"closed with {advice.close_code}" if error is None else error.message
        if advice.action is Action.NEW_TOKEN:
            self._tokens.refused(Unauthorized("token_expired", text, close_code=advice.close_code))
        elif code == "unauthorized":
            self._tokens.refused(Unauthorized(code, text, close_code=advice.close_code))
        elif advice.action in (Action.NEVER, Action.DONE):
            raise ConnectionClosed(code, text, close_code=advice.close_code)
        elif advice.close_code == 1009 and advice.code == "frame_too_large":
            # asking for the same page again would only cut the next connection
            self._commands.reject("history", FrameTooLarge("frame_too_large", "ask for fewer messages"))
        return advice

    def _pause_s(self, advice: CloseAdvice) -> float:
        """How long to stay away, and where to go then."""
        limit = self._settings.reconnect_attempts
        if limit is not None and self._backoff.attempts >= limit:
            raise ConnectFailed("unreachable", f"gave up after {limit} attempts in a row")
        self._url_index = (self._url_index + 1) % len(self._urls)
        own_s = self._backoff.next_s(self._rand())
        return own_s if advice.retry_after_s is None else advice.retry_after_s

    async def _handle(self, frame: JsonObject, size_bytes: int) -> None:
        """Give a frame to whom it belongs."""
        op = frame.get("op")
        if op in ("ok", "error"):
            if self._commands.answered(frame):
                self.progressed()
            return
        if op in ("log.away", "log.back"):
            self._log_away = op == "log.away"
            return
        session = self._sessions.get(as_str(frame.get("session")) or "")
        if session is not None:
            await session.accept(frame, size_bytes)

    async def _keep_fresh(self, connection: Connection) -> None:
        """Put a new token in place before the present one expires, as long as it works."""

        async def refresh(token: str) -> JsonObject:
            with self.waiting():
                return await self._commands.once(partial(auth_refresh, token=token))

        while connection is self._connection and await renewed(self._tokens, self._settings.refresh_before_s, refresh):
            pass

    def _fail(self, error: AntiphonError) -> None:
        if self._failure is not None:
            return
        super()._fail(error)
        for session in list(self._sessions.values()):
            session.fail(error)
