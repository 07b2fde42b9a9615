"""A WebSocket on which a test may say anything, right or wrong, and HTTP beside it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

WAIT_S = 20.0
"""How long a frame, an end or an answer may take."""

Frame = dict[str, Any]


class Ended(Exception):
    """The server has ended the connection. `reason` is the close reason's JSON, empty if there was none."""

    def __init__(self, code: int, reason: Frame) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"{code} {reason}")


class Bare:
    """An open WebSocket; made by `bare`. What is not asked for waits in order."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.frames: deque[Frame] = deque()
        """What has come and was not asked for yet, in order."""
        self._id = 0

    async def say(self, text: str) -> None:
        """Sends a text frame."""
        await self.ws.send_str(text)

    async def post(self, op: str, **fields: Any) -> int:
        """Sends a command; returns its id."""
        self._id += 1
        await self.say(orjson.dumps({"op": op, "id": self._id, **fields}).decode())
        return self._id

    async def ask(self, op: str, **fields: Any) -> Frame:
        """Sends a command; returns its reply, an error too. Raises Ended."""
        id_ = await self.post(op, **fields)
        return await self.reply(id_)

    async def reply(self, id_: int | None) -> Frame:
        """The reply of that id. Raises Ended."""
        for frame in self.frames:
            if _replies_to(frame, id_):
                self.frames.remove(frame)
                return frame
        while not _replies_to(frame := await self._receive(), id_):
            self.frames.append(frame)
        return frame

    async def frame(self) -> Frame:
        """The next frame, whatever it is. Raises Ended."""
        return self.frames.popleft() if self.frames else await self._receive()

    async def end(self) -> Ended:
        """How the server ends the connection; what comes before stays in `frames`."""
        while True:
            try:
                self.frames.append(await self._receive())
            except Ended as ended:
                return ended

    async def _receive(self) -> Frame:
        async with asyncio.timeout(WAIT_S):
            msg = await self.ws.receive()
        match msg.type:
            case aiohttp.WSMsgType.TEXT:
                frame = orjson.loads(msg.data)
                assert isinstance(frame, dict), frame
                return frame
            case aiohttp.WSMsgType.CLOSE:
                raise Ended(msg.data, orjson.loads(msg.extra) if msg.extra else {})
            case _:
                raise Ended(self.ws.close_code or 1006, {})


def _replies_to(frame: Frame, id_: int | None) -> bool:
    return frame["op"] in ("ok", "error", "welcome", "pong") and frame["id"] == id_


@asynccontextmanager
async def bare(
    url: str,
    token: str | None = None,
    *,
    protocols: Sequence[str] = ("antiphon.v1",),
    headers: Mapping[str, str] | None = None,
    answers_pings: bool = True,
) -> AsyncIterator[Bare]:
    """A socket to a gateway, open and, with a token, greeted."""
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(
            f"{url}/v1/connect", protocols=protocols, headers=headers, autoping=answers_pings, max_msg_size=0
        ) as ws,
    ):
        socket = Bare(ws)
        if token is not None:
            welcome = await socket.ask("hello", token=token)
            assert welcome["op"] == "welcome", welcome
        yield socket


@dataclass(frozen=True, slots=True)
class Answer:
    """To an HTTP request."""

    status: int
    headers: Mapping[str, str]
    text: str

    def json(self) -> Any:
        return orjson.loads(self.text)


async def get(url: str) -> Answer:
    """Asks once. Raises aiohttp.ClientError."""
    timeout = aiohttp.ClientTimeout(total=WAIT_S)
    async with aiohttp.ClientSession(timeout=timeout) as http, http.get(url) as answer:
        return Answer(answer.status, answer.headers.copy(), await answer.text())


async def until_status(url: str, status: int, wait_s: float = WAIT_S) -> Answer:
    """Asks until the answer has that status. Raises TimeoutError that says what the last one was."""
    last: object = None
    try:
        async with asyncio.timeout(wait_s):
            while True:
                try:
                    last = answer = await get(url)
                    if answer.status == status:
                        return answer
                except aiohttp.ClientError as error:
                    last = error
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise TimeoutError(f"{url} did not answer {status} in {wait_s:g} s; last: {last}") from None
