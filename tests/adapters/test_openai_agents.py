"""The OpenAI Agents SDK, seen as every adapter is."""

from __future__ import annotations

from agent_worker.adapters.openai_agents import CAPABILITIES
from tests.adapters.behaviours import *  # noqa: F403
from tests.support.adapted.world import Adapted, World, finished, said, until

ADAPTED = Adapted("openai_agents", "tests.support.adapted.openai_agent:adapted", CAPABILITIES)


async def test_a_tool_of_the_sdks_own_that_needs_approval(world: World) -> None:
    async with world.user(name := world.session()) as session:
        for option, told in (("allow_once", "result: launched moon"), ("reject_once", "result: ")):
            receipt = await session.send('use launch {"target":"moon"}')
            (approval,) = await until(session, lambda s: s.state.approvals)
            assert approval.details == {"name": "launch", "args": {"target": "moon"}}
            await session.respond(approval.approval_id, option)
            assert await finished(receipt) == "success"
            assert said(session, receipt.run_id).startswith(told)
            assert ("launched" in said(session, receipt.run_id)) == (option == "allow_once")
        calls = await world.events(name, "tool.requested")
        assert [call.name for call in calls] == ["launch", "launch"]
        assert len(await world.events(name, "TOOL_CALL_RESULT")) == 2
