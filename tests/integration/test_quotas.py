"""How much a tenant may have: sessions, and bytes of records and attachments, counted over all gateways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import orjson
import pytest
import pytest_asyncio

from broker.events import OtherEvent
from broker.jetstream.direct import read_batch
from broker.jetstream.topology import USAGE_STREAM
from broker.subjects import USAGE, used_by
from tests.support.bare import WAIT_S, Bare, bare, get
from tests.support.http import Http
from tests.support.nats import single_server
from tests.support.plane import LaneOwner
from tests.support.stack import Process, Stack, metric, open_log

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

LIMITS = "few sessions=2, small bytes=20000, files bytes=200000, old sessions=3 bytes=9000, gone sessions=9, agents bytes=30000"
ENV = {"tenant_limits": LIMITS, "usage_s": "0.2", "requests_per_second": "10000", "requests_burst": "10000"}
CONTENT = "x" * 3000
_ids = count()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    directory = tmp_path_factory.mktemp("quotas")
    async with (
        single_server(directory / "nats", roles=True) as nats,
        Stack(directory / "stack", nats.url, partitions=2) as stack,
    ):
        yield stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateways(stack: Stack) -> AsyncIterator[list[Process]]:
    gateways = await stack.start(2, workers=0, **ENV)
    yield gateways
    for gateway in gateways:
        assert "Traceback" not in gateway.output()


@asynccontextmanager
async def clients(stack: Stack, gateways: list[Process], tenant: str) -> AsyncIterator[list[Bare]]:
    """One at each of two gateways."""
    token = stack.token(tenant=tenant)
    async with bare(gateways[0].url, token) as one, bare(gateways[1].url, token) as other:
        yield [one, other]


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Gateways hear of each other a moment later."""
    async with asyncio.timeout(WAIT_S):
        while not await holds():
            await asyncio.sleep(0.05)


async def send(client: Bare, session: str, content: str = "x") -> dict[str, Any]:
    return await client.ask("input.send", session=session, inputId=f"i{next(_ids)}", content=content)


def is_refused(reply: dict[str, Any], code: str, limit: int, exceeded: str) -> None:
    assert (reply["op"], reply.get("code")) == ("error", code), reply
    # Waiting is of no use: something has to be deleted.
    assert not reply["retryable"]
    assert "retry_after_ms" not in reply
    assert (reply["limit"], reply["exceeded"]) == (limit, exceeded)
    assert reply["used"] >= limit


async def test_sessions(stack: Stack, gateways: list[Process]) -> None:
    async with clients(stack, gateways, "few") as (one, other):
        assert (await one.ask("session.create", session="s1", title="first"))["op"] == "ok"
        assert (await send(other, "s2"))["op"] == "ok"

        async def is_full() -> bool:
            reply = await one.ask("session.create", session="s3")
            if reply["op"] == "ok":
                # Made before the first gateway had heard of the second one's session: it is made undone.
                assert (await one.ask("session.delete", session="s3"))["op"] == "ok"
                return False
            is_refused(reply, "too_many_sessions", 2, "tenant_sessions")
            return True

        await until(is_full)
        for client in (one, other):
            is_refused(await send(client, "s3"), "too_many_sessions", 2, "tenant_sessions")
            reply = await client.ask("session.fork", session="s1", to="s3")
            is_refused(reply, "too_many_sessions", 2, "tenant_sessions")
            # Those that are there go on.
            assert (await send(client, "s1"))["op"] == "ok"
            assert (await client.ask("history", session="s2"))["op"] == "ok"
            # What nobody has written to can be read as before.
            assert (await client.ask("subscribe", session="s3"))["op"] == "ok"
        # A deletion makes room, at every gateway.
        assert (await other.ask("session.delete", session="s1"))["op"] == "ok"

        async def has_room() -> bool:
            return bool((await one.ask("session.create", session="s3"))["op"] == "ok")

        await until(has_room)
    async with clients(stack, gateways, "others") as (one, _):
        for n in range(4):
            assert (await one.ask("session.create", session=f"s{n}"))["op"] == "ok"


async def test_over_http(stack: Stack, gateways: list[Process]) -> None:
    """Every request that would begin a session, or store something."""
    token = stack.token(tenant="http")
    env = ENV | {"tenant_limits": "http sessions=1 bytes=1000"}
    gateway = await stack.gateway(**env)
    async with Http(gateway.url, token) as http:
        await http.ok("POST", "/v1/sessions", {"session": "s1"})
        parts = [{"type": "text", "text": "x"}]

        def requests(session: str) -> list[tuple[str, str, dict[str, Any]]]:
            said = {"id": f"m{next(_ids)}", "role": "user"}
            return [
                ("POST", f"/v1/sessions/{session}/inputs", {"content": "x"}),
                ("POST", "/v1/runs", {"content": "x", "session": session, "wait": 0}),
                ("POST", "/v1/ai-sdk/6", {"id": session, "messages": [said | {"parts": parts}]}),
                ("POST", "/v1/ag-ui", {"threadId": session, "runId": "r", "messages": [said | {"content": "x"}]}),
            ]

        new = ("POST", "/v1/sessions", {"session": "s2"})
        fork = ("POST", "/v1/sessions/s1/fork", {"to": "s2"})
        for method, path, body in (new, fork, *requests("s2")):
            problem = await http.refused(409, "too_many_sessions", method, path, body)
            assert not problem["retryable"]
            assert problem["data"]["limit"] == 1
        batch = await http.ok("POST", "/v1/runs/batch", {"requests": [{"content": "x", "session": "s2"}], "wait": 0})
        assert batch["outcomes"][0]["problem"]["code"] == "too_many_sessions"
        await http.refused(404, "not_found", "GET", "/v1/sessions/s2")
        await http.ok("POST", "/v1/sessions/s1/inputs", {"content": "x" * 1000})

        async def is_full() -> bool:
            return (await http.ask("POST", "/v1/sessions/s1/inputs", {"content": "x"})).code == "storage_full"

        await until(is_full)
        change = ("PATCH", "/v1/sessions/s1", {"title": "x"})
        for method, path, body in (new, fork, change, *requests("s1")):
            problem = await http.refused(409, "storage_full", method, path, body)
            assert problem["data"]["exceeded"] == "tenant_bytes"
        upload = {"Content-Type": "text/plain"}
        await http.refused(409, "storage_full", "POST", "/v1/sessions/s1/attachments", b"x", headers=upload)
        assert (await http.ok("GET", "/v1/sessions/s1"))["session"] == "s1"
        page = await get(f"{gateway.url}/metrics")
        assert metric(page.text, "antiphon_gateway_limited_total", limit="tenant_sessions") >= 6
        assert metric(page.text, "antiphon_gateway_limited_total", limit="tenant_bytes") >= 8
        said = [line for line in gateway.logged() if line.get("event") == "a tenant has all that it may have"]
        assert {line["limit"] for line in said} == {"tenant_sessions", "tenant_bytes"}
    await gateway.kill()


async def fill(client: Bare, session: str) -> int:
    """Sends until that is refused; how many were taken."""
    taken = 0

    async def is_full() -> bool:
        nonlocal taken
        reply = await send(client, session, CONTENT)
        if reply.get("code") == "queue_full":
            return False
        taken += reply["op"] == "ok"
        if reply["op"] == "error":
            assert reply["code"] == "storage_full", reply
        return bool(reply["op"] == "error")

    await until(is_full)
    return taken


async def test_bytes_of_records(stack: Stack, gateways: list[Process]) -> None:
    async with clients(stack, gateways, "small") as (one, other):
        for session in ("s1", "s2"):
            reply = await one.ask("session.create", session=session, config={"maxQueue": 64})
            assert reply["op"] == "ok"
        assert await fill(one, "s1") >= 5
        # What one gateway has measured, the other knows.
        await until(lambda: is_full(other, "s2"))
        for client in (one, other):
            is_refused(await send(client, "s2"), "storage_full", 20_000, "tenant_bytes")
            is_refused(await client.ask("session.create", session="s3"), "storage_full", 20_000, "tenant_bytes")
            reply = await client.ask("session.update", session="s2", title="x")
            is_refused(reply, "storage_full", 20_000, "tenant_bytes")
        # Nothing is lost: what there is can be read, what goes on can be stopped, and what has been sent again is known.
        snapshot = await one.ask("subscribe", session="s1", replay="every")
        assert snapshot["op"] == "ok"
        assert (await one.ask("run.cancel", session="s1", runId="run_none"))["code"] == "run_not_found"
        assert (await one.ask("session.close", session="s2"))["op"] == "ok"
        assert (await one.ask("session.reopen", session="s2"))["op"] == "ok"
        # A deletion frees what it took.
        assert (await other.ask("session.delete", session="s1"))["op"] == "ok"
        for client in (one, other):
            await until(lambda client=client: takes(client, "s2"))  # type: ignore[misc]


async def is_full(client: Bare, session: str) -> bool:
    return (await send(client, session)).get("code") == "storage_full"


async def takes(client: Bare, session: str) -> bool:
    return bool((await send(client, session))["op"] == "ok")


async def test_what_agents_write_counts_and_is_never_refused(stack: Stack, gateways: list[Process]) -> None:
    async with clients(stack, gateways, "agents") as (one, other), stack.log() as log:
        assert (await send(one, "s1"))["op"] == "ok"
        assert (await one.ask("subscribe", session="s1"))["op"] == "ok"
        owner = LaneOwner(log, "agents~s1")
        await owner.claim()
        for _ in range(12):
            await owner.write(OtherEvent("note", {"type": "note", "text": CONTENT}))
        await until(lambda: is_full(other, "s2"))
        await owner.write(OtherEvent("note", {"type": "note", "text": CONTENT}))


async def test_bytes_of_attachments(stack: Stack, gateways: list[Process]) -> None:
    token = stack.token(tenant="files")
    plain = {"Content-Type": "text/plain"}
    async with Http(gateways[0].url, token) as http, Http(gateways[1].url, token) as other:
        path = "/v1/sessions/s1/attachments"
        stored = await http.ok("POST", path, b"x" * 120_000, headers=plain)
        # One gateway has it, and the other hears of it.
        for each in (http, other):

            async def is_refused_here(each: Http = each) -> bool:
                answer = await each.ask("POST", path, b"y" * 120_000, headers=plain)
                if answer.status == 201:
                    await each.ok("DELETE", f"{path}/{answer.json()['id']}")
                return answer.code == "storage_full"

            await until(is_refused_here)

        async def is_taken(size: int) -> bool:
            return (await other.ask("POST", path, b"y" * size, headers=plain)).status == 201

        # What there is room for is taken, once those that were too many are known to be gone.
        await until(lambda: is_taken(100))
        await http.ok("DELETE", f"{path}/{stored['id']}")
        await until(lambda: is_taken(120_000))


async def test_what_was_there_before_the_limits_counts_too(stack: Stack) -> None:
    token = stack.token(tenant="old")
    before = await stack.gateway()
    async with bare(before.url, token) as client:
        for session in ("s1", "s2", "s3"):
            for _ in range(2):
                assert (await send(client, session, CONTENT))["op"] == "ok"
    await before.kill()
    for env in (ENV, ENV):  # the second one finds the notes of the first
        gateway = await stack.gateway(**env)
        async with bare(gateway.url, token) as client:

            async def is_counted(client: Bare = client) -> bool:
                return (await client.ask("session.update", session="s1", title="x")).get("code") == "storage_full"

            await until(is_counted)
        await gateway.kill()
    # Somebody else than a gateway takes sessions away.
    async with stack.log() as log:
        for session in ("s1", "s2"):
            await log.forget_before(log.subjects(f"old~{session}"), 2**40)
    gateway = await stack.gateway(**ENV)
    async with bare(gateway.url, token) as client:

        async def has_room() -> bool:
            return (await client.ask("session.update", session="s3", title="x"))["op"] == "ok"

        await until(has_room)
    await gateway.kill()


async def noted(stack: Stack) -> set[str]:
    """The sessions of which there are notes."""
    async with open_log(stack.nats_url) as (connection, _):
        query = orjson.dumps({"seq": 1, "next_by_subj": USAGE, "batch": 1000})
        page, _ = await read_batch(connection, USAGE_STREAM, query)
        return {used_by(stored.subject) for stored in page}


async def test_what_was_deleted_before_the_limits_counts_no_more(stack: Stack) -> None:
    token = stack.token(tenant="gone")
    async with stack.log() as log:
        # Of one partition, and so counted in this order.
        names = [name for n in range(100) if log.subjects(f"gone~{(name := f's{n:02}')}").partition == 0][:2]
    before = await stack.gateway()
    async with bare(before.url, token) as client:
        for name in names:
            assert (await send(client, name))["op"] == "ok"
        assert (await client.ask("session.delete", session=names[0]))["op"] == "ok"
    await before.kill()
    gateway = await stack.gateway(**ENV)

    async def is_counted() -> bool:
        return f"gone~{names[1]}" in await noted(stack)

    await until(is_counted)
    assert f"gone~{names[0]}" not in await noted(stack)
    async with bare(gateway.url, token) as client:
        # It may begin again, and counts then.
        assert (await send(client, names[0]))["op"] == "ok"

        async def is_back() -> bool:
            return f"gone~{names[0]}" in await noted(stack)

        await until(is_back)
        assert (await client.ask("session.delete", session=names[0]))["op"] == "ok"
        assert f"gone~{names[0]}" not in await noted(stack)
    await gateway.kill()
