"""What the tests of each adapter are given: a module is an adapter, and has a log, a gateway and a worker of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.adapted.brain import brain_server
from tests.support.adapted.world import Adapted, World, port_of_server, served
from tests.support.nats import single_server

pytest.register_assert_rewrite("tests.adapters.behaviours")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A gateway, the scripted model, and a worker of the module's `ADAPTED`."""
    adapted: Adapted = request.module.ADAPTED
    directory: Path = tmp_path_factory.mktemp(adapted.name)
    async with (
        brain_server() as brain,
        single_server(directory / "nats") as nats,
        served(directory / "stack", nats.url) as (stack, gateway),
        port_of_server("mcp_server") if adapted.name == "mcp" else nullcontext("") as port,
    ):
        world = World(stack, gateway, brain, adapted, env={"test_mcp_port": port} if port else {})
        await world.hire()
        yield world
        assert "Traceback" not in gateway.output()
