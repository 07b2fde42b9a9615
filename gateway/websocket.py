"""One client connection: the loop that reads frames and carries out commands."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from dataclasses import dataclass

import orjson
import structlog
from aiohttp import WSMessage, WSMsgType, web

from broker.clock import now_ms
from broker.errors import CloseCode, ErrorCode, LogError, Refused
from gateway import plane, protocol
from gateway.auth import Identity, Right
from gateway.commands import Executor
from gateway.execution import rate_limited, refusing
from gateway.fields import BadFrame
from gateway.limits import TokenBucket
from gateway.outlet import Closing, SocketOutlet
from gateway.presence import Seat
from gateway.protocol import Command
from gateway.reader import SessionReader
from gateway.services import SERVER, Services
from gateway.subscribing import subscribe

_log = structlog.get_logger("antiphon.connection")

_GOODBYE_S = 5.0
"""How long a peer has to take what is unsent, and then the reason why its connection ends."""


@dataclass(frozen=True, slots=True)
class _Subscription:
    reader: SessionReader
    seat: Seat
    task: asyncio.Task[None]


class ClientConnection:
    """Serves one WebSocket. `serve` returns when it has ended; `drain` asks it to."""

    def __init__(self, ws: web.WebSocketResponse, request: web.Request, services: Services) -> None:
        assert request.transport is not None
        self.id = f"c-{secrets.token_hex(5)}"
        self._ws = ws
        self._request = request
        self._services = services
        self._settings = services.settings
        self._outlet = SocketOutlet(request.transport, services.settings)
        self._identity: Identity | None = None
        self._device = self.id
        self._subscriptions: dict[str, _Subscription] = {}
        self._queue: asyncio.Queue[Command] = asyncio.Queue(services.settings.command_queue)
        self._bucket = TokenBucket(
            services.settings.commands_per_second, services.settings.commands_burst, time.monotonic()
        )
        self._bad_frames = 0
        self._refusals = 0
        self._closing: asyncio.Future[Closing] = asyncio.get_running_loop().create_future()
        self._expiry: asyncio.TimerHandle | None = None
        self._tasks = asyncio.TaskGroup()

    async def serve(self, *, log_available: bool = True) -> None:
        """Returns when the connection has ended, from either side. Says so first if the log is away."""
        try:
            await self._greet()
            if not log_available:
                self._send(protocol.log_status(False))
            async with self._tasks:
                self._tasks.create_task(self._execute())
                self._tasks.create_task(self._watch())
                await self._read()
                raise _Ended
        except* Closing as group:
            await self._say_goodbye(_first(group))
        except* _Ended:
            pass
        except* (ConnectionError, TimeoutError):
            # The peer has gone in the middle of something: nothing is owed to it.
            pass
        finally:
            if self._expiry is not None:
                self._expiry.cancel()
            self._outlet.end()

    @property
    def unsent_bytes(self) -> int:
        return self._outlet.unsent_bytes

    def drain(self, retry_after_ms: int) -> None:
        """Sends the client elsewhere."""
        self._close(Closing(CloseCode.DRAINING, "draining", retry_after_ms))

    def tell(self, payload: bytes) -> None:
        """Sends a frame that is no reply."""
        if self._identity is not None:
            self._send(payload)

    # --- reading -------------------------------------------------------------------------------------------------------

    async def _greet(self) -> None:
        """The first frame must be `hello` with a good token. Raises Closing, _Ended."""
        try:
            async with asyncio.timeout(self._settings.hello_timeout_s):
                msg = await self._ws.receive()
        except TimeoutError:
            raise Closing(CloseCode.HELLO_TIMEOUT, "hello_timeout") from None
        hello = self._command(msg)
        if not isinstance(hello, protocol.Hello):
            refusal = Refused(ErrorCode.HELLO_REQUIRED, "the first frame must be `hello`")
            self._refuse(None if hello is None else hello.id, refusal)
            raise Closing(CloseCode.BAD_FRAME, "hello_required")
        token = hello.token or bearer(self._request)
        try:
            if token is None:
                raise Refused(ErrorCode.UNAUTHORIZED, "give a token in `hello` or in the Authorization header")
            self._accept(self._services.authenticator.identify(token))
        except Refused as refusal:
            self._refuse(hello.id, refusal)
            raise Closing(CloseCode.UNAUTHORIZED, "unauthorized") from None
        self._device = hello.device or self.id
        self._send(self._welcome(hello))

    async def _read(self) -> None:
        async for msg in self._ws:
            command = self._command(msg)
            if command is None:
                continue
            wait_s = self._bucket.take(time.monotonic())
            if wait_s or self._queue.full():
                self._refuse(command.id, rate_limited(wait_s or 0.1))
            else:
                if isinstance(command, protocol.Ack):
                    self._acked(command)
                self._queue.put_nowait(command)

    def _command(self, msg: WSMessage) -> Command | None:
        """The command in a message; None if there is none in it. Raises Closing, _Ended."""
        if msg.type is WSMsgType.TEXT:
            try:
                return protocol.parse(msg.data)
            except BadFrame as refusal:
                self._bad_frames += 1
                self._refuse(refusal.id, refusal)
                if self._bad_frames >= self._settings.bad_frames:
                    raise Closing(CloseCode.BAD_FRAME, "bad_frame") from None
                return None
        if msg.type is WSMsgType.BINARY:
            self._refuse(None, Refused(ErrorCode.BAD_JSON, "frames must be text, not binary"))
            raise Closing(CloseCode.BAD_FRAME, "bad_frame")
        raise _Ended

    # --- carrying out --------------------------------------------------------------------------------------------------

    async def _execute(self) -> None:
        """Commands of a connection are carried out one after another, in the order they came."""
        while True:
            command = await self._queue.get()
            # Whoever asks and does not read the answers is not asked for more: replies may be large.
            await self._outlet.uncongested()
            begun = time.monotonic()
            try:
                async with refusing(self._settings.command_timeout_s, self.id, type(command).__name__):
                    reply = await self._carry_out(command)
            except Refused as refusal:
                self._refuse(command.id, refusal)
            else:
                self._send(reply)
            self._services.metrics.carried_out(command, time.monotonic() - begun)

    async def _carry_out(self, command: Command) -> bytes:
        who = self._who()
        match command:
            case protocol.Ping():
                return protocol.pong(command.id, now_ms())
            case protocol.Ack():
                return protocol.ok(command.id)
            case protocol.Subscribe():
                return await self._subscribe(command, who)
            case protocol.Unsubscribe():
                return await self._unsubscribe(command)
            case protocol.PresenceSet():
                return self._set_presence(command, who)
            case protocol.AuthRefresh():
                return self._refresh(command, who)
            case protocol.Hello():
                raise Refused(ErrorCode.BAD_COMMAND, "`hello` has been said already", field="op")
            case plane.SessionList() | plane.HandoffList():
                nobody = Executor(self._device, ())
                return protocol.ok(command.id, **await self._services.commands.carry_out(command, who, nobody))
            case _:
                executor = self._executor(command.session)
                return protocol.ok(command.id, **await self._services.commands.carry_out(command, who, executor))

    def _executor(self, session: str) -> Executor:
        subscription = self._subscriptions.get(session)
        return Executor(self._device, () if subscription is None else subscription.seat.member.tools)

    def _acked(self, command: protocol.Ack) -> None:
        """When it comes, and not in its turn: the time that the commands before it take is not the client's."""
        subscription = self._subscriptions.get(command.session)
        if subscription is not None:
            subscription.reader.acked(command.seq)

    async def _subscribe(self, command: protocol.Subscribe, who: Identity) -> bytes:
        who.require(Right.READ, command.session)
        if command.session in self._subscriptions:
            raise Refused(ErrorCode.ALREADY_SUBSCRIBED, "this connection is subscribed to the session already")
        if len(self._subscriptions) >= self._settings.subscriptions:
            limit = self._settings.subscriptions
            raise Refused(ErrorCode.TOO_MANY_SUBSCRIPTIONS, f"at most {limit} on a connection", limit=limit)
        opened = await subscribe(self._services, self._outlet, command, who, self._device)
        # The reply goes out before the reader's first entry, which its task sends later.
        task = self._tasks.create_task(self._run_reader(command.session, opened.reader))
        # A callback, for a task may be cancelled before it has begun.
        task.add_done_callback(lambda _: opened.end())
        self._subscriptions[command.session] = _Subscription(opened.reader, opened.seat, task)
        return protocol.ok(command.id, session=command.session, epoch=opened.epoch, head=opened.head)

    async def _run_reader(self, session: str, reader: SessionReader) -> None:
        try:
            await reader.run()
        except LogError as error:
            _log.warning("a reader cannot go on", session=session, reason=str(error))
            self._close(Closing(CloseCode.INTERNAL, "internal"))

    async def _unsubscribe(self, command: protocol.Unsubscribe) -> bytes:
        subscription = self._subscriptions.pop(command.session, None)
        if subscription is None:
            raise Refused(ErrorCode.NOT_SUBSCRIBED, "this connection is not subscribed to the session")
        subscription.task.cancel()
        await asyncio.wait([subscription.task])
        return protocol.ok(command.id)

    def _set_presence(self, command: protocol.PresenceSet, who: Identity) -> bytes:
        who.require(Right.READ, command.session)
        subscription = self._subscriptions.get(command.session)
        if subscription is None:
            raise Refused(ErrorCode.NOT_SUBSCRIBED, "this connection is not subscribed to the session")
        subscription.seat.update(state=command.state)
        return protocol.ok(command.id)

    def _refresh(self, command: protocol.AuthRefresh, who: Identity) -> bytes:
        identity = self._services.authenticator.identify(command.token)
        if identity.id != who.id:
            raise Refused(ErrorCode.UNAUTHORIZED, "the new token is of another user")
        for session in self._subscriptions:
            identity.require(Right.READ, session)
        self._accept(identity)
        for session, subscription in self._subscriptions.items():
            tools = subscription.seat.member.tools if identity.may(Right.TOOLS, session) else ()
            subscription.seat.update(name=identity.name, roles=identity.roles, tools=tools)
        return protocol.ok(command.id, token_expires_at=identity.expires_at)

    # --- helpers -------------------------------------------------------------------------------------------------------

    def _who(self) -> Identity:
        assert self._identity is not None
        return self._identity

    def _accept(self, identity: Identity) -> None:
        self._identity = identity
        if self._expiry is not None:
            self._expiry.cancel()
        left_s = identity.expires_at + self._settings.jwt_leeway_s - time.time()
        expired = Closing(CloseCode.TOKEN_EXPIRED, "token_expired")
        self._expiry = asyncio.get_running_loop().call_later(max(0.0, left_s), self._close, expired)

    def _welcome(self, hello: protocol.Hello) -> bytes:
        who, s = self._who(), self._settings
        return orjson.dumps(
            {
                "op": "welcome",
                "id": hello.id,
                "protocol": protocol.PROTOCOL_VERSION,
                "server": SERVER,
                "gateway": self._services.name,
                "connection": self.id,
                "user": {"id": who.id, "name": who.name},
                "token_expires_at": who.expires_at,
                "limits": {
                    "frame_bytes": s.frame_bytes,
                    "input_bytes": s.input_bytes,
                    "subscriptions": s.subscriptions,
                    "commands_per_second": s.commands_per_second,
                    "commands_burst": s.commands_burst,
                },
                "heartbeat_ms": int(s.heartbeat_s * 1000),
            }
        )

    def _send(self, payload: bytes) -> None:
        self._outlet.write(protocol.text_message(payload))

    def _refuse(self, id_: int | None, refusal: Refused) -> None:
        self._services.metrics.refusals.labels(refusal.code.value).inc()
        self._send(protocol.error(id_, refusal))
        self._refusals += 1
        if self._refusals >= self._settings.flood_refusals:
            self._close(Closing(CloseCode.FLOOD, "flood"))

    def _close(self, closing: Closing) -> None:
        if not self._closing.done():
            self._closing.set_result(closing)

    async def _watch(self) -> None:
        """Ends all tasks of the connection when it is to be closed."""
        raise await self._closing

    async def _say_goodbye(self, closing: Closing) -> None:
        self._services.metrics.closes.labels(str(int(closing.code))).inc()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                await self._ws.close(code=closing.code, message=closing.reason())


class _Ended(Exception):
    """The peer has closed the connection, or it broke."""


def _first(group: BaseExceptionGroup[Closing]) -> Closing:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Closing)
    return error


def bearer(request: web.Request) -> str | None:
    """The token in the `Authorization` header."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None
