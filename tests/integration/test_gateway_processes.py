"""`antiphon gateway --processes N`: one port, several gateways, which start again, drain and end together."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import psutil
import pytest

from tests.support.bare import Bare, Ended, bare
from tests.support.nats import NatsNode
from tests.support.presence import viewer
from tests.support.rawclient import http_get
from tests.support.stack import Process, Stack, metric

PROCESSES = 3
CLIENTS = 40
"""So many that none of the processes gets none: of three, one in ten million times."""
WAIT_S = 40.0


@pytest.fixture
async def stack(tmp_path: Path, nats_server: NatsNode) -> AsyncIterator[Stack]:
    async with Stack(tmp_path / "stack", nats_server.url) as running:
        yield running


async def _greeted(opened: AsyncExitStack, gateways: Process, token: str, count: int) -> list[tuple[Bare, str]]:
    """Connections, each with the name of the gateway that it has come to."""
    found = []
    for _ in range(count):
        client = await opened.enter_async_context(bare(gateways.url))
        welcome = await client.ask("hello", token=token)
        found.append((client, str(welcome["gateway"])))
    return found


def _own_urls(gateways: Process) -> dict[int, str]:
    """Where each process is asked about itself, as the newest of its number has said."""
    said = [line for line in gateways.logged() if "number" in line and "url" in line]
    return {line["number"]: line["url"] for line in said}


async def _gone(*pids: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
            await asyncio.sleep(0.05)


def _children(gateways: Process) -> list[int]:
    return [child.pid for child in psutil.Process(gateways.pid).children()]


async def test_connections_are_spread_and_all_see_one_session(stack: Stack) -> None:
    gateways = await stack.gateway(processes=str(PROCESSES))
    await stack.worker()
    token = stack.token()
    async with AsyncExitStack() as opened:
        clients = await _greeted(opened, gateways, token, CLIENTS)
        spread = Counter(name for _, name in clients)
        assert len(spread) == PROCESSES

        # Each is asked about itself on a port of its own, and its figures are its own.
        own = _own_urls(gateways)
        assert sorted(own) == [*range(PROCESSES)]
        counted = []
        for url in own.values():
            status, exposition = await http_get(f"{url}/metrics")
            assert status == 200
            counted.append(metric(exposition, "antiphon_gateway_connections"))
            assert (await http_get(f"{url}/readyz"))[0] == 200
            assert (await http_get(f"{url}/healthz"))[0] == 200
        assert sorted(counted) == sorted(spread.values())
        status, text = await http_get(f"{gateways.url}/metrics")
        assert status == 404
        assert "process_port" in text
        assert (await http_get(f"{gateways.url}/readyz"))[0] == 200

        # What is said at one is seen at all.
        one_of_each = {name: client for client, name in clients}
        for client in one_of_each.values():
            assert (await client.ask("subscribe", session="shared"))["op"] == "ok"
        sender = next(iter(one_of_each.values()))
        assert (await sender.ask("input.send", session="shared", inputId="a", content="hello"))["op"] == "ok"
        for client in one_of_each.values():
            while (frame := await client.frame())["op"] != "entry" or "RUN_FINISHED" not in str(frame):
                pass


async def test_people_at_different_processes_see_each_other_once(stack: Stack) -> None:
    gateways = await stack.gateway(processes=str(PROCESSES))
    people = [f"user-{i}" for i in range(12)]
    async with AsyncExitStack() as opened:
        viewers = [
            await opened.enter_async_context(viewer(gateways.url, stack.token(user), "room", device=f"device-{user}"))
            for user in people
        ]
        for seen in viewers:
            listed = await seen.until(lambda present: set(present) == set(people))
            assert all(len(person["devices"]) == 1 for person in listed.values())


async def test_a_process_that_is_killed_is_replaced_while_the_others_serve_on(stack: Stack) -> None:
    gateways = await stack.gateway(processes="2")
    token = stack.token()
    async with AsyncExitStack() as opened:
        clients = await _greeted(opened, gateways, token, 20)
        before = {name for _, name in clients}
        victim, other = _children(gateways)
        os.kill(victim, signal.SIGKILL)
        async with asyncio.timeout(WAIT_S):
            while len(set(_children(gateways)) - {victim, other}) < 1:
                await asyncio.sleep(0.05)
            names = set(before)
            while len(names) < 3:
                # The new one has another name, and gets connections as well.
                names |= {name for _, name in await _greeted(opened, gateways, token, 4)}
        answered = {name: {await _answers(client) for client, at in clients if at == name} for name in before}
        assert sorted(answered.values(), key=repr) == [{False}, {True}]
    ended = [line for line in gateways.logged() if line.get("event") == "a process has ended"]
    assert [line["code"] for line in ended] == [-signal.SIGKILL]


async def _answers(client: Bare) -> bool:
    try:
        return bool((await client.ask("ping"))["op"] == "pong")
    except (Ended, ConnectionError):
        return False


async def test_sigterm_drains_all_of_them(stack: Stack) -> None:
    gateways = await stack.gateway(processes=str(PROCESSES), drain_s="1")
    children = _children(gateways)
    assert len(children) == PROCESSES
    async with AsyncExitStack() as opened:
        clients = await _greeted(opened, gateways, stack.token(), CLIENTS)
        gateways.terminate_soon()
        ends = [await client.end() for client, _ in clients]
        assert {(ended.code, ended.reason["code"]) for ended in ends} == {(4200, "draining")}
    async with asyncio.timeout(WAIT_S):
        assert await gateways.process.wait() == 0
    await _gone(*children)


async def test_a_second_sigterm_ends_all_at_once(stack: Stack) -> None:
    gateways = await stack.gateway(processes="2", drain_delay_s="300", drain_s="300")
    children = _children(gateways)
    gateways.terminate_soon()
    async with asyncio.timeout(WAIT_S):
        while (await http_get(f"{gateways.url}/readyz"))[0] != 503:
            await asyncio.sleep(0.05)
    async with asyncio.timeout(WAIT_S):
        while gateways.running:
            # The first one may not have been heard yet by the parent's second ear.
            gateways.terminate_soon()
            await asyncio.sleep(0.1)
    await _gone(*children)


async def test_they_end_when_their_parent_is_killed(stack: Stack) -> None:
    gateways = await stack.gateway(processes="2", drain_s="0")
    children = _children(gateways)
    await gateways.kill()
    await _gone(*children)


async def test_own_ports_are_the_ones_that_are_named(stack: Stack) -> None:
    first = _free_ports(2)
    gateways = await stack.gateway(processes="2", process_port=str(first))
    assert _own_urls(gateways) == {i: f"http://127.0.0.1:{first + i}" for i in range(2)}


def _free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody has."""
    while True:
        with _Ports(count) as first:
            if first:
                return first


class _Ports:
    """Binds `count` ports in a row for a moment; gives the first, or 0 if one was taken."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> int:
        self._sockets.append(socket.socket())
        self._sockets[0].bind(("127.0.0.1", 0))
        first: int = self._sockets[0].getsockname()[1]
        for port in range(first + 1, first + self._count):
            self._sockets.append(socket.socket())
            try:
                self._sockets[-1].bind(("127.0.0.1", port))
            except (OSError, OverflowError):
                return 0
        return first

    def __exit__(self, *_: object) -> None:
        for sock in self._sockets:
            sock.close()


async def test_a_port_that_others_share_already_is_taken(stack: Stack) -> None:
    gateways = await stack.gateway(processes="2")
    port = gateways.url.rpartition(":")[2]
    code, output = await stack.run("gateway", "--port", port, "--processes", "2")
    assert code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in output


async def test_a_process_that_cannot_start_ends_the_command(stack: Stack) -> None:
    code, output = await stack.run("gateway", "--port", "0", "--processes", "2", "--jwt-secret-file", "/nowhere/secret")
    assert code == 1
    assert "/nowhere/secret" in output
    assert "ended before it was ready" in output
