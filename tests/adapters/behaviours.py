"""What every adapter must be seen to do, on real processes: B11 to B13, B16, B18, B19 and B24. Its test module takes all of it.

What an adapter cannot do is held against its `CAPABILITIES` in the same tests: nothing is left out in silence.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import orjson
import pytest

from antiphon_client import Execution, Tool
from tests.support.adapted.world import WAIT_S, World, asked, ended, finished, messages, said, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

WORDS = "".join(f"w{i} " for i in range(150))


async def test_text_and_what_was_said_before(world: World) -> None:
    async with world.user(world.session()) as session:
        assert (await asked(session, "good morning")).strip() == "you said: good morning"
        assert await asked(session, "recall") == "you said: good morning / recall"
        assert messages(session, "user") == ["good morning", "recall"]


async def test_reasoning(world: World) -> None:
    async with world.user(world.session()) as session:
        assert await asked(session, "think") == "I have thought."
        thoughts = "".join(messages(session, "reasoning"))
        assert thoughts == ("hmm, let me see" if world.can.reasoning else "")


async def test_a_tool_of_the_agents_own(world: World) -> None:
    async with world.user(name := world.session()) as session:
        answer = await asked(session, 'use add {"a":2,"b":3}')
        calls = [(call.name, call.args, call.executor) for call in await world.events(name, "tool.requested")]
        if not world.can.tools:
            assert calls == []
            return
        assert (answer, messages(session, "tool")) == ("result: 5", ["5"])
        assert [(call_name, dict(args)) for call_name, args, _ in calls] == [("add", {"a": 2, "b": 3})]


async def test_tools_that_fail_tell_the_model_and_not_what_was_said(world: World) -> None:
    async with world.user(name := world.session()) as session:
        receipt = await session.send("use breaks {}")
        raised = world.can.tools and world.can.tool_errors == "end_the_run"
        assert await finished(receipt) == ("error" if raised else "success")
        if not world.can.tools:
            assert await world.events(name, "tool.requested") == []
            return
        assert raised or "RuntimeError" in said(session, receipt.run_id)
        assert "secret" not in str(await world.entries(name))
        for wrong in ('use add {"a":"x","b":3}', "use nothing {}"):
            assert "result: " in (answer := await asked(session, wrong))
            assert any(word in answer.lower() for word in ("error", "unknown", "invalid", "not found"))


# --- B16 -----------------------------------------------------------------------------------------------------------------


async def test_b16_one_result_of_a_clients_tool(world: World) -> None:
    """Three clients have the tool; one of them executes it, and the run goes on once."""
    done: list[str] = []

    def tab(number: int) -> Tool:
        async def pick(_args: Any, _execution: Execution) -> object:
            done.append(f"file-{number}")
            return {"file": f"file-{number}"}

        return Tool("pick_file", execute=pick)

    async with AsyncExitStack() as stack:
        name = world.session()
        tabs = [await stack.enter_async_context(world.user(name, tools=[tab(i)])) for i in range(3)]
        receipt = await tabs[0].send("use pick_file {}")
        assert await finished(receipt) == "success"
        if not world.can.client_tools:
            assert await world.events(name, "tool.requested") == []
            return
        assert len(done) == 1
        (result,) = await world.events(name, "TOOL_CALL_RESULT")
        assert orjson.loads(result.content) == {"file": done[0]}
        assert said(tabs[0], receipt.run_id) == f'result: {{"file":"{done[0]}"}}'


# --- B18 -----------------------------------------------------------------------------------------------------------------


async def test_b18_allowed_edited_and_rejected(world: World) -> None:
    async with world.user(name := world.session()) as session, world.user(name, "boss") as boss:
        receipt = await session.send('use delete {"file":"a"}')
        if not world.can.approvals:
            assert await finished(receipt) == "success"
            assert await world.events(name, "approval.requested") == []
            return
        (approval,) = await until(boss, lambda s: s.state.approvals)
        assert approval.details == {"name": "delete", "args": {"file": "a"}}
        await boss.respond(approval.approval_id, "allow_once", {"file": "b"})
        assert await finished(receipt) == "success"
        answer = said(session, receipt.run_id)
        assert "b" in answer
        assert messages(session, "tool") == ['{"deleted":"b"}']
        receipt = await session.send('use delete {"file":"c"}')
        (approval,) = await until(boss, lambda s: s.state.approvals)
        await boss.respond(approval.approval_id, "reject_once")
        assert await finished(receipt) == "success"
        assert "rejected" in said(session, receipt.run_id)
        (first, second) = await world.events(name, "approval.responded")
        assert (first.option, second.option) == ("allow_once", "reject_once")


# --- B11, B12, B13 -------------------------------------------------------------------------------------------------------


async def test_b11_a_stop_ends_the_models_stream(world: World) -> None:
    async with world.user(world.session()) as session:
        receipt = await session.send("say 100000 words, stopped")
        await until(session, lambda s: len(said(s, receipt.run_id)) > 50)
        (call,) = world.brain.about("stopped")
        assert not call.over.is_set()
        await receipt.cancel()
        assert await finished(receipt) == "cancelled"
        assert await ended(call) == "hung_up"
        assert said(session, receipt.run_id).startswith("w0 w1 w2 ")


async def test_b13_an_interrupt_ends_the_models_stream_and_keeps_what_was_said(world: World) -> None:
    async with world.user(world.session()) as session:
        receipt = await session.send("say 100000 words, interrupted")
        await until(session, lambda s: len(said(s, receipt.run_id)) > 50)
        (call,) = world.brain.about("interrupted")
        second = await session.send("something else", mode="interrupt")
        assert await finished(second) == "success"
        assert await ended(call) == "hung_up"
        assert said(session, second.run_id).strip() == "you said: something else"
        assert said(session, receipt.run_id).startswith("w0 w1 w2 ")
        assert all(m.status == "done" for m in session.messages)


async def test_b12_what_comes_in_mid_run_is_never_lost(world: World) -> None:
    """An adapter that injects has it in the same run; with any other it becomes the next one."""
    async with world.user(world.session()) as session:
        receipt = await session.send("say 150 words, steered")
        await until(session, lambda s: len(said(s, receipt.run_id)) > 50)
        steering = await session.send("and now this")
        async with asyncio.timeout(WAIT_S):
            applied = await steering.applied()
        assert await finished(receipt) == "success"
        assert await finished(steering) == "success"
        same = applied.run_id == receipt.run_id
        assert same == (world.can.steering == "inject")
        whole = said(session, receipt.run_id) + ("" if same else said(session, steering.run_id))
        assert whole.replace("  ", " ").strip() == f"{WORDS}you said: and now this"


# --- B19, B24 ------------------------------------------------------------------------------------------------------------


async def test_b18_b19_the_worker_is_killed(world: World) -> None:
    """In mid-answer, and while an approval waits: that is asked once, decided once, and the call is made once."""
    async with world.user(world.session()) as session, world.user(name := world.session()) as waiting:
        receipt = await session.send("say 150 words, killed")
        asking = await waiting.send('use delete {"file":"kept"}')
        await until(session, lambda s: len(said(s, receipt.run_id)) > 50)
        approvals = await until(waiting, lambda s: s.state.approvals) if world.can.approvals else ()
        asked_before = len(world.brain.about("kept"))
        await world.kill()
        for approval in approvals:
            await waiting.respond(approval.approval_id, "allow_once")
        assert await finished(receipt) == "success"
        assert await finished(asking) == "success"
        _check_answer(world, [m.text for m in session.messages if m.run == receipt.run_id and m.role == "assistant"])
        assert (len(await world.events(name, "approval.requested")) == 1) == world.can.approvals
        if world.can.approvals:
            assert messages(waiting, "tool")[-1] == '{"deleted":"kept"}'
            assert said(waiting, asking.run_id) == 'result: {"deleted":"kept"}'
        if world.can.approvals and world.can.on_loss == "goes_on":
            # The model is not asked again for what it has asked for.
            assert len(await world.events(name, "tool.requested")) == 1
            assert len(world.brain.about("kept")) == asked_before + 1


def _check_answer(world: World, texts: list[str]) -> None:
    first, *others = texts
    assert len(first) > 50
    whole = "".join(others)
    assert (first + whole if world.can.on_loss == "goes_on" else whole) == WORDS
    assert len(world.brain.about("killed")) == 2


async def test_b24_held_while_nobody_watches(world: World) -> None:
    """The model's stream is ended, or stands still; who returns sees the same run go on, with nothing lost."""
    name = world.session()
    async with world.user(name, watching=False) as onlooker:
        async with world.user(name) as viewer:
            await viewer.update(config={"whenUnwatched": "pause", "unwatchedGraceMs": 100})
            receipt = await viewer.send("say 3000 words, unwatched")
            await until(viewer, lambda s: said(s, receipt.run_id))
        await until(onlooker, lambda s: s.state.status == "paused")
        (call,) = world.brain.about("unwatched")
        if world.can.on_hold == "ended":
            assert await ended(call) == "hung_up"
        before = await world.entries(name)
        await asyncio.sleep(0.5)
        assert await world.entries(name) == before
        async with world.user(name) as viewer:
            await until(onlooker, lambda s: s.state.status == "running")
            shown = len(said(onlooker, receipt.run_id))
            await until(onlooker, lambda s: len(said(s, receipt.run_id)) > shown + 100)
            words = said(onlooker, receipt.run_id).split()
            assert words[:-1] == [f"w{i}" for i in range(len(words) - 1)]
            await viewer.cancel_run(receipt.run_id)
            assert await finished_run(viewer, receipt.run_id)
        assert len(world.brain.about("unwatched")) == (2 if world.can.on_hold == "ended" else 1)


async def finished_run(session: Any, run_id: str) -> bool:
    await until(session, lambda s: not s.state.is_running(run_id))
    return True


# --- what it costs, and what fails ---------------------------------------------------------------------------------------


async def test_what_it_has_cost(world: World) -> None:
    async with world.user(name := world.session()) as session:
        before = await world.metric("antiphon_worker_model_tokens_total", kind="input")
        await asked(session, 'use add {"a":1,"b":1}')
        (finish,) = await world.events(name, "RUN_FINISHED")
        told = [e.body["value"] for e in await world.events(name, "CUSTOM") if e.body["name"] == "antiphon.usage"]
        after = await world.metric("antiphon_worker_model_tokens_total", kind="input")
    if not world.can.usage:
        assert (finish.usage, told, after) == (None, [], before)
        return
    (total,) = finish.usage
    calls = len(world.brain.about('use add {"a":1,"b":1}'))
    assert calls >= 1
    assert (total["inputTokens"], total["outputTokens"]) == (11 * calls, 7 * calls)
    assert sum(each["inputTokens"] for each in told) == 11 * calls
    assert after - before == 11 * calls


async def test_a_model_that_fails_is_asked_again_and_then_given_up(world: World) -> None:
    """Only so often; the error says which kind, and nothing of what the service said about it."""
    if not world.can.usage:
        return
    names = [world.session() for _ in range(3)]
    async with world.user(names[0]) as one, world.user(names[1]) as two, world.user(names[2]) as three:
        assert await asked(one, f"fail 503 1 times {names[0]}") == "it works now"
        assert await finished(await two.send(f"fail 429 1000 times {names[1]}")) == "error"
        assert await finished(await three.send(f"fail 400 1000 times {names[2]}")) == "error"
    limited, refused = [(await world.events(name, "RUN_ERROR"))[0] for name in names[1:]]
    assert (limited.code, refused.code) == ("model_rate_limited", "model_refused")
    assert "secret" not in limited.message + refused.message
    assert 2 <= world.brain.failures[names[1]] <= 4
    assert world.brain.failures[names[2]] == 1


async def test_images_are_shown_as_bytes(world: World) -> None:
    png = b"\x89PNG\r\n\x1a\n" + bytes(64)
    async with world.user(world.session()) as session:
        stored = await session.upload(png, name="dot.png", media_type="image/png")
        receipt = await session.send("look", attachments=[stored])
        assert await finished(receipt) == "success"
        seen = said(session, receipt.run_id)
        assert ("1 images" in seen) == world.can.images
