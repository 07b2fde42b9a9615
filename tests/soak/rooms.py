"""The load: rooms in which people come and go while an agent answers, each a session that is created, used and deleted."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import aiohttp

from broker.jetstream.log import JetStreamLog
from tests.soak.books import Counted
from tests.soak.followers import Follower, read_stream
from tests.support.place import Frame
from tests.support.rawclient import Refusal, Wire
from tests.support.stack import Stack, read_entries

GUESTS = 3
STAY_S = (4.0, 20.0)
"""How long a guest stays on one connection."""
LIFE_RUNS = (3, 8)
"""Runs of a room until it is deleted and another one opens."""
PAUSE_S = (0.5, 2.0)
"""Between two runs."""
STREAM = "stream 30 tokens at 10/s"
LARGE = "say 60000 bytes"
SLOW, STALLS_S = 0.3, (2.0, 8.0)
"""How many guests are slow, and for how long one of them reads nothing. Gateways hold it back: they keep little."""
RECEIVE_BUFFER = 8192
STREAM_TOKEN_S = 5.0
"""A stream of server-sent events ends when its token expires: so it ends orderly, and both ends count the same."""
RUN_WAIT_S = 120.0
TRIES = 5


@dataclass(slots=True)
class Load:
    """What all rooms share, and how far they are."""

    stack: Stack
    urls: list[str]
    log: JetStreamLog
    http: aiohttp.ClientSession
    rng: random.Random
    counted: Counted
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    numbers: Iterator[int] = field(default_factory=itertools.count)
    rooms: int = 0
    runs: int = 0
    stays: int = 0

    def url(self) -> str:
        return self.rng.choice(self.urls)

    async def keep_rooms(self, at_once: int) -> None:
        """Until `stop` is set; then each room comes to its end."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(at_once):
                tasks.create_task(self._keep_room())

    async def _keep_room(self) -> None:
        while not self.stop.is_set():
            await Room(self, f"room-{next(self.numbers)}").live()
            self.rooms += 1


@dataclass(slots=True)
class Room:
    """One session, from its creation to its deletion."""

    load: Load
    session: str
    over: asyncio.Event = field(default_factory=asyncio.Event)
    followers: list[Follower] = field(default_factory=list)
    """Those who have left."""

    async def live(self) -> None:
        host = Follower(self.session, every=True)
        async with await Wire.open(self.load.url(), self.load.stack.token("host")) as wire:
            await wire.command("session.create", session=self.session, title="A room", config={})
            await host.subscribe(wire)
            async with asyncio.TaskGroup() as tasks:
                for number in range(GUESTS):
                    tasks.create_task(self._guest(number))
                tasks.create_task(self._visitor())
                await self._talk(wire, host)
                self.over.set()
            await host.leave(wire)
        await self._close_books(host)
        async with await Wire.open(self.load.url(), self.load.stack.token("host")) as wire:
            await wire.command("session.delete", session=self.session)
            await wire.close()

    async def _talk(self, wire: Wire, host: Follower) -> None:
        """The host says something, and waits for the end of the answer, some times over."""
        for number in range(self.load.rng.randint(*LIFE_RUNS)):
            await self._run(wire, host, f"i{number}")
            self.load.runs += 1
            if self.load.stop.is_set():
                return
            await host.follow(wire, self.load.rng.uniform(*PAUSE_S))

    async def _run(self, wire: Wire, host: Follower, input_id: str) -> None:
        content = LARGE if self.load.rng.random() < 0.2 else STREAM
        await self._say(wire, input_id, content)
        # Sent again, as after a lost reply: it must not count twice.
        assert (await self._say(wire, input_id, content))["duplicate"]
        if self.load.rng.random() < 0.2:
            await host.follow(wire, 1.0)
            # It may have ended before this comes.
            with contextlib.suppress(Refusal):
                await wire.command("run.cancel", session=self.session, runId=f"run_{input_id}")
        await host.until_ended(wire, f"run_{input_id}", RUN_WAIT_S)

    async def _say(self, wire: Wire, input_id: str, content: str) -> Frame:
        """Sends an input, again if the log did not answer in time: a machine may be busy. Raises Refusal."""
        for _ in range(TRIES - 1):
            with contextlib.suppress(Refusal):
                return await wire.input(self.session, input_id, content)
            await asyncio.sleep(1.0)
        return await wire.input(self.session, input_id, content)

    # --- people ------------------------------------------------------------------------------------------------------

    async def _guest(self, number: int) -> None:
        """Comes and goes until the room is over: afresh, or with a cursor; reads on, or stops reading for a while."""
        last: Follower | None = None
        while not self.over.is_set():
            follower = self._next(last)
            token, slow = self.load.stack.token(f"guest-{number}"), self.load.rng.random() < SLOW
            kept = RECEIVE_BUFFER if slow else 0
            async with await Wire.open(self.load.url(), token, receive_buffer=kept) as wire:
                await follower.subscribe(wire)
                await self._stay(wire, follower, slow=slow)
                await (follower.cut(wire) if self.load.rng.random() < 0.3 else follower.leave(wire))
            self.followers.append(follower)
            self.load.stays += 1
            last = follower

    def _next(self, last: Follower | None) -> Follower:
        every = self.load.rng.random() < 0.5
        if last is not None and last.caught_up and self.load.rng.random() < 0.6:
            return Follower(self.session, every=every, after=last.last, epoch=last.epoch)
        return Follower(self.session, every=every)

    async def _stay(self, wire: Wire, follower: Follower, *, slow: bool) -> None:
        until = asyncio.get_running_loop().time() + self.load.rng.uniform(*STAY_S)
        while (left_s := until - asyncio.get_running_loop().time()) > 0 and not self.over.is_set():
            if slow:
                await asyncio.sleep(min(self.load.rng.uniform(*STALLS_S), left_s))
            await follower.follow(wire, min(1.0, left_s))

    async def _visitor(self) -> None:
        """Reads by HTTP: a stream until its token expires, and an upload that is fetched again."""
        while not self.over.is_set():
            await self._stream()
            await self._file()

    async def _stream(self) -> None:
        follower = Follower(self.session, every=self.load.rng.random() < 0.5)
        query = {"replay": "every"} if follower.every else {}
        path = f"/v1/sessions/{self.session}/events"
        headers = self._headers("visitor", STREAM_TOKEN_S) | {"Accept": "text/event-stream"}
        async with self.load.http.get(f"{self.load.url()}{path}", params=query, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            await read_stream(follower, answer.content)
        self.followers.append(follower)
        self.load.stays += 1

    async def _file(self) -> None:
        path = f"{self.load.url()}/v1/sessions/{self.session}/attachments"
        headers = self._headers("visitor", 60.0)
        content = self.load.rng.randbytes(10_000).hex().encode()
        async with self.load.http.post(
            path, params={"name": "a.txt"}, data=content, headers=headers | {"Content-Type": "text/plain"}
        ) as answer:
            assert answer.status == 201, await answer.text()
            stored = await answer.json()
        async with self.load.http.get(f"{path}/{stored['id']}", headers=headers) as answer:
            assert await answer.read() == content

    def _headers(self, user: str, ttl_s: float) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.load.stack.token(user, ttl_s=ttl_s)}"}

    # --- the books ---------------------------------------------------------------------------------------------------

    async def _close_books(self, host: Follower) -> None:
        """Compares what each reader has got with the log, while it is still there."""
        seqs = [seq for seq, _ in await read_entries(self.load.log, self.session)]
        for follower in (host, *self.followers):
            self._count(follower, seqs)

    def _count(self, follower: Follower, seqs: list[int]) -> None:
        counted = self.load.counted
        counted.readers += 1
        counted.frames += follower.frames
        counted.merged += follower.merged
        counted.twice += follower.twice
        counted.lost += follower.lost + follower.gaps
        there = sum(follower.began < seq <= follower.last for seq in seqs)
        got = follower.frames + follower.merged - follower.twice
        if follower.every:
            counted.audited += there
            counted.missing += abs(there - got)
        else:
            counted.left_out += there - got
            counted.missing += max(0, got - there)
