"""Two gateways and workers: what tests of the endpoints that run agents are told to."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.http import Http
from tests.support.nats import single_server
from tests.support.stack import Process, Stack


@dataclass(slots=True)
class HttpWorld:
    """Its gateways are on one log."""

    stack: Stack
    gateways: list[Process]
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def name(self) -> str:
        """A name that no test has had."""
        return f"n{next(self._numbers)}"

    def http(self, *, gateway: int = 0, **token: Any) -> Http:
        """A caller of one of the gateways, with a token as `Stack.token` makes it."""
        return Http(self.gateways[gateway].url, self.stack.token(**token))


@asynccontextmanager
async def http_world(
    directory: Path, agents: Mapping[str, str], *, unserved: Sequence[str] = (), **gateway: str
) -> AsyncIterator[HttpWorld]:
    """A worker for each pool of `agents`, none for those of `unserved`; `gateway` is told to the gateways."""
    pools = ",".join([*agents, *unserved])
    async with (
        single_server(directory / "nats") as nats,
        Stack(directory / "stack", nats.url, env={"POOLS": pools}) as stack,
    ):
        # One after another: each has its time to get ready, on a busy machine too.
        gateways = [await stack.gateway(**gateway) for _ in range(2)]
        for pool, agent in agents.items():
            await stack.worker(agent, pool=pool)
        yield HttpWorld(stack, gateways)
        for process in gateways:
            assert "Traceback" not in process.output()
