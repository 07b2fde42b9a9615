"""Drivers of the servers that `antiphon bench --against` compares with. `make peers` installs those that are not here."""

from __future__ import annotations

from tests.bench.peers.centrifugo import CENTRIFUGO_MEMORY, CENTRIFUGO_NATS
from tests.bench.peers.floors import AIOHTTP, WEBSOCKETS
from tests.bench.peers.node_servers import DURABLE_STREAMS, SOCKET_IO

PEERS = (CENTRIFUGO_MEMORY, CENTRIFUGO_NATS, SOCKET_IO, DURABLE_STREAMS, AIOHTTP, WEBSOCKETS)
