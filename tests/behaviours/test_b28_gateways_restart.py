"""B28: gateways are replaced under 2,000 clients: nobody is away for long, nobody comes twice, nothing is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from broker.events import RunTakenOver
from tests.behaviours.conftest import Figure
from tests.support.herd import Balancer, Herd, Rates, share
from tests.support.place import Place
from tests.support.rawclient import join
from tests.support.releases import FIRST_PLANE, checked_out, in_history
from tests.support.stack import Process, Stack, read_entries

SESSIONS, CLIENTS = 100, 2_000
SAYS = "stream 8 tokens at 1/s"
GATEWAYS = 2
PER_SECOND = 75
"""What each gateway that leaves lets go; two leave at once."""
DRAINING = {"drain_s": "30", "drain_per_second": str(PER_SECOND), "drain_delay_s": "1"}
DRAINING_CODE = 4200


@pytest.mark.timeout(300)
async def test_gateways_are_replaced_under_2000_clients(stack: Stack, figure: Figure, seed: int) -> None:
    """First the new ones come up, then all old ones leave: whoever moves, moves to where they can stay."""
    old = await stack.start(GATEWAYS, workers=1, concurrency=str(SESSIONS), **DRAINING)
    names = [f"herd-{i}" for i in range(SESSIONS)]
    balancer = Balancer([gateway.url for gateway in old])
    herd = Herd.of(names, CLIENTS // SESSIONS, SAYS, stack.token, balancer.choose, seed)
    async with balancer.looking(), herd.living():
        new = [await stack.gateway(**DRAINING) for _ in range(GATEWAYS)]
        rates = Rates([gateway.url for gateway in new])
        balancer.urls += rates.urls
        async with rates.counting(), asyncio.TaskGroup() as tasks:
            for gateway in old:
                tasks.create_task(_left(gateway))
    await _check(stack, new[0].url, herd, names)
    _each_moved_once(herd)
    # A storm would be all of them within a second or two. On a busy machine this process bunches some by being late.
    assert rates.peak() <= 3 * GATEWAYS * PER_SECOND
    away = [each.away_s for each in herd.returns]
    figure(
        f"{GATEWAYS} gateways replaced under {len(herd.members)} clients: each came back once, at most "
        f"{rates.peak():.0f}/s (paced {GATEWAYS * PER_SECOND}/s), away {share(away, 0.5):.2f} s at the median, "
        f"{share(away, 0.99):.2f} s p99; {herd.frames} entries taken, 0 lost, 0 twice, texts as in the log, seed {seed}"
    )


def _each_moved_once(herd: Herd) -> None:
    for member in herd.members:
        assert [each.code for each in member.returns] == [DRAINING_CODE], member
        assert member.turned_away == 0
        assert not member.refused


async def _check(stack: Stack, url: str, herd: Herd, names: list[str]) -> None:
    """Everybody has what the log has; and everything that was said was answered once, in order."""
    for name in names:
        log = Place(name, every=True)
        await join(url, stack.token(), log)
        assert log.whole
        said = next(m.said for m in herd.members if m.place.session == name and m.says)
        assert log.applied == said
        assert log.started == [f"run_{input_id}" for input_id in said]
        assert log.ended == {f"run_{input_id}": "success" for input_id in said}
        texts = {id_: str(text) for id_, text in log.texts.items()}
        assert set(texts.values()) == {"".join(f"t{i} " for i in range(8))}
        for place in herd.places(name):
            assert place.whole, place
            # Merged frames end at entries of the log, and whoever joined late begins at a snapshot.
            assert set(place.entries) <= set(log.entries)
            assert {id_: str(text) for id_, text in place.texts.items()} == {id_: texts[id_] for id_ in place.texts}


UPGRADED = 500
WORKERS = 2


@pytest.mark.timeout(300)
async def test_a_rolling_upgrade_under_500_clients(stack: Stack, tmp_path: Path, figure: Figure, seed: int) -> None:
    """From the code of earlier days to today's, as the runbook says: topology, workers, gateways; people keep talking.

    A clone without history has none of earlier days: there everything is replaced by what it is already.
    """
    before = FIRST_PLANE if in_history(FIRST_PLANE) else "today's code"
    stack.code = checked_out(FIRST_PLANE, tmp_path) if in_history(FIRST_PLANE) else None
    await stack.apply_topology()
    # The gateways of that time count everything into this one setting.
    old = await stack.start(GATEWAYS, workers=WORKERS, concurrency=str(SESSIONS), drain_s="20", worker_drain_s="60")
    workers = [process for process in stack.processes if process not in old]
    names = [f"herd-{i}" for i in range(SESSIONS)]
    balancer = Balancer([gateway.url for gateway in old])
    herd = Herd.of(names, UPGRADED // SESSIONS, SAYS, stack.token, balancer.choose, seed)
    async with balancer.looking(), herd.living():
        stack.code = None
        await stack.apply_topology()
        for worker in workers:
            await stack.worker(concurrency=str(SESSIONS), worker_drain_s="60")
            await _left(worker)
        new = [await stack.gateway(**DRAINING) for _ in range(GATEWAYS)]
        # The gateways of that time close the first connection at once: they must be out of the balancer before.
        balancer.urls = [gateway.url for gateway in new]
        await balancer.sees(*balancer.urls)
        async with asyncio.TaskGroup() as tasks:
            for gateway in old:
                tasks.create_task(_left(gateway))
    await _check(stack, new[0].url, herd, names)
    for member in herd.members:
        assert [each.code for each in member.returns] == [DRAINING_CODE], member
        assert not member.refused
    async with stack.log() as log:
        for name in names:
            for _, entry in await read_entries(log, name):
                assert not any(isinstance(event, RunTakenOver) for event in entry.events)
    said = sum(len(member.said) for member in herd.members)
    figure(
        f"{WORKERS} workers and {GATEWAYS} gateways upgraded from {before} under {UPGRADED} clients: {said} inputs, "
        f"each applied once, 0 runs cut, 0 taken over, each client came back once, {herd.frames} entries taken, 0 lost, "
        f"0 twice, texts as in the log"
    )


async def _left(process: Process) -> None:
    process.terminate_soon()
    async with asyncio.timeout(60):
        assert await process.process.wait() == 0
