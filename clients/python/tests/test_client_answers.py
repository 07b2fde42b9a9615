"""Answers: just the text of what was asked, as it streams, whole whatever happens to the connection."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from antiphon_client import ClientClosed, InputNotApplied, NotAllowed, RunFailed
from clients.python.tests.scripted_gateway import (
    END,
    EPOCH,
    START,
    Frame,
    Peer,
    ScriptedGateway,
    applied,
    client,
    delta,
    entry,
    finished,
    sent,
    snapshot,
    started,
)


def begun(seq: int, prev: int, input_id: str = "i", message: str = "m1") -> Frame:
    """A message of the agent in the run of an input."""
    return entry(seq, prev, {**START, "messageId": message}, run=f"run_{input_id}")


def ended(seq: int, prev: int, message: str = "m1") -> Frame:
    return entry(seq, prev, {**END, "messageId": message})


async def asked(peer: Peer, **state: Any) -> None:
    """The input `i` is stored, applied, and its run has started."""
    await peer.opened(**state)
    await peer.take_input(1)
    await peer.send(sent(1, 0, "i"), started(2, 1), applied(3, 2))


class TestText:
    async def test_streams(self) -> None:
        """Each piece as it comes; the script goes on only when the one before has been read."""
        read: asyncio.Queue[str] = asyncio.Queue()

        async def script(peer: Peer) -> None:
            await asked(peer)
            await peer.send(begun(4, 3), delta(5, 4, 0, "Hel"))
            assert await read.get() == "Hel"
            await peer.send(delta(6, 5, 3, "lo"))
            assert await read.get() == "lo"
            await peer.send(ended(7, 6), finished(8, 7))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            answer = opened.session("demo").ask("hi", input_id="i")
            assert (answer.run_id, answer.receipt) == ("run_i", None)
            async for piece in answer:
                read.put_nowait(piece)
            assert await answer.text() == "Hello"  # it is not asked again
            assert answer.receipt is not None

    async def test_only_the_answer(self) -> None:
        """Not what was said before, by other runs, in other lanes, or as reasoning; messages are parted by a line."""

        async def script(peer: Peer) -> None:
            await asked(peer)
            reasoning = {"type": "REASONING_MESSAGE_START", "messageId": "r1"}
            await peer.send(
                entry(4, 3, reasoning, run="run_i"), begun(5, 4), delta(6, 5, 0, "Let me look."), ended(7, 6)
            )
            await peer.send(entry(8, 7, {**START, "messageId": "x"}, lane="other", run="run_x", id="0-1"))
            await peer.send(begun(9, 8, message="m2"), delta(10, 9, 0, "It is 5.", "m2"), ended(11, 10, "m2"))
            await peer.send(finished(12, 11), sent(13, 12, "j"), started(14, 13, "j"), applied(15, 14, "j"))
            await peer.send(begun(16, 15, "j", "m3"), delta(17, 16, 0, "other", "m3"), ended(18, 17, "m3"))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            assert await opened.session("demo").answer("hi", input_id="i") == "Let me look.\n\nIt is 5."

    async def test_injected_into_a_run(self) -> None:
        """Only what was said after it went in."""

        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.send(sent(1, 0, "a"), started(2, 1, "a"), applied(3, 2, "a"), begun(4, 3, "a"))
            await peer.send(delta(5, 4, 0, "before"), ended(6, 5))
            await peer.take_input(7)
            into = {"type": "input.applied", "inputId": "i", "runId": "run_a", "messageId": "msg_i"}
            await peer.send(sent(7, 6, "i"), entry(8, 7, into, run="run_a"))
            await peer.send(
                begun(9, 8, "a", "m2"), delta(10, 9, 0, "after", "m2"), ended(11, 10, "m2"), finished(12, 11, "a")
            )

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            answer = opened.session("demo").ask("hi", input_id="i")
            assert await answer.text() == "after"
            assert answer.run_id == "run_a"

    async def test_through_a_lost_connection(self) -> None:
        async def first(peer: Peer) -> None:
            await asked(peer)
            await peer.send(begun(4, 3), delta(5, 4, 0, "Hel"))
            peer.abort()

        async def second(peer: Peer) -> None:
            await peer.welcome()
            await peer.expect("subscribe")
            peer.abort()

        async def third(peer: Peer) -> None:
            await peer.welcome()
            command = await peer.expect("subscribe")
            assert command["after"] in (f"{EPOCH}:3", f"{EPOCH}:4", f"{EPOCH}:5")
            await peer.ok(command, session="demo", epoch=EPOCH, head=8)
            frames = [begun(4, 3), delta(5, 4, 0, "Hel"), delta(6, 5, 3, "lo"), ended(7, 6), finished(8, 7)]
            await peer.send(*(frame for frame in frames if frame["seq"] > int(command["after"].split(":")[1])))

        async with ScriptedGateway(first, second, third) as gateway, client(gateway) as opened:
            assert await opened.session("demo").answer("hi", input_id="i") == "Hello"

    async def test_a_gap_in_the_middle(self) -> None:
        """The fold begins anew; what was given is not given again."""

        async def script(peer: Peer) -> None:
            await asked(peer)
            await peer.send(begun(4, 3), delta(5, 4, 0, "Hel"))
            await peer.send({"op": "session.gap", "session": "demo", "from": 1, "to": 5}, snapshot(0))
            await peer.send(sent(1, 0, "i"), started(2, 1), applied(3, 2), begun(4, 3), delta(5, 4, 0, "Hel"))
            await peer.send(delta(6, 5, 3, "lo"), ended(7, 6), finished(8, 7))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            assert await opened.session("demo").answer("hi", input_id="i") == "Hello"

    async def test_asked_before(self) -> None:
        """The input is known and its run is over: the answer comes from the history, page by page."""

        def message(name: str, text: str, role: str = "assistant") -> Frame:
            return {"id": name, "role": role, "run": "run_i", "lane": "main", "text": text, "status": "done"}

        async def script(peer: Peer) -> None:
            await peer.opened(9)
            await peer.take_input(1, duplicate=True, status="ended", position=None)
            command = await peer.expect("history")
            await peer.ok(
                command, messages=[message("m2", "more"), {**message("m3", "else"), "run": "run_j"}], before=5
            )
            command = await peer.expect("history", before=5)
            before = [message("m0", "older"), message("msg_i", "hi", "user"), message("m1", "some")]
            await peer.ok(command, messages=before, before=1)

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            assert await opened.session("demo").answer("hi", input_id="i") == "some\n\nmore"

    async def test_a_human_has_the_lane(self) -> None:
        async def script(peer: Peer) -> None:
            lanes = {"main": {"owner": {"kind": "user", "id": "u"}, "fence": 1, "run": None}}
            await peer.opened(lanes=lanes)
            await peer.take_input(1, runId=None, status="applied")
            await peer.send(sent(1, 0, "i"))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            assert await opened.session("demo").answer("hi", input_id="i") == ""


class TestEnds:
    async def test_a_run_that_fails(self) -> None:
        async def script(peer: Peer) -> None:
            await asked(peer)
            await peer.send(begun(4, 3), delta(5, 4, 0, "Hel"))
            await peer.send(entry(6, 5, {"type": "RUN_ERROR", "message": "it broke", "code": "agent_error"}))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            with pytest.raises(RunFailed, match="agent_error: it broke") as failed:
                await opened.session("demo").answer("hi", input_id="i")
            assert (failed.value.kind, failed.value.text) == ("error", "Hel")

    async def test_a_run_that_is_stopped(self) -> None:
        async def script(peer: Peer) -> None:
            await asked(peer)
            await peer.send(begun(4, 3), delta(5, 4, 0, "Hel"))
            command = await peer.expect("run.cancel", runId="run_i", mode="after_step")
            await peer.ok(command, status="cancelling")
            outcome = {"type": "cancelled", "reason": "requested"}
            await peer.send(entry(6, 5, {"type": "RUN_FINISHED", "runId": "run_i", "outcome": outcome}))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            answer = opened.session("demo").ask("hi", input_id="i")
            pieces = aiter(answer)
            assert await anext(pieces) == "Hel"
            assert await answer.cancel("after_step") == "cancelling"
            with pytest.raises(RunFailed) as failed:
                await anext(pieces)
            assert (failed.value.code, failed.value.kind, failed.value.text) == ("requested", "cancelled", "Hel")

    async def test_an_input_that_is_taken_back(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.take_input(1)
            cancel = entry(2, 1, {"type": "input.cancel.requested", "inputId": "i"}, id="c")
            del cancel["lane"]
            await peer.send(sent(1, 0, "i"), cancel)

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            with pytest.raises(InputNotApplied, match="cancelled"):
                await opened.session("demo").answer("hi", input_id="i")

    async def test_a_session_that_cannot_be_read(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.welcome()
            await peer.error(await peer.expect("subscribe"), "not_allowed", right="read")
            await peer.take_input(1)

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            with pytest.raises(NotAllowed):
                await opened.session("demo").answer("hi")

    async def test_the_client_closes(self) -> None:
        async def script(peer: Peer) -> None:
            await asked(peer)
            await peer.until_closed()

        async with ScriptedGateway(script) as gateway:
            async with asyncio.TaskGroup() as group, client(gateway) as opened:
                session = opened.session("demo")
                waiting = group.create_task(_outcome(session.answer("hi", input_id="i")))
                async for view in session.changes():
                    if view.cursor == f"{EPOCH}:3":
                        break
            assert isinstance(waiting.result(), ClientClosed)

    async def test_what_cannot_be_asked(self) -> None:
        async with ScriptedGateway() as gateway:
            with pytest.raises(ValueError, match="not empty"):
                client(gateway).session("demo").ask("")


async def _outcome(work: Any) -> BaseException | None:
    try:
        await work
    except Exception as error:  # noqa: BLE001 - it is what is asked for
        return error
    return None
