"""The same servers and processes in containers: `ANTIPHON_TEST_IN=containers`, as `make containers` says it.

NATS runs from its official image, on a network of its own, with its ports published on loopback; gateways, workers and
commands from our images, as compose.yaml and the chart run them: nobody's user, nothing to write to, no privileges.
Docker must be there, and the images (`tests.containers.images`).
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from broker.jetstream.server import PortInUse, ServerOptions

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

IN = "ANTIPHON_TEST_IN"
NATS = "ANTIPHON_TEST_NATS_IMAGE"
TAG = "ANTIPHON_TEST_TAG"
CONFINED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
_IMAGES = {"gateway": "antiphon-gateway", "worker": "antiphon-worker"}
_TESTS = Path(__file__).resolve().parents[1]
_STOP_S = 10
_POLL_S = 0.02


def in_containers() -> bool:
    """Whether servers and processes of tests are containers."""
    return os.environ.get(IN) == "containers"


class ContainerServer:
    """A NATS server in a container, on the ports and data that `options` name, ready when the context is entered."""

    def __init__(self, options: ServerOptions) -> None:
        assert options.http_port, "readiness is asked for on the monitoring port"
        self.options = options
        self._container: DockerContainer | None = None

    async def __aenter__(self) -> Self:
        self.options.data_dir.mkdir(parents=True, exist_ok=True)
        config = self.options.data_dir / "container.conf"
        config.write_text(json.dumps(_config(self.options), indent=2))
        try:
            self._container = await asyncio.to_thread(self._start, config)
            await self._ready()
        except BaseException:
            await self._remove()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._running():
            await asyncio.to_thread(self._engine.stop, timeout=_STOP_S)
        await self._remove()

    async def kill(self) -> None:
        """Kill -9; returns when it is gone."""
        if self._running():
            await asyncio.to_thread(self._engine.kill)
            await asyncio.to_thread(self._engine.wait)

    def pause(self) -> None:
        """All of the container's threads stand still."""
        self._engine.pause()

    def resume(self) -> None:
        if self._running():
            self._engine.unpause()

    @property
    def _engine(self) -> Any:
        assert self._container is not None, "the container is gone"
        return self._container.get_wrapped_container()

    def _running(self) -> bool:
        if self._container is None:
            return False
        self._engine.reload()
        return self._engine.status in ("running", "paused")

    def _start(self, config: Path) -> DockerContainer:
        from docker.errors import APIError
        from testcontainers.core.container import DockerContainer

        container = DockerContainer(os.environ[NATS])
        for port in (self.options.port, self.options.http_port):
            # The engine's client takes an address as well, which the method of testcontainers for it does not.
            container.ports[f"{port}/tcp"] = ("127.0.0.1", port)  # type: ignore[assignment]
        container.with_command(["--config", "/data/container.conf"])
        container.with_volume_mapping(self.options.data_dir, "/data", "rw")
        container.with_network(_network())
        container.with_network_aliases(_alias(self.options.cluster.port) if self.options.cluster else "nats")
        container.with_kwargs(read_only=True, cap_drop=["ALL"], user=f"{os.getuid()}:{os.getgid()}")
        try:
            return container.start()
        except APIError as error:
            container.stop()
            if "port is already allocated" in str(error) or "address already in use" in str(error):
                raise PortInUse("its port is taken", str(error)) from error
            raise

    async def _ready(self) -> None:
        async with asyncio.timeout(self.options.start_timeout_s):
            while True:
                with contextlib.suppress(OSError):
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.options.port)
                    try:
                        # Who forwards the port accepts before the server listens; the server speaks first.
                        if (await reader.readline()).startswith(b"INFO"):
                            return
                    finally:
                        writer.close()
                        await writer.wait_closed()
                assert self._running(), self._engine.logs().decode(errors="replace")
                await asyncio.sleep(_POLL_S)

    async def _remove(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            await asyncio.to_thread(container.stop, force=True, delete_volume=True)


@functools.cache
def _network() -> Any:
    """The network of this process's servers; it goes with it."""
    from testcontainers.core.config import testcontainers_config
    from testcontainers.core.network import Network

    # What we start we end; the reaper is one more image, and needs the engine's socket.
    testcontainers_config.ryuk_disabled = True
    network = Network().create()
    atexit.register(network.remove)
    return network


def _config(options: ServerOptions) -> dict[str, Any]:
    """As `broker.jetstream.server` configures a child, with addresses of a container."""
    jetstream: dict[str, Any] = {"store_dir": "/data/jetstream"}
    if options.sync_always:
        jetstream["sync_interval"] = "always"
    if options.max_store_bytes is not None:
        jetstream["max_file_store"] = options.max_store_bytes
    config: dict[str, Any] = {
        "server_name": options.server_name,
        "listen": f"0.0.0.0:{options.port}",
        "http": f"0.0.0.0:{options.http_port}",
        "client_advertise": f"127.0.0.1:{options.port}",
        "jetstream": jetstream,
    }
    if options.cluster is not None:
        ports = [int(route.rpartition(":")[2]) for route in options.cluster.routes]
        config["cluster"] = {
            "name": options.cluster.name,
            "listen": f"0.0.0.0:{options.cluster.port}",
            "routes": [f"nats-route://{_alias(port)}:{port}" for port in ports],
        }
    return config


def _alias(route_port: int) -> str:
    return f"nats-{route_port}"


# --- gateways, workers, commands ---------------------------------------------------------------------------------------


def command(name: str, args: Sequence[str], env: Mapping[str, str], secret: Path) -> list[str]:
    """The command line that runs `antiphon …` in a container called `name`, on this machine's own network.

    Agents of tests are found as in a checkout.
    """
    role = args[0] if args[0] in _IMAGES else ""
    image = f"{_IMAGES.get(role, 'antiphon')}:{os.environ[TAG]}"
    settings = [word for key, value in env.items() for word in ("--env", f"{key}={value}")]
    mounts = ("--volume", f"{secret}:{secret}:ro", "--volume", f"{_TESTS}:/agents/tests:ro")
    rest = ("--name", name, "--network", "host", "--no-healthcheck", *mounts, *settings)
    return ["docker", "run", "--rm", *CONFINED, *rest, image, *(args[1:] if role else args)]


def signal_container(name: str, signal_name: str) -> None:
    """Sends a signal to a container, or pauses it (`STOP`) or lets it go on (`CONT`)."""
    words = {"STOP": ("pause",), "CONT": ("unpause",)}.get(signal_name, ("kill", "--signal", signal_name))
    subprocess.run(["docker", *words, name], capture_output=True, check=False)
