"""Reading a session over HTTP, as server-sent events and as JSON pages: the same entries and the same chain."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import orjson
import pytest
import pytest_asyncio

from broker.events import MessageSegment, StepStarted, TextMessageEnd, TextMessageStart
from tests.support.bare import Bare, bare
from tests.support.http import Event, EventReader, Http, raw
from tests.support.plane import LaneOwner, PlaneWorld, now_ms, plane_world
from tests.support.stack import metric

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELD_BACK, CLOSES = "antiphon_gateway_readers_held_back_total", "antiphon_gateway_closes_total"
ENV = {"requests_per_second": "10000", "requests_burst": "10000", "leave_grace_s": "0.2"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PlaneWorld]:
    async with plane_world(tmp_path_factory.mktemp("http"), **ENV) as world:
        yield world


def client(world: PlaneWorld, user: str = "user-1", *, gateway: int = 0, **token: Any) -> Http:
    return Http(world.gateways[gateway].url, world.token(user, **token))


async def answering(world: PlaneWorld, tokens: int = 0) -> LaneOwner:
    """A run that has said some tokens of its message `m`."""
    owner = await world.running(world.session())
    await owner.write(TextMessageStart("m"))
    await say(owner, 0, tokens)
    await owner.write(StepStarted("next"))
    await arrived(world, owner.session)
    return owner


async def arrived(world: PlaneWorld, session: str) -> None:
    """Returns when both gateways have every record that is stored now, and the deltas before it."""
    for gateway in (0, 1):
        async with client(world, gateway=gateway) as http:
            await http.ok("GET", f"/v1/sessions/{session}")


async def say(owner: LaneOwner, first: int, count: int) -> None:
    for n in range(first, first + count):
        await owner.delta("m", sum(len(f"t{i} ") for i in range(n)), f"t{n} ")


def text_of(entries: list[dict[str, Any]]) -> str:
    """What message `m` is after these entries."""
    text = ""
    for entry in entries:
        for event in entry["events"]:
            if event["type"] == "TEXT_MESSAGE_CONTENT":
                text = text[: entry["off"]] + event["delta"]
            elif event["type"] == "message.segment" and "text" in event:
                text = text[: event["offset"]] + event["text"]
    return text


def entries_of(events: list[Event]) -> list[dict[str, Any]]:
    return [event.json() for event in events if event.name == "entry"]


async def frames_until_caught_up(socket: Bare) -> list[dict[str, Any]]:
    frames = [await socket.frame()]
    while frames[-1]["op"] != "session.caught_up":
        frames.append(await socket.frame())
    return frames


# --- server-sent events --------------------------------------------------------------------------------------------------


async def test_a_stream_says_what_a_websocket_says(world: PlaneWorld) -> None:
    owner = await answering(world, 20)
    path = f"/v1/sessions/{owner.session}/events"
    async with client(world) as http, bare(world.gateways[0].url, world.token("user-1")) as socket:
        await socket.ask("subscribe", session=owner.session)
        async with http.stream(path) as stream:
            joined = await stream.until("session.caught_up")
            assert [event.json() for event in joined] == await frames_until_caught_up(socket)
            assert joined[0].name == "session.snapshot"
            epoch = joined[-1].json()["cursor"].partition(":")[0]
            for event in joined:
                frame = event.json()
                assert frame["op"] == event.name
                assert event.last_id == f"{epoch}:{frame.get('seq', frame.get('asOf'))}"
            await say(owner, 20, 5)
            live = [event for event in [await stream.event() for _ in range(6)] if event is not None]
            others = [await socket.frame() for _ in range(6)]
            frames = [event.json() for event in live]
            assert [f for f in frames if f["op"] == "entry"] == [f for f in others if f["op"] == "entry"]
            assert text_of(entries_of([*joined, *live])) == "".join(f"t{n} " for n in range(25))
            assert stream.retry_ms == 1000
            assert (stream.headers["Cache-Control"], stream.headers["X-Accel-Buffering"]) == ("no-store", "no")


async def test_who_comes_back_with_the_last_id_misses_nothing(world: PlaneWorld) -> None:
    owner = await answering(world)
    path = f"/v1/sessions/{owner.session}/events"
    got: list[Event] = []
    last_id, cuts, said = "", 0, 0

    async def go_on_saying() -> None:
        nonlocal said
        while cuts < 30:
            await say(owner, said, 10)
            said += 10

    async with asyncio.TaskGroup() as tasks:
        saying = tasks.create_task(go_on_saying())
        while not saying.done():
            cuts += 1
            async with client(world, gateway=cuts % 2) as http:
                headers = {"Last-Event-ID": last_id} if last_id else {}
                async with http.stream(path, headers=headers) as stream:
                    with contextlib.suppress(TimeoutError):  # all that was said may have been read by now
                        for _ in range(1 + cuts % 9):
                            event = await stream.event(1.0)
                            assert event is not None
                            got.append(event)
                            last_id = event.last_id
    async with client(world) as http, http.stream(path, after=last_id) as stream:
        got += await stream.until("session.caught_up")
    entries = entries_of(got)
    assert [entry["prev"] for entry in entries[1:]] == [entry["seq"] for entry in entries[:-1]]
    assert text_of(entries) == "".join(f"t{n} " for n in range(said))


async def test_what_after_says_counts_more_than_the_last_id(world: PlaneWorld) -> None:
    owner = await answering(world, 3)
    path = f"/v1/sessions/{owner.session}/events"
    async with client(world) as http:
        async with http.stream(path) as stream:
            joined = await stream.until("session.caught_up")
        early, late = joined[1].last_id, joined[-1].last_id
        async with http.stream(path, headers={"Last-Event-ID": late}, after=early) as stream:
            assert (await stream.until("session.caught_up"))[0].json()["prev"] == joined[1].json()["seq"]


async def test_every_entry_can_be_had_as_it_is(world: PlaneWorld) -> None:
    owner = await answering(world, 30)
    last = await owner.write(TextMessageEnd("m"))
    path = f"/v1/sessions/{owner.session}/events"
    async with client(world) as http:
        async with http.stream(path, replay="every") as stream:
            entries: list[dict[str, Any]] = []
            while not entries or entries[-1]["seq"] < last:
                entries += entries_of(await stream.until("entry"))
        page = await http.ok("GET", path, replay="every")
    assert page["entries"] == entries
    assert [len(e["events"][0]["delta"]) for e in entries if "off" in e] == [len(f"t{n} ") for n in range(30)]


async def test_a_stream_is_presence_for_as_long_as_it_is_read(world: PlaneWorld) -> None:
    session = world.session()
    path = f"/v1/sessions/{session}/events"
    async with client(world) as http, bare(world.gateways[1].url, world.token("watcher")) as socket:
        await socket.ask("subscribe", session=session)
        async with http.stream(path, device="d-1") as stream:
            people = await stream.until("session.presence")
            assert people[-1].last_id == people[-2].last_id
            async with http.stream(path, watching="false") as unseen:
                await unseen.until("session.caught_up")
                await presence_with(socket, {"user-1": ["d-1"], "watcher": None})
        await presence_with(socket, {"watcher": None})


async def test_a_stream_shows_that_it_lives(world: PlaneWorld) -> None:
    gateway = await world.stack.gateway(heartbeat_s="0.5")
    path = f"/v1/sessions/{world.session()}/events"
    async with Http(gateway.url, world.token("user-1")) as http, http.stream(path) as stream, asyncio.timeout(10):
        while stream.comments < 3:
            with contextlib.suppress(TimeoutError):
                await stream.event(0.6)
    await gateway.kill()


async def presence_with(socket: Bare, wanted: dict[str, list[str] | None]) -> None:
    """Returns when these users are there, and nobody else, with these devices."""
    async with asyncio.timeout(15):
        while True:
            frame = await socket.frame()
            if frame["op"] == "session.presence":
                people = {p["id"]: [d["device"] for d in p["devices"]] for p in frame["participants"]}
                if people.keys() == wanted.keys() and all(v is None or v == people[k] for k, v in wanted.items()):
                    return


async def test_a_client_that_subscribes_may_declare_tools(world: PlaneWorld) -> None:
    session = world.session()
    path = f"/v1/sessions/{session}/subscribe"
    async with client(world) as http, client(world, "user-2", rights=["read"]) as reader:
        tools = [{"name": "pick", "parameters": {"type": "object"}}]
        async with http.stream(path, {"tools": tools, "device": "d"}) as stream:
            people = (await stream.until("session.presence"))[-1].json()["participants"]
            assert people[0]["devices"] == [{"device": "d", "state": "active", "tools": ["pick"]}]
        await reader.refused(403, "not_allowed", "POST", path, {"tools": tools})
        bad = [{"name": "pick", "parameters": {"type": "nonsense"}}]
        await http.refused(422, "schema_invalid", "POST", path, {"tools": bad})
        await http.refused(400, "cursor_bad", "POST", path, {"after": "x"})
        await http.refused(410, "cursor_epoch", "POST", path, {"after": "x:1"})


async def test_cursors_that_cannot_be_served(world: PlaneWorld) -> None:
    owner = await answering(world, 1)
    path = f"/v1/sessions/{owner.session}/events"
    async with client(world) as http:
        cursor = (await http.ok("GET", path))["cursor"]
        epoch, seq = cursor.split(":")
        future = f"{epoch}:{int(seq) + 1000}"
        for format_ in ("json", "sse"):
            await http.refused(400, "cursor_bad", "GET", path, after="nonsense", format=format_)
            problem = await http.refused(410, "cursor_epoch", "GET", path, after=f"x{epoch}:1", format=format_)
            assert problem["data"]["epoch"] == epoch
            await http.refused(410, "cursor_future", "GET", path, after=future, format=format_)
        await http.refused(410, "cursor_future", "POST", f"/v1/sessions/{owner.session}/subscribe", {"after": future})
        await http.refused(400, "cursor_bad", "GET", path, headers={"Last-Event-ID": "nonsense"})


def reading(world: PlaneWorld, session: str) -> str:
    """A request for a stream, byte by byte."""
    return (
        f"GET /v1/sessions/{session}/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n"
        f"Authorization: Bearer {world.token('user-1')}\r\n\r\n"
    )


async def overfill(owner: LaneOwner, chunks: int) -> str:
    """Has message `m` say more than the kernel keeps for a reader that takes nothing."""
    text = ""
    for n in range(chunks):
        chunk = f"{n:04d}" + "x" * 131_072
        await owner.delta("m", len(text), chunk)
        await owner.write(MessageSegment("m", len(text), len(chunk), chunk))
        text += chunk
    await owner.write(MessageSegment("m", len(text), 0, "", True, "complete"), TextMessageEnd("m"))
    return text


async def test_a_slow_reader_is_held_back_and_gets_it_merged(world: PlaneWorld) -> None:
    owner = await answering(world)
    gateway = await world.stack.gateway(outbox_bytes="65536")
    async with raw(gateway.url, reading(world, owner.session)) as socket, Http(gateway.url) as http:
        await socket.readuntil(b"session.caught_up")
        text = await overfill(owner, 96)
        async with asyncio.timeout(20):
            while metric((await http.ask("GET", "/metrics")).body.decode(), HELD_BACK) < 1:
                await asyncio.sleep(0.05)
        entries = await read_raw(socket, until=b"TEXT_MESSAGE_END")
    assert text_of(entries) == text
    assert [entry["prev"] for entry in entries[1:]] == [entry["seq"] for entry in entries[:-1]]
    await gateway.kill()


async def test_a_reader_that_takes_nothing_at_all_is_let_go(world: PlaneWorld) -> None:
    owner = await answering(world)
    gateway = await world.stack.gateway(outbox_bytes="65536", slow_reader_s="1")
    async with raw(gateway.url, reading(world, owner.session)) as socket, Http(gateway.url) as http:
        await socket.readuntil(b"session.caught_up")
        await overfill(owner, 96)
        async with asyncio.timeout(20):
            while metric((await http.ask("GET", "/metrics")).body.decode(), CLOSES, code="4102") < 1:
                await asyncio.sleep(0.05)
        rest = b""
        with contextlib.suppress(ConnectionError):
            rest = await socket.read()
        assert not rest.endswith(b"0\r\n\r\n"), "what was cut must not look complete"
    assert "Traceback" not in gateway.output()
    await gateway.kill()


async def test_a_client_that_takes_nothing_of_its_run_is_let_go(world: PlaneWorld) -> None:
    session = world.session()
    gateway = await world.stack.gateway(slow_reader_s="1")
    body = f'{{"content":"x","session":"{session}","inputId":"i","stream":"text"}}'
    request = (
        "POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {world.token('user-1')}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )
    async with raw(gateway.url, request) as socket, Http(gateway.url) as http:
        await socket.readuntil(b"\r\n\r\n")
        owner = LaneOwner(world.log, session)
        await owner.claim()
        await owner.start("i")
        await owner.write(TextMessageStart("m"))
        await overfill(owner, 96)
        async with asyncio.timeout(20):
            while metric((await http.ask("GET", "/metrics")).body.decode(), "antiphon_gateway_connections") > 0:
                await asyncio.sleep(0.05)
    assert "Traceback" not in gateway.output()
    await gateway.kill()


async def read_raw(socket: asyncio.StreamReader, until: bytes) -> list[dict[str, Any]]:
    """The entries of a chunked stream that has caught up, taken from the socket itself."""
    rest = b""
    async with asyncio.timeout(30):
        # What came up to here ends in the middle of an event.
        await socket.readuntil(b"\n\n\r\n")
        while until not in rest or not rest.endswith(b"\n\n\r\n"):
            rest += await socket.read(1 << 20)
    parts, at = [], 0
    while at < len(rest):
        end = rest.index(b"\r\n", at)
        size = int(rest[at:end], 16)
        parts.append(rest[end + 2 : end + 2 + size])
        at = end + 2 + size
        assert rest[at : at + 2] == b"\r\n"
        at += 2
    body = b"".join(parts)
    lines = [line.removeprefix(b"data: ") for line in body.split(b"\n") if line.startswith(b'data: {"op":"entry"')]
    return [orjson.loads(line) for line in lines]


async def test_http_1_0_gets_a_body_that_ends_with_the_connection(world: PlaneWorld) -> None:
    owner = await answering(world, 2)
    request = (
        f"GET /v1/sessions/{owner.session}/events?format=sse HTTP/1.0\r\n"
        f"Authorization: Bearer {world.token('user-1')}\r\n\r\n"
    )
    async with raw(world.gateways[0].url, request) as socket:
        data = b""
        async with asyncio.timeout(10):
            while b"event: session.caught_up" not in data or not data.endswith(b"\n\n"):
                data += await socket.read(65_536)
    head, _, body = data.partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    assert body.startswith(b"retry: 1000\n\nid: ")


async def test_a_deleted_session_is_told(world: PlaneWorld) -> None:
    session = world.session()
    async with client(world) as http:
        await http.ok("POST", "/v1/sessions", {"session": session})
        async with http.stream(f"/v1/sessions/{session}/events") as stream:
            await stream.until("session.caught_up")
            await http.ok("DELETE", f"/v1/sessions/{session}")
            (entry,) = entries_of(await stream.until("entry"))[-1:]
            assert entry["events"][0]["type"] == "session.deleted"


async def test_a_token_that_expires_ends_the_stream(world: PlaneWorld) -> None:
    session = world.session()
    gateway = await world.stack.gateway(jwt_leeway_s="0")
    path = f"/v1/sessions/{session}/events"
    async with Http(gateway.url, world.stack.token(ttl_s=2)) as http, http.stream(path) as stream:
        closing = (await stream.until("closing"))[-1]
        assert closing.json() == {"op": "closing", "code": "token_expired"}
        assert await stream.event() is None
    await gateway.kill()


async def test_a_gateway_that_leaves_says_when_to_come_back(world: PlaneWorld) -> None:
    owner = await answering(world, 3)
    path = f"/v1/sessions/{owner.session}/events"
    gateway = await world.stack.gateway(drain_s="10", drain_per_second="1")
    async with Http(gateway.url, world.token("user-1")) as http, AsyncExitStack() as stack:
        # One is sent away each second: as long as the last one is there, others can be refused.
        streams = [await stack.enter_async_context(http.stream(path)) for _ in range(4)]
        joined, *_ = [await stream.until("session.caught_up") for stream in streams]
        gateway.terminate_soon()
        async with asyncio.timeout(10):
            while (await http.ask("GET", path, format="sse", after="x:1")).code != "draining":
                await asyncio.sleep(0.02)
        await http.refused(503, "draining", "POST", path.replace("events", "subscribe"), {})
        await http.refused(503, "draining", "POST", "/v1/runs", {"content": "x"})
        chat = {"id": "x3", "messages": [{"id": "x", "role": "user", "parts": [{"type": "text", "text": "x"}]}]}
        await http.refused(503, "draining", "POST", "/v1/ai-sdk/6", chat)
        await http.refused(503, "draining", "GET", "/v1/ai-sdk/6/x3/stream")
        await http.refused(503, "draining", "POST", "/v1/ag-ui", {"threadId": "x", "runId": "r", "messages": []})
        for stream in streams:
            closing = (await stream.until("closing"))[-1]
            assert closing.json()["code"] == "draining"
            assert stream.retry_ms == closing.json()["retry_after_ms"]
            assert closing.last_id == joined[-1].last_id
            assert await stream.event() is None
    await gateway.process.wait()
    await say(owner, 3, 1)
    async with client(world) as http, http.stream(path, headers={"Last-Event-ID": closing.last_id}) as stream:
        (entry,) = entries_of(await stream.until("session.caught_up"))
        assert entry["events"][0]["delta"] == "t3 "


# --- JSON pages ------------------------------------------------------------------------------------------------------------


async def pages(http: Http, session: str, **query: Any) -> list[dict[str, Any]]:
    """All pages, to the end of the session."""
    found: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while not found or not found[-1]["caughtUp"]:
        found.append(await http.ok("GET", f"/v1/sessions/{session}/events", **query, **after))
        after = {"after": found[-1]["cursor"]}
    return found


@pytest.mark.parametrize("limit", [1, 7, 100])
@pytest.mark.parametrize("replay", ["merged", "every"])
async def test_pages_make_the_same_chain(world: PlaneWorld, limit: int, replay: str) -> None:
    owner = await answering(world, 150)
    done = "".join(f"t{n} " for n in range(150))
    await owner.write(MessageSegment("m", 0, len(done), done, True, "complete"), TextMessageEnd("m"))
    await owner.finish()
    await arrived(world, owner.session)
    async with client(world) as http, client(world, gateway=1) as other:
        for reader in (http, other):
            found = await pages(reader, owner.session, limit=limit, replay=replay)
            entries = [entry for page in found for entry in page["entries"]]
            assert all(len(page["entries"]) <= limit for page in found)
            assert [page["snapshot"] is None for page in found] == [False] + [True] * (len(found) - 1)
            chain = [found[0]["snapshot"]["asOf"], *(entry["seq"] for entry in entries)]
            assert [entry["prev"] for entry in entries] == chain[:-1]
            assert text_of(entries) == done
    if replay == "every":
        assert sum("off" in entry for entry in entries) == 150


async def test_the_end_of_a_session_is_an_empty_page(world: PlaneWorld) -> None:
    session = world.session()
    async with client(world) as http:
        first = await http.ok("GET", f"/v1/sessions/{session}/events")
        assert (first["entries"], first["caughtUp"], first["snapshot"]["asOf"]) == ([], True, 0)
        again = await http.ok("GET", f"/v1/sessions/{session}/events", after=first["cursor"])
        assert (again["entries"], again["snapshot"], again["cursor"]) == ([], None, first["cursor"])
        await http.ok("POST", f"/v1/sessions/{session}/inputs", {"content": "hello", "inputId": "i"})
        more = await http.ok("GET", f"/v1/sessions/{session}/events", after=first["cursor"])
        assert [entry["id"] for entry in more["entries"]] == ["i"]
        state = await http.ok("GET", f"/v1/sessions/{session}")
        assert state["cursor"] == more["cursor"]


async def test_what_is_answered_is_what_is_asked_for(world: PlaneWorld) -> None:
    session = world.session()
    path = f"/v1/sessions/{session}/events"
    async with client(world) as http:
        for accept, media in (
            ("*/*", "application/json"),
            ("application/json", "application/json"),
            ("text/event-stream;q=0.1, application/*", "application/json"),
            ("text/html, application/json;q=0.5", "application/json"),
        ):
            answer = await http.ask("GET", path, headers={"Accept": accept})
            assert answer.headers["Content-Type"] == media, accept
        for headers in ({"Accept": "text/event-stream, */*;q=0.1"}, {"Accept": "text/*"}):
            async with http.stream(path, headers=headers) as stream:
                await stream.until("session.caught_up")
        async with http.stream(path, headers={"Accept": "application/json"}, format="sse") as stream:
            await stream.until("session.caught_up")
        await http.refused(406, "not_acceptable", "GET", path, headers={"Accept": "text/html"})
        head = await http.ask("HEAD", path, headers={"Accept": "text/event-stream"})
        assert (head.status, head.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
        head = await http.ask("HEAD", path)
        assert (head.status, head.headers["Content-Type"], head.body) == (200, "application/json", b"")


async def test_joining_by_stream_is_as_quick_as_by_websocket(world: PlaneWorld) -> None:
    """Live entries of many readers on both wires come within moments of each other; the figures are printed."""
    owner = await answering(world, 1)
    path = f"/v1/sessions/{owner.session}/events"
    async with client(world) as http, bare(world.gateways[0].url, world.token("user-1")) as socket:
        await socket.ask("subscribe", session=owner.session)
        await frames_until_caught_up(socket)
        async with http.stream(path) as stream:
            await stream.until("session.caught_up")
            waits: dict[str, list[float]] = {"sse": [], "websocket": []}
            for n in range(1, 60):
                began = now_ms()
                await say(owner, n, 1)
                await next_entry(stream)
                waits["sse"].append(now_ms() - began)
                await socket_entry(socket)
                waits["websocket"].append(now_ms() - began)
    medians = {name: sorted(found)[len(found) // 2] for name, found in waits.items()}
    print(f"from the write to the reader, ms: {medians}")  # noqa: T201
    assert medians["sse"] < 100


async def next_entry(stream: EventReader) -> None:
    await stream.until("entry")


async def socket_entry(socket: Bare) -> None:
    while (await socket.frame())["op"] != "entry":
        pass
