"""Webhooks while NATS is away, and the traces that they continue."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.support.collector import collector
from tests.support.nats import NatsNode
from tests.support.rawclient import send_input
from tests.support.receiver import receiving, write_file
from tests.support.stack import Process, Stack

pytestmark = pytest.mark.timeout(180)

WAIT_S = 60.0
LEADING = "this process sends webhooks from now on"


async def says(process: Process, event: str, count: int = 1) -> None:
    async with asyncio.timeout(WAIT_S):
        while sum(line.get("event") == event for line in process.logged()) < count:
            await asyncio.sleep(0.02)


async def test_what_happens_around_an_outage_of_nats_is_told(nats_server: NatsNode, tmp_path: Path) -> None:
    async with receiving("one") as (one,), Stack(tmp_path / "stack", nats_server.url) as stack:
        sender = await stack.webhooks(write_file(tmp_path / "hooks.json", one.table()))
        await says(sender, LEADING)
        (gateway,) = await stack.start(1)
        await send_input(gateway.url, stack.token(), "before", "i1", "hello")
        await one.has("run.finished", "before")
        await nats_server.kill()
        # Longer than its lease: it is no sender any more.
        await says(sender, "this process sends no webhooks any more")
        await nats_server.restart()
        await says(sender, LEADING, 2)
        await says(gateway, "NATS is back")
        await send_input(gateway.url, stack.token(), "after", "i1", "hello")
        await one.has("run.finished", "after")
        assert [r.session for r in one.events] == ["before", "after"]
        assert "Traceback" not in sender.output()


async def test_a_request_is_a_span_of_the_trace_that_it_tells_of(nats_server: NatsNode, tmp_path: Path) -> None:
    async with receiving("one") as (one,), collector() as found:
        env = {"otlp_endpoint": found.url, "span_export_s": "0.1"}
        async with Stack(tmp_path / "stack", nats_server.url) as stack:
            sender = await stack.webhooks(write_file(tmp_path / "hooks.json", one.table()), **env)
            await says(sender, LEADING)
            (gateway,) = await stack.start(1, **env)
            await send_input(gateway.url, stack.token(), "traced", "i1", "hello")
            told = await one.has("run.finished", "traced")
            async with asyncio.timeout(WAIT_S):
                while not (found.named("webhook run.finished") and found.named("run")):
                    await asyncio.sleep(0.05)
            (span,) = found.named("webhook run.finished", session="traced", endpoint="one")
            (run,) = found.named("run")
            assert (span.service, span.trace_id, span.parent) == ("antiphon-webhooks", run.trace_id, run.span_id)
            # The receiver is a part of the same trace.
            assert told.headers["traceparent"].split("-")[1:3] == [span.trace_id, span.span_id]
            assert b"hello" not in found.raw
            assert json.loads(told.body)["data"]["session"] == "traced"
