"""One client connection: the loop that reads frames and carries out commands."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Coroutine
from dataclasses import dataclass

import structlog
from aiohttp import WSMessage, WSMsgType, web

from broker.clock import now_ms
from broker.errors import CloseCode, ErrorCode, LogError, Refused
from gateway import plane, protocol
from gateway.auth import Identity, Right
from gateway.commands import Executor
from gateway.execution import refusing
from gateway.fields import BadFrame
from gateway.heartbeat import Heartbeat
from gateway.limits import Limit, Place, TokenBucket, rate_limited
from gateway.outlet import Closing, SocketOutlet, first_of, not_greeted
from gateway.pacing import paced
from gateway.presence import Seat
from gateway.protocol import Command
from gateway.reader import SessionReader
from gateway.services import Services
from gateway.subscribing import subscribe
from gateway.waiting import WaitingCommands
from gateway.welcome import welcome

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

    def __init__(
        self, ws: web.WebSocketResponse, request: web.Request, services: Services, address: str, greeting: Place
    ) -> None:
        """`greeting` is its place among those who have not said who they are: it is left when that has been said."""
        assert request.transport is not None
        self.id = f"c-{secrets.token_hex(5)}"
        self._ws = ws
        self._request = request
        self._address = address
        self._greeting = greeting
        self._place: Place | None = None
        self._services = services
        self._settings = services.settings
        self._outlet = SocketOutlet(request.transport, services.settings)
        every_s, patience_s = services.settings.heartbeat_s, services.settings.slow_reader_s
        self._paced = paced(request.protocol)
        self._heartbeat = Heartbeat(request.transport, every_s, patience_s, self._outlet.write, self._paced)
        self._identity: Identity | None = None
        self._device = self.id
        self._subscriptions: dict[str, _Subscription] = {}
        self._commands = WaitingCommands(services.settings.command_queue, services.settings.command_queue_bytes)
        self._executing: asyncio.Task[None] | None = None
        settings, now = services.settings, time.monotonic()
        self._bucket = TokenBucket(settings.commands_per_second, settings.commands_burst, now)
        self._bytes = TokenBucket(settings.bytes_per_second, settings.bytes_burst, now)
        self._refusals = TokenBucket(settings.flood_refusals / settings.flood_s, settings.flood_refusals, now)
        """What is left of it before refusals are a flood."""
        self._bad_frames = 0
        self._closing: Closing | None = None
        self._serving = False
        self._expiry: asyncio.TimerHandle | None = None
        self._tasks = asyncio.TaskGroup()

    async def serve(self, *, log_available: bool = True) -> None:
        """Returns when the connection has ended, from either side. Says so first if the log is away."""
        self._heartbeat.start()
        try:
            await self._greet()
            if not log_available:
                self._send(protocol.log_status(False))
            async with self._tasks:
                self._serving = True
                if self._closing is not None:
                    raise self._closing
                await self._read()
                await self._end_tasks()
        except* Closing as group:
            await self._say_goodbye(first_of(group))
        except* _Ended:
            pass
        except* (ConnectionError, TimeoutError):
            # The peer has gone in the middle of something: nothing is owed to it.
            pass
        finally:
            self._serving = False
            self._heartbeat.stop()
            if self._place is not None:
                self._place.leave()
            if self._expiry is not None:
                self._expiry.cancel()
            self._outlet.end()
            # A task keeps its cancellation, and that the frame in which it came: of this connection, to which it belongs.
            self._subscriptions.clear()
            self._executing = None

    @property
    def unsent_bytes(self) -> int:
        return self._outlet.unsent_bytes

    @property
    def who(self) -> Identity | None:
        return self._identity

    def drain(self, retry_after_ms: int) -> None:
        """Sends the client elsewhere."""
        self._close(Closing(CloseCode.DRAINING, "draining", retry_after_ms))

    def tell(self, payload: bytes) -> None:
        """Sends a frame that is no reply."""
        if self._identity is not None:
            self._send(payload)

    def recheck(self) -> None:
        """Ends the connection if its token is revoked, and the subscriptions that the token does not allow any more."""
        who = self._identity
        if who is None:
            return
        if who.is_revoked:
            self._close(Closing(CloseCode.TOKEN_REVOKED, "token_revoked"))
            return
        for session in tuple(self._subscriptions):
            try:
                who.require(Right.READ, session)
            except Refused as refusal:
                self._end(session, protocol.unsubscribed(session, refusal))

    # --- reading -------------------------------------------------------------------------------------------------------

    async def _greet(self) -> None:
        """The first frame must be `hello` with a good token. Raises Closing, _Ended."""
        try:
            async with asyncio.timeout(self._settings.hello_timeout_s):
                while (msg := await self._ws.receive()).type in (WSMsgType.PING, WSMsgType.PONG):
                    self._beat(msg)
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
            who = await self._services.authenticator.identify(token, self._address)
            self._place = self._services.admission.connect(who)
            self._accept(who)
            if self._paced is not None:
                self._paced.greeted(who.caller, self._flooded)
        except Refused as refusal:
            self._refuse(hello.id, refusal)
            raise not_greeted(refusal) from None
        finally:
            self._greeting.leave()
        self._device = hello.device or self.id
        self._send(welcome(self._services, hello, self._who(), self.id))

    async def _read(self) -> None:
        """Returns when the peer has gone, which the web server tells by cancelling.

        Not by raising: the frame of a task group keeps what it raises, and that the frame (until Python 3.13), so all of the
        connection would stay until the collector comes by.
        """
        with contextlib.suppress(_Ended, asyncio.CancelledError):
            async for msg in self._ws:
                self._heartbeat.heard()
                if not self._take(msg):
                    # What is refused costs its sender nothing: whoever sends nothing else must not keep others waiting.
                    await asyncio.sleep(0)

    async def _end_tasks(self) -> None:
        """All that the connection has. Being cancelled meanwhile is as in `_read`."""
        tasks = [subscription.task for subscription in self._subscriptions.values()]
        if self._executing is not None:
            tasks.append(self._executing)
        for task in tasks:
            task.cancel()
        if tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait(tasks)

    def _take(self, msg: WSMessage) -> bool:
        """False for what is not carried out. Raises Closing, _Ended."""
        if msg.type in (WSMsgType.PING, WSMsgType.PONG):
            self._beat(msg)
            return False
        command = self._command(msg)
        if command is None:
            return False
        size = len(msg.data) if msg.data.isascii() else len(msg.data.encode())
        refusal = self._too_much(size)
        if refusal is not None:
            self._refuse(command.id, refusal)
            return False
        if isinstance(command, protocol.Ack):
            self._acked(command)
        self._execute_in_turn(command, size)
        return True

    def _too_much(self, size: int) -> Refused | None:
        """Counts a frame of so many bytes; the refusal of its command if it is one too many."""
        now = time.monotonic()
        if wait_s := self._bytes.take(now, size):
            return rate_limited(wait_s, Limit.BYTES)
        if wait_s := self._bucket.take(now):
            return rate_limited(wait_s, Limit.COMMANDS)
        if not self._commands.has_room(size):
            return rate_limited(0.1, Limit.QUEUE)
        return None

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

    def _execute_in_turn(self, command: Command, size: int) -> None:
        """A task only while there is something to do: most connections send nothing most of the time."""
        self._commands.put(command, size)
        if self._executing is None:
            self._executing = self._begin(self._execute())

    async def _execute(self) -> None:
        """Commands of a connection are carried out one after another, in the order they came."""
        while self._commands:
            command = self._commands.next()
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
        self._executing = None

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
                return await self._refresh(command, who)
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
            text = f"at most {limit} on a connection"
            raise Refused(ErrorCode.TOO_MANY_SUBSCRIPTIONS, text, limit=limit, exceeded=Limit.SUBSCRIPTIONS.value)
        opened = await subscribe(self._services, self._outlet, command, who, self._device)
        if not who.may(Right.READ, command.session):
            # Revoked while the session was opened, and so not found among the subscriptions.
            opened.end()
            who.require(Right.READ, command.session)
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

    def _end(self, session: str, told: bytes) -> None:
        """Ends a subscription, and says so when its reader has ended, so that nothing of the session comes after."""
        task = self._subscriptions.pop(session).task
        task.add_done_callback(lambda _: self._send(told))
        task.cancel()

    def _set_presence(self, command: protocol.PresenceSet, who: Identity) -> bytes:
        who.require(Right.READ, command.session)
        subscription = self._subscriptions.get(command.session)
        if subscription is None:
            raise Refused(ErrorCode.NOT_SUBSCRIBED, "this connection is not subscribed to the session")
        subscription.seat.update(state=command.state)
        return protocol.ok(command.id)

    async def _refresh(self, command: protocol.AuthRefresh, who: Identity) -> bytes:
        identity = await self._services.authenticator.identify(command.token, self._address)
        if identity.caller != who.caller:
            raise Refused(ErrorCode.UNAUTHORIZED, "the new token is of another user, or of another tenant")
        self._accept(identity)
        # It may allow less than the one before, and that at once.
        self.recheck()
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
        left_s = identity.left_s(time.time(), self._settings.jwt_leeway_s)
        expired = Closing(CloseCode.TOKEN_EXPIRED, "token_expired")
        self._expiry = asyncio.get_running_loop().call_later(left_s, self._close, expired)

    def _send(self, payload: bytes) -> None:
        self._outlet.write(protocol.text_message(payload))

    def _beat(self, msg: WSMessage) -> None:
        """Answers a ping, unless the peer does not take what it has been sent: then it gets no more."""
        if msg.type is WSMsgType.PING and not self._outlet.congested:
            self._outlet.write(protocol.pong_frame(msg.data))

    def _refuse(self, id_: int | None, refusal: Refused) -> None:
        self._services.metrics.refused(refusal)
        self._send(protocol.error(id_, refusal))
        if self._refusals.take(time.monotonic()):
            self._flooded()

    def _flooded(self) -> None:
        self._close(Closing(CloseCode.FLOOD, "flood"))

    def _close(self, closing: Closing) -> None:
        """Ends all tasks of the connection; of several reasons the first is given."""
        if self._closing is None:
            self._closing = closing
            if self._serving:
                self._begin(_raise(closing))

    def _begin(self, work: Coroutine[object, object, None]) -> asyncio.Task[None] | None:
        """As a task of the connection, unless they are all being ended."""
        try:
            return self._tasks.create_task(work)
        except RuntimeError:
            work.close()
            return None

    async def _say_goodbye(self, closing: Closing) -> None:
        self._services.metrics.closes.labels(str(int(closing.code))).inc()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                await self._ws.close(code=closing.code, message=closing.reason())


class _Ended(Exception):
    """The peer has closed the connection, or it broke."""


async def _raise(closing: Closing) -> None:
    raise closing


def bearer(request: web.Request) -> str | None:
    """The token in the `Authorization` header."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None
