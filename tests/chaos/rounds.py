"""Rounds: load begins, one fault strikes and is mended, what was begun is brought to its end, and all of it is checked."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos import history
from tests.chaos.checker import check
from tests.chaos.ending import LOOK_S, waits_for
from tests.chaos.findings import Kind, Violation
from tests.chaos.load import ON_BUSY, Room
from tests.chaos.nemesis import Fault, strike
from tests.chaos.world import World

ROOMS = 3
WARM_S = 0.8
"""Load runs for so long before the fault, and after it."""
QUIET_S = 75.0
"""Within so long after the fault everything that was begun must have come to its end."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a round."""

    number: int
    fault: Fault
    violations: tuple[Violation, ...]
    entries: int
    seen: int
    inputs: int
    seconds: float

    def __str__(self) -> str:
        groups = Counter(violation.kind.group for violation in self.violations)
        found = "ok" if not self.violations else "FAIL " + ", ".join(f"{n} {group}" for group, n in groups.items())
        return (
            f"round {self.number:3}  {self.fault}: {self.inputs} inputs acknowledged, {self.entries} entries, "
            f"{self.seen} seen, {self.seconds:.1f} s, {found}"
        )


@dataclass(slots=True)
class Round:
    """One of them: `await Round(...).play()`."""

    world: World
    number: int
    fault: Fault
    seed: int
    directory: Path
    """Where the histories are left."""
    rooms: list[Room] = field(default_factory=list)

    async def play(self) -> Outcome:
        """Returns what came of it; raises nothing for what Antiphon does."""
        begun = time.monotonic()
        rng = random.Random(f"{self.seed}-{self.number}")
        urls = self.world.gateway_urls()
        for n, on_busy in enumerate(rng.sample(ON_BUSY, ROOMS)):
            # By chance, so that the sessions of a round are in different streams.
            session = f"r{self.number}-{n}-{rng.randrange(16**4):04x}"
            self.rooms.append(Room.of(session, on_busy, urls, self.world.token, rng))
        quiet = ""
        async with asyncio.TaskGroup() as tasks:
            for room in self.rooms:
                for client in room.clients:
                    tasks.create_task(client.live())
            try:
                await asyncio.sleep(WARM_S)
                await strike(self.world, self.fault)
                await asyncio.sleep(WARM_S)
                quiet = await self._bring_to_an_end()
            finally:
                for room in self.rooms:
                    for client in room.clients:
                        client.leave()
        return self._judge(quiet, time.monotonic() - begun)

    async def _bring_to_an_end(self) -> str:
        """Returns when all is over and everybody has seen it; what is not, if it takes too long."""
        for room in self.rooms:
            room.over = True
        waits = "the log cannot be read"
        try:
            async with asyncio.timeout(QUIET_S):
                await self.world.whole()
                async with self.world.log() as log:
                    for room in self.rooms:
                        while waits := await waits_for(log, room):
                            await asyncio.sleep(LOOK_S)
                copies = await self.world.copies()
                for room in self.rooms:
                    room.records += copies
        except TimeoutError:
            return f"after {QUIET_S:g} s: {waits}"
        return ""

    def _judge(self, quiet: str, seconds: float) -> Outcome:
        violations: list[Violation] = []
        for room in self.rooms:
            history.write(self.directory / f"{room.session}.jsonl", room.history)
            # A log that could not be read says nothing about what was lost.
            violations += check(room.history) if room.logged else []
        if quiet:
            violations.append(Violation(Kind.WAITING, "the round", quiet))
        return Outcome(
            self.number,
            self.fault,
            tuple(violations),
            entries=sum(len(room.logged) for room in self.rooms),
            seen=sum(isinstance(record, history.EntrySeen) for room in self.rooms for record in room.records),
            inputs=sum(room.acknowledged for room in self.rooms),
            seconds=seconds,
        )
