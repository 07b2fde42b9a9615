"""The hot paths as real processes take them: CPU time of the gateway or the worker for one event, at small loads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from antiphon.bench import publish
from antiphon.bench.harness import bench
from antiphon.bench.measuring import Stage, stage, stream
from antiphon.bench.source import Wish

READERS = 200
SESSIONS = 200
JOINS = 500
LANES, TOKENS = 100, 200


async def live_apart() -> float:
    """An event that is a write of its own, to one of many readers.

    Joined events have no budget as processes: how many share a write depends on what else the machine does.
    """
    async with stage() as on:
        await on.crowd.open(on.reached("live-0"), READERS)
        return await _per_event(on, Wish(_url(on), "live-", 1, 150, 2.0), READERS)


async def one_to_one() -> float:
    """An event for the one reader of its session."""
    async with stage() as on:
        await on.crowd.open(on.reached("one-{i}"), SESSIONS)
        return await _per_event(on, Wish(_url(on), "one-", SESSIONS, 6000, 1.5), 1)


async def join() -> float:
    """A reader that connects, says hello and comes to a session that is open at the gateway."""
    async with stage() as on:
        await on.crowd.open(on.reached("join-0"), 1)
        before = on.gateway.cpu_s()
        await on.crowd.open(on.reached("join-0"), JOINS, first=1)
        return (on.gateway.cpu_s() - before) / JOINS * 1e6


async def publish_token() -> float:
    """A token of one of many lanes, in the worker."""
    async with bench() as setup:
        async with setup.process(*setup.gateway_args()) as gateway:
            await publish.send_all(setup, gateway, LANES, TOKENS)
        async with setup.process("worker", "echo", "--concurrency", str(LANES)) as worker:
            before = worker.cpu_s()
            await publish.wait_all(setup, LANES)
            return (worker.cpu_s() - before) / (LANES * TOKENS) * 1e6


PROCESSES: Mapping[str, Callable[[], Awaitable[float]]] = {
    "live-apart": live_apart,
    "one-to-one": one_to_one,
    "join": join,
    "publish": publish_token,
}


def _url(on: Stage) -> str:
    return on.setup.broker.nats.nats_url


async def _per_event(on: Stage, wish: Wish, readers_of_each: int) -> float:
    return (await stream(on, wish, readers_of_each=readers_of_each)).costs()["cpu_us_per_event"]
