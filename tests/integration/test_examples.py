"""Every example, as its page tells people to run it: `antiphon dev` with the agent, and real clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent_worker.testing import Conversation, ToolUse, crash_everywhere
from antiphon.place import make_token
from antiphon_client import Client, Execution, Session, Tool
from examples import risky_action
from tests.support.dev import Dev, dev

WAIT_S = 20.0


@asynccontextmanager
async def running(tmp_path: Path, agent: str, *args: str) -> AsyncIterator[Dev]:
    async with dev(tmp_path / "data", "--agent", f"examples.{agent}", *args, "--leave-grace-s", "0.2") as started:
        yield started


@asynccontextmanager
async def user(running: Dev, name: str = "user-1", *roles: str, **options: Any) -> AsyncIterator[Session]:
    """Somebody in the session `demo`."""
    secret = (running.data / "secret").read_text().strip()
    token = make_token(secret, name, None, {"*": ["admin"]}, roles=roles)
    async with Client(running.url, token) as client:
        session = client.session("demo", **options)
        session.follow()
        yield session


async def until(session: Session, reached: Callable[[Session], Any]) -> Any:
    """Returns what `reached` says, once it says something."""
    async with asyncio.timeout(WAIT_S):
        while not (value := reached(session)):
            await asyncio.sleep(0.02)
    return value


async def asked(session: Session, text: str) -> str:
    """Sends a message; returns all that the agents say in that run."""
    receipt = await session.send(text)
    async with asyncio.timeout(WAIT_S):
        await receipt.finished()
    return said(session, receipt.run_id)


def said(session: Session, run_id: str) -> str:
    return "".join(m.text for m in session.messages if m.run == run_id and m.role == "assistant")


async def test_a_risky_action_is_allowed_edited_and_remembered(tmp_path: Path) -> None:
    async with (
        running(tmp_path, "risky_action:agent") as started,
        user(started) as asker,
        user(started, "boss") as boss,
    ):
        receipt = await asker.send("delete a.txt b.txt")
        (approval,) = await until(boss, lambda s: s.state.approvals)
        assert approval.details == {"files": ["a.txt", "b.txt"]}
        await boss.respond(approval.approval_id, "allow_always", {"files": ["a.txt"]})
        await receipt.finished()
        assert said(asker, receipt.run_id) == "Deleted a.txt; allowed by boss."
        assert await asked(asker, "delete c.txt") == "Deleted c.txt; allowed by boss."
        await boss.revoke("delete-files")
        receipt = await asker.send("delete d.txt")
        (approval,) = await until(boss, lambda s: s.state.approvals)
        await boss.respond(approval.approval_id, "reject_once")
        await receipt.finished()
        assert said(asker, receipt.run_id) == "Nothing was deleted."


async def test_a_risky_action_is_done_once_wherever_its_worker_dies() -> None:
    async def script(session: Conversation) -> None:
        await session.send("delete a.txt")
        assert (await session.decide("allow_once")).message == "Delete 1 file(s)?"
        turn = await session.finished()
        assert turn.text == session.text == "Deleted a.txt; allowed by user-1."
        assert turn.calls == (ToolUse("delete_files", {"files": ["a.txt"]}, '{"deleted":["a.txt"]}'),)

    crashes = await crash_everywhere(risky_action.agent, script)
    assert {"approval.requested", "RUN_FINISHED"} <= {what for crash in crashes for what in crash.what.split(", ")}


async def test_a_tool_in_the_browser(tmp_path: Path) -> None:
    """The page's part is played by a client with a tool of that name; the page's own is in tests/browser."""

    async def answer(args: Any, _execution: Execution) -> object:
        assert args["question"].endswith("?")
        return {"answer": "Green"}

    tool = Tool("ask_browser", execute=answer)
    async with running(tmp_path, "browser_tool:agent") as started, user(started, tools=[tool]) as session:
        assert await asked(session, "hello") == "One question first. Green it is."


async def test_the_support_desk(tmp_path: Path) -> None:
    async with (
        running(tmp_path, "support_desk:agent") as started,
        user(started) as customer,
        user(started, "user-9", "support") as human,
    ):
        assert (await asked(customer, "hello")).startswith("I can take orders.")
        receipt = await customer.send("I want a human")
        (handoff,) = await until(human, lambda s: s.state.handoffs)
        assert (handoff.to, handoff.summary) == ("support", "hello / I want a human")
        listed = await started.run("handoffs", "--roles", "support")
        assert "demo  for support: asked for a human" in listed.out
        await human.claim_handoff(handoff_id=handoff.handoff_id)
        await receipt.finished()
        await human.send("What is the matter?")
        await customer.send("It is broken")
        await until(customer, lambda s: s.messages[-1].text == "It is broken")
        assert [(m.role, m.text) for m in customer.messages][-2:] == [
            ("assistant", "What is the matter?"),
            ("user", "It is broken"),
        ]
        await human.return_handoff("They will get a new one.")
        await until(customer, lambda s: s.messages[-1].text.startswith("I can take orders."))


async def test_two_agents(tmp_path: Path) -> None:
    critic = ("--also", "examples.two_agents:critic")
    async with running(tmp_path, "two_agents:writer", *critic) as started, user(started) as session:
        assert await asked(session, "Cheese") == "Cheese is a fine thing."
        assert [(m.lane, m.text) for m in session.messages if m.lane == "critic"] == [
            ("critic", "Cheese is a fine thing. It is very, very fine."),
            ("critic", "Make it shorter."),
        ]


async def test_unwatched(tmp_path: Path) -> None:
    async with running(tmp_path, "unwatched:agent") as started, user(started, watching=False) as onlooker:
        async with user(started) as viewer:
            await viewer.update(config={"whenUnwatched": "pause", "unwatchedGraceMs": 200})
            receipt = await viewer.send("count")
            await until(viewer, lambda s: said(s, receipt.run_id))
        await until(onlooker, lambda s: s.state.status == "paused")
        before = said(onlooker, receipt.run_id)
        async with user(started) as viewer:
            await until(onlooker, lambda s: s.state.status == "running")
            await until(onlooker, lambda s: len(said(s, receipt.run_id)) > len(before) + 20)
            words = said(onlooker, receipt.run_id).split()
            assert words == [str(i) for i in range(len(words))]
            await viewer.cancel_run(receipt.run_id)


def test_every_example_is_run_here() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    names = [path.stem for path in (Path(__file__).parents[2] / "examples").glob("*.py") if path.stem != "__init__"]
    assert len(names) >= 5
    assert [name for name in names if f"{name}:" not in here] == []


pytestmark = pytest.mark.timeout(90)
