"""Replaying a recorded session against another version of its agent: everybody but the agent does what they did then."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

from agent_worker.context import Agent, SessionContext
from antiphon.testing.conversation import Conversation
from antiphon.testing.errors import NothingCame
from antiphon.testing.harness import Harness
from antiphon.testing.recording import Answered, Decided, Recording, Scene
from antiphon.testing.turns import Turn
from antiphon_client import Execution, NotFirst, Tool
from antiphon_client.model import Approval

NOT_RECORDED = "nothing like this was recorded"
_STOP_AFTER_S = 5.0
"""A turn that people stopped is stopped again once the agent has said as much, or after so long."""

T = TypeVar("T")


async def replay(recording: Recording, agent: Agent, *, timeout_s: float = 120.0) -> list[Turn]:
    """Plays the recording to `agent`, and returns what that did: a turn for each of the recording's scenes.

    Tools of clients and other agents give the answers that they gave, found by what they are asked, else in their order;
    people decide as they did, and say in the middle of a run what they said. What was not recorded is answered with an
    error, a rejection, or `NOT_RECORDED`. Raises NothingCame for a turn that takes longer than `timeout_s`.
    """
    cast = _Cast(recording)
    tools = [Tool(name, execute=cast.execute(name)) for name in recording.tools]
    others = {name: cast.agent(name) for name in recording.agents}
    config = {key: value for key, value in recording.config.items() if key != "pool"}
    harness = Harness(agent, also=others, tools=tools, config=config, timeout_s=timeout_s)
    async with harness as session, _deciding(harness, session, cast):
        return [await _play(session, scene) for scene in recording.scenes]


async def _play(session: Conversation, scene: Scene) -> Turn:
    sent = [await session.send(text) for text in scene.inputs]
    for text in scene.steering:
        await session.until(lambda s: s.state.lanes.get("main") and s.state.lanes["main"].run, "the run to begin")
        await session.client.send(text, mode="inject" if "inject" in _can(session) else None)
    if scene.turn.kind == "cancelled":
        with contextlib.suppress(TimeoutError, NothingCame):
            async with asyncio.timeout(_STOP_AFTER_S):
                await session.until(lambda _: len(session.text) >= len(scene.turn.text), "as much text")
        with contextlib.suppress(Exception):
            await session.cancel()
    return await session.finished(sent[0], check=False)


def _can(session: Conversation) -> tuple[str, ...]:
    lane = session.client.state.lanes.get("main")
    return () if lane is None else lane.can


class _Cast:
    """Everybody but the agent. Each recorded answer is given once."""

    def __init__(self, recording: Recording) -> None:
        self._answered = list(recording.answered)
        self._asked = list(recording.asked)
        self._decided = list(recording.decided)

    def execute(self, name: str) -> Callable[[Any, Execution], Any]:
        async def answer(args: Any, _execution: Execution) -> object:
            found = _taken(self._answered, lambda a: a.tool == name, lambda a: _same(a, args))
            if found is None or found.error is not None:
                raise RuntimeError(NOT_RECORDED if found is None else found.error)
            return found.result

        return answer

    def agent(self, name: str) -> Agent:
        async def answer(ctx: SessionContext) -> None:
            content = ctx.input.content if ctx.input is not None else ""
            found = _taken(self._asked, lambda a: a.agent == name, lambda a: a.content == content)
            await ctx.text(NOT_RECORDED if found is None else found.text)

        return Agent(name, answer)

    def decision(self, approval: Approval) -> Decided | None:
        return _taken(self._decided, lambda _: True, lambda d: d.message == approval.message)


def _same(answered: Answered, args: Any) -> bool:
    return bool(answered.args == args)


def _taken(items: list[T], fits: Callable[[T], bool], best: Callable[[T], bool]) -> T | None:
    """Takes the first that is best out, else the first that fits."""
    fitting = [item for item in items if fits(item)]
    found = next((item for item in fitting if best(item)), fitting[0] if fitting else None)
    if found is not None:
        items.remove(found)
    return found


@asynccontextmanager
async def _deciding(harness: Harness, session: Conversation, cast: _Cast) -> AsyncIterator[None]:
    """Has people decide what the agent asks, for as long as the context."""
    async with AsyncExitStack() as stack:
        people: dict[str, Conversation] = {}

        async def voter(user: str, roles: tuple[str, ...]) -> Conversation:
            if user not in people:
                people[user] = await stack.enter_async_context(harness.somebody(user, roles=roles, tools=()))
            return people[user]

        async def decide(approval: Approval) -> None:
            decided = cast.decision(approval)
            if decided is None:
                option = "decline" if approval.kind == "question" else "reject_once"
                # Whoever may decide: a role is the word that the agent asks for.
                nobody = await voter("nobody", tuple(approval.roles))
                await nobody.client.respond(approval.approval_id, option)
                return
            for vote in decided.votes:
                somebody = await voter(vote.by.id, vote.by.roles)
                await somebody.client.respond(approval.approval_id, vote.option, vote.payload)

        async def follow() -> None:
            seen: set[str] = set()
            async for view in session.client.changes():
                for approval in view.state.approvals:
                    if approval.approval_id not in seen:
                        seen.add(approval.approval_id)
                        with contextlib.suppress(NotFirst):
                            await decide(approval)

        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(follow())
            try:
                yield
            finally:
                following.cancel()
