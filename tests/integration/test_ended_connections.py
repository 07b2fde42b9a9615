"""A connection that has ended is freed at once, and not when the collector of circular rubbish comes by."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator

import pytest

from antiphon import processes
from gateway.websocket import ClientConnection
from tests.support.bare import Bare, bare
from tests.support.inside import gateway_inside
from tests.support.nats import NatsNode

CONNECTIONS = 10


@pytest.fixture
def no_collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(processes, "_COLLECT_EVERY_S", 3600.0)
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def _close(client: Bare) -> None:
    await client.ws.close()


async def _cut(client: Bare) -> None:
    response = client.ws._response.connection
    assert response is not None
    assert response.transport is not None
    response.transport.abort()


async def _cut_in_a_command(client: Bare) -> None:
    await client.post("subscribe", session="another")
    await _cut(client)


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("end", [_close, _cut, _cut_in_a_command])
async def test_nothing_of_it_is_left(nats_server: NatsNode, end: Callable[[Bare], Awaitable[None]]) -> None:
    async with gateway_inside(nats_server.url) as gateway:
        for _ in range(CONNECTIONS):
            async with bare(gateway.url, gateway.token()) as client:
                await client.ask("subscribe", session="s")
                while (await client.frame())["op"] != "session.caught_up":
                    pass
                await end(client)
        async with asyncio.timeout(20):
            while _connections():
                await asyncio.sleep(0.05)


def _connections() -> int:
    return sum(isinstance(o, ClientConnection) for o in gc.get_objects())
