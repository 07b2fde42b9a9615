"""A client of the HTTP API that holds every answer to what the API says of itself, and a reader of event streams.

It takes the API's declarations from the gateway's own table, so that what it accepts is what `/openapi.json` says.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
import orjson

from broker.schema import Schema
from gateway.http.declarations import ANY_MEDIA, EVENT_STREAM, JSON, Operation
from gateway.http.operations import OPERATIONS
from gateway.http.problems import MEDIA_TYPE, STATUS
from gateway.http.schemas import PROBLEM

WAIT_S = 20.0


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def code(self) -> str | None:
        """Of a problem."""
        return str(self.json()["code"]) if self.headers.get("Content-Type") == MEDIA_TYPE else None


SEEN: set[tuple[str, int, str]] = set()
"""Operation, status and code (or the media type) of every answer that any client of this process has had."""


class Http:
    """A client with a token (or none): `async with Http(url, token) as http`."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url
        self._token = token

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=None, sock_read=WAIT_S)
        self._session = aiohttp.ClientSession(timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def ask(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None, **query: Any
    ) -> HttpAnswer:
        """One request. `body` is sent as JSON; bytes as they are. The answer is one that the API says it may give."""
        sent = dict(self._headers() | dict(headers or {}))
        data = body if isinstance(body, bytes) or body is None else orjson.dumps(body)
        if body is not None:
            sent.setdefault("Content-Type", JSON)
        params = {name: str(value) for name, value in query.items()}
        async with self._session.request(
            method, f"{self.url}{path}", data=data, headers=sent, params=params, allow_redirects=False
        ) as response:
            answer = HttpAnswer(response.status, response.headers.copy(), await response.read())
        check(method, path, answer)
        return answer

    async def ok(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """The JSON of an answer that must be a good one."""
        answer = await self.ask(method, path, body, **more)
        assert answer.status < 300, (answer.status, answer.body)
        return answer.json()

    async def refused(self, status: int, code: str, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """The problem that an answer must be."""
        answer = await self.ask(method, path, body, **more)
        assert (answer.status, answer.code) == (status, code), (answer.status, answer.body)
        return answer.json()

    @asynccontextmanager
    async def stream(
        self,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        **query: Any,
    ) -> AsyncIterator[EventReader]:
        """Server-sent events, by POST if there is a body."""
        sent = self._headers() | {"Accept": EVENT_STREAM} | dict(headers or {})
        params = {name: str(value) for name, value in query.items()}
        method = "GET" if body is None else "POST"
        async with self._session.request(
            method, f"{self.url}{path}", json=body, headers=sent, params=params
        ) as response:
            media = response.headers["Content-Type"].partition(";")[0]
            assert (response.status, media) == (200, EVENT_STREAM), await response.read()
            operation = operation_of(method, path)
            assert operation is not None
            SEEN.add((operation.name, 200, EVENT_STREAM))
            yield EventReader(response.content, response.headers.copy())

    def _headers(self) -> dict[str, str]:
        return {} if self._token is None else {"Authorization": f"Bearer {self._token}"}


def operation_of(method: str, path: str) -> Operation | None:
    """The operation that a request is, if it is one."""
    for operation in OPERATIONS:
        pattern = re.sub(r"\{\w+\}", "[^/]+", operation.path)
        wanted = "GET" if method == "HEAD" else method
        if operation.method == wanted and re.fullmatch(pattern, path.partition("?")[0]):
            return operation
    return None


_READY: dict[int, Schema] = {}


def check(method: str, path: str, answer: HttpAnswer) -> None:
    """The answer is one that the operation says it may give."""
    operation = operation_of(method, path)
    if answer.status >= 400:
        assert answer.headers["Content-Type"] == MEDIA_TYPE or method == "HEAD", answer
    if operation is None or method == "HEAD":
        return
    if answer.status >= 400:
        problem = answer.json()
        assert _problem(PROBLEM, problem) is None, problem
        assert problem["status"] == answer.status == STATUS.get(problem["code"], 409)
        assert problem["code"] in operation.codes(), (operation.name, problem)
        SEEN.add((operation.name, answer.status, problem["code"]))
        return
    assert answer.status in operation.answers, (operation.name, answer.status)
    declared = operation.answers[answer.status]
    media = answer.headers.get("Content-Type", "")
    seen = ANY_MEDIA if ANY_MEDIA in declared.also else media.partition(";")[0]
    SEEN.add((operation.name, answer.status, seen))
    for name, _ in declared.headers:
        assert name in answer.headers, (operation.name, name)
    if declared.schema is not None and media == JSON:
        problem = _problem(declared.schema, answer.json())
        assert problem is None, (operation.name, problem, answer.body[:500])


def _problem(schema: Any, value: Any) -> Any:
    ready = _READY.get(id(schema))
    if ready is None:
        ready = _READY[id(schema)] = Schema(schema)
    return ready.problem(value)


@dataclass(slots=True)
class Event:
    """An event of a stream, as a browser's EventSource would give it; `last_id` is the id that it would send later."""

    name: str
    data: str
    last_id: str

    def json(self) -> Any:
        return orjson.loads(self.data)


@dataclass(slots=True)
class EventReader:
    """Reads events by the rules of the HTML standard ("Interpreting an event stream"). Made by `Http.stream`."""

    content: aiohttp.StreamReader
    headers: Mapping[str, str]
    retry_ms: int | None = None
    comments: int = 0
    last_id: str = ""
    _name: str = ""
    _data: list[str] = field(default_factory=list)

    async def event(self, wait_s: float = WAIT_S) -> Event | None:
        """The next event; None at the end of the stream. Raises TimeoutError."""
        async with asyncio.timeout(wait_s):
            while line := await self.content.readline():
                event = self._line(line.decode().rstrip("\r\n"))
                if event is not None:
                    return event
        return None

    async def until(self, name: str, wait_s: float = WAIT_S) -> list[Event]:
        """The events up to the first of that name."""
        events: list[Event] = []
        while not events or events[-1].name != name:
            event = await self.event(wait_s)
            assert event is not None, [e.data for e in events]
            events.append(event)
        return events

    def _line(self, line: str) -> Event | None:
        if not line:
            return self._dispatch()
        name, colon, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "" if colon:
                self.comments += 1
            case "event":
                self._name = value
            case "data":
                self._data.append(value)
            case "id":
                self.last_id = value
            case "retry":
                self.retry_ms = int(value)
        return None

    def _dispatch(self) -> Event | None:
        data, name = self._data, self._name
        self._data, self._name = [], ""
        return Event(name or "message", "\n".join(data), self.last_id) if data else None


@asynccontextmanager
async def raw(url: str, request: str) -> AsyncIterator[asyncio.StreamReader]:
    """What comes back on a socket of its own, which takes nothing (beyond what the kernel keeps) that is not read."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=65_536)
    try:
        writer.write(request.encode())
        yield reader
    finally:
        writer.transport.abort()
