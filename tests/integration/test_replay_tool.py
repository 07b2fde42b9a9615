"""`antiphon replay`: a session with people, tools and other agents in it, played to its agent again, and to another one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent_worker.context import Agent, SessionContext
from agent_worker.testing import Backend, Harness
from antiphon.replaying import Asked, compared, replay_file
from antiphon.testing.recording import recorded
from antiphon.testing.turns import ToolUse, Turn
from antiphon_client import tool
from broker.transfer import entries_of, exported
from tests.support.agents_replay import first, second
from tests.support.dev import Ran, run

AGENTS = "tests.support.agents_replay"

pytestmark = pytest.mark.timeout(300)


@asynccontextmanager
async def session_of_a_shop(path: Path) -> AsyncIterator[Backend]:
    """Three turns, of which one was stopped; exported to `path`."""
    asked = asyncio.Event()

    @tool
    async def where(thing: str) -> str:
        """Where something is."""
        return f"the shelf of {thing}"

    async def critic(ctx: SessionContext) -> None:
        await asked.wait()
        await ctx.text("good")

    async with Backend(["critic"]) as backend:
        harness = Harness(first, also={"critic": critic}, backend=backend, session="shop", tools=[where])
        async with harness as session, harness.somebody("boss", roles=["manager"]) as boss:
            assert (await session.say("hello")).text == "I sell tea."
            buying = await session.send("buy 3")
            await session.until(lambda s: any(run.lane == "critic" for run in s.state.runs))
            await session.client.send("hurry", mode="inject")
            asked.set()
            await boss.decide("reject_once")
            bought = await session.finished(buying)
            assert bought.text == "tea from the shelf of tea, good, 21, reject_once, hurry"
            await session.send("hang")
            await session.said("waiting")
            await session.cancel()
            await session.finished()
            await harness.settled()
        lines = [line async for line in exported(backend.log, backend.log.subjects("shop"))]
        _write(path, lines)
        yield backend


def _write(path: Path, lines: list[bytes]) -> None:
    path.write_bytes(b"".join(lines))


async def replayed(path: Path, agent: str, *args: str) -> Ran:
    return await run("replay", str(path), "--agent", f"{AGENTS}:{agent}", *args)


async def played(capsys: pytest.CaptureFixture[str], path: Path, agent: Agent, **asked: Any) -> tuple[int, str]:
    """The same, in this process: the exit code, and what it prints."""
    capsys.readouterr()
    code = await replay_file(str(path), Asked(agent, **asked))
    return code, "".join(line for line in capsys.readouterr().out.splitlines(True) if "[info" not in line)


async def test_a_recorded_session_is_played_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "shop.jsonl"
    async with session_of_a_shop(path) as backend:
        live = await run("replay", "--session", "shop", "--agent", f"{AGENTS}:first", "--nats-url", backend.nats_url)
    same = await replayed(path, "first")
    assert (same.code, same.err) == (0, "")
    assert same.out.splitlines() == [
        "turn 1: the same: 'hello'",
        "turn 2: the same: 'buy 3'",
        "turn 3: was stopped by people, and is not compared: 'hang'",
        "3 turns: no difference",
    ]
    assert (live.code, live.out) == (same.code, same.out)
    code, other = await played(capsys, path, second)
    assert code == 1
    assert "turn 1: different: 'hello'\n" in other
    assert "    -I sell tea.\n    +I sell coffee.\n" in other
    assert '    -call where {"thing": "tea"}\n    +call where {"thing": "coffee"}\n' in other
    assert other.endswith("3 turns: 2 different\n")
    # What was not recorded in these words is found in its order: the tool, the critic, and the boss answer all the same.
    assert "+coffee from the shelf of tea, good, 21, reject_once, hurry" in other
    assert (await played(capsys, path, second, compared=("steps", "end")))[0] == 0
    _, lines = await played(capsys, path, second, as_json=True)
    as_json = [json.loads(line) for line in lines.splitlines()]
    assert [(line["turn"], line["different"]) for line in as_json] == [(1, True), (2, True), (3, False)]
    assert as_json[0]["now"]["text"] == "I sell coffee."
    scenes = recorded(entries_of(path.read_bytes().splitlines())).scenes
    assert [(scene.inputs, scene.steering) for scene in scenes] == [
        (("hello",), ()),
        (("buy 3",), ("hurry",)),
        (("hang",), ()),
    ]


async def test_what_cannot_be_replayed(tmp_path: Path) -> None:
    missing = await replayed(tmp_path / "none", "first")
    assert missing.complaint == f"cannot open {tmp_path}/none: No such file or directory"
    (tmp_path / "other").write_text('{"a":1}\n')
    other = await replayed(tmp_path / "other", "first")
    assert other.complaint == "line 1: this is not a session that `antiphon export` has written"
    assert (await run("replay", "--agent", "echo")).complaint.startswith("give a FILE")
    assert (await replayed(tmp_path / "other", "first", "--only", "mood")).complaint.startswith("--only: 'mood'")


def test_turns_are_compared_by_what_is_asked_for() -> None:
    was = Turn("run_a", "main", "success", None, ("go",), "one\ntwo", "", ("s",), (ToolUse("t", {"b": 1, "a": 2}),))
    now = Turn(
        "run_b", "main", "error", "agent_error", ("go",), "one\n2", "", ("s", "s"), (ToolUse("t", {"a": 2, "b": 1}),)
    )
    assert compared(was, was, ("text", "calls", "steps", "end")) == []
    assert compared(was, now, ("calls",)) == []
    changes = {
        what: [line for line in compared(was, now, (what,))[2:] if line[0] in "+-"] for what in ("text", "steps", "end")
    }
    assert changes == {
        "text": ["-two", "+2"],
        "steps": ["+step s"],
        "end": ["-ended: success", "+ended: error (agent_error)"],
    }
