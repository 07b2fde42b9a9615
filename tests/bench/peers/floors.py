"""The floors: what Python's WebSocket servers cost that do nothing but send a text to all that are in a room."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from antiphon.bench.harness import measured
from antiphon.bench.peers import Served
from tests.bench.peers.common import by_websocket, feed_by_websocket, no_preparation, port_of


@dataclass(frozen=True, slots=True)
class Floor:
    """The driver of `tests.bench.peers.<package>_floor`."""

    name: str
    package: str
    keeps: str = "nothing"
    install: str = "`make env`"

    def missing(self) -> str:
        return "" if importlib.util.find_spec(self.package) else f"there is no package {self.package}"

    def versions(self) -> Mapping[str, str]:
        return {self.package: version(self.package), "uvloop": version("uvloop")}

    @contextlib.asynccontextmanager
    async def serving(self, directory: Path) -> AsyncIterator[Served]:
        command = (sys.executable, "-m", f"tests.bench.peers.{self.package}_floor")
        async with measured(directory, self.package, command) as server:
            port = port_of(server)
            yield Served(
                server=[server],
                beside=[],
                reached=lambda room: by_websocket(port, f"/read/{room}", ready="in"),
                feed=lambda prefix: feed_by_websocket(port, "/write", f"{prefix}{{g}} {{token}}", greet="", ready="in"),
                prepare=no_preparation,
            )


AIOHTTP = Floor("aiohttp", "aiohttp")
WEBSOCKETS = Floor("websockets", "websockets")
