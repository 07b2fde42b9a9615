"""B01: a thousand sockets are cut at any byte while answers stream; nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

import pytest

from tests.behaviours.conftest import Figure
from tests.support.place import Place
from tests.support.rawclient import Cut, Wire, join
from tests.support.stack import Stack

CUTS = 1000
READERS = 12
SESSION = "cut"
TOKENS, RATE = 300, 150
AWAY_OFTEN, AWAY_S = 0.3, 0.4
"""How often a reader does not come back at once, and how long it stays away at most."""
LAST, ASIDE = "last", "by the way"


@dataclass(slots=True)
class Cutting:
    """How many cuts are still to be made, and where they have hit."""

    left: int = CUTS
    hits: dict[str, int] = field(default_factory=dict)

    def cut(self, place: str) -> None:
        self.left -= 1
        self.hits[place] = self.hits.get(place, 0) + 1


class CuttingReader:
    """Reads the session, is cut, and goes on with its cursor at whatever gateway, until the last run has ended."""

    def __init__(self, urls: list[str], token: str, cutting: Cutting, rng: random.Random, *, every: bool) -> None:
        self._urls = urls
        self._token = token
        self._cutting = cutting
        self._rng = rng
        self.place = Place(SESSION, every=every)
        self.connections = 0

    async def join(self) -> None:
        """The first join; from here on there is a cursor."""
        await join(self._rng.choice(self._urls), self._token, self.place)

    async def run(self) -> None:
        while f"run_{LAST}" not in self.place.ended:
            cut_after = self._somewhere() if self._cutting.left > 0 else None
            self.connections += 1
            stage = "before the reply to subscribe"
            try:
                async with await Wire.open(self._rng.choice(self._urls), self._token, cut_after=cut_after) as wire:
                    await wire.subscribe(self.place)
                    stage = "among entries"
                    await wire.follow(self.place, lambda p: f"run_{LAST}" in p.ended)
            except Cut:
                self._cutting.cut(stage)
                if self._rng.random() < AWAY_OFTEN:
                    await asyncio.sleep(self._rng.uniform(0, AWAY_S))

    def _somewhere(self) -> int:
        """A byte: often just after the handshake, where replay turns into live, else some way into the stream."""
        return self._rng.randint(1, 3_000) if self._rng.random() < 0.5 else self._rng.randint(3_000, 12_000)


async def _talk(url: str, token: str, cutting: Cutting) -> int:
    """Keeps runs going, one after another, until all cuts are made; returns how many there were."""
    place, runs = Place(SESSION), 0
    async with await Wire.open(url, token) as wire:
        await wire.subscribe(place)
        while cutting.left > 0:
            runs += 1
            await wire.input(SESSION, f"input-{runs}", f"stream {TOKENS} tokens at {RATE}/s")
            # A record amid the tokens: somebody else does not wait for the end.
            await wire.follow(place, lambda p, run=f"run_input-{runs}": len(p.answer(run)) > 200)  # type: ignore[misc]
            await wire.input(SESSION, f"aside-{runs}", ASIDE)
            await wire.follow(place, lambda p, run=f"run_aside-{runs}": run in p.ended)  # type: ignore[misc]
        await wire.input(SESSION, LAST, "stream 20 tokens")
        await wire.follow(place, lambda p: f"run_{LAST}" in p.ended)
    return runs


@pytest.mark.timeout(120)
async def test_mid_token_cut(stack: Stack, figure: Figure, seed: int) -> None:
    (roomy,) = await stack.start(1)
    # This one has to go back to the log for almost everything.
    narrow = await stack.gateway(ring_entries="8")
    urls = [roomy.url, narrow.url]
    token = stack.token()
    cutting = Cutting()
    readers = [
        CuttingReader(urls, token, cutting, random.Random(f"{seed}-{i}"), every=i % 2 == 0) for i in range(READERS)
    ]
    for reader in readers:
        await reader.join()
    async with asyncio.TaskGroup() as tasks:
        talk = tasks.create_task(_talk(urls[0], token, cutting))
        for reader in readers:
            tasks.create_task(reader.run())
    log = await _audit(urls[1], token)
    said = {f"run_{LAST}": _tokens(20)}
    for i in range(1, talk.result() + 1):
        said |= {f"run_input-{i}": _tokens(TOKENS), f"run_aside-{i}": ASIDE}
    for reader in readers:
        _check(reader.place, log, said)
    handled = sum(len(reader.place.entries) for reader in readers)
    lost = sum(reader.place.lost for reader in readers)
    twice = sum(reader.place.twice for reader in readers)
    figure(
        f"{CUTS - cutting.left} cuts ({cutting.hits['among entries']} among entries), {handled} entries taken of "
        f"{len(log.entries)} in the log, {lost} lost, {twice} twice, text identical, seed {seed}"
    )


async def _audit(url: str, token: str) -> Place:
    """The session as the log holds it: every entry, by a fresh connection."""
    log = Place(SESSION, every=True)
    await join(url, token, log)
    assert log.whole
    assert log.merged == 0
    return log


def _check(place: Place, log: Place, said: dict[str, str]) -> None:
    assert place.whole, place
    # The owner's release of the lane may come after the last run's end, where readers stop.
    held = [entry for entry in log.entries if entry[0] <= place.last]
    if place.every:
        assert place.entries == held
    else:
        # Merged frames end at entries of the log.
        assert set(place.entries) <= set(held)
    assert {id_: str(text) for id_, text in place.texts.items()} == {id_: str(text) for id_, text in log.texts.items()}
    assert place.ended == dict.fromkeys(said, "success")
    for run, text in said.items():
        assert place.answer(run) == text


def _tokens(count: int) -> str:
    return "".join(f"t{i} " for i in range(count))
