"""B08: who reads 1 KB a second costs little, is not sent away, has the whole text in the end, and slows nobody down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from broker.clock import now_ms
from tests.behaviours.conftest import Figure
from tests.support.bare import get
from tests.support.herd import share
from tests.support.place import Place
from tests.support.rawclient import Wire
from tests.support.slow import SlowReader, memory, slow_readers
from tests.support.stack import Process, Stack, metric

BYTES_PER_SECOND = 1024
MANY = 100
OUTBOX, KERNEL = 4_096, 4_096
ONE_WRITE = 65_536
"""What a gateway writes at once, at most, in a catch-up; an outbox has so much more than it may."""
SETTINGS = {
    # So little that a slow reader is behind after a moment; and its pings wait longer behind that than they may take.
    "outbox_bytes": str(OUTBOX),
    "kernel_unsent_bytes": str(KERNEL),
    "heartbeat_s": "4",
    "slow_reader_s": "20",
}
ALONE, AMONG = "stream 300 tokens at 100/s", "stream 1500 tokens at 100/s"
WAIT_S = 120.0


@dataclass(slots=True)
class FastReader:
    """Reads as fast as it can, and notes how late tokens come: from the worker's clock to this process's, in ms."""

    wire: Wire
    place: Place
    late_ms: list[float] = field(default_factory=list)

    async def answer(self, input_id: str, content: str) -> list[float]:
        """Sends an input and reads its answer; gives how late its tokens came."""
        self.late_ms = []
        await self.wire.input(self.place.session, input_id, content)
        async with asyncio.timeout(WAIT_S):
            while f"run_{input_id}" not in self.place.ended:
                frame = await self.wire.receive()
                self.place.take(frame)
                if "off" in frame:
                    self.late_ms.append(now_ms() - frame["ts"])
        return self.late_ms


@dataclass(slots=True)
class Watched:
    """The most that a gateway had, of all looks."""

    gateway: Process
    memory: int = 0
    outbox: float = 0.0
    behind: float = 0.0

    async def look_on(self) -> None:
        while True:
            text = (await get(f"{self.gateway.url}/metrics")).text
            self.memory = max(self.memory, memory(self.gateway.pid))
            self.outbox = max(self.outbox, metric(text, "antiphon_gateway_outbox_largest_bytes"))
            self.behind = max(self.behind, metric(text, "antiphon_gateway_readers_behind"))
            await asyncio.sleep(0.2)


@asynccontextmanager
async def watched(gateway: Process) -> AsyncIterator[Watched]:
    seen = Watched(gateway)
    async with asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(seen.look_on())
        yield seen
        looking.cancel()


def answer(place: Place, run_id: str) -> str:
    return "".join(str(text) for id_, text in place.texts.items() if place.said_in[id_] == run_id)


def check_slow(slow: SlowReader, fast: Place, fast_bytes: int) -> None:
    """It was not sent away, and has what the others have, of which it was given much less."""
    assert slow.closed is None
    assert slow.place.whole, slow.place
    assert answer(slow.place, "run_among") == answer(fast, "run_among")
    assert slow.place.merged > 0
    assert slow.received < fast_bytes / 3, (slow.received, fast_bytes)


def check_others(alone: list[float], among: list[float]) -> None:
    """Generous, for a machine that does other things, too: twenty times as late, and more than a glance, is not the same."""
    assert share(among, 0.5) < 20 * share(alone, 0.5) + 100, (share(alone, 0.5), share(among, 0.5))


@pytest.mark.timeout(240)
async def test_one_reader_of_1_kb_a_second(stack: Stack, figure: Figure) -> None:
    (gateway,) = await stack.start(1, workers=1, **SETTINGS)
    async with await Wire.open(gateway.url, stack.token()) as wire:
        fast = FastReader(wire, Place("slow"))
        await wire.subscribe(fast.place)
        alone = await fast.answer("alone", ALONE)
        before = wire.received
        async with (
            await SlowReader.open(gateway.url, stack.token(), Place("slow")) as slow,
            watched(gateway) as seen,
            asyncio.TaskGroup() as tasks,
        ):
            joined = slow.received
            reading = tasks.create_task(slow.read_slowly(BYTES_PER_SECOND, lambda p: "run_among" in p.ended, WAIT_S))
            among = await fast.answer("among", AMONG)
            assert not reading.done()
            fast_bytes = wire.received - before
            await reading
            slow.received -= joined
            check_slow(slow, fast.place, fast_bytes)
        assert seen.behind == 1
        assert seen.outbox <= OUTBOX + ONE_WRITE
    check_others(alone, among)
    figure(
        f"1 reader of {BYTES_PER_SECOND} B/s: text whole from {slow.received:,} bytes, others had {fast_bytes:,}; its "
        f"outbox at most {seen.outbox:,.0f} B; others' tokens p50 {share(alone, 0.5):.0f} ms without, "
        f"{share(among, 0.5):.0f} ms with it (p99 {share(alone, 0.99):.0f}, {share(among, 0.99):.0f})"
    )


@pytest.mark.timeout(240)
async def test_many_readers_of_1_kb_a_second(stack: Stack, figure: Figure) -> None:
    (gateway,) = await stack.start(1, workers=1, **SETTINGS)
    async with await Wire.open(gateway.url, stack.token()) as wire:
        fast = FastReader(wire, Place("slow"))
        await wire.subscribe(fast.place)
        alone = await fast.answer("alone", ALONE)
        places = [Place("slow") for _ in range(MANY)]
        async with slow_readers([gateway.url], stack.token(), places) as readers:
            before, received = memory(gateway.pid), wire.received
            joined = {id(slow): slow.received for slow in readers}
            async with watched(gateway) as seen, asyncio.TaskGroup() as tasks:
                for slow in readers:
                    tasks.create_task(slow.read_slowly(BYTES_PER_SECOND, lambda p: "run_among" in p.ended, WAIT_S))
                among = await fast.answer("among", AMONG)
                fast_bytes = wire.received - received
            for slow in readers:
                slow.received -= joined[id(slow)]
                check_slow(slow, fast.place, fast_bytes)
    each = (seen.memory - before) / MANY
    assert seen.behind == MANY
    assert each <= OUTBOX + ONE_WRITE
    assert seen.outbox <= OUTBOX + ONE_WRITE
    check_others(alone, among)
    figure(
        f"{MANY} of them: {each:,.0f} B of memory each, texts whole, none sent away; others' tokens p50 "
        f"{share(alone, 0.5):.0f} ms without, {share(among, 0.5):.0f} ms with them"
    )
