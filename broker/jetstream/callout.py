"""Answers the servers' questions who may come in, and ends connections that may not stay (`broker.callout`)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final, Self

import orjson
import structlog
from nats.aio.msg import Msg

from broker.callout import Admission, Asked, ServiceName, admit, turn_away
from broker.errors import AntiphonError, CodecError, LogError, NotPermitted, Refused, Unavailable
from broker.jetstream.connection import Connection
from broker.nkeys import NKey

_log = structlog.get_logger("antiphon.callout")

_QUESTIONS: Final = "$SYS.REQ.USER.AUTH"
_RETRY_S: Final = 0.25
_PAGE: Final = 1024
_LISTEN_S: Final = 1.0
"""How long servers have to say who is connected to them. Those that do not are asked again."""

Decide = Callable[[Asked], Awaitable[Admission]]
"""Raises Refused."""


class Doorkeeper:
    """Answers questions, `at_once` of them at a time; more are not answered, and the servers turn those clients away.

    A context, within that of the connection.
    """

    def __init__(
        self,
        connection: Connection,
        issuer: NKey,
        decide: Decide,
        told: Callable[[str], None],
        *,
        at_once: int,
        timeout_s: float,
    ) -> None:
        self._connection = connection
        self._issuer = issuer
        self._decide = decide
        self._told = told
        self._room = at_once
        self._timeout_s = timeout_s
        self._tasks = asyncio.TaskGroup()
        self._listening: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._listening = self._tasks.create_task(self._listen(), name="callout")
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._listening is not None:
            self._listening.cancel()
        await self._tasks.__aexit__(exc_type, exc, tb)

    async def ready(self) -> None:
        """Returns when questions come here. Raises NotPermitted."""
        assert self._listening is not None
        await asyncio.shield(self._listening)

    async def _listen(self) -> None:
        while True:
            await self._connection.wait_connected()
            try:
                # nats-py subscribes again when NATS has been away.
                await self._connection.confirm(await self._connection.subscribe(_QUESTIONS, self._on_question))
            except NotPermitted:
                raise
            except LogError:
                await asyncio.sleep(_RETRY_S)
            else:
                return

    async def _on_question(self, msg: Msg) -> None:
        try:
            asked = Asked.of(msg.data)
        except CodecError as error:
            _log.warning("not answered", reason=str(error))
            return
        if not self._room:
            self._told("overloaded")
            return
        self._room -= 1
        self._tasks.create_task(self._answer(asked, msg.reply))

    async def _answer(self, asked: Asked, reply: str) -> None:
        try:
            body, outcome = await self._decided(asked)
            self._told(outcome)
            with contextlib.suppress(Unavailable):
                await self._connection.send(reply, body)
        finally:
            self._room += 1

    async def _decided(self, asked: Asked) -> tuple[bytes, str]:
        try:
            async with asyncio.timeout(self._timeout_s):
                admission = await self._decide(asked)
        except (Refused, TimeoutError) as error:
            why = str(error) or "its token could not be checked in time"
            outcome = error.code.value if isinstance(error, Refused) else "unavailable"
            _log.warning("turned away", client=asked.name[:128], host=asked.host, reason=why)
            return turn_away(asked, why, self._issuer, int(time.time())), outcome
        except AntiphonError as error:
            _log.error("turned away: a fault of ours", client=asked.name[:128], reason=str(error))
            return turn_away(asked, "the token could not be checked", self._issuer, int(time.time())), "unavailable"
        _log.info("let in", who=str(admission.who), host=asked.host, account=admission.account)
        return admit(asked, admission, self._issuer, int(time.time())), "admitted"


class ServiceConnections:
    """The connections of all servers that have come in by a service token, asked as a user of the system account."""

    def __init__(self, system: Connection) -> None:
        self._system = system

    async def end(self, is_over: Callable[[ServiceName], bool]) -> int:
        """Ends those that `is_over` says; returns how many. Raises Unavailable if no server answers, NotPermitted."""
        ended, servers = 0, 0
        with self._system.inbox() as (reply, answers):
            await self._system.send("$SYS.REQ.SERVER.PING.CONNZ", _query(0), reply=reply)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LISTEN_S):
                    while True:
                        page = _answered(await answers.get())
                        servers += 1
                        ended += await self._end_of(page, is_over)
        if not servers:
            raise Unavailable("no NATS server says who is connected to it")
        return ended

    async def _end_of(self, page: dict[str, Any], is_over: Callable[[ServiceName], bool]) -> int:
        """Those of a server, from the first page of its connections on."""
        server, ended, offset = page["server"]["id"], 0, 0
        while True:
            listed = page["data"].get("connections") or []
            for connection in listed:
                who = ServiceName.of(str(connection.get("authorized_user", "")))
                if who is not None and is_over(who):
                    body = orjson.dumps({"cid": connection["cid"]})
                    await self._system.request(f"$SYS.REQ.SERVER.{server}.KICK", body)
                    _log.warning("ended", who=str(who), host=connection.get("ip", ""))
                    ended += 1
            offset += len(listed)
            if not listed or offset >= int(page["data"].get("total", 0)):
                return ended
            page = await self._system.call(f"$SYS.REQ.SERVER.{server}.CONNZ", _query(offset))


def _query(offset: int) -> bytes:
    return orjson.dumps({"auth": True, "offset": offset, "limit": _PAGE})


def _answered(answer: Msg | NotPermitted) -> dict[str, Any]:
    if isinstance(answer, NotPermitted):
        raise answer
    found: dict[str, Any] = orjson.loads(answer.data)
    return found
