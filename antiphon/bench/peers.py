"""Other servers that do a part of what a gateway does, to compare with in the same run (`--against`).

Their drivers are in `tests/bench/peers`, so a checkout is needed, and `make peers` for those that are installed. A peer
that is not installed is reported as missing, and never as beaten.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from antiphon.bench.crowd import Reached
from antiphon.bench.harness import Measured
from broker.errors import ConfigError

_MODULE = "tests.bench.peers"


@dataclass(frozen=True, slots=True)
class Feed:
    """How a producer reaches a peer, by one connection: a WebSocket, or HTTP requests one behind the other."""

    host: str
    port: int
    write: str
    """What it writes for a token: `{g}` stands for the channel's number, `{token}` for the token.

    A WebSocket's message; without `request`, a whole HTTP request.
    """
    request: str = ""
    """Opens a WebSocket."""
    greet: str = ""
    """The first message."""
    ready: str = ""
    """What the peer has said when it takes tokens."""


@dataclass(frozen=True, slots=True)
class Served:
    """A peer that runs, with channels that are named by a prefix and a number."""

    server: Sequence[Measured]
    """The processes that hold the readers' sockets: these are what is measured."""
    beside: Sequence[Measured]
    """What else takes part: NATS, a second node."""
    reached: Callable[[str], Reached]
    """How readers subscribe to the channel `<name>`, in which `{g}` stands for their group's number."""
    feed: Callable[[str], Feed]
    """How tokens are written to the channels `<prefix>{g}`."""
    prepare: Callable[[str, int], Awaitable[None]]
    """Makes the channels `<prefix>0` and on, where that is needed."""


class Peer(Protocol):
    """A driver."""

    @property
    def name(self) -> str:
        """By which `--against` calls it."""

    @property
    def keeps(self) -> str:
        """What it does with an event beside passing it on, in few words."""

    @property
    def install(self) -> str:
        """What has to be done so that it can be measured."""

    def missing(self) -> str:
        """What is not there of it; empty if it can be measured."""

    def versions(self) -> Mapping[str, str]:
        """Of what takes part."""

    def serving(self, directory: Path) -> AbstractAsyncContextManager[Served]:
        """Runs it, with all that it needs. Its files go into the directory."""


def find_peers(names: Sequence[str]) -> Sequence[Peer]:
    """The drivers of these names; `all` stands for all there are. Raises ConfigError."""
    if not names:
        return ()
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(_MODULE)
    except ImportError as error:
        raise ConfigError(f"--against needs the drivers in {_MODULE}: run it in a checkout ({error})") from error
    known: Mapping[str, Peer] = {peer.name: peer for peer in module.PEERS}
    unknown = [name for name in names if name not in known and name != "all"]
    if unknown:
        raise ConfigError(f"--against: there is no peer {unknown[0]!r}; there are: {', '.join(known)}, all")
    return [peer for name, peer in known.items() if name in names or "all" in names]
