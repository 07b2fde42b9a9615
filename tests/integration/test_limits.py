"""What a real gateway lets one address, one user and one connection do, on whatever wire; and whose pages it serves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
import pytest_asyncio

from broker.config import LogSettings, NatsSettings
from broker.jetstream.connection import Connection
from broker.jetstream.log import JetStreamLog
from broker.schema import Schema
from broker.state import MAX_SCHEDULED, MAX_SCHEDULED_BYTES
from gateway.config import GatewaySettings
from gateway.http.asyncapi import frames
from tests.support.bare import WAIT_S, Bare, Ended, bare, get
from tests.support.http import Http
from tests.support.nats import single_server
from tests.support.stack import Process, Stack, metric

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

_names = count()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    directory = tmp_path_factory.mktemp("limits")
    async with (
        single_server(directory / "nats", roles=True) as nats,
        Stack(directory / "stack", nats.url, partitions=1) as stack,
    ):
        yield stack


@asynccontextmanager
async def gateway(stack: Stack, **env: str) -> AsyncIterator[Process]:
    process = await stack.gateway(**env)
    try:
        yield process
        assert "Traceback" not in process.output()
    finally:
        await process.kill()


def session() -> str:
    """A session that no other test has."""
    return f"s{next(_names)}"


async def limited(process: Process, limit: str) -> float:
    """How often the gateway says that it has refused something by this limit."""
    page = await get(f"{process.url}/metrics")
    return metric(page.text, "antiphon_gateway_limited_total", limit=limit)


async def until(open_: Any) -> None:
    """Until a place is free again: a connection that has ended is noticed a moment later."""
    async with asyncio.timeout(WAIT_S):
        while not await open_():
            await asyncio.sleep(0.02)


def is_rate_limited(reply: dict[str, Any], exceeded: str) -> int:
    """How long it is to be waited, in ms."""
    assert (reply["op"], reply["code"], reply["retryable"]) == ("error", "rate_limited", True), reply
    assert reply["exceeded"] == exceeded
    assert reply["retry_after_ms"] > 0
    return int(reply["retry_after_ms"])


# --- connections -----------------------------------------------------------------------------------------------------------


async def test_a_user_has_so_many_connections_on_all_wires(stack: Stack) -> None:
    token, other = stack.token("user-1"), stack.token("user-2")
    async with gateway(stack, user_connections="2") as process, Http(process.url, token) as http:
        path = f"/v1/sessions/{session()}/events"
        async with bare(process.url, token), contextlib.AsyncExitStack() as second:
            await second.enter_async_context(bare(process.url, token))
            async with bare(process.url) as third:
                reply = await third.ask("hello", token=token)
                assert (reply["code"], reply["retryable"], reply["limit"]) == ("too_many_connections", True, 2)
                assert reply["exceeded"] == "user_connections"
                ended = await third.end()
            # 42xx: the client comes back later, perhaps to another gateway.
            assert ended.code == 4201
            assert ended.reason == {"code": "too_many_connections", "retry_after_ms": reply["retry_after_ms"]}
            answer = await http.ask("GET", path, format="sse")
            assert (answer.status, answer.code) == (429, "too_many_connections")
            assert int(answer.headers["Retry-After"]) >= 2
            async with bare(process.url, other) as another:
                assert (await another.ask("ping"))["op"] == "pong"
            await http.ok("GET", "/v1/sessions")  # who only asks is no connection
            await second.aclose()

            async def has_room() -> bool:
                async with bare(process.url) as again:
                    return bool((await again.ask("hello", token=token))["op"] == "welcome")

            await until(has_room)
        assert await limited(process, "user_connections") >= 2


async def test_every_wire_of_http_counts(stack: Stack) -> None:
    token = stack.token("user-1")
    async with (
        gateway(stack, user_connections="1") as process,
        bare(process.url, token),
        Http(process.url, token) as http,
    ):
        name = session()
        chat = {"id": name, "messages": [{"id": "x", "role": "user", "parts": [{"type": "text", "text": "x"}]}]}
        agui = {"threadId": name, "runId": "r", "messages": []}
        for method, path, body in (
            ("POST", f"/v1/sessions/{name}/subscribe", {}),
            ("POST", "/v1/runs", {"content": "x", "session": name}),
            ("POST", "/v1/runs", {"content": "x", "session": name, "stream": "text"}),
            ("POST", "/v1/ai-sdk/6", chat),
            ("GET", f"/v1/ai-sdk/6/{name}/stream", None),
            ("POST", "/v1/ag-ui", agui),
        ):
            await http.refused(429, "too_many_connections", method, path, body)
        # Who cannot wait for an answer has not asked.
        await http.refused(404, "not_found", "GET", f"/v1/sessions/{name}")


async def upgrade_refused(url: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, Any], str]:
    """Status, body and Retry-After of the answer to an upgrade that is refused."""
    wanted = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Protocol": "antiphon.v1",
        **(headers or {}),
    }
    timeout = aiohttp.ClientTimeout(total=WAIT_S)
    async with (
        aiohttp.ClientSession(timeout=timeout) as http,
        http.get(f"{url}/v1/connect", headers=wanted) as answer,
    ):
        return answer.status, await answer.json(), answer.headers["Retry-After"]


async def test_an_address_has_so_many_connections(stack: Stack) -> None:
    """By what a trusted proxy says; a network of 64 bits of IPv6 is one."""
    token = stack.token()
    async with gateway(stack, address_connections="2", trusted_proxies="127.0.0.0/8,10.0.0.0/8") as process:
        for one, other, else_ in (
            ("203.0.113.7", "203.0.113.7", "203.0.113.8"),
            ("2001:db8:1::1", "2001:db8:1::ffff:2", "2001:db8:2::1"),
        ):
            # What somebody writes before the proxy's own entry is not believed; the proxy's own networks are passed by.
            headers = {"X-Forwarded-For": f"198.51.100.1, {one}, 10.1.2.3"}
            async with (
                bare(process.url, token, headers={"X-Forwarded-For": one}),
                bare(process.url, token, headers=headers),
            ):
                status, body, wait = await upgrade_refused(process.url, {"X-Forwarded-For": other})
                assert (status, body["code"], body["retryable"]) == (429, "too_many_connections", True)
                assert 2 <= int(wait) <= 8
                async with bare(process.url, token, headers={"X-Forwarded-For": else_}) as another:
                    assert (await another.ask("ping"))["op"] == "pong"
        assert await limited(process, "address_connections") == 2
        page = await get(f"{process.url}/metrics")
        assert metric(page.text, "antiphon_gateway_upgrades_total", outcome="too_many_connections") == 2


async def test_nobody_is_believed_by_default(stack: Stack) -> None:
    token = stack.token()
    async with (
        gateway(stack, address_connections="1") as process,
        bare(process.url, token, headers={"X-Forwarded-For": "203.0.113.7"}),
    ):
        status, body, _ = await upgrade_refused(process.url, {"X-Forwarded-For": "203.0.113.8"})
        assert (status, body["code"]) == (429, "too_many_connections")
        async with Http(process.url, token) as http:
            await http.refused(429, "too_many_connections", "GET", f"/v1/sessions/{session()}/events", format="sse")


async def test_those_who_do_not_say_who_they_are_take_no_place_from_others(stack: Stack) -> None:
    token = stack.token()
    async with (
        gateway(stack, greeting_connections="2", hello_timeout_s="120") as process,
        bare(process.url, token),  # has said so
        bare(process.url) as first,
        bare(process.url),
    ):
        status, body, _ = await upgrade_refused(process.url)
        assert (status, body["code"]) == (429, "too_many_connections")
        assert (await first.ask("hello", token=token))["op"] == "welcome"
        async with bare(process.url, token) as third:
            assert (await third.ask("ping"))["op"] == "pong"
        assert await limited(process, "greeting_connections") == 1


# --- how much --------------------------------------------------------------------------------------------------------------


async def test_bytes(stack: Stack) -> None:
    async with (
        gateway(stack, bytes_per_second="20000", bytes_burst="6000") as process,
        bare(process.url, stack.token()) as client,
    ):
        # What has as many bytes as the burst may come, though the characters are fewer; one more is refused.
        assert (await client.ask("ping", pad="ö" * 2900))["op"] == "pong"
        wait_ms = is_rate_limited(await client.ask("ping", pad="x" * 5000), "bytes_per_second")
        assert wait_ms <= 300
        await asyncio.sleep(wait_ms / 1000)  # as told
        assert (await client.ask("ping", pad="x" * 5000))["op"] == "pong"
        assert await limited(process, "bytes_per_second") == 1


async def test_inputs_of_a_user_are_counted_over_all_wires(stack: Stack) -> None:
    token, name = stack.token("user-1"), session()
    async with (
        gateway(stack, inputs_per_second="0.1", inputs_burst="3") as process,
        bare(process.url, token) as one,
        bare(process.url, token) as other,
        Http(process.url, token) as http,
    ):
        path = f"/v1/sessions/{name}/inputs"
        assert (await one.ask("input.send", session=name, inputId="i1", content="x"))["op"] == "ok"
        assert (await other.ask("input.send", session=name, inputId="i2", content="x"))["op"] == "ok"
        await http.ok("POST", path, {"inputId": "i3", "content": "x"})
        for client in (one, other):
            reply = await client.ask("input.send", session=name, inputId="i4", content="x")
            assert is_rate_limited(reply, "inputs_per_second") <= 10_000
        problem = await http.refused(429, "rate_limited", "POST", path, {"inputId": "i4", "content": "x"})
        assert problem["data"]["exceeded"] == "inputs_per_second"
        assert problem["retryable"]
        run = {"content": "x", "session": name, "inputId": "i4", "wait": 0}
        await http.refused(429, "rate_limited", "POST", "/v1/runs", run)
        # Nothing else is held up, and nobody else.
        assert (await one.ask("history", session=name))["op"] == "ok"
        async with bare(process.url, stack.token("user-2")) as another:
            assert (await another.ask("input.send", session=name, inputId="i5", content="x"))["op"] == "ok"
        assert await limited(process, "inputs_per_second") == 4


async def test_joins_of_a_user_are_counted_over_all_wires(stack: Stack) -> None:
    token = stack.token("user-1")
    async with (
        gateway(stack, joins_per_second="0.1", joins_burst="4") as process,
        bare(process.url, token) as one,
        bare(process.url, token) as other,
        Http(process.url, token) as http,
    ):
        for client in (one, other):
            assert (await client.ask("subscribe", session=session()))["op"] == "ok"
        name = session()
        async with http.stream(f"/v1/sessions/{name}/events") as stream:
            await stream.until("session.caught_up")
        await http.ok("GET", f"/v1/sessions/{name}/events")
        assert is_rate_limited(await one.ask("subscribe", session=session()), "joins_per_second") <= 10_000
        for path, how in (
            (f"/v1/sessions/{name}/events", {"format": "sse"}),
            (f"/v1/sessions/{name}/events", {}),
            (f"/v1/ai-sdk/6/{name}/stream", {}),
        ):
            problem = await http.refused(429, "rate_limited", "GET", path, **how)
            assert problem["data"]["exceeded"] == "joins_per_second"
        async with bare(process.url, stack.token("user-2")) as another:
            assert (await another.ask("subscribe", session=name))["op"] == "ok"


async def test_refusals_now_and_then_are_no_flood(stack: Stack) -> None:
    async with (
        gateway(stack, flood_refusals="5", flood_s="1") as process,
        bare(process.url, stack.token()) as client,
    ):
        for _ in range(4):
            for _ in range(4):
                assert (await client.ask("unsubscribe", session="none"))["code"] == "not_subscribed"
            await asyncio.sleep(1)  # the window of the setting
        for _ in range(50):
            await client.post("unsubscribe", session="none")
        ended = await client.end()
        assert (ended.code, ended.reason) == (4429, {"code": "flood"})


async def test_commands_that_wait_and_subscriptions_say_which_limit_it_was(stack: Stack) -> None:
    async with (
        gateway(stack, subscriptions="1", commands_per_second="0.5", commands_burst="3") as process,
        bare(process.url, stack.token()) as client,
    ):
        assert (await client.ask("subscribe", session=session()))["op"] == "ok"
        reply = await client.ask("subscribe", session=session())
        assert (reply["code"], reply["limit"], reply["exceeded"]) == ("too_many_subscriptions", 1, "subscriptions")
        await client.ask("ping")
        is_rate_limited(await client.ask("ping"), "commands_per_second")


async def test_reads_of_the_log_wait_for_each_other(tmp_path: Path) -> None:
    async with (
        single_server(tmp_path / "nats") as nats,
        Stack(tmp_path / "stack", nats.url, partitions=2) as stack,
        Connection(NatsSettings(nats_url=stack.nats_url), name="test") as connection,
        JetStreamLog(connection, LogSettings(catchup_concurrency=2, catchup_reads=3)) as log,
    ):
        await log.prepare()
        here = next(key for n in range(100) if log.subjects(key := f"s{n}").partition == 0)
        there = next(key for n in range(100) if log.subjects(key := f"s{n}").partition == 1)
        nats.pause()
        try:
            async with asyncio.TaskGroup() as tasks:
                for key in (here, there):
                    for _ in range(5):
                        tasks.create_task(log.read(log.subjects(key), 0))
                # Of each partition two may read, of both three: seven wait, one of them for the others' partition.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                assert log.reads_waiting(log.subjects(here)) == 4
                assert log.reads_waiting(log.subjects(there)) == 4
                nats.resume()
        finally:
            nats.resume()
        assert log.reads_waiting(log.subjects(here)) == log.reads_waiting(log.subjects(there)) == 0


async def test_who_joins_while_too_many_wait_is_told_to_wait(stack: Stack) -> None:
    """One read at a time, and one that may wait: while NATS stands still, the third reader is told."""
    env = {"catchup_reads": "1", "catchup_concurrency": "1", "catchup_queue": "1", "command_timeout_s": "60"}
    directory = stack.directory / "still"
    async with (
        single_server(directory / "nats") as nats,
        Stack(directory / "stack", nats.url, partitions=1) as own,
        gateway(own, ack_timeout_s="30", ring_entries="1", **env) as process,
        bare(process.url, own.token()) as writer,
        bare(process.url, own.token()) as readers,
    ):
        names = [session() for _ in range(4)]
        for name in names:
            # Without a session that is open, the ring is not what is read.
            for n in range(3):
                assert (await writer.ask("input.send", session=name, inputId=f"i{n}", content="x"))["op"] == "ok"
            epoch = (await readers.ask("subscribe", session=name))["epoch"]
            await until_caught_up(readers, name)
            assert (await readers.ask("unsubscribe", session=name))["op"] == "ok"
        nats.pause()
        try:
            replies = [await readers.ask("subscribe", session=name, after=f"{epoch}:0") for name in names]
            assert [reply["op"] for reply in replies[:2]] == ["ok", "ok"]
            is_rate_limited(replies[-1], "catchup_queue")
            assert await limited(process, "catchup_queue") >= 1
        finally:
            nats.resume()
        for name in names[:2]:
            await until_caught_up(readers, name)

        async def joins() -> bool:
            return bool((await readers.ask("subscribe", session=names[-1], after=f"{epoch}:0"))["op"] == "ok")

        await until(joins)


async def until_caught_up(client: Bare, name: str) -> None:
    while True:
        frame = await client.frame()
        if frame["op"] == "session.caught_up" and frame["session"] == name:
            return


# --- what is told ----------------------------------------------------------------------------------------------------------


async def test_hello_tells_all_limits_that_a_client_may_meet(stack: Stack) -> None:
    settings = GatewaySettings()
    async with (
        gateway(
            stack, tenant_sessions="7", tenant_limits="acme bytes=1000, beta sessions=0", hello_timeout_s="120"
        ) as process,
        bare(process.url) as client,
        bare(process.url) as tenant,
        bare(process.url) as other,
    ):
        welcome = await client.ask("hello", token=stack.token())
        assert Schema(frames()["welcome"]).problem(welcome) is None
        limits = welcome["limits"]
        assert set(limits) == set(frames()["welcome"]["properties"]["limits"]["properties"])
        for name, value in limits.items():
            if not name.startswith(("tenant_", "scheduled_")):
                assert value == getattr(settings, name), name
        assert (limits["tenant_sessions"], limits["tenant_bytes"]) == (7, 0)
        assert (limits["scheduled_inputs"], limits["scheduled_bytes"]) == (MAX_SCHEDULED, MAX_SCHEDULED_BYTES)
        limits = (await tenant.ask("hello", token=stack.token(tenant="acme")))["limits"]
        assert (limits["tenant_sessions"], limits["tenant_bytes"]) == (7, 1000)
        assert (await other.ask("hello", token=stack.token(tenant="beta")))["limits"]["tenant_sessions"] == 0


# --- pages -----------------------------------------------------------------------------------------------------------------


async def may_connect(stack: Stack, process: Process, **headers: str) -> bool:
    """Whether a page may, or what says of itself what headers say."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with bare(process.url, headers=named) as client:
        try:
            return bool((await client.ask("hello", token=stack.token()))["op"] == "welcome")
        except Ended as ended:
            if (ended.code, ended.reason) == (4403, {"code": "origin_not_allowed"}):
                return False  # 44xx: the client does not come back
            raise


async def test_pages_of_other_origins_are_refused_unless_named(stack: Stack) -> None:
    async with gateway(stack, cors_origins="https://app.example, https://b.example/") as process:
        own = urlsplit(process.url).netloc
        assert await may_connect(stack, process)  # no browser
        for origin in (f"http://{own}", f"https://{own}", "https://app.example", "https://b.example"):
            assert await may_connect(stack, process, Origin=origin), origin
        for origin in (
            "null",
            "https://evil.example",
            "http://app.example",
            "https://app.example:8443",
            "https://app.example.evil.example",
            f"http://{own}.evil.example",
            f"http://evil.example/{own}",
            "http://127.0.0.1",
            f"file://{own}",
            "",
        ):
            assert not await may_connect(stack, process, Origin=origin), origin
        # By the name that it was reached under, with the usual port or without.
        assert await may_connect(stack, process, Origin="https://chat.example", Host="chat.example")
        assert await may_connect(stack, process, Origin="https://chat.example", Host="Chat.example:443")
        # A proxy that is not trusted says nothing.
        told = {"X_Forwarded_Host": "chat.example"}
        assert not await may_connect(stack, process, Origin="https://chat.example", **told)
        page = await get(f"{process.url}/metrics")
        assert metric(page.text, "antiphon_gateway_upgrades_total", outcome="origin_not_allowed") == 11


async def test_behind_a_proxy_that_is_trusted_the_own_name_is_the_one_it_tells(stack: Stack) -> None:
    async with gateway(stack, trusted_proxies="127.0.0.1") as process:
        told = {"X_Forwarded_Host": "evil.example, chat.example"}
        assert await may_connect(stack, process, Origin="https://chat.example", **told)
        assert not await may_connect(stack, process, Origin="https://evil.example", **told)


async def test_all_pages_if_an_operator_wants_so(stack: Stack) -> None:
    async with gateway(stack, cors_origins="*") as process:
        for origin in ("null", "https://anybody.example"):
            assert await may_connect(stack, process, Origin=origin)
