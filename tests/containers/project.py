"""compose.yaml, started as a user starts it, on ports and with keys of its own."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt

from tests.containers.images import ROOT, docker
from tests.support.nats import free_ports
from tests.support.rawclient import http_get

PROMETHEUS_WAIT_S = 60.0
_POLL_S = 0.25


@dataclass(frozen=True, slots=True)
class Container:
    """A container of the project."""

    id: str
    service: str

    def inspect(self) -> dict[str, Any]:
        (found,) = json.loads(docker("inspect", self.id))
        return dict(found)

    def logged(self) -> list[dict[str, Any]]:
        """What an Antiphon process has logged."""
        done = subprocess.run(["docker", "logs", self.id], capture_output=True, check=True)
        lines = (done.stdout + done.stderr).decode().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of a container that has ended."""

    code: int
    logged: list[dict[str, Any]]


@dataclass(slots=True)
class Project:
    """A copy of `deploy/` with keys made by the documented command. `tag` is that of our images."""

    directory: Path
    tag: str
    without: tuple[str, ...] = ()
    """Services whose image cannot be had here."""
    name: str = field(default_factory=lambda: f"antiphon-test-{secrets.token_hex(3)}")
    ports: list[int] = field(default_factory=lambda: free_ports(3))

    def __post_init__(self) -> None:
        shutil.copytree(ROOT / "deploy", self.directory, ignore=shutil.ignore_patterns("secrets"))
        subprocess.run([sys.executable, self.directory / "make_secrets.py"], check=True, stdout=subprocess.DEVNULL)

    @property
    def url(self) -> str:
        """The proxy."""
        return f"http://127.0.0.1:{self.ports[0]}"

    def compose(self, *args: str) -> str:
        """Runs `docker compose …`; what it printed. Raises AssertionError with what it said if it fails."""
        command = ["docker", "compose", "--file", str(self.directory / "compose.yaml"), "--project-name", self.name]
        done = subprocess.run([*command, *args], env=self._environment(), capture_output=True, check=False)
        assert done.returncode == 0, f"compose {' '.join(args)}: {done.stderr.decode(errors='replace')[-4000:]}"
        return done.stdout.decode()

    def _environment(self) -> Mapping[str, str]:
        names = ("PORT", "PROMETHEUS_PORT", "GRAFANA_PORT")
        own = {name: str(port) for name, port in zip(names, self.ports, strict=True)}
        return os.environ | own | {"TAG": self.tag}

    def up(self) -> None:
        """All services that can be had, healthy."""
        services = self.compose("config", "--services").split()
        self.compose("up", "--detach", "--wait", "--no-build", *(s for s in services if s not in self.without))

    def down(self) -> None:
        """Nothing is left."""
        self.compose("--profile", "*", "kill", "--remove-orphans")
        self.compose("--profile", "*", "down", "--volumes", "--timeout", "1")

    def containers(self, service: str = "") -> list[Container]:
        """Those that run."""
        wanted = [f"label=com.docker.compose.project={self.name}"]
        if service:
            wanted.append(f"label=com.docker.compose.service={service}")
        filters = [word for each in wanted for word in ("--filter", each)]
        lines = docker("ps", "--no-trunc", *filters, "--format", '{{.ID}} {{.Label "com.docker.compose.service"}}')
        return [Container(*line.split()) for line in lines.splitlines()]

    def add(self, service: str, count: int) -> list[Container]:
        """As many containers more, of the image of `tag`, healthy; those that run stay as they are."""
        before = self.containers(service)
        flags = ("--detach", "--wait", "--no-build", "--no-deps", "--no-recreate")
        self.compose("up", *flags, "--scale", f"{service}={len(before) + count}", service)
        return [each for each in self.containers(service) if each not in before]

    def token(self, user: str = "user-1") -> str:
        """A token for all sessions with all rights."""
        key = (self.directory / "secrets/jwt_secret").read_text().strip()
        return jwt.encode({"sub": user, "exp": time.time() + 3600, "sessions": {"*": ["admin"]}}, key, "HS256")

    async def asked(self, path: str) -> Any:
        """What Prometheus answers."""
        status, text = await http_get(f"http://127.0.0.1:{self.ports[1]}/api/v1/{path}")
        assert status == 200, text
        return json.loads(text)["data"]

    async def value(self, query: str) -> float | None:
        """The one value of a query; None for none."""
        found = (await self.asked(f"query?query={urllib.parse.quote(query)}"))["result"]
        return float(found[0]["value"][1]) if found else None

    async def until(self, found: Callable[[], Any], wait_s: float = PROMETHEUS_WAIT_S) -> Any:
        """Asks again and again until the answer is true. Raises TimeoutError with the last one."""
        last: Any = None
        try:
            async with asyncio.timeout(wait_s):
                while not (last := await found()):
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise TimeoutError(f"waited {wait_s:g} s; last: {last}") from None
        return last


async def run(*args: str) -> None:
    """`docker …` while the tests go on."""
    await asyncio.to_thread(docker, *args)


async def stop(containers: list[Container]) -> list[Left]:
    """`docker stop`, all at once, and `docker rm`: the next `up` would start them again."""
    async with asyncio.TaskGroup() as tasks:
        for each in containers:
            tasks.create_task(run("stop", "--time", "60", each.id))
    left = [Left(each.inspect()["State"]["ExitCode"], each.logged()) for each in containers]
    for each in containers:
        await run("rm", each.id)
    return left
