"""`antiphon dev` with a second gateway beside it, and a network of its own for each device."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from antiphon.place import Place, Running, make_token
from broker.permissions import Role
from tests.browser.proxy import Proxy, Target, running_proxy, target_of
from tests.support.dev import COMMAND, Dev, dev, environment
from tests.support.stack import Process

AGENT = "tests.support.agents_console:guide"
READY_WAIT_S = 60.0
RIGHTS = ["read", "send", "steer", "cancel", "tools", "approve"]
USERS = {"user-1": "User One", "user-2": "User Two", "user-3": "User Three"}


@dataclass(slots=True)
class Venue:
    """Two gateways, a worker and their log; made by `running_venue`."""

    dev: Dev
    place: Place
    running: Running
    second: Process
    lines: list[Proxy] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The first gateway, past all proxies."""
        return self.running.url

    @property
    def targets(self) -> list[Target]:
        return [target_of(self.url), target_of(self.second.url)]

    def token(self, user: str, *roles: str) -> str:
        """For every session, with all rights but an admin's."""
        return make_token(self.place.secret(), user, USERS.get(user), {"*": RIGHTS}, roles=roles)

    def reading_token(self, user: str) -> str:
        return make_token(self.place.secret(), user, USERS.get(user), {"*": ["read"]})

    @asynccontextmanager
    async def line(self) -> AsyncIterator[Line]:
        """The way in for one device."""
        async with running_proxy(*self.targets) as (proxy, url):
            self.lines.append(proxy)
            yield Line(proxy, url)
            self.lines.remove(proxy)

    async def kill_the_second(self) -> None:
        """Kill -9 of the second gateway, with another one to come."""
        gone = target_of(self.second.url)
        await self.second.kill()
        self.second = await _gateway(self.place, self.running)
        for proxy in self.lines:
            proxy.targets = self.targets
            if proxy.only == gone:
                proxy.only = None


@dataclass(frozen=True, slots=True)
class Line:
    """A device's network, and the address by which it reaches the gateways."""

    proxy: Proxy
    url: str


@asynccontextmanager
async def running_venue(directory: Path, agent: str = AGENT, **env: str) -> AsyncIterator[Venue]:
    """All of it, until the context ends. `env` goes to every process, without its prefix."""
    async with AsyncExitStack() as stack:
        running_dev = await stack.enter_async_context(dev(directory, "--agent", agent, **env))
        place = Place(directory)
        running = place.running()
        assert running is not None
        venue = Venue(running_dev, place, running, await _gateway(place, running, **env))
        try:
            yield venue
        finally:
            await venue.second.kill()


async def _gateway(place: Place, running: Running, **env: str) -> Process:
    """A gateway of its own process, on the log of `antiphon dev`."""
    log = place.path.with_name(f"{place.path.name}-gateway-{uuid.uuid4().hex}.log")
    where = ["--nats-url", running.nats_url, "--jwt-secret-file", str(place.secret_file)]
    where += [f"--{name.replace('_', '-')}={value}" for name, value in place.as_nats_user(Role.GATEWAY).items()]
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *("gateway", "--port", "0", *where),
            env=environment(**env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=asyncio.subprocess.STDOUT,
        )
    started = Process("gateway", "", log, process)
    async with asyncio.timeout(READY_WAIT_S):
        while not (said := [line for line in started.output().splitlines() if line.startswith("ready ")]):
            assert started.running, started.output()
            await asyncio.sleep(0.02)
    started.url = said[0].removeprefix("ready ").strip()
    return started
