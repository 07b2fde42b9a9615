"""A gateway, a worker and a sender of webhooks that have had something to do, scraped by a real Prometheus: once for all tests here."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from antiphon_client import Client
from tests.monitoring.expressions import Known, filled_in
from tests.support.nats import free_ports, single_server
from tests.support.prometheus import ROOT, RULES, Prometheus, prometheus
from tests.support.rawclient import http_get
from tests.support.receiver import receiving, write_file
from tests.support.stack import Stack

DASHBOARD = ROOT / "deploy/grafana/dashboard.json"
WAIT_S = 60.0
CONVERSATIONS = 8


@dataclass(frozen=True)
class Seen:
    """What the processes exposed (`/metrics` by component), and what Prometheus made of it."""

    exposed: dict[str, str]
    rules: list[dict[str, Any]]
    answers: dict[str, list[Any]]
    """By expression of the dashboard."""


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """Without rows."""
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def targets() -> Iterator[tuple[str, str, str]]:
    """Title, expression and legend of each query of the dashboard."""
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"], target["legendFormat"]


@pytest.fixture(scope="session")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return asyncio.run(_see(tmp_path_factory.mktemp("monitoring")))


@pytest.fixture
def known(seen: Seen) -> Known:
    """The metrics that are exposed, and those of Prometheus itself."""
    found = Known()
    for text in seen.exposed.values():
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.add(sample.name, sample.labels)
    found.add("up", {})
    for severity in ("critical", "warning"):
        for alert in alerts():
            found.add("ALERTS", {"alertname": alert["alert"], "alertstate": "firing", "severity": severity})
    return found


async def _see(directory: Path) -> Seen:
    worker_port, webhook_port = free_ports(2)
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(single_server(directory / "nats"))
        env = {"ack_sample_s": "0.2", "session_linger_s": "0.1"}
        place = await stack.enter_async_context(Stack(directory / "stack", server.url, env=env))
        gateway = await place.gateway()
        await place.worker(worker_port=str(worker_port))
        (receiver,) = await stack.enter_async_context(receiving("pager"))
        file = write_file(directory / "hooks.json", receiver.table())
        await place.webhooks(file, webhook_port=str(webhook_port))
        addresses = {"gateway": gateway.url, "worker": f"http://127.0.0.1:{worker_port}"}
        addresses["webhooks"] = f"http://127.0.0.1:{webhook_port}"
        jobs = {job: [url.removeprefix("http://")] for job, url in addresses.items()}
        scraping = await stack.enter_async_context(prometheus(directory / "prometheus", jobs))
        async with asyncio.timeout(WAIT_S), Client(gateway.url, place.token()) as client:
            for number in range(CONVERSATIONS):
                await _converse(client, f"talk-{number}")
            await _seen_all(scraping)
        return Seen(
            exposed={component: (await http_get(f"{url}/metrics"))[1] for component, url in addresses.items()},
            rules=await scraping.rules(),
            answers={expr: await scraping.query(filled_in(expr)) for _, expr, _ in targets()},
        )


async def _converse(client: Client, name: str) -> None:
    session = client.session(name)
    events = session.events()
    receipt = await session.send("stream 50 tokens at 50/s")
    async with asyncio.TaskGroup() as tasks:

        async def read() -> None:
            async for _ in events:
                pass

        reading = tasks.create_task(read())
        await receipt.finished()
        reading.cancel()


async def _seen_all(scraping: Prometheus) -> None:
    """Returns when every rule has been evaluated with what the last conversation has left."""
    wanted = f'sum(antiphon_worker_runs_total{{end="success"}}) == {CONVERSATIONS}'
    told = f"sum(antiphon_webhook_delivered_total) >= {CONVERSATIONS - 1}"
    while not (await scraping.query(wanted) and await scraping.query(told)):
        await asyncio.sleep(0.1)
    while any(rule["health"] == "unknown" for rule in await scraping.rules()):
        await asyncio.sleep(0.1)
