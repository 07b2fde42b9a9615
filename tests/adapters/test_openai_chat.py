"""An OpenAI-compatible endpoint, by Chat Completions, seen as every adapter is."""

from __future__ import annotations

from agent_worker.adapters.openai_compatible import CAPABILITIES
from tests.adapters.behaviours import *  # noqa: F403
from tests.support.adapted.world import Adapted, World, asked, port_of_server

ADAPTED = Adapted("openai_chat", "tests.support.adapted.models:chat", CAPABILITIES)


async def test_a_real_model_by_the_server_of_llama_cpp(world: World) -> None:
    async with port_of_server("local_server") as port:
        world.brain.url = f"http://127.0.0.1:{port}"
        await world.instead("models:small")
        async with world.user(name := world.session()) as session:
            assert len(await asked(session, "Say hello in five words.")) > 4
            (finish,) = await world.events(name, "RUN_FINISHED")
    (used,) = finish.usage
    assert 0 < used["outputTokens"] <= 24
