"""Tools of an MCP server, with a model, seen as every adapter is."""

from __future__ import annotations

from agent_worker.adapters.openai_compatible import CAPABILITIES
from tests.adapters.behaviours import *  # noqa: F403
from tests.support.adapted.world import Adapted, World, asked, finished, said, until

ADAPTED = Adapted("mcp", "tests.support.adapted.mcp_agents:over_http", CAPABILITIES)


async def test_a_server_over_stdio_that_asks_in_the_middle_of_a_call(world: World) -> None:
    """Its tools have a prefix, made fit for models; what it asks is a question for the people."""
    await world.instead("mcp_agents:over_stdio")
    async with world.user(name := world.session()) as session:
        assert await asked(session, 'use my_add {"a":2,"b":3}') == "result: 5"
        assert world.brain.calls[-1].asked.tools == ["my_add", "my_order"]
        receipt = await session.send('use my_order {"what":"tea"}')
        (question,) = await until(session, lambda s: s.state.approvals)
        assert (question.kind, question.message) == ("question", "Which size of tea?")
        await session.respond(question.approval_id, "answer", {"size": "large"})
        assert await finished(receipt) == "success"
        assert said(session, receipt.run_id) == "result: accept size='large'"
        receipt = await session.send('use my_order {"what":"milk"}')
        (question,) = await until(session, lambda s: s.state.approvals)
        await session.respond(question.approval_id, "decline")
        assert await finished(receipt) == "success"
        assert said(session, receipt.run_id) == "result: decline None"
        assert len(await world.events(name, "approval.requested")) == 2


async def test_a_server_that_cannot_be_reached(world: World) -> None:
    world.env = {"test_mcp_port": "9"}
    await world.instead("mcp_agents:over_http")
    async with world.user(name := world.session()) as session:
        assert await finished(await session.send("hello")) == "error"
    (error,) = await world.events(name, "RUN_ERROR")
    assert error.code == "model_unavailable"
    assert "MCP server" in error.message
