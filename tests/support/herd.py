"""Many clients in one process, who find gateways as through a load balancer, and come back as the protocol says.

Each is a `Wire` and a `Place`, so each proves to itself that nothing is lost; what they cost is little enough for
thousands of them on one core.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import aiohttp
import orjson
from websockets.exceptions import InvalidHandshake, InvalidState

from tests.support.place import Place
from tests.support.rawclient import Wire, WireClosed
from tests.support.stack import metric

OPENING = 32
"""Connections that a herd opens at once when it begins."""
LOOK_S = 0.25
"""Seconds between two looks of a load balancer at `/readyz`."""
_TURNED_AWAY_S = 1.0


@dataclass(slots=True)
class Balancer:
    """Which gateways take clients, in turn: those that were ready when they were last asked."""

    urls: list[str]
    ready: list[str] = field(default_factory=list)
    turns: Counter[str] = field(default_factory=Counter)
    _next: itertools.count[int] = field(default_factory=itertools.count)

    def choose(self) -> str:
        """The gateway for the next connection."""
        url = self.ready[next(self._next) % len(self.ready)]
        self.turns[url] += 1
        return url

    @contextlib.asynccontextmanager
    async def looking(self) -> AsyncIterator[Balancer]:
        """Asks the gateways again and again until the context ends; they have been asked once when it begins."""
        timeout = aiohttp.ClientTimeout(total=2)
        async with aiohttp.ClientSession(timeout=timeout) as http, asyncio.TaskGroup() as tasks:
            await self._look(http)
            looking = tasks.create_task(self._look_on(http))
            yield self
            looking.cancel()

    async def _look_on(self, http: aiohttp.ClientSession) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            await self._look(http)

    async def _look(self, http: aiohttp.ClientSession) -> None:
        self.ready = [url for url in self.urls if await _is_ready(http, url)]


async def _is_ready(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(f"{url}/readyz") as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


@dataclass(frozen=True, slots=True)
class Return:
    """A connection that ended, and when its client had caught up on another one; in seconds of the monotonic clock."""

    code: int
    ended: float
    back: float

    @property
    def away_s(self) -> float:
        return self.back - self.ended


@dataclass(slots=True)
class Member:
    """A client that stays in its session until it has seen the run `last` end. One with `says` keeps runs going."""

    place: Place
    token: str
    choose: Callable[[], str]
    rng: random.Random
    says: str = ""
    enough: asyncio.Event = field(default_factory=asyncio.Event)
    """Set for those who speak: what they say next is the last thing."""
    said: list[str] = field(default_factory=list)
    returns: list[Return] = field(default_factory=list)
    turned_away: int = 0
    """Gateways that did not take it, or could not be reached."""
    refused: list[str] = field(default_factory=list)
    """Codes of its inputs that were refused."""
    _asked: dict[int, str] = field(default_factory=dict)
    _ended: tuple[int, float] | None = None

    @property
    def over(self) -> bool:
        return "run_last" in self.place.ended

    async def live(self, joined: Callable[[], None]) -> None:
        """Calls `joined` when it has caught up for the first time; returns when the session is over."""
        while not self.over:
            try:
                async with await Wire.open(self.choose(), self.token) as wire:
                    self.place.caught_up = False
                    await wire.subscribe(self.place)
                    await wire.follow(self.place, lambda p: p.caught_up)
                    self._arrived(joined)
                    await self._stay(wire)
            except WireClosed as closed:
                self._ended = closed.code, time.monotonic()
                await asyncio.sleep(_retry_after_s(closed.reason))
            except (OSError, InvalidHandshake):
                self.turned_away += 1
                await asyncio.sleep(self.rng.uniform(0, _TURNED_AWAY_S))

    def _arrived(self, joined: Callable[[], None]) -> None:
        if self._ended is None:
            joined()
        else:
            self.returns.append(Return(*self._ended, time.monotonic()))

    async def _stay(self, wire: Wire) -> None:
        self._asked.clear()
        if self.says:
            self._speak(wire, again=True)
        while not self.over:
            self.place.take(await wire.receive())
            if self.says:
                self._speak(wire)

    def _speak(self, wire: Wire, *, again: bool = False) -> None:
        """Says the next thing when the last one has been answered. On a new connection, what may not have arrived."""
        for id_ in list(self._asked):
            if (reply := wire.answered(id_)) is not None:
                del self._asked[id_]
                if reply["op"] == "error":
                    self.refused.append(str(reply["code"]))
        if self.said and f"run_{self.said[-1]}" not in self.place.ended:
            if again and self.said[-1] not in self.place.applied:
                self._send(wire)
        elif not self.over:
            self.said.append("last" if self.enough.is_set() else f"i{len(self.said)}")
            self._send(wire)

    def _send(self, wire: Wire) -> None:
        input_id = self.said[-1]
        # A connection that is being closed takes nothing more; the next one will.
        with contextlib.suppress(InvalidState):
            id_ = wire.send("input.send", session=self.place.session, inputId=input_id, content=self.says)
            self._asked[id_] = input_id


def _retry_after_s(reason: str) -> float:
    """What a gateway that closes a connection has asked for."""
    with contextlib.suppress(orjson.JSONDecodeError):
        return float(orjson.loads(reason).get("retry_after_ms", 0)) / 1000
    return 0.0


@dataclass(slots=True)
class Herd:
    """`async with herd.living():` they have all joined when it begins; at its end all sessions have come to their end."""

    members: list[Member]
    _to_join: int = 0
    _all_joined: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def of(
        cls,
        sessions: Sequence[str],
        each: int,
        says: str,
        token: Callable[[str], str],
        choose: Callable[[], str],
        seed: int,
    ) -> Herd:
        """`each` clients in every session, users of their own, of whom the first says `says` again and again."""
        members = [
            Member(
                Place(session),
                token(f"user-{i}"),
                choose,
                random.Random(f"{seed}-{session}-{i}"),
                says if i == 0 else "",
            )
            for i in range(each)
            for session in sessions
        ]
        return cls(members)

    @contextlib.asynccontextmanager
    async def living(self) -> AsyncIterator[None]:
        self._to_join = len(self.members)
        opening = asyncio.Semaphore(OPENING)
        async with asyncio.TaskGroup() as tasks:
            for member in self.members:
                await opening.acquire()
                tasks.create_task(member.live(lambda: self._joined(opening)))
            await self._all_joined.wait()
            yield
            for member in self.members:
                member.enough.set()

    @property
    def returns(self) -> list[Return]:
        return [each for member in self.members for each in member.returns]

    @property
    def frames(self) -> int:
        """Entries that were taken, in all."""
        return sum(len(member.place.entries) for member in self.members)

    def places(self, session: str) -> list[Place]:
        return [member.place for member in self.members if member.place.session == session]

    def _joined(self, opening: asyncio.Semaphore) -> None:
        opening.release()
        self._to_join -= 1
        if not self._to_join:
            self._all_joined.set()


@dataclass(slots=True)
class Rates:
    """How fast connections come to gateways, as their own counters say."""

    urls: list[str]
    seen: list[tuple[float, float]] = field(default_factory=list)
    """When how many subscriptions had been served, in all."""

    @contextlib.asynccontextmanager
    async def counting(self, every_s: float = 0.25) -> AsyncIterator[Rates]:
        async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as tasks:
            await self._count(http)
            counting = tasks.create_task(self._count_on(http, every_s))
            yield self
            counting.cancel()

    def peak(self, window_s: float = 2.0) -> float:
        """The most that came within such a time, a second."""
        most = 0.0
        for i, (since, before) in enumerate(self.seen):
            for at, count in self.seen[i + 1 :]:
                if at - since >= window_s:
                    most = max(most, (count - before) / (at - since))
                    break
        return most

    async def _count_on(self, http: aiohttp.ClientSession, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            await self._count(http)

    async def _count(self, http: aiohttp.ClientSession) -> None:
        count = 0.0
        for url in self.urls:
            async with http.get(f"{url}/metrics") as answer:
                text = await answer.text()
            count += sum(
                metric(text, "antiphon_gateway_joins_total", kind=kind) for kind in ("snapshot", "ring", "log")
            )
        self.seen.append((time.monotonic(), count))


def share(values: Sequence[float], part: float) -> float:
    """The value below which that part of them is: 0.5 for the median."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]
