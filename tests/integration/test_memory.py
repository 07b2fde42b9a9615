"""How much memory the processes take. The figures are printed: `pytest -rA`."""

from __future__ import annotations

from pathlib import Path

import psutil

from tests.support.dev import dev
from tests.support.nats import NatsNode
from tests.support.stack import Stack

MB = 1_000_000
DEV_MB = 150
GATEWAY_MB = 60


def rss(process: psutil.Process) -> int:
    return int(process.memory_info().rss)


async def test_dev_with_a_first_message_answered(tmp_path: Path) -> None:
    async with dev(tmp_path / "data") as running:
        sent = await running.run("send", "demo", "hello there", "--wait")
        assert (sent.code, sent.out) == (0, "hello there\n")
        figures = {"dev": rss(psutil.Process(running.process.pid))}
        figures |= {name: rss(child) for name, child in running.children().items()}
    total = sum(figures.values())
    print(f"antiphon dev: {total / MB:.1f} MB", {name: f"{size / MB:.1f}" for name, size in figures.items()})  # noqa: T201
    assert len(figures) == 3
    assert total < DEV_MB * MB


async def test_a_gateway_at_its_start(tmp_path: Path, nats_server: NatsNode) -> None:
    async with Stack(tmp_path / "stack", nats_server.url) as stack:
        size = rss(psutil.Process((await stack.gateway()).pid))
    print(f"gateway: {size / MB:.1f} MB")  # noqa: T201
    assert size < GATEWAY_MB * MB
