"""Revocations: by the command line and over HTTP, kept in the log for as long as they say, through restarts and outages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from broker.config import NatsSettings
from broker.jetstream.connection import Connection
from broker.jetstream.revocations import JetStreamRevocations
from broker.revocations import Revocation, Revoked, revocation
from tests.support.http import Http
from tests.support.nats import NatsNode, single_server
from tests.support.place import Place
from tests.support.rawclient import WAIT_S, Refusal, Wire, WireClosed, http_get
from tests.support.stack import Process, Stack, metric


@pytest.fixture
async def stack(tmp_path: Path, nats_server: NatsNode) -> AsyncIterator[Stack]:
    async with Stack(tmp_path / "stack", nats_server.url) as stack:
        yield stack


async def closed_with(wire: Wire) -> int:
    async with asyncio.timeout(WAIT_S):
        try:
            while True:
                await wire.receive()
        except WireClosed as closed:
            return closed.code


async def test_by_the_command_line(stack: Stack) -> None:
    gateway = await stack.gateway()
    async with (
        await Wire.open(gateway.url, stack.token("user-1", jti="one")) as first,
        await Wire.open(gateway.url, stack.token("user-1", jti="two")) as second,
        await Wire.open(gateway.url, stack.token("user-2")) as other,
    ):
        assert await stack.run("revoke", "token", "one", "--ttl-s", "3600") == (0, "revoked: token one\n")
        assert await closed_with(first) == 4301
        assert (await second.command("ping"))["op"] == "pong"
        await second.subscribe(Place("demo"))
        await other.subscribe(Place("demo"))
        assert await stack.run("revoke", "session", "demo", "--user", "user-1") == (0, "revoked: session demo\n")
        async with asyncio.timeout(WAIT_S):
            while (await second.receive())["op"] != "session.unsubscribed":
                pass
        assert await stack.run("revoke", "user", "user-1") == (0, "revoked: user user-1\n")
        assert await closed_with(second) == 4301
        await other.input("demo", "i-1", "still here")
    code, output = await stack.run("revoke", "list")
    assert code == 0
    assert [line.partition("  until ")[0].split() for line in sorted(output.splitlines())] == [
        ["session", "demo", "of", "user-1"],
        ["token", "one"],
        ["user", "user-1"],
    ]
    async with Http(gateway.url, stack.token("admin")) as http:
        listed = (await http.ok("GET", "/v1/revocations"))["revocations"]
        assert {(r["kind"], r["whose"], r["user"]) for r in listed} == {
            ("session", "demo", "user-1"),
            ("token", "one", None),
            ("user", "user-1", None),
        }
    assert metric((await http_get(f"{gateway.url}/metrics"))[1], "antiphon_gateway_revocations") == 3
    assert metric((await http_get(f"{gateway.url}/metrics"))[1], "antiphon_gateway_closes_total", code="4301") == 2


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("token",), "say what to revoke"),
        (("list", "x"), "say what to revoke"),
        (("user", "x", "--ttl-s", "0"), "--ttl-s must be"),
        (("user", "x", "--user", "y"), "--user says whose"),
    ],
)
async def test_what_cannot_be_revoked(stack: Stack, args: tuple[str, ...], said: str) -> None:
    code, output = await stack.run("revoke", *args)
    assert code == 1
    assert said in output


async def test_who_may_revoke(stack: Stack) -> None:
    gateway = await stack.gateway()
    body = {"kind": "user", "whose": "user-1"}
    for sessions in ({"team-*": ["admin"]}, {"*": ["read", "send", "steer"]}, {"**": ["admin"]}):
        async with Http(gateway.url, stack.token("user-2", sessions)) as http:
            for method, sent in (("POST", body), ("GET", None)):
                problem = await http.refused(403, "not_allowed", method, "/v1/revocations", sent)
                assert problem["data"] == {"right": "admin"}
    async with Http(gateway.url, stack.token("admin")) as http:
        await http.refused(400, "bad_command", "POST", "/v1/revocations", body | {"user": "user-2"})
        await http.refused(400, "bad_command", "POST", "/v1/revocations", {"kind": "all", "whose": "x"})
        assert (await http.ok("GET", "/v1/revocations")) == {"revocations": []}


async def test_a_gateway_that_starts_later_knows(stack: Stack) -> None:
    token = stack.token("user-1")
    assert (await stack.run("revoke", "user", "user-1"))[0] == 0
    gateway = await stack.gateway()
    async with asyncio.timeout(WAIT_S):
        while await _close_code(gateway, token) != 4301:
            await asyncio.sleep(0.05)
    async with await Wire.open(gateway.url, stack.token("user-2")) as wire:
        await wire.subscribe(Place("demo"))


async def _close_code(gateway: Process, token: str) -> int:
    """What the gateway does with it: it ends the connection, at `hello` or as soon as it knows what is revoked."""
    try:
        wire = await Wire.open(gateway.url, token)
    except Refusal as refusal:
        return 4301 if refusal.reply.get("reason") == "revoked" else 4401
    async with wire:
        return await closed_with(wire)


async def test_what_is_revoked_while_nats_is_away_from_a_gateway(tmp_path: Path) -> None:
    """It stays in force while NATS is away; what was revoked meanwhile bites as soon as NATS is back."""
    async with single_server(tmp_path / "nats") as nats, Stack(tmp_path / "stack", nats.url) as stack:
        gateway = await stack.gateway()
        assert (await stack.run("revoke", "user", "user-1"))[0] == 0
        token, other = stack.token("user-1", iat=0), stack.token("user-2")
        async with asyncio.timeout(WAIT_S):
            while metric((await http_get(f"{gateway.url}/metrics"))[1], "antiphon_gateway_revocations") != 1:
                await asyncio.sleep(0.05)
        async with await Wire.open(gateway.url, other) as wire:
            gateway.pause()
            assert (await stack.run("revoke", "user", "user-2"))[0] == 0
            await nats.stop()
            gateway.resume()
            with pytest.raises(Refusal, match="revoked"):
                await Wire.open(gateway.url, token)
            await nats.start()
            assert await closed_with(wire) == 4301


async def test_a_gateway_that_has_never_known_lets_nobody_do_anything(tmp_path: Path) -> None:
    async with single_server(tmp_path / "nats") as nats, Stack(tmp_path / "stack", nats.url) as stack:
        await nats.stop()
        gateway = await stack.gateway()
        async with Http(gateway.url, stack.token()) as http, await Wire.open(gateway.url, stack.token()) as wire:
            answer = await http.ask("GET", "/v1/sessions")
            assert (answer.status, answer.code) == (503, "unavailable")
            with pytest.raises(Refusal, match="unavailable"):
                await wire.subscribe(Place("demo"))
            await nats.start()
            async with asyncio.timeout(WAIT_S):
                while (await http.ask("GET", "/v1/sessions")).status != 200:
                    await asyncio.sleep(0.05)
            await wire.subscribe(Place("demo"))


async def test_the_log_forgets_them_when_the_tokens_have_expired(stack: Stack) -> None:
    taken: list[Revocation] = []
    async with (
        Connection(NatsSettings(nats_url=stack.nats_url), name="test") as connection,
        JetStreamRevocations(connection) as revocations,
    ):
        revocations.follow(taken.extend)
        short = revocation(Revoked.TOKEN, "short", time.time(), 1)
        long = revocation(Revoked.TOKEN, "long", time.time(), 3600)
        for made in (short, long, long):
            await revocations.revoke(made)
        async with asyncio.timeout(WAIT_S):
            while not {short, long} <= set(taken):
                await asyncio.sleep(0.02)
            while await revocations.listed() != [long]:
                await asyncio.sleep(0.1)
        # What is none is passed over, and told.
        await connection.publish("revoked.token.nonsense", orjson.dumps({"kind": "?"}))
        assert await revocations.listed() == [long]
