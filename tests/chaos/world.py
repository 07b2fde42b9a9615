"""A world to break: three NATS servers (R3, every write synced), two gateways, three workers, proxies, a network."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import secrets
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client

from antiphon.processes import wait_for_log
from broker.config import LogSettings, NatsSettings
from broker.jetstream.connection import Connection
from broker.jetstream.log import JetStreamLog
from broker.jetstream.server import find_binary
from broker.permissions import Role
from broker.subjects import stream_name
from tests.chaos.disk import Disk, mounted
from tests.chaos.history import Copy
from tests.chaos.network import RUNNER, Network, opened
from tests.chaos.parts import START_WAIT_S, Clock, Part, http_status, says_ready
from tests.chaos.proxy import Proxy, proxy_to
from tests.support.roles import TESTER, RoleUsers

SERVERS = ("n0", "n1", "n2")
GATEWAYS = ("g0", "g1")
WORKERS = ("w0", "w1", "w2")
PROXIED = ("g1", "w2")
"""The parts that reach NATS by proxies; the others have the network alone between."""
PARTITIONS = 2
LEASE_S = 2.0
AGREE_S = 20.0
"""A copy may come a little after the others. Not so long after, when nothing is written."""
_NATS_PORT, _ROUTE_PORT, _HTTP_PORT, _GATEWAY_PORT = 4222, 6222, 8222, 8080
_SETTINGS = {
    "REPLICAS": "3",
    "PARTITIONS": str(PARTITIONS),
    "LEASE_S": str(LEASE_S),
    "RECONNECT_WAIT_S": "0.1",
    "CONNECT_TIMEOUT_S": "1",
    "PING_INTERVAL_S": "1",
    "ACK_TIMEOUT_S": "2",
    "COMMAND_TIMEOUT_S": "4",
    "JOB_REPAIR_S": "1",
    "HEARTBEAT_S": "1",
    "SESSION_LINGER_S": "5",
    "PULL_WAIT_S": "1",
    "SETTLE_IDLE_S": "0.5",
    "SEGMENT_DELTAS": "16",
    "RING_ENTRIES": "64",
    "DRAIN_S": "1",
    "WORKER_DRAIN_S": "2",
    "CANCEL_GRACE_S": "1",
    # A run ends by what its input says, however often the nemesis takes its worker away.
    "MAX_ATTEMPTS": "50",
}
_SYSTEM_USER = "system"
_NOT_YET = (OSError, nats.errors.Error, nats.js.errors.Error, TimeoutError)


@dataclass(slots=True)
class World:
    """All that there is. Made by `running`."""

    directory: Path
    network: Network
    users: RoleUsers
    disks: dict[str, Disk]
    secret: str
    parts: dict[str, Part] = field(default_factory=dict)
    clocks: dict[str, Clock] = field(default_factory=dict)
    nats_proxies: dict[tuple[str, str], Proxy] = field(default_factory=dict)
    """By part and server."""
    gateway_proxies: dict[str, Proxy] = field(default_factory=dict)

    @property
    def nats_url(self) -> str:
        """The servers for the runner itself, who may do everything there."""
        return ",".join(self._url(f"{self.network.address(name)}:{_NATS_PORT}") for name in SERVERS)

    def gateway_urls(self) -> list[str]:
        """Ways to the gateways: each directly, and each by its proxy."""
        direct = [f"http://{self.network.address(name)}:{_GATEWAY_PORT}" for name in GATEWAYS]
        return direct + [f"http://{proxy.address}" for proxy in self.gateway_proxies.values()]

    def token(self, user: str) -> str:
        claims = {"sub": user, "exp": time.time() + 7200, "sessions": {"*": ["admin"]}}
        return jwt.encode(claims, self.secret, "HS256")

    @contextlib.asynccontextmanager
    async def nats(self, *, system: bool = False) -> AsyncIterator[Client]:
        """A connection of the runner's own to whichever server answers; as a user of the system account if asked."""
        urls = self.nats_url.replace(f"//{TESTER}:", f"//{_SYSTEM_USER}:") if system else self.nats_url
        client = await nats.connect(urls.split(","), allow_reconnect=False, connect_timeout=1, error_cb=_ignore)
        try:
            yield client
        finally:
            await client.close()

    @contextlib.asynccontextmanager
    async def log(self) -> AsyncIterator[JetStreamLog]:
        """The log, over a connection of the runner's own; waits until it can be read."""
        settings = LogSettings(lease_s=LEASE_S)
        async with (
            Connection(NatsSettings(nats_url=self.nats_url), name="runner") as connection,
            JetStreamLog(connection, settings) as log,
        ):
            await wait_for_log(connection, log)
            yield log

    async def leader(self, stream: str) -> str:
        """The name of the server that leads a stream. Raises TimeoutError when there is none for long."""
        async with asyncio.timeout(START_WAIT_S):
            while True:
                with contextlib.suppress(*_NOT_YET):
                    async with self.nats() as client:
                        info = await client.jetstream(timeout=1).stream_info(stream)
                    if info.cluster and info.cluster.leader and self.parts[info.cluster.leader].running:
                        return info.cluster.leader
                await asyncio.sleep(0.1)

    async def step_down(self, subject: str, *, system: bool = False) -> None:
        """Has a leader resign, by a subject of NATS's API. Raises TimeoutError when there is none for long."""
        async with asyncio.timeout(START_WAIT_S):
            while True:
                with contextlib.suppress(*_NOT_YET):
                    async with self.nats(system=system) as client:
                        answer = json.loads((await client.request(subject, b"", timeout=2)).data)
                    if answer.get("success"):
                        return
                await asyncio.sleep(0.1)

    async def meta_leader(self) -> str:
        """The name of the server that leads the cluster. Raises TimeoutError when there is none for long."""
        async with asyncio.timeout(START_WAIT_S):
            while True:
                for name in SERVERS:
                    with contextlib.suppress(*_NOT_YET, ValueError, aiohttp.ClientError):
                        leader = await self._meta_leader_by(name)
                        if leader and self.parts[leader].running:
                            return leader
                await asyncio.sleep(0.1)

    async def _meta_leader_by(self, name: str) -> str:
        return str((await self._jsz(name)).get("meta_cluster", {}).get("leader", ""))

    async def _jsz(self, name: str) -> dict[str, Any]:
        """What a server tells of its streams."""
        timeout = aiohttp.ClientTimeout(total=1)
        url = f"http://{self.network.address(name)}:{_HTTP_PORT}/jsz?streams=true"
        async with aiohttp.ClientSession(timeout=timeout) as http, http.get(url) as answer:
            told: dict[str, Any] = await answer.json()
            return told

    async def copies(self) -> list[Copy]:
        """What each server has of the streams of sessions: when they agree, or, if they do not for long, what they say."""
        end = time.monotonic() + AGREE_S
        while True:
            copies: list[Copy] = []
            with contextlib.suppress(*_NOT_YET, ValueError, aiohttp.ClientError):
                copies = [copy for name in SERVERS for copy in await self._copies_of(name)]
            counts = {(copy.stream, copy.messages, copy.last) for copy in copies}
            complete = len(copies) == len(SERVERS) * PARTITIONS and len(counts) == PARTITIONS
            if complete or time.monotonic() > end:
                return copies
            await asyncio.sleep(0.1)

    async def _copies_of(self, name: str) -> list[Copy]:
        accounts = (await self._jsz(name)).get("account_details", [])
        states = {
            stream["name"]: stream["state"] for account in accounts for stream in account.get("stream_detail", [])
        }
        none = {"messages": 0, "last_seq": 0}
        streams = [(stream, states.get(stream, none)) for stream in map(stream_name, range(PARTITIONS))]
        return [Copy(name, stream, state["messages"], state["last_seq"]) for stream, state in streams]

    async def server_healthy(self, name: str) -> bool:
        """The server says that its streams have caught up."""
        return await http_status(self.network.address(name), _HTTP_PORT, "/healthz") == 200

    async def whole(self) -> None:
        """Returns when every part runs and says that it is well. Raises TimeoutError."""
        async with asyncio.timeout(START_WAIT_S):
            for name in SERVERS:
                while not await self.server_healthy(name):
                    await asyncio.sleep(0.1)
            for name in GATEWAYS:
                while await http_status(self.network.address(name), _GATEWAY_PORT, "/readyz") != 200:
                    await asyncio.sleep(0.1)

    # --- making it ---------------------------------------------------------------------------------------------------

    def add_servers(self) -> None:
        binary = str(find_binary())
        users = dict(self.users.options().config)
        # Who leads the cluster is for the system account alone to say.
        users["accounts"] = {"SYS": {"users": [{"user": _SYSTEM_USER, "password": self.users.password}]}}
        users["system_account"] = "SYS"
        for name in SERVERS:
            config = self.directory / f"{name}.conf"
            config.write_text(json.dumps(self._server_config(name) | users))
            config.chmod(0o600)
            command = self.network.command(name, [binary, "-c", str(config)])
            self.parts[name] = Part(name, command, {}, self.directory, self._listens)

    async def _listens(self, part: Part) -> bool:
        return await http_status(self.network.address(part.name), _HTTP_PORT, "/varz") == 200

    def _server_config(self, name: str) -> dict[str, Any]:
        here = self.network.address(name)
        others = [self.network.address(other) for other in SERVERS if other != name]
        return {
            "server_name": name,
            "host": here,
            "port": _NATS_PORT,
            "http": f"{here}:{_HTTP_PORT}",
            # Whoever reaches it by a proxy must not be told of ways around.
            "cluster": {
                "name": "chaos",
                "listen": f"{here}:{_ROUTE_PORT}",
                "routes": [f"nats-route://{other}:{_ROUTE_PORT}" for other in others],
                "no_advertise": True,
            },
            "jetstream": {
                "store_dir": str(self.disks[name].directory),
                "sync_interval": "always",
                "max_memory_store": 64 << 20,
                "max_file_store": 1 << 30,
            },
        }

    def add_antiphon(self) -> None:
        """Gateways and workers, each with a clock of its own and the user of its role."""
        for name in GATEWAYS:
            listen = ["gateway", "--host", self.network.address(name), "--port", str(_GATEWAY_PORT)]
            self._add(name, Role.GATEWAY, listen)
        for name in WORKERS:
            self._add(name, Role.WORKER, ["worker", "tests.chaos.agent:agent"])

    def _add(self, name: str, role: Role, args: list[str]) -> None:
        self.clocks[name] = Clock(self.directory / f"{name}.clock")
        command = self.network.command(name, [sys.executable, "-m", "antiphon", *args])
        env = self._environment(role, self._urls_of(name)) | self.clocks[name].env
        self.parts[name] = Part(name, command, env, self.directory, says_ready)

    def _urls_of(self, name: str) -> str:
        if name not in PROXIED:
            return self.nats_url
        return ",".join(self._url(self.nats_proxies[name, server].address) for server in SERVERS)

    def _url(self, address: str) -> str:
        return f"nats://{TESTER}:{self.users.password}@{address}"

    def _environment(self, role: Role, urls: str) -> dict[str, str]:
        own = {**_SETTINGS, "NATS_URL": urls, "JWT_SECRET_FILE": str(self.directory / "secret")}
        own |= {key.upper(): str(value) for key, value in self.users.settings(role).items()}
        return {f"ANTIPHON_{key}": value for key, value in own.items()}

    async def apply_topology(self) -> None:
        """`antiphon topology apply`, again until the cluster has a place for streams with three copies."""
        env = self._environment(Role.PROVISIONER, self.nats_url)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "antiphon", "topology", "apply", "--wait-s", str(START_WAIT_S)),
            env=dict(os.environ) | env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()


@contextlib.asynccontextmanager
async def running(directory: Path, seed: int) -> AsyncIterator[World]:
    """A world in which everything runs and is well; nothing of it is left afterwards but its logs in `directory`."""
    for name in SERVERS:
        (directory / name).mkdir()
    secret = secrets.token_urlsafe(48)
    (directory / "secret").write_text(secret)
    (directory / "secret").chmod(0o600)
    rng = random.Random(f"{seed}-proxies")
    async with contextlib.AsyncExitStack() as stack:
        network = await stack.enter_async_context(opened((*SERVERS, *GATEWAYS, *WORKERS)))
        disks = {
            name: await stack.enter_async_context(mounted(directory / name, directory / f"{name}.img"))
            for name in SERVERS
        }
        world = World(directory, network, RoleUsers.made(directory / "users"), disks, secret)
        stack.push_async_callback(_end_all, world)
        await _open_proxies(stack, world, rng)
        world.add_servers()
        await _start(world, SERVERS)
        await world.apply_topology()
        world.add_antiphon()
        await _start(world, (*GATEWAYS, *WORKERS))
        await world.whole()
        yield world


async def _open_proxies(stack: contextlib.AsyncExitStack, world: World, rng: random.Random) -> None:
    here = world.network.address(RUNNER)
    for part in PROXIED:
        for server in SERVERS:
            proxy = proxy_to(world.network.address(server), _NATS_PORT, here, rng)
            world.nats_proxies[part, server] = await stack.enter_async_context(proxy)
    for name in GATEWAYS:
        proxy = proxy_to(world.network.address(name), _GATEWAY_PORT, here, rng)
        world.gateway_proxies[name] = await stack.enter_async_context(proxy)


async def _start(world: World, names: tuple[str, ...]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for name in names:
            tasks.create_task(world.parts[name].start())


async def _end_all(world: World) -> None:
    await world.network.heal()
    for disk in world.disks.values():
        await disk.thaw()
    for part in world.parts.values():
        await part.kill()


async def _ignore(_: Exception) -> None:
    """The call that failed raises as well."""


def proxies_of(world: World, part: str) -> Iterator[Proxy]:
    """The proxies by which a part reaches NATS."""
    return (proxy for (name, _), proxy in world.nats_proxies.items() if name == part)
