"""A real Prometheus, as a child process, that scrapes what a test has started."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from tests.support.nats import free_ports

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy/prometheus/rules.yml"
READY_WAIT_S = 30.0
_EVERY_S = 1


@cache
def tools() -> Path:
    """The directory of promtool and prometheus; fetched if they are not there."""
    found = subprocess.run([ROOT / "tools/prometheus"], check=True, stdout=subprocess.PIPE, text=True)
    return Path(found.stdout.strip())


@dataclass(frozen=True, slots=True)
class Prometheus:
    """Its address; made by `prometheus`."""

    url: str

    async def get(self, path: str, **params: str) -> Any:
        """The data of an answer of its API. Asserts that it is no error."""
        async with aiohttp.ClientSession() as http, http.get(f"{self.url}/api/v1/{path}", params=params) as response:
            answer = await response.json()
        assert answer["status"] == "success", (path, params, answer)
        assert not answer.get("warnings"), (path, params, answer)
        return answer["data"]

    async def query(self, expr: str) -> list[dict[str, Any]]:
        """What an instant query finds."""
        data = await self.get("query", query=expr)
        return list(data["result"]) if data["resultType"] == "vector" else [data]

    async def rules(self) -> list[dict[str, Any]]:
        """All rules, with their health."""
        return [rule for group in (await self.get("rules"))["groups"] for rule in group["rules"]]


@contextlib.asynccontextmanager
async def prometheus(directory: Path, targets: Mapping[str, list[str]]) -> AsyncIterator[Prometheus]:
    """Scrapes `targets` (addresses by job) and evaluates our rules, all of them every second."""
    _configure(directory, targets)
    (port,) = free_ports(1)
    log = directory / "prometheus.log"
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            tools() / "prometheus",
            f"--config.file={directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=asyncio.subprocess.STDOUT,
        )
    server = Prometheus(f"http://127.0.0.1:{port}")
    try:
        await _ready(server, process)
        yield server
    except _Ended:
        raise AssertionError(f"prometheus ended: {log.read_text(encoding='utf-8')}") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class _Ended(Exception):
    """The process did not become ready."""


def _configure(directory: Path, targets: Mapping[str, list[str]]) -> None:
    directory.mkdir(parents=True)
    # JSON is YAML; every group at once, where 30 s would be waited for.
    rules = RULES.read_text(encoding="utf-8").replace("interval: 30s", f"interval: {_EVERY_S}s")
    (directory / "rules.yml").write_text(rules, encoding="utf-8")
    every = f"{_EVERY_S}s"
    jobs = [{"job_name": job, "static_configs": [{"targets": addresses}]} for job, addresses in targets.items()]
    config = {
        "global": {"scrape_interval": every, "evaluation_interval": every},
        "rule_files": ["rules.yml"],
        "scrape_configs": jobs,
    }
    (directory / "prometheus.yml").write_bytes(orjson.dumps(config))


async def _ready(server: Prometheus, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(READY_WAIT_S), aiohttp.ClientSession() as http:
        while process.returncode is None:
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get(f"{server.url}/-/ready") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.05)
    raise _Ended
