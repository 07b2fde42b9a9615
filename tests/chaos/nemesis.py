"""The faults: what is broken in a round, and how it is mended. The schedule of a seed is always the same."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

from tests.chaos.network import RUNNER
from tests.chaos.proxy import Mode, Proxy
from tests.chaos.world import GATEWAYS, PARTITIONS, PROXIED, SERVERS, WORKERS, World, proxies_of

_FROZEN_S, _THAWED_S = 0.15, 0.05


@dataclass(frozen=True, slots=True)
class Fault:
    """What is broken: `kind`, on `target` (and `other`), for `lasts_s`; `way` says more, where there is a choice."""

    kind: str
    target: str = ""
    other: str = ""
    lasts_s: float = 1.0
    way: str = ""

    def __str__(self) -> str:
        on = " ".join(word for word in (self.target, self.other, self.way) if word)
        return f"{self.kind}{f' {on}' if on else ''}, {self.lasts_s:.1f} s"


Breaking = Callable[[World, Fault], Awaitable[Callable[[], Awaitable[None]]]]


def schedule(seed: int, kinds: list[str]) -> Iterator[Fault]:
    """Faults without end: each kind once, in an order by chance, then all of them again."""
    rng = random.Random(f"{seed}-schedule")
    while True:
        order = list(kinds)
        rng.shuffle(order)
        for kind in order:
            yield _fault(kind, rng)


def kinds_here(*, cuts: bool, disks: bool) -> list[str]:
    """The kinds of faults that this machine lets us make."""
    needs = {"partition": cuts, "isolation": cuts, "slow disk": disks, "full disk": disks}
    return [kind for kind in _BREAKING if needs.get(kind, True)]


def _fault(kind: str, rng: random.Random) -> Fault:
    lasts_s = rng.uniform(0.5, 2.5)
    match kind:
        case "kill gateway" | "stop gateway" | "client proxy":
            target = rng.choice(GATEWAYS)
        case "kill worker" | "stop worker":
            target, lasts_s = rng.choice(WORKERS), rng.uniform(0.5, 4.0)
        case "kill NATS" | "stop NATS" | "slow disk" | "full disk":
            target = rng.choice(SERVERS)
        case "kill leader" | "stop leader" | "step down":
            target = rng.choice([f"S{n:02}" for n in range(PARTITIONS)] + ["WORK", "meta"])
        case "clock":
            target = rng.choice((*GATEWAYS, *WORKERS))
        case "isolation":
            target, lasts_s = rng.choice((*SERVERS, *GATEWAYS, *WORKERS)), rng.uniform(1.0, 4.0)
        case "NATS proxy":
            target = rng.choice(PROXIED)
        case "partition":
            return _partition(rng)
        case _:
            target = ""
    return Fault(kind, target, lasts_s=lasts_s, way=_way(kind, rng))


def _way(kind: str, rng: random.Random) -> str:
    match kind:
        case "clock":
            return f"{rng.choice((-1, 1)) * rng.uniform(1.0, 60.0):+.1f}"
        case "client proxy" | "NATS proxy":
            return rng.choice(("cut", Mode.DELAY.value, Mode.HOLE.value, Mode.TRUNCATE.value))
        case _:
            return ""


def _partition(rng: random.Random) -> Fault:
    """One link: between servers, between a part and a server, or between clients and a gateway; both ways, or one.

    Whoever reaches NATS by proxies has no such link to a server: a proxy that lets nothing through is another fault.
    """
    direct = [name for name in (*GATEWAYS, *WORKERS) if name not in PROXIED]
    target = rng.choice((*SERVERS, *direct, RUNNER))
    other = rng.choice([name for name in (GATEWAYS if target == RUNNER else SERVERS) if name != target])
    way = rng.choice(("both ways", "there", "back"))
    return Fault("partition", target, other, rng.uniform(1.0, 4.0), way)


async def strike(world: World, fault: Fault) -> None:
    """Breaks something, waits, mends it. Returns when it is mended, not when everything is well again."""
    mend = await _BREAKING[fault.kind](world, fault)
    try:
        await asyncio.sleep(fault.lasts_s)
    finally:
        await mend()


async def _nothing() -> None:
    """It mends itself."""


# --- processes ---------------------------------------------------------------------------------------------------------


async def _kill(world: World, fault: Fault) -> Callable[[], Awaitable[None]]:
    part = world.parts[await _who(world, fault)]
    await part.kill()
    return part.start


async def _stop(world: World, fault: Fault) -> Callable[[], Awaitable[None]]:
    part = world.parts[await _who(world, fault)]
    part.pause()

    async def mend() -> None:
        part.resume()

    return mend


async def _who(world: World, fault: Fault) -> str:
    """The part that is meant: a leader is known only when its time has come."""
    if fault.target == "meta":
        return await world.meta_leader()
    return fault.target if fault.target in world.parts else await world.leader(fault.target)


def _roll(names: tuple[str, ...]) -> Breaking:
    """One after another is told to leave, and comes back."""

    async def roll(world: World, fault: Fault) -> Callable[[], Awaitable[None]]:
        for name in names:
            await world.parts[name].terminate()
            await world.parts[name].start()
        return _nothing

    return roll


# --- NATS --------------------------------------------------------------------------------------------------------------


async def _step_down(world: World, fault: Fault) -> Callable[[], Awaitable[None]]:
    if fault.target == "meta":
        await world.step_down("$JS.API.META.LEADER.STEPDOWN", system=True)
        return _nothing
    await world.step_down(f"$JS.API.STREAM.LEADER.STEPDOWN.{fault.target}")
    if fault.target == "WORK":
        await world.step_down("$JS.API.CONSUMER.LEADER.STEPDOWN.WORK.pool-default")
    return _nothing


async def _slow_disk(world: World, fault: Fault) -> Callable[[], Awaitable[None]]:
    disk, enough = world.disks[fault.target], asyncio.Event()

    async def freezing() -> None:
        # Never cancelled: what freezes a disk must be followed by what thaws it.
        while not enough.is_set():
            await disk.freeze()
            await asyncio.sleep(_FROZEN_S)
            await disk.thaw()
            await asyncio.sleep(_THAWED_S)

    tasks = AsyncExitStack()
    group = await tasks.enter_async_context(asyncio.TaskGroup())
    group.create_task(freezing())

    async def mend() -> None:
        enough.set()
        await tasks.aclose()

    return mend


async def _full_disk(world: World, fault: Fault) -> Callable[[], Awaitable[None]]:
    disk, part = world.disks[fault.target], world.parts[fault.target]
    await asyncio.to_thread(disk.fill)

    async def mend() -> None:
        disk.free()
        # A server that could not write has given its streams up, and takes them up again only when it starts.
        await part.kill()
        await part.start()

    return mend


# --- network and clocks --------------------------------------------------------------------------------------------------


async def _cut_link(world: World, fault: Fault) -> Callable[[], Awaitable[None]]:
    if fault.way in ("both ways", "there"):
        await world.network.cut(fault.target, fault.other)
    if fault.way in ("both ways", "back"):
        await world.network.cut(fault.other, fault.target)
    return world.network.heal


async def _isolate(world: World, fault: Fault) -> Callable[[], Awaitable[None]]:
    """Nothing goes between it and any server, nor any part if it is a server itself."""
    around = world.parts if fault.target in SERVERS else SERVERS
    for other in around:
        if other != fault.target:
            await world.network.cut(fault.target, other)
            await world.network.cut(other, fault.target)
    for proxy in _ways_of(world, fault.target):
        proxy.mode = Mode.HOLE

    async def mend() -> None:
        await world.network.heal()
        for proxy in _ways_of(world, fault.target):
            proxy.heal()

    return mend


def _ways_of(world: World, target: str) -> list[Proxy]:
    """The proxies by which it is reached, or reaches others, in spite of links that are cut."""
    return [proxy for pair, proxy in world.nats_proxies.items() if target in pair]


async def _client_proxy(world: World, fault: Fault) -> Callable[[], Awaitable[None]]:
    return _disturb([world.gateway_proxies[fault.target]], fault.way)


async def _nats_proxy(world: World, fault: Fault) -> Callable[[], Awaitable[None]]:
    return _disturb(list(proxies_of(world, fault.target)), fault.way)


def _disturb(proxies: list[Proxy], way: str) -> Callable[[], Awaitable[None]]:
    for proxy in proxies:
        if way == "cut":
            proxy.cut()
        else:
            proxy.mode = Mode(way)

    async def mend() -> None:
        for proxy in proxies:
            proxy.heal()

    return mend


async def _clock(world: World, fault: Fault) -> Callable[[], Awaitable[None]]:
    clock = world.clocks[fault.target]
    clock.set(float(fault.way))

    async def mend() -> None:
        clock.set(0.0)

    return mend


_BREAKING: dict[str, Breaking] = {
    "kill gateway": _kill,
    "kill worker": _kill,
    "kill NATS": _kill,
    "kill leader": _kill,
    "stop gateway": _stop,
    "stop worker": _stop,
    "stop NATS": _stop,
    "stop leader": _stop,
    "partition": _cut_link,
    "isolation": _isolate,
    "slow disk": _slow_disk,
    "full disk": _full_disk,
    "clock": _clock,
    "step down": _step_down,
    "roll gateways": _roll(GATEWAYS),
    "roll workers": _roll(WORKERS),
    "client proxy": _client_proxy,
    "NATS proxy": _nats_proxy,
}
