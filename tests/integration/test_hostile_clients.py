"""Clients that send almost good frames and requests, many at once: a real gateway serves everybody else as before.

None of them sees anything of what is not theirs, and what they cost stays in bounds. Seeds are fixed; another one, or
more of them, by FUZZ_SEED and FUZZ_TRIALS.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import aiohttp
import orjson
import psutil
import pytest
import pytest_asyncio

from broker.errors import CloseCode, ErrorCode
from gateway.http.declarations import ANY_MEDIA, EVENT_STREAM
from gateway.http.operations import OPERATIONS
from tests.fuzz.catalogue import drawn
from tests.fuzz.targets_tokens import signed
from tests.support.bare import Ended, bare
from tests.support.http import Http
from tests.support.nats import single_server
from tests.support.place import Place
from tests.support.rawclient import Wire
from tests.support.stack import Process, Stack

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

SEED = os.environ.get("FUZZ_SEED", "1")
TRIALS = int(os.environ.get("FUZZ_TRIALS", "80"))
"""Frames of each connection, and requests of each client."""
CONNECTIONS = 8
GROWTH_BYTES = 96 << 20
"""What the gateway's memory may grow by. A frame has at most 128 KiB, and so have all that wait of a connection together."""
OURS = "words that are ours alone"
ENDS = {code.value for code in CloseCode} | {1000, 1002, 1007, 1009}
"""How connections may end: with a code of ours, or for what is no WebSocket frame of a text that fits."""
ENV = {
    "commands_per_second": "2000",
    "commands_burst": "2000",
    "requests_per_second": "2000",
    "requests_burst": "2000",
    "flood_refusals": "100000",
}


@dataclass(frozen=True, slots=True)
class World:
    stack: Stack
    gateway: Process


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("hostile")
    async with single_server(directory / "nats") as nats, Stack(directory / "stack", nats.url) as stack:
        worker = asyncio.get_running_loop().create_task(stack.worker())
        gateway = await stack.gateway(**ENV)
        await worker
        yield World(stack, gateway)


@dataclass(slots=True)
class Honest:
    """A user who talks with the agent, and knows what must be in the answers."""

    session: str
    token: str
    place: Place = field(init=False)

    def __post_init__(self) -> None:
        self.place = Place(self.session)

    async def talk(self, url: str, enough: asyncio.Event) -> int:
        """Sends a message, reads its answer, and so on; returns how many."""
        said = 0
        async with await Wire.open(url, self.token) as wire:
            await wire.subscribe(self.place)
            while not enough.is_set() or said < 3:
                said += 1
                text = f"{OURS} {self.session} {said} " + "x" * 200
                run = (await wire.input(self.session, f"m{said}", text))["runId"]
                await wire.follow(self.place, lambda place, run=run: run in place.ended, wait_s=60)
                assert self.place.answer(run) == text
        assert self.place.whole, self.place
        return said


@dataclass(slots=True)
class Hostile:
    """What it has been told."""

    frames: int = 0
    ends: list[int] = field(default_factory=list)
    codes: set[str] = field(default_factory=set)

    def heard(self, frame: dict[str, Any]) -> None:
        """Checks a frame that came: one of the protocol, and nothing of anybody else."""
        self.frames += 1
        assert OURS not in json.dumps(frame), frame
        assert isinstance(frame["op"], str)
        if frame["op"] == "error":
            ErrorCode(frame["code"])
            assert frame["code"] != ErrorCode.INTERNAL, frame
            assert len(frame["message"]) < 500
            self.codes.add(frame["code"])


def memory(process: Process) -> int:
    found: int = psutil.Process(process.pid).memory_info().rss
    return found


async def hostile_socket(url: str, token: str, chance: Random, sessions: list[str]) -> Hostile:
    """Sends frames until it has sent enough, from connection to connection as it is thrown out."""
    told = Hostile()
    left = TRIALS
    while left > 0:
        async with bare(url, token if chance.random() < 0.9 else None) as socket:
            try:
                for _ in range(left):
                    left -= 1
                    data = drawn("frames", chance).replace(b'"demo"', b'"%b"' % chance.choice(sessions).encode())
                    await socket.ws.send_str(data.decode("utf-8", "replace"))
                    if chance.random() < 0.2:
                        told.heard(await socket.ask("ping"))
                told.heard(await socket.ask("ping"))
            except Ended as ended:
                told.ends.append(ended.code)
            except (ConnectionError, aiohttp.ClientError):
                told.ends.append((await socket.end()).code)
            for frame in socket.frames:
                told.heard(frame)
    return told


async def test_sockets(world: World) -> None:
    """Of another tenant, with every right there; and of the same tenant, with a right to sessions of their own."""
    url, stack, chance = world.gateway.url, world.stack, Random(f"sockets-{SEED}")
    honest = [Honest("ours", stack.token("user-1")), Honest("theirs", stack.token("user-2", tenant="acme"))]
    names = ["ours", "theirs", "acme~theirs", "mine", "mine-2"]
    stranger = stack.token("user-1", tenant="evil")
    neighbour = stack.token("user-3", sessions={"mine*": ["admin"]})
    before, enough = memory(world.gateway), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        talking = [tasks.create_task(each.talk(url, enough)) for each in honest]
        async with asyncio.TaskGroup() as attack:
            attacking = [
                attack.create_task(hostile_socket(url, token, Random(chance.random()), names))
                for token in (stranger, neighbour)
                for _ in range(CONNECTIONS // 2)
            ]
        enough.set()
    told = [task.result() for task in attacking]
    assert all(task.result() >= 3 for task in talking)
    ends = {code for each in told for code in each.ends}
    assert ends <= ENDS, ends
    assert {code for each in told for code in each.codes} >= {"bad_json", "bad_command", "bad_name", "not_allowed"}
    assert memory(world.gateway) - before < GROWTH_BYTES
    assert "Traceback" not in world.gateway.output(), world.gateway.output()[-5_000:]


# --- HTTP --------------------------------------------------------------------------------------------------------------

_PARTS = ("mine", "ours", "acme~theirs", "%2e%2e%2f", "a%00b", "x" * 200, "é", "run_i1", "i1", "7", "0", "5")
_HEADERS: tuple[dict[str, str], ...] = (
    {},
    {"Last-Event-ID": "e:99999999999999999999"},
    {"Last-Event-ID": "\u00e9" * 3_000},
    {"Accept": "text/event-stream;q=1.001, */*;q=x"},
    {"Accept": ",".join(["a/b"] * 900)},
    {"Range": "bytes=0-,5-1,-0,9999999999999999999-"},
    {"Idempotency-Key": "../../x"},
    {"Content-Type": "application/json; charset=utf-16"},
    {"Content-Type": "multipart/form-data; boundary=x"},
    {"Content-Disposition": "attachment; filename*=UTF-8''%00%ff/../x; filename=\"a\\\"b"},
    {"traceparent": "00-" + "0" * 32 + "-" + "0" * 16 + "-ff", "tracestate": "a=" * 400},
    {"Content-Encoding": "gzip"},
    {"If-None-Match": '*, "x'},
    {"Origin": "null"},
)


def hostile_request(chance: Random) -> tuple[str, str, dict[str, str], bytes | None]:
    """Method, path, headers and body of a request to some operation."""
    operation = chance.choice(OPERATIONS)
    path = "/".join(chance.choice(_PARTS) if part.startswith("{") else part for part in operation.path.split("/"))
    wanted = chance.sample(operation.parameters, chance.randint(0, len(operation.parameters)))
    query = "&".join(f"{p.name}={chance.choice(_PARTS)}" for p in wanted if p.place == "query")
    body = None
    if operation.body is not None or operation.takes:
        _, _, body = drawn("bodies", chance).partition(b" ")
        body = body.replace(b'"demo"', b'"mine"')
        if chance.random() < 0.1:
            body = chance.randbytes(chance.choice((0, 1, 70_000)))
    return operation.method, path + (f"?{query}" if query else ""), dict(chance.choice(_HEADERS)), body


async def hostile_requests(url: str, tokens: list[str], chance: Random) -> set[int]:
    """Each answer is one that the API says it may give, and says nothing of what is others'."""
    statuses: set[int] = set()
    async with Http(url) as http:
        for _ in range(TRIALS):
            method, path, headers, body = hostile_request(chance)
            headers["Authorization"] = f"Bearer {chance.choice(tokens)}"
            try:
                async with asyncio.timeout(20):
                    answer = await http.ask(method, path, body, headers=headers)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, TimeoutError):
                # A request that was refused before all of it had come, or a stream that goes on.
                continue
            statuses.add(answer.status)
            assert answer.status != 500, (method, path, headers, body, answer.body)
            assert OURS.encode() not in answer.body
    return statuses


def claims(**more: Any) -> bytes:
    return orjson.dumps({"sub": "u", "exp": 9_999_999_999, "sessions": {"*": ["admin"]}, **more})


async def test_nothing_is_unpacked(world: World) -> None:
    """Else a few bytes of a request would be very many in memory, before anybody has looked at it."""
    packed = gzip.compress(b'{"content":"' + b"x" * (64 << 20) + b'"}')
    before = memory(world.gateway)
    async with Http(world.gateway.url, world.stack.token()) as http:
        for encoding in ("gzip", "deflate", "br", "zstd", "GZip"):
            headers = {"Content-Encoding": encoding}
            path = "/v1/sessions/packed/inputs"
            await http.refused(415, "unsupported_media_type", "POST", path, packed, headers=headers)
            headers["Content-Type"] = "text/plain"
            path = "/v1/sessions/packed/attachments"
            await http.refused(415, "media_type_refused", "POST", path, packed, headers=headers)
        answer = await http.ask(
            "POST", path, b"x", headers={"Content-Encoding": "identity", "Content-Type": "text/plain"}
        )
        assert answer.status == 201
    assert memory(world.gateway) - before < 32 << 20
    assert await world.stack.entries("packed") == []


async def test_what_is_nested_too_deeply_is_refused_before_it_is_written(world: World) -> None:
    """Else there would be entries that nobody can read, or states of which there is no snapshot."""
    deep: Any = 1
    for _ in range(240):
        deep = [deep]
    async with bare(world.gateway.url, world.stack.token()) as socket:
        for op, fields in (
            ("session.create", {"metadata": {"a": deep}}),
            ("session.update", {"metadata": {"a": deep}}),
            ("tool.result", {"toolCallId": "c", "claimId": "c", "result": deep}),
            ("approval.respond", {"approvalId": "a", "option": "o", "payload": deep}),
        ):
            await socket.post(op, session="deep", **fields)
            reply = await socket.reply(None)
            assert (reply["op"], reply["code"]) == ("error", "bad_json"), reply
            assert "levels" in reply["message"]
    async with Http(world.gateway.url, world.stack.token()) as http:
        await http.refused(400, "bad_json", "PATCH", "/v1/sessions/deep", {"metadata": {"a": deep}})
    assert await world.stack.entries("deep") == []


async def test_what_is_declared_is_what_is_asked() -> None:
    """Streams and uploads are among the operations that are tried."""
    assert any(operation.takes == ANY_MEDIA for operation in OPERATIONS)
    found = {hostile_request(Random(number))[1].split("?")[0].split("/")[2] for number in range(500)}
    assert {"sessions", "runs", "ag-ui", "ai-sdk"} <= found


CURSORS = (
    "",
    ":",
    "e",
    "e:",
    ":1",
    "e:-1",
    "e:1e3",
    "e:99999999999999999999",
    "e:1:1",
    "é:1",
    "~:1",
    "e:1\t",
    "0" * 5_000,
)


async def test_streams_from_any_cursor(world: World) -> None:
    """In the query, and in the header that browsers send by themselves: a stream from the start, or a typed refusal."""
    path = f"{world.gateway.url}/v1/sessions/streams/events"
    async with aiohttp.ClientSession() as http:
        for cursor in CURSORS:
            for more, params in (({"Last-Event-ID": cursor}, {}), ({}, {"after": cursor})):
                headers = {"Accept": EVENT_STREAM, "Authorization": f"Bearer {world.stack.token()}", **more}
                async with asyncio.timeout(20), http.get(path, headers=headers, params=params) as answer:
                    if answer.status == 200:
                        assert answer.content_type == EVENT_STREAM
                        assert (await answer.content.readline()).strip(), "the stream has begun"
                        continue
                    assert answer.status in (400, 410), (answer.status, cursor)
                    problem = orjson.loads(await answer.read())
                assert problem["code"] in ("cursor_bad", "cursor_epoch", "bad_command"), problem
    assert "Traceback" not in world.gateway.output()


async def test_requests(world: World) -> None:
    url, stack, chance = world.gateway.url, world.stack, Random(f"requests-{SEED}")
    honest = Honest("ours-2", stack.token("user-1"))
    tokens = [
        stack.token("user-1", tenant="evil"),
        stack.token("user-3", sessions={"mine*": ["admin"]}),
        stack.token("user-4", sessions={"mine*": ["read", "send"]}),
        signed(b'{"alg":"HS256"}', claims(name="\u202e" * 40)),
        signed(b'{"alg":"none"}', claims()),
        "a.b.c",
        "é",
        "x" * 7_000,
    ]
    before, enough = memory(world.gateway), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        talking = tasks.create_task(honest.talk(url, enough))
        async with asyncio.TaskGroup() as attack:
            attacking = [
                attack.create_task(hostile_requests(url, tokens, Random(chance.random())))
                for _ in range(CONNECTIONS // 2)
            ]
        enough.set()
    assert talking.result() >= 3
    statuses = set().union(*(task.result() for task in attacking))
    assert statuses >= {400, 401, 403}, statuses
    assert memory(world.gateway) - before < GROWTH_BYTES
    assert "Traceback" not in world.gateway.output(), world.gateway.output()[-5_000:]
