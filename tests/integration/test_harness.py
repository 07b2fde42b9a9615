"""`agent_worker.testing`: what an author's tests rest on, as an author would use it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent_worker.context import Agent, SessionContext
from agent_worker.testing import AgentFailed, Backend, Harness, NothingCame, ToolUse, crash_everywhere
from agent_worker.tools import Invocation
from antiphon_client import tool

pytestmark = pytest.mark.timeout(300)


async def greet(ctx: SessionContext) -> None:
    async with ctx.step("greeting"):
        await ctx.reasoning("Who is that? ")
        await ctx.text(f"Hello {ctx.input.content if ctx.input else ''}")


async def test_a_conversation() -> None:
    async with Harness(greet) as session:
        turn = await session.say("Ada")
        assert session.text == turn.text == "Hello Ada"
        assert (turn.kind, turn.inputs, turn.reasoning, turn.steps) == (
            "success",
            ("Ada",),
            "Who is that? ",
            ("greeting",),
        )
        assert (await session.say("Bob")).text == "Hello Bob"
        assert [turn.text for turn in await session.turns()] == ["Hello Ada", "Hello Bob"]


async def test_what_the_agent_raised_is_the_cause() -> None:
    async def failing(ctx: SessionContext) -> None:
        raise LookupError("the words of the author")

    async with Harness(failing) as session:
        with pytest.raises(AgentFailed, match="agent_error") as caught:
            await session.say("go")
        assert isinstance(caught.value.__cause__, LookupError)
        assert (await session.say("go", check=False)).kind == "error"


async def test_a_test_that_fails_fails_as_itself() -> None:
    async def test() -> None:
        async with Harness(greet) as session:
            assert (await session.say("Ada")).text == "mine"

    with pytest.raises(AssertionError, match="mine"):
        await test()


async def test_what_does_not_come_says_how_things_stand() -> None:
    async def asking(ctx: SessionContext) -> None:
        await ctx.text("Well, ")
        await ctx.approve("Delete it all?")

    async with Harness(asking, timeout_s=1.0) as session:
        with pytest.raises(NothingCame, match=r"requires_action, waits for approval 'Delete it all\?'.*Well, "):
            await session.say("go")


async def test_approvals_questions_and_tools() -> None:
    @tool
    async def pick(kind: str) -> dict[str, str]:
        """Picks a file."""
        return {"file": f"a.{kind}"}

    async def own(call: Invocation) -> list[int]:
        return [1, 2]

    async def working(ctx: SessionContext) -> None:
        decision = await ctx.approve("Go on?", roles=("manager",))
        name = await ctx.ask_user("Who?", {"type": "string"})
        picked = await ctx.client_tool("pick", {"kind": "png"})
        numbers = await ctx.tool("own", {"a": 1}, own)
        await ctx.text(f"{decision.option} {name} {picked['file']} {numbers}")

    harness = Harness(working, tools=[pick])
    async with harness as session, harness.somebody("boss", roles=["manager"]) as boss:
        await session.send("go")
        assert (await boss.decide("allow_once")).message == "Go on?"
        assert (await session.answer("Ada")).kind == "question"
        turn = await session.finished()
    assert turn.text == "allow_once Ada a.png [1, 2]"
    assert turn.calls == (ToolUse("pick", {"kind": "png"}, '{"file":"a.png"}'), ToolUse("own", {"a": 1}, "[1,2]"))


async def test_steering_cancel_and_a_lost_connection() -> None:
    async def steered(ctx: SessionContext) -> None:
        await ctx.text("begun ")
        async for message in ctx.steering():
            await ctx.text(f"{message.content} ")
            if message.content == "end":
                return

    async with Harness(Agent("steered", steered, accepts_steering=True)) as session:
        first = await session.send("go")
        await session.said("begun")
        async with session.away():
            assert (await session.turns())[0].kind == "running"
        await session.client.send("left")
        last = await session.send("end")
        turn = await session.finished(first)
        assert await session.finished(last) == turn
        assert turn.text == "begun left end "
        assert turn.inputs == ("go", "left", "end")
        await session.send("again")
        await session.said("begun")
        await session.cancel()
        assert (await session.finished()).kind == "cancelled"


async def test_agents_that_are_asked() -> None:
    async def asking(ctx: SessionContext) -> None:
        await ctx.text(await ctx.ask("critic", "What of it?"))

    async def critic(ctx: SessionContext) -> None:
        await ctx.text("Too long.")

    async with Harness(asking, also={"critic": critic}) as session:
        assert (await session.say("go")).text == "Too long."
        assert [turn.text for turn in await session.turns("critic")] == ["Too long."]


async def test_a_crash_when_the_test_says_so() -> None:
    async def counting(ctx: SessionContext) -> None:
        for number in range(len(ctx.said.split()), 3):
            await ctx.text(f"{number} ")
            await ctx.flush()
            await ctx.approve(f"after {number}?")

    async with Harness(counting) as session:
        await session.send("go")
        await session.asked()
        await session.crash()
        for _ in range(3):
            await session.decide()
        turn = await session.finished()
    assert turn.attempts == 2


class Ledger:
    """An agent that pays, once, as a careful author writes it; and one as a careless author does."""

    def __init__(self) -> None:
        self.paid: dict[str, int] = {}

    async def careful(self, ctx: SessionContext) -> None:
        async def pay() -> str:
            self.paid.setdefault(ctx.session + ctx.idempotency_key("pay"), 1)
            return "paid"

        await ctx.step("pay", pay)
        if not ctx.said:
            await ctx.text("Paid.")

    async def careless(self, ctx: SessionContext) -> None:
        self.paid[ctx.session] = self.paid.get(ctx.session, 0) + 1
        await ctx.text("Paid.")

    def payments(self, session: str) -> int:
        return sum(count for key, count in self.paid.items() if key.startswith(session))


async def test_a_crash_at_every_write() -> None:
    ledger = Ledger()

    async def script(session: Any) -> None:
        assert (await session.say("pay")).kind == "success"
        assert session.text == "Paid."
        assert ledger.payments(session.name) == 1

    crashes = await crash_everywhere(ledger.careful, script)
    died_at = [(crash.when, crash.what) for crash in crashes]
    for when in ("before", "after"):
        for what in ("claim of the lane", "RUN_STARTED", "step.recorded", "RUN_FINISHED", "release", "end of the job"):
            assert any(at == when and what in written for at, written in died_at), (when, what)


async def test_a_crash_at_every_write_finds_what_is_wrong() -> None:
    ledger = Ledger()

    async def script(session: Any) -> None:
        await session.say("pay")
        assert ledger.payments(session.name) == 1

    with pytest.raises(AssertionError) as caught:
        await crash_everywhere(ledger.careless, script)
    (note,) = caught.value.__notes__
    assert note.startswith("the worker died at its write ")


async def test_one_backend_for_many_harnesses() -> None:
    async with Backend() as backend, asyncio.TaskGroup() as tasks:

        async def one(name: str) -> None:
            async with Harness(greet, backend=backend, session=name) as session:
                assert (await session.say(name)).text == f"Hello {name}"

        for name in ("a", "b", "c"):
            tasks.create_task(one(name))
