"""B21: inputs sent while no worker is alive run when one starts; none is lost."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import psutil
import pytest

from broker.events import InputApplied, RunError, RunFinished, RunStarted
from broker.jetstream.log import JetStreamLog
from broker.loading import load
from tests.behaviours.conftest import Figure
from tests.support.place import Place
from tests.support.rawclient import Wire, join
from tests.support.stack import Process, Stack, read_entries, replicated_stack

INPUTS_PER_SESSION = 10
SENDERS = 16
GATEWAYS = 2
WORKERS = 2
UNLIMITED = {
    "commands_per_second": "100000",
    "commands_burst": "100000",
    "inputs_per_second": "100000",
    "inputs_burst": "100000",
}


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("replicas", "sessions"), [(1, 1000), pytest.param(3, 200, marks=pytest.mark.cluster)], ids=["R1", "R3"]
)
async def test_inputs_wait_for_a_worker(tmp_path: Path, figure: Figure, replicas: int, sessions: int) -> None:
    """Every gateway that took them is gone before the first worker starts."""
    async with replicated_stack(tmp_path, replicas, lease_s=15.0) as stack:
        names = [f"early-{i}" for i in range(sessions)]
        began = time.monotonic()
        gateways = [await stack.gateway(**UNLIMITED) for _ in range(GATEWAYS)]
        await _send_all(stack, gateways, names)
        sent_s, gateways_s = time.monotonic() - began, _cpu_s(gateways)
        for gateway in gateways:
            assert await gateway.terminate() == 0
        gateway = await stack.gateway()
        began = time.monotonic()
        workers = [await stack.worker(concurrency="64") for _ in range(WORKERS)]
        async with stack.log() as log:
            await _all_idle(log, names)
            took_s, workers_s = time.monotonic() - began, _cpu_s(workers)
            found = Counter[str]()
            for name in names:
                found += await _ends(log, name)
        inputs = sessions * INPUTS_PER_SESSION
        assert found == {"started": inputs, "applied": inputs, "success": inputs}
        for name in names[:: sessions // 10]:
            await _as_people_see_it(stack, gateway, name)
    figure(
        f"R{replicas}: {inputs} inputs in {sessions} sessions sent with no worker alive, 0 lost, 0 twice; "
        f"sent in {sent_s:.0f} s (CPU of gateways {gateways_s:.0f} s), run in {took_s:.0f} s (of workers {workers_s:.0f} s)"
    )


async def _send_all(stack: Stack, gateways: list[Process], names: list[str]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for i in range(SENDERS):
            tasks.create_task(_send(stack, gateways[i % len(gateways)], names[i::SENDERS]))


async def _send(stack: Stack, gateway: Process, names: list[str]) -> None:
    async with await Wire.open(gateway.url, stack.token()) as wire:
        for name in names:
            for i in range(INPUTS_PER_SESSION):
                reply = await wire.input(name, f"i{i}", f"answer to {i}")
                assert (reply["status"], reply["position"]) == ("queued", i + 1)


async def _all_idle(log: JetStreamLog, names: Iterable[str]) -> None:
    """Returns when nothing runs or waits in any session."""
    async with asyncio.timeout(150):
        for name in names:
            while not (await load(log, log.subjects(name))).state.idle:
                await asyncio.sleep(0.2)


async def _ends(log: JetStreamLog, session: str) -> Counter[str]:
    """What a session's log says of its inputs and runs; each once."""
    seen: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for _, entry in await read_entries(log, session):
        for event in entry.events:
            match event:
                case InputApplied():
                    seen[f"applied {event.input_id}"] += 1
                    found["applied"] += 1
                case RunStarted():
                    seen[f"started {event.run_id}"] += 1
                    found["started"] += 1
                case RunFinished():
                    found[str((event.outcome or {}).get("type"))] += 1
                case RunError():
                    found["error"] += 1
                case _:
                    pass
    assert set(seen.values()) == {1}, "something was applied or started twice"
    return found


async def _as_people_see_it(stack: Stack, gateway: Process, session: str) -> None:
    """A session through a gateway that did not exist when its inputs were sent."""
    place = Place(session)
    await join(gateway.url, stack.token(), place)
    assert place.applied == [f"i{i}" for i in range(INPUTS_PER_SESSION)], "in the order in which they were sent"
    assert [place.answer(f"run_i{i}") for i in range(INPUTS_PER_SESSION)] == [
        f"answer to {i}" for i in range(INPUTS_PER_SESSION)
    ]


def _cpu_s(processes: list[Process]) -> float:
    """CPU seconds that they have used."""
    return sum(sum(psutil.Process(process.pid).cpu_times()[:2]) for process in processes)
