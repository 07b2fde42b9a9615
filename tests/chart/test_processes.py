"""Real processes, told what the chart tells them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import aiohttp
import pytest

from antiphon.settings_table import SECTIONS
from broker.config import load
from tests.chart.rendering import CASES, Object, case, container, env, render
from tests.support.nats import NatsNode, free_ports

cases = pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
WAIT_S = 20.0
COMMANDS: dict[str, list[str]] = {"gateway": ["gateway"], "worker": ["worker"], "webhooks": [], "topology": []}
"""What the images' entry points add to the arguments."""


@cases
def test_settings_are_taken(path: Path) -> None:
    for template in render(path).pods():
        told = {name: value for name, value in env(template).items() if value is not None}
        for _, cls in SECTIONS:
            load(cls, {}, told, {})


async def started(template: Object, directory: Path, **instead: str) -> Process:
    """The command of a Pod, with its variables; files of Secrets are in `directory`, and `instead` replaces values."""
    component = template["metadata"]["labels"]["app.kubernetes.io/component"]
    told = {name: str(value).replace("/etc/antiphon", str(directory)) for name, value in env(template).items()}
    words = [*COMMANDS[component], *container(template).get("args", [])]
    command = str(Path(sys.executable).with_name("antiphon"))
    variables = {"PATH": os.environ["PATH"], **told, **instead}
    return await asyncio.create_subprocess_exec(command, *words, env=variables, cwd=directory, stdout=PIPE, stderr=PIPE)


async def answer(url: str) -> int:
    """The status, once something listens."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(WAIT_S):
        while True:
            try:
                async with session.get(url) as response:
                    return response.status
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.05)


async def test_they_start_answer_their_probes_and_leave_within_their_grace(
    nats_server: NatsNode, tmp_path: Path
) -> None:
    drain = 'gateway.drain={"preStopSeconds":0,"delaySeconds":1,"seconds":1,"perSecond":50}'
    workers = 'workers=[{"name":"default","agent":"echo","drainSeconds":1,"cancelGraceSeconds":1}]'
    webhooks = 'webhooks={"enabled":true,"endpoints":{"secretName":"hooks"}}'
    pods = {
        template["metadata"]["labels"]["app.kubernetes.io/component"]: template
        for template in case("minimal", drain, workers, webhooks).pods()
    }
    (tmp_path / "jwt-secret").mkdir()
    (tmp_path / "jwt-secret/jwt-secret").write_text("0123456789abcdef" * 4)
    (tmp_path / "webhooks").mkdir()
    (tmp_path / "webhooks/hooks.toml").write_text("")
    http, metrics, hooks = free_ports(3)
    topology = await started(pods["topology"], tmp_path, ANTIPHON_NATS_URL=nats_server.url)
    out, err = await asyncio.wait_for(topology.communicate(), WAIT_S)
    assert topology.returncode == 0, err.decode()
    assert b"the topology is as it must be" in out

    ports = {
        "gateway": {"ANTIPHON_PORT": str(http)},
        "worker": {"ANTIPHON_WORKER_PORT": str(metrics)},
        "webhooks": {"ANTIPHON_WEBHOOK_PORT": str(hooks)},
    }
    running = {
        name: await started(pods[name], tmp_path, ANTIPHON_NATS_URL=nats_server.url, **instead)
        for name, instead in ports.items()
    }
    try:
        for name, port in (("gateway", http), ("worker", metrics), ("webhooks", hooks)):
            for kind in ("startup", "liveness", "readiness"):
                path = container(pods[name])[f"{kind}Probe"]["httpGet"]["path"]
                assert await answer(f"http://127.0.0.1:{port}{path}") == 200, (name, path)
        for name, process in running.items():
            process.send_signal(signal.SIGTERM)
            grace = pods[name]["spec"].get("terminationGracePeriodSeconds", 30)
            _, err = await asyncio.wait_for(process.communicate(), grace)
            assert process.returncode == 0, err.decode()
    finally:
        for process in running.values():
            if process.returncode is None:
                process.kill()
