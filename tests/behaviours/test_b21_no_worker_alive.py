"""B21: inputs sent while no worker is alive run when one starts; none is lost."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest

from broker.events import InputApplied, RunFinished
from broker.jetstream.log import JetStreamLog
from broker.loading import load
from tests.behaviours.conftest import Figure
from tests.support.rawclient import Wire
from tests.support.stack import Process, Stack, read_entries, replicated_stack

INPUTS_PER_SESSION = 10
SENDERS = 20
WORKERS = 2
UNLIMITED = {"commands_per_second": "100000", "commands_burst": "100000"}


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("replicas", "sessions"), [(1, 1000), (3, 200)], ids=["R1", "R3"])
async def test_inputs_wait_for_a_worker(tmp_path: Path, figure: Figure, replicas: int, sessions: int) -> None:
    async with replicated_stack(tmp_path, replicas, lease_s=15.0) as stack:
        names = [f"early-{i}" for i in range(sessions)]
        gateway = await stack.gateway(**UNLIMITED)
        await _send_all(stack, gateway, names)
        await gateway.terminate()
        began = time.monotonic()
        for _ in range(WORKERS):
            await stack.worker(concurrency="64")
        async with stack.log() as log:
            ended = Counter[str]()
            for name in names:
                ended += await _ends(log, name)
        took_s = time.monotonic() - began
    inputs = sessions * INPUTS_PER_SESSION
    assert ended == {"applied": inputs, "success": inputs}
    figure(f"R{replicas}: {inputs} inputs sent with no worker alive, 0 lost, 0 twice; all ran in {took_s:.0f} s")


async def _send_all(stack: Stack, gateway: Process, names: list[str]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for i in range(SENDERS):
            tasks.create_task(_send(stack, gateway, names[i::SENDERS]))


async def _send(stack: Stack, gateway: Process, names: list[str]) -> None:
    async with await Wire.open(gateway.url, stack.token()) as wire:
        for name in names:
            for i in range(INPUTS_PER_SESSION):
                reply = await wire.input(name, f"i{i}", f"answer to {i}")
                assert reply["status"] == "queued"


async def _ends(log: JetStreamLog, session: str) -> Counter[str]:
    """Waits until nothing runs or waits in a session; counts what its log says of its inputs."""
    async with asyncio.timeout(150):
        while not (await load(log, log.subjects(session))).state.idle:
            await asyncio.sleep(0.1)
    found, seen = Counter[str](), set[str]()
    for _, entry in await read_entries(log, session):
        for event in entry.events:
            if isinstance(event, InputApplied):
                assert event.input_id not in seen, "applied twice"
                seen.add(event.input_id)
                found["applied"] += 1
            elif isinstance(event, RunFinished):
                found[str((event.outcome or {}).get("type"))] += 1
    return found
