"""`antiphon bench --against`: a driver measures what its server really delivers, and a peer that is absent is called so."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from antiphon import bench
from antiphon.bench.against import peer_stage, stream_to
from antiphon.bench.measuring import Streamed
from antiphon.bench.peers import Peer, Served, find_peers
from antiphon.bench.rows import OURS, ratios, row
from broker.errors import ConfigError
from tests.bench.peers import PEERS

READERS = 5
RATE = 200.0, 1.0
PATIENCE_S = 30.0
"""This machine may be busy."""


async def _stream(peer: Peer, channels: int = 1, grace_s: float = PATIENCE_S) -> Streamed:
    async with peer_stage(peer) as on:
        await on.served.prepare("test-", channels)
        await on.crowd.open(on.reached("test-{g}", group=READERS), READERS * channels)
        return await stream_to(on, "test-", channels, RATE, readers_of_each=READERS, sample_every=1, grace_s=grace_s)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
async def test_what_is_written_is_what_the_readers_get(peer: Peer) -> None:
    if missing := peer.missing():
        pytest.skip(f"{missing}: {peer.install}")
    got = await _stream(peer)
    assert got.written > 0
    assert got.got.marks == got.wanted == got.written * READERS
    assert got.delivered_share == 1.0
    assert got.got.closed == 0
    assert got.gateway_s > 0
    assert got.latency()["p50_ms"] > 0


async def test_each_channel_reaches_its_own_readers() -> None:
    (aiohttp,) = find_peers(["aiohttp"])
    got = await _stream(aiohttp, channels=4)
    assert got.got.marks == got.written * READERS


class Deaf:
    """A peer whose readers are elsewhere than what is written."""

    def __init__(self, inner: Peer) -> None:
        self._inner = inner
        self.name, self.keeps, self.install = "deaf", "nothing", "nothing"

    def missing(self) -> str:
        return ""

    def versions(self) -> Mapping[str, str]:
        return {}

    @contextlib.asynccontextmanager
    async def serving(self, directory: Path) -> AsyncIterator[Served]:
        async with self._inner.serving(directory) as served:
            yield replace(served, feed=lambda prefix: served.feed(f"other-{prefix}"))


async def test_what_is_not_delivered_is_not_counted() -> None:
    (aiohttp,) = find_peers(["aiohttp"])
    got = await _stream(Deaf(aiohttp), grace_s=0.5)
    assert (got.got.marks, got.delivered_share) == (0, 0.0)
    assert got.written > 0


class Absent(Deaf):
    """One that is not installed."""

    def missing(self) -> str:
        return "there is no such program"


async def test_a_peer_that_is_not_installed_is_missing_and_has_no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ours() -> Mapping[str, float]:
        return {"events_per_second_per_core": 1.0}

    monkeypatch.setitem(bench._BENCHES, "fanout", ours)
    (aiohttp,) = find_peers(["aiohttp"])
    mine, absent = await bench.measure("fanout", 2, [Absent(aiohttp)])
    assert (mine["peer"], mine["runs"], mine["events_per_second_per_core"]) == (OURS, 2, 1.0)
    assert set(absent) == {"name", "peer", "missing", "machine"}
    assert absent["missing"] == "there is no such program: nothing"


def test_peers_are_found_by_name() -> None:
    names = [peer.name for peer in PEERS]
    assert [peer.name for peer in find_peers(["all"])] == names
    assert len(set(names)) == len(names)
    assert [peer.name for peer in find_peers(["websockets", "centrifugo-nats"])] == ["centrifugo-nats", "websockets"]
    with pytest.raises(ConfigError, match=r"there is no peer 'pigeon'; there are: centrifugo-memory"):
        find_peers(["aiohttp", "pigeon"])


def test_a_ratio_is_that_of_runs_beside_each_other() -> None:
    ours: list[dict[str, float]] = [{"rate": 10, "only_ours": 1}, {"rate": 40}, {"rate": 90}]
    theirs: list[dict[str, float]] = [{"rate": 10}, {"rate": 20}, {"rate": 30}]
    assert ratios(ours, theirs) == {"rate": 2.0}
    told: Mapping[str, Any] = row("fanout", "aiohttp", theirs, ours=ours, extra={"keeps": "nothing"})
    assert (told["rate"], told["spread"], told["antiphon_ratio"]) == (20, {"rate": [10, 30]}, {"rate": 2.0})
    # A peer that has delivered nothing is not beaten infinitely.
    assert ratios([{"rate": 5.0}], [{"rate": 0.0}]) == {}
