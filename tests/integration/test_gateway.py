"""A real gateway: what it serves over HTTP, tokens that run out, draining, history, and readers that do not read."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import jwt
import psutil
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.versions import VERSION, formats
from gateway.draining import RETRY_AFTER_MAX_MS
from tests.support.bare import Answer, Bare, Ended, bare, get, until_status
from tests.support.nats import single_server
from tests.support.place import Place
from tests.support.rawclient import Refusal, Wire
from tests.support.stack import Process, Stack, metric

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1 << 20
RUNS = 110
SLOW_READERS = 4
ANSWER_BYTES = 12_000_000


@dataclass(frozen=True, slots=True)
class World:
    """A gateway whose clock trusts no other, and a worker."""

    stack: Stack
    gateway: Process
    sessions: count[int]

    @property
    def url(self) -> str:
        return self.gateway.url

    def session(self) -> str:
        """A session that no other test has."""
        return f"s{next(self.sessions)}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("gateway")
    async with (
        single_server(directory / "nats", roles=True) as nats,
        Stack(directory / "stack", nats.url) as stack,
        asyncio.TaskGroup() as tasks,
    ):
        worker = tasks.create_task(stack.worker())
        gateway = await stack.gateway(jwt_leeway_s="0")
        await worker
        yield World(stack, gateway, count())
        assert "Traceback" not in gateway.output()


# --- HTTP ----------------------------------------------------------------------------------------------------------------


def is_guarded(answer: Answer) -> None:
    """What a browser is told to refuse, whatever comes."""
    policy = answer.headers["Content-Security-Policy"]
    for rule in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
        assert rule in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


async def test_health_and_metrics(world: World) -> None:
    healthy, ready = await get(f"{world.url}/healthz"), await get(f"{world.url}/readyz")
    assert (healthy.status, healthy.json()) == (200, {"status": "ok", "version": VERSION, "formats": formats()})
    assert (ready.status, ready.json()) == (200, {"status": "ready", "problems": []})
    async with bare(world.url, world.stack.token()) as client:
        await client.ask("subscribe", session=world.session())
        metrics = await get(f"{world.url}/metrics")
        assert metrics.headers["Content-Type"].startswith("text/plain")
        assert metric(metrics.text, "antiphon_gateway_connections") == 1
        assert metric(metrics.text, "antiphon_gateway_subscriptions") == 1
        await client.ask("fly")
    assert metric((await get(f"{world.url}/metrics")).text, "antiphon_gateway_refusals_total", code="bad_command") == 1


async def test_the_console_and_all_that_it_loads(world: World) -> None:
    page = await get(f"{world.url}/")
    assert page.status == 200
    assert page.headers["Content-Type"].startswith("text/html")
    assert page.headers["Cache-Control"] == "no-cache"
    is_guarded(page)
    assert not re.search(r"<style|<script(?![^>]*src)|\son\w+=|style=", page.text), (
        "the policy forbids what stands in it"
    )
    wanted = set(re.findall(r'(?:src|href)="(web/[^"]+)"', page.text))
    loaded: set[str] = set()
    while wanted:
        path = wanted.pop()
        loaded.add(path)
        asset = await get(f"{world.url}/{path}")
        assert asset.status == 200, path
        assert "immutable" in asset.headers["Cache-Control"]
        is_guarded(asset)
        if path.endswith(".js"):
            assert "javascript" in asset.headers["Content-Type"]
            names = re.findall(r"""["'`]\./([\w-]+\.(?:js|css))["'`]""", asset.text)
            wanted |= {f"web/{name}" for name in names} - loaded
    assert {Path(path).suffix for path in loaded} == {".js", ".css", ".svg"}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/web/../auth.py", 404),
        ("/web/..%2fauth.py", 404),
        ("/web/%2e%2e/auth.py", 404),
        ("/web//etc/passwd", 404),
        ("/web/", 404),
        ("/nothing", 404),
        ("/v1", 404),
    ],
)
async def test_nothing_else_is_served(world: World, path: str, status: int) -> None:
    host, port = world.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    # Not by way of an HTTP client, which would tidy the path up.
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(10):
        answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(f"HTTP/1.1 {status} "), answer[:100]
    assert "Content-Security-Policy" in answer
    assert "Traceback" not in answer
    assert "aiohttp" not in answer


# --- tokens over time ----------------------------------------------------------------------------------------------------


async def test_a_token_that_runs_out_and_one_that_is_renewed(world: World) -> None:
    session = world.session()
    token = world.stack.token(ttl_s=2.5)
    async with bare(world.url, token) as silent, bare(world.url, token) as renewed:
        await renewed.ask("subscribe", session=session)
        reply = await renewed.ask("auth.refresh", token=world.stack.token(ttl_s=3600))
        assert reply["token_expires_at"] > time.time() + 3000
        ended = await silent.end()
        assert (ended.code, ended.reason) == (4300, {"code": "token_expired"})
        # The renewed one goes on, with what it had subscribed to.
        async with bare(world.url, world.stack.token("user-2")) as other:
            await other.ask("input.send", session=session, inputId="a", content="hi")
        await until_event(renewed, type="RUN_FINISHED", runId="run_a")


async def until_event(client: Bare, **fields: str) -> None:
    """Reads until an event has these fields."""
    while True:
        frame = await client.frame()
        if frame["op"] == "entry" and any(fields.items() <= event.items() for event in frame["events"]):
            return


# --- subscriptions -------------------------------------------------------------------------------------------------------


async def test_several_sessions_on_one_connection(world: World) -> None:
    places = {name: Place(name) for name in (world.session() for _ in range(12))}
    async with await Wire.open(world.url, world.stack.token()) as wire:
        for place in places.values():
            await wire.subscribe(place)
        for name in places:
            wire.send("input.send", session=name, inputId="a", content=f"stream 40 tokens at 80/s in {name}")
        async with asyncio.timeout(30):
            while any("run_a" not in place.ended for place in places.values()):
                frame = await wire.receive()
                places[frame["session"]].take(frame)
    for name, place in places.items():
        assert place.whole, place
        assert place.answer("run_a") == f"stream 40 tokens at 80/s in {name}"


async def test_what_is_unsubscribed_says_nothing_more(world: World) -> None:
    left, kept = world.session(), world.session()
    async with bare(world.url, world.stack.token()) as client:
        for session in (left, kept):
            await client.ask("subscribe", session=session)
        for session in (left, kept):
            await client.ask("input.send", session=session, inputId="a", content="stream 1000 tokens at 200/s")
        while (await client.frame())["session"] != left or not client.frames:
            pass
        await client.ask("unsubscribe", session=left)
        client.frames.clear()
        for _ in range(50):
            assert (await client.frame())["session"] == kept
        # And it can be joined again, at its live end.
        await client.ask("subscribe", session=left)
        while (await client.frame())["session"] != left:
            pass
        for session in (left, kept):
            await client.ask("run.cancel", session=session, runId="run_a")


# --- history -------------------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def long_session(world: World) -> str:
    """A session of `RUNS` short runs, so of twice as many messages."""
    session = world.session()
    place = Place(session)
    async with await Wire.open(world.url, world.stack.token()) as wire:
        await wire.subscribe(place)
        for begin in range(0, RUNS, 10):
            for n in range(begin, begin + 10):
                wire.send("input.send", session=session, inputId=f"i{n}", content=f"hello {n}")
            await wire.follow(place, lambda p, begin=begin: len(p.ended) == begin + 10)
    return session


def texts(messages: list[dict[str, Any]]) -> list[str]:
    return [f"{message['role']}: {message['text']}" for message in messages]


EVERYTHING = [f"{role}: hello {n}" for n in range(RUNS) for role in ("user", "assistant")]


async def pages(client: Bare, session: str, limit: int, before: int | None = None) -> list[dict[str, Any]]:
    """All messages, in pages."""
    found: list[dict[str, Any]] = []
    while True:
        asked = {} if before is None else {"before": before}
        reply = await client.ask("history", session=session, limit=limit, **asked)
        assert reply["op"] == "ok", reply
        assert len(reply["messages"]) == limit or reply["before"] is None
        found = reply["messages"] + found
        before = reply["before"]
        if before is None:
            return found


@pytest.mark.parametrize("limit", [3, 7, 50, 199, 200])
async def test_history_in_pages(world: World, long_session: str, limit: int) -> None:
    async with bare(world.url, world.stack.token()) as client:
        found = await pages(client, long_session, limit)
    assert texts(found) == EVERYTHING
    assert all(message["status"] == "done" and message["reason"] == "complete" for message in found)
    seqs = [message["seq"] for message in found]
    assert seqs == sorted(set(seqs))
    assert len({message["id"] for message in found}) == len(found)


async def test_history_and_what_follows_the_snapshot_are_everything(world: World, long_session: str) -> None:
    """A checkpoint far from the start: what is older comes by history, what is newer in entries, and none is missing."""
    place = Place(long_session)
    async with bare(world.url, world.stack.token()) as client:
        reply = await client.ask("subscribe", session=long_session)
        snapshot = await client.frame()
        place.subscribed(reply)
        place.take(snapshot)
        while not place.caught_up:
            place.take(await client.frame())
        assert snapshot["asOf"] > 0
        assert 0 < snapshot["messagesBefore"] < len(EVERYTHING)
        older = await pages(client, long_session, 50, before=snapshot["asOf"] + 1)
    assert len(older) == snapshot["messagesBefore"]
    newer = [f"hello {run_id.removeprefix('run_i')}" for run_id in place.started]
    answers = [place.answer(run_id) for run_id in place.started]
    assert newer == answers
    assert texts(older) + [f"{role}: {text}" for text in newer for role in ("user", "assistant")] == EVERYTHING
    assert place.whole


async def test_history_from_a_place_in_the_middle(world: World, long_session: str) -> None:
    async with bare(world.url, world.stack.token()) as client:
        found = await pages(client, long_session, 200)
        for index in (0, 1, 30, 99, 219):
            reply = await client.ask("history", session=long_session, before=found[index]["seq"], limit=4)
            assert texts(reply["messages"]) == EVERYTHING[max(0, index - 4) : index]
            assert (reply["before"] is None) == (index <= 4)
        reply = await client.ask("history", session=long_session, before=0)
        assert (reply["messages"], reply["before"]) == ([], None)


async def test_history_while_something_is_being_said(world: World, long_session: str) -> None:
    """What is not finished is in no page, and hides no older one."""
    async with bare(world.url, world.stack.token()) as client:
        await client.ask("subscribe", session=long_session)
        await client.ask("input.send", session=long_session, inputId="more", content="stream 9999 tokens at 20/s")
        await until_event(client, type="TEXT_MESSAGE_CONTENT", delta="t1 ")
        for limit in range(1, 70):
            reply = await client.ask("history", session=long_session, limit=limit)
            assert texts(reply["messages"]) == [*EVERYTHING, "user: stream 9999 tokens at 20/s"][-limit:]
            assert reply["before"] is not None
        await client.ask("run.cancel", session=long_session, runId="run_more")
        await until_event(client, type="RUN_FINISHED", runId="run_more")
        last = (await client.ask("history", session=long_session, limit=1))["messages"][0]
        assert (last["status"], last["reason"]) == ("done", "cancelled")


# --- readers that do not read ----------------------------------------------------------------------------------------------


def rss(process: Process) -> int:
    return int(psutil.Process(process.pid).memory_info().rss)


async def test_readers_that_stop_reading_are_held_back(world: World) -> None:
    """The gateway does not keep for them what they do not take; later they get all of it, in fewer frames."""
    session = world.session()
    places = [Place(session) for _ in range(SLOW_READERS)]
    wires = [await Wire.open(world.url, world.stack.token()) for _ in places]
    try:
        for wire, place in zip(wires, places, strict=True):
            # A small window, so that the answer does not vanish in the buffers of the system.
            wire._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            await wire.subscribe(place)
            await wire.follow(place, lambda p: p.caught_up)
        before, peak = rss(world.gateway), 0
        reader = Place(session)
        async with await Wire.open(world.url, world.stack.token()) as wire:
            await wire.subscribe(reader)
            await wire.input(session, "large", f"say {ANSWER_BYTES} bytes")
            async with asyncio.timeout(40):
                while "run_large" not in reader.ended:
                    reader.take(await wire.receive())
                    peak = max(peak, rss(world.gateway))
        assert reader.whole
        assert len(reader.answer("run_large")) == ANSWER_BYTES
        assert metric((await get(f"{world.url}/metrics")).text, "antiphon_gateway_readers_held_back_total") > 0
        for wire, place in zip(wires, places, strict=True):
            assert place.last < reader.last
            await wire.follow(place, lambda p: "run_large" in p.ended, wait_s=40)
            peak = max(peak, rss(world.gateway))
        for place in places:
            assert place.whole, place
            assert place.answer("run_large") == reader.answer("run_large")
            assert len(place.entries) < len(reader.entries)
        # Kept for all of them, unread, it would be 48 MB.
        assert peak - before < 24 * MIB
    finally:
        for wire in wires:
            wire.cut()


async def test_whoever_asks_and_does_not_read_the_answers(world: World) -> None:
    session = world.session()
    place = Place(session)
    async with await Wire.open(world.url, world.stack.token()) as wire:
        await wire.subscribe(place)
        await wire.input(session, "large", "say 4000000 bytes")
        await wire.follow(place, lambda p: "run_large" in p.ended)
    async with bare(world.url, world.stack.token()) as other, await Wire.open(world.url, world.stack.token()) as wire:
        wire._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        before, peak = rss(world.gateway), 0
        ids = [wire.send("history", session=session, limit=2) for _ in range(40)]
        for _ in range(40):
            assert (await other.ask("ping"))["op"] == "pong"
            await other.ask("history", session=session, limit=1)
            peak = max(peak, rss(world.gateway))
        # All answers together have 160 MB.
        assert peak - before < 64 * MIB
        # Once they are read, each is there.
        async with asyncio.timeout(30):
            while not all(id_ in wire._replies for id_ in ids):
                await wire._pump()
        assert {wire._replies[id_]["op"] for id_ in ids} == {"ok"}


async def test_a_reader_that_takes_nothing_at_all(world: World) -> None:
    """It is told that it is too slow, and when it does not take that either, its socket is closed all the same."""
    gateway = await world.stack.gateway(slow_reader_s="1")
    place = Place(world.session())
    async with await Wire.open(gateway.url, world.stack.token()) as stuck:
        stuck._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        await stuck.subscribe(place)
        async with bare(gateway.url, world.stack.token()) as asker:
            await asker.ask("input.send", session=place.session, inputId="large", content="say 9000000 bytes")
        async with asyncio.timeout(20):
            while any(
                c.raddr and c.raddr.port == port(stuck) for c in psutil.Process(gateway.pid).net_connections("tcp")
            ):
                await asyncio.sleep(0.1)
        metrics = (await get(f"{gateway.url}/metrics")).text
        assert metric(metrics, "antiphon_gateway_closes_total", code="4102") == 1
        assert metric(metrics, "antiphon_gateway_connections") == 0


def port(wire: Wire) -> int:
    return int(wire._writer.get_extra_info("sockname")[1])


# --- leaving -------------------------------------------------------------------------------------------------------------


async def test_draining(world: World) -> None:
    """On SIGTERM: not ready at once, then clients are sent away a few at a time, each told when to come back."""
    gateway = await world.stack.gateway(drain_s="10", drain_per_second="5")
    ends: list[tuple[float, Ended]] = []

    async def client() -> None:
        async with bare(gateway.url, world.stack.token()) as connected:
            await connected.ask("subscribe", session="drained")
            ready.release()
            ended = await connected.end()
            ends.append((time.monotonic(), ended))

    ready = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(20):
            tasks.create_task(client())
        for _ in range(20):
            await ready.acquire()
        gateway.terminate_soon()
        away = await until_status(f"{gateway.url}/readyz", 503)
        still_open = 20 - len(ends)
        assert away.json()["problems"] == ["draining"]
        refused = await get(f"{gateway.url}/v1/connect")
        assert (refused.status, refused.json()["code"]) == (503, "draining")
        assert "Retry-After" in refused.headers
    assert still_open > 10
    async with asyncio.timeout(10):
        assert await gateway.process.wait() == 0
    assert {ended.code for _, ended in ends} == {4200}
    assert {ended.reason["code"] for _, ended in ends} == {"draining"}
    waits = [ended.reason["retry_after_ms"] for _, ended in ends]
    assert all(0 <= wait <= RETRY_AFTER_MAX_MS for wait in waits)
    assert len(set(waits)) > 5, "those who leave together must not come back together"
    assert ends[-1][0] - ends[0][0] > 1.0, "they must not all be sent away at once"


async def test_a_gateway_that_leaves_serves_until_balancers_have_noticed(world: World) -> None:
    gateway = await world.stack.gateway(drain_delay_s="3", drain_s="1")
    async with bare(gateway.url, world.stack.token()) as before:
        gateway.terminate_soon()
        assert (await until_status(f"{gateway.url}/readyz", 503)).json()["problems"] == ["draining"]
        async with bare(gateway.url, world.stack.token()) as after:
            assert (await after.ask("subscribe", session="still here"))["code"] == "bad_name"
            assert (await after.ask("subscribe", session="still-here"))["op"] == "ok"
            assert (await after.end()).code == 4200
        assert (await before.end()).code == 4200
    async with asyncio.timeout(10):
        assert await gateway.process.wait() == 0


async def test_a_gateway_that_knows_public_keys_alone(world: World) -> None:
    ours, theirs = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    path = world.stack.directory / "public.pem"
    path.write_bytes(ours.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    gateway = await world.stack.gateway(jwt_secret_file="", jwt_public_keys=str(path))
    claims = {"sub": "user-1", "exp": int(time.time()) + 60, "sessions": {"*": ["read"]}}
    async with await Wire.open(gateway.url, jwt.encode(claims, ours, "EdDSA")) as wire:
        await wire.subscribe(Place(world.session()))
    for stranger in (jwt.encode(claims, theirs, "EdDSA"), world.stack.token()):
        with pytest.raises(Refusal, match="unauthorized"):
            await Wire.open(gateway.url, stranger)
    await gateway.kill()


# --- starting wrong --------------------------------------------------------------------------------------------------------


async def fails(world: World, *args: str, **env: str) -> str:
    """Runs a gateway that must not start; returns what it says, which is one line after those of its log."""
    code, output = await world.stack.run("gateway", "--port", "0", *args, **env)
    assert code == 1, output
    (line,) = (line for line in output.splitlines() if not line.startswith("{"))
    assert line.startswith("antiphon: ")
    return line


WRONG: list[tuple[dict[str, str], str]] = [
    (
        {"jwt_secret_file": ""},
        "no keys to check tokens with: set ANTIPHON_JWT_SECRET_FILE, ANTIPHON_JWT_PUBLIC_KEYS or",
    ),
    ({"jwt_secret_file": "/nowhere/secret"}, "ANTIPHON_JWT_SECRET_FILE: cannot read /nowhere/secret"),
    ({"jwt_public_keys": "/etc/hostname"}, "/etc/hostname is not a PEM public key"),
    ({"subscriptions": "-1"}, "ANTIPHON_SUBSCRIPTIONS must be at least 1"),
    ({"replicas": "2"}, "ANTIPHON_REPLICAS must be 1, 3 or 5"),
    ({"config": "/nowhere/antiphon.toml"}, "ANTIPHON_CONFIG: cannot read /nowhere/antiphon.toml"),
]


async def test_wrong_settings(world: World) -> None:
    """A gateway that is set up wrong does not start, and says in one line what to change."""

    async def check(env: dict[str, str], said: str) -> None:
        async with turn:
            assert said in await fails(world, **env)

    turn = asyncio.Semaphore(2)
    async with asyncio.TaskGroup() as tasks:
        for env, said in WRONG:
            tasks.create_task(check(env, said))


async def test_a_port_that_is_none_or_taken(world: World) -> None:
    port = world.url.rpartition(":")[2]
    async with asyncio.TaskGroup() as tasks:
        taken = tasks.create_task(fails(world, "--port", port))
        wrong = tasks.create_task(fails(world, "--port", "abc"))
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use; choose another --port" in await taken
    assert "--port must be a whole number, not 'abc'" in await wrong
    code, output = await world.stack.run("gateway", port="abc")
    assert (code, output) == (1, "antiphon: ANTIPHON_PORT must be a whole number, not 'abc'\n")
