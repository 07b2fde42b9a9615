"""pydantic-ai, seen as every adapter is."""

from __future__ import annotations

from typing import Any

import orjson

from agent_worker.adapters.pydantic_ai import CAPABILITIES
from antiphon_client import Execution, Tool
from tests.adapters.behaviours import *  # noqa: F403
from tests.support.adapted.world import Adapted, World, asked

ADAPTED = Adapted("pydantic_ai", "tests.support.adapted.pydantic_agent:adapted", CAPABILITIES)


async def test_an_output_that_is_no_text_by_the_frameworks_own_model(world: World) -> None:
    await world.instead("pydantic_agent:offline")

    async def where(_args: Any, _execution: Execution) -> object:
        return "Bern"

    async with world.user(name := world.session(), tools=[Tool("where", execute=where)]) as session:
        assert orjson.loads(await asked(session, "hello")) == {"city": "Bern", "degrees": 7}
        (call,) = await world.events(name, "tool.requested")
        assert (call.name, call.executor) == ("where", "client")
