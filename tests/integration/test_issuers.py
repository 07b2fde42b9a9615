"""Gateways that get their keys from issuers: one that is down, one that changes its keys, several at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio

from tests.support.http import Http
from tests.support.issuer import Issuer
from tests.support.nats import single_server
from tests.support.place import Place
from tests.support.rawclient import WAIT_S, Refusal, Wire, WireClosed, http_get
from tests.support.stack import Process, Stack, metric

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUICK = {"jwt_secret_file": "", "jwks_min_interval_s": "0.2"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    directory: Path = tmp_path_factory.mktemp("issuers")
    async with single_server(directory / "nats") as nats, Stack(directory / "stack", nats.url) as stack:
        yield stack


async def patiently(ask: Callable[[], Awaitable[Any]]) -> None:
    """Asks until it is not told `unavailable` any more. Raises Refusal with any other code."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                await ask()
            except Refusal as refusal:
                if refusal.code != "unavailable":
                    raise
                await asyncio.sleep(refusal.reply["retry_after_ms"] / 1000)
            else:
                return


async def admitted(gateway: Process, token: str) -> None:
    """Returns when the gateway takes the token; it may say `unavailable` until then, and nothing else."""

    async def ask() -> None:
        (await Wire.open(gateway.url, token)).cut()

    await patiently(ask)


async def problems(gateway: Process) -> list[str]:
    found: list[str] = orjson.loads((await http_get(f"{gateway.url}/readyz"))[1])["problems"]
    return found


async def test_an_issuer_that_is_down_when_the_gateway_starts(stack: Stack) -> None:
    issuer = Issuer("https://id.example")
    issuer.rotate("one")
    gateway = await stack.gateway(**QUICK, jwks=f"{issuer.name} {issuer.url}")
    (problem,) = await problems(gateway)
    assert problem.startswith(f"no keys from {issuer.url}: ")
    with pytest.raises(Refusal) as caught:
        await Wire.open(gateway.url, issuer.token())
    refusal = caught.value
    assert (refusal.code, refusal.reply["retryable"]) == ("unavailable", True)
    async with Http(gateway.url, issuer.token()) as http:
        answer = await http.ask("GET", "/v1/sessions")
        assert (answer.status, answer.code) == (503, "unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
    async with issuer.serving():
        await admitted(gateway, issuer.token())
        assert await problems(gateway) == []
        metrics = (await http_get(f"{gateway.url}/metrics"))[1]
        assert metric(metrics, "antiphon_gateway_key_fetches_total", outcome="failed") >= 1
        assert metric(metrics, "antiphon_gateway_key_fetches_total", outcome="ok") >= 1
    # It goes down again: what is known stays good.
    await admitted(gateway, issuer.token())
    await gateway.kill()


async def test_who_cannot_be_checked_is_told_to_come_back(stack: Stack) -> None:
    issuer = Issuer()
    issuer.rotate("one")
    gateway = await stack.gateway(**QUICK, jwks=issuer.url)
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{gateway.url}/v1/connect", protocols=["antiphon.v1"]) as ws,
    ):
        await ws.send_json({"op": "hello", "id": 1, "token": issuer.token()})
        reply = await ws.receive_json(timeout=WAIT_S)
        assert (reply["op"], reply["code"]) == ("error", "unavailable")
        closed = await ws.receive(timeout=WAIT_S)
        assert ws.close_code == 4101, closed
    await gateway.kill()


async def test_keys_that_change_while_people_are_connected(stack: Stack) -> None:
    issuer = Issuer()
    issuer.rotate("one")
    async with issuer.serving():
        first, second = [await stack.gateway(**QUICK, jwks=issuer.url) for _ in range(2)]
        async with await Wire.open(first.url, issuer.token()) as wire:
            await wire.subscribe(Place("rotated"))
            issuer.rotate("two", keep=False)
            # A connection is as good as the token that it began with; its next token is of the new key.
            await patiently(lambda: wire.command("auth.refresh", token=issuer.token()))
            await wire.input("rotated", "i-1", "hello")
        await admitted(second, issuer.token())
        await first.kill()
        await second.kill()


async def test_several_issuers(stack: Stack, tmp_path: Path) -> None:
    staff, public = Issuer("https://staff.example"), Issuer("https://public.example")
    staff.rotate("s")
    public.rotate("p")
    staff.write(tmp_path / "staff.json")
    async with public.serving():
        jwks = f"{staff.name} {tmp_path / 'staff.json'}, {public.name} {public.url}"
        gateway = await stack.gateway(**QUICK, jwks=jwks, jwt_audience="antiphon")
        await admitted(gateway, staff.token(aud="antiphon"))
        await admitted(gateway, public.token(aud=["antiphon", "other"]))
        for wrong in (
            staff.token(aud="other"),
            staff.token(),
            public.token(aud="antiphon", iss=staff.name),
            stack.token(),
        ):
            with pytest.raises((Refusal, WireClosed), match="unauthorized"):
                await Wire.open(gateway.url, wrong)
        await gateway.kill()


async def test_sources_that_are_wrong_are_told_at_the_start(stack: Stack) -> None:
    for jwks, said in (
        ("http://id.example/jwks", "http://id.example/jwks must be https"),
        ("/nowhere/keys.json", "cannot read /nowhere/keys.json"),
    ):
        code, output = await stack.run("gateway", "--port", "0", "--jwks", jwks)
        assert code == 1
        assert said in output
