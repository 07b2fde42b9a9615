"""`antiphon dev` while an author writes: the agent that answers is that of the file as it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from antiphon.place import make_token
from tests.support.bare import bare
from tests.support.dev import Dev, dev

WAIT_S = 50.0
pytestmark = pytest.mark.timeout(150)

SAYS = """
from agent_worker.context import Agent, SessionContext

async def answer(ctx: SessionContext) -> None:
    await ctx.text({said!r})

agent = Agent("mine", answer)
"""

NEVER_ENDS = """
import asyncio
from agent_worker.context import Agent, SessionContext

async def answer(ctx: SessionContext) -> None:
    await ctx.text("the old one ")
    await asyncio.Event().wait()

agent = Agent("mine", answer, on_takeover="continue")
"""


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.02)


async def answers(started: Dev, expected: str) -> None:
    """The next process answers; what is sent before it has begun may be answered by the one before."""
    async with asyncio.timeout(WAIT_S):
        while (ran := await started.run("send", "demo", "hi", "--wait")).out != f"{expected}\n":
            assert ran.code == 0, ran


async def test_a_changed_agent_answers_and_a_broken_one_is_told(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(SAYS.format(said="one"))
    async with dev(tmp_path / "data", "--agent", "mine:agent", cwd=tmp_path) as started:
        await answers(started, "one")
        file.write_text(SAYS.format(said="two"))
        await answers(started, "two")
        assert '"files":["mine.py"]' in started.log.read_text()
        file.write_text("async def answer(ctx:\n")
        await until(lambda: "the worker has ended" in started.log.read_text())
        assert "importing mine failed: SyntaxError" in started.log.read_text()
        # It need not wait for the next try.
        file.write_text(SAYS.format(said="three"))
        await answers(started, "three")


async def test_a_run_goes_on_with_the_new_code(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(NEVER_ENDS)
    async with dev(tmp_path / "data", "--agent", "mine:agent", cwd=tmp_path) as started:
        async with bare(
            started.url, make_token((started.data / "secret").read_text().strip(), "tester", None, {"*": ["admin"]})
        ) as client:
            await client.ask("subscribe", session="demo")
            await client.ask("input.send", session="demo", inputId="a", content="hi")
            while "the old one" not in str(await client.frame()):
                pass
        file.write_text(SAYS.format(said="and the new one"))
        told = (await started.run("tail", "demo", "--until-idle")).out
        assert "the old one" in told
        assert "and the new one" in told


async def test_what_is_not_to_be_loaded_again_is_not(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(SAYS.format(said="one"))
    async with dev(tmp_path / "data", "--agent", "mine:agent", "--no-reload", cwd=tmp_path) as started:
        await answers(started, "one")
        worker = started.children()["worker"].pid
        file.write_text(SAYS.format(said="two"))
        await asyncio.sleep(1)  # there is nothing to wait for: a change that is seen takes 0.1 s
        await answers(started, "one")
        assert started.children()["worker"].pid == worker
