"""Tools that the client executes, against a scripted gateway: claimed first, executed once, let go of honestly."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest

from antiphon_client import ClientClosed, CommandRefused, Execution, Tool
from clients.python.tests.scripted_gateway import (
    EPOCH,
    Frame,
    Hung,
    Peer,
    ScriptedGateway,
    client,
    entry,
    finished,
    snapshot,
    started,
    until,
)

USER = {"kind": "user", "id": "user-1"}


class Picker:
    """A tool that notes what it is asked, and answers when it may."""

    def __init__(self, answer: Any = None, *, wait: bool = False, **options: Any) -> None:
        self.asked: list[Any] = []
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.go = asyncio.Event()
        if not wait:
            self.go.set()
        self.answer = {"file": "a.txt"} if answer is None else answer
        self.tool = Tool("pick_file", execute=self.execute, **options)

    async def execute(self, args: Any, execution: Execution) -> Any:
        self.asked.append((args, execution.tool_call_id))
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def requested(seq: int, prev: int, call_id: str = "c", **fields: Any) -> Frame:
    """The run asks for the tool."""
    event = {"type": "tool.requested", "toolCallId": call_id, "name": "pick_file", "args": {"kind": "text"}}
    return entry(seq, prev, {**event, "executor": "client", **fields}, run="run_i")


def by_client(seq: int, prev: int, kind: str, call_id: str, claim_id: str, **fields: Any) -> Frame:
    """What a participant does with a call."""
    event = {"type": kind, "toolCallId": call_id, "claimId": claim_id, "expiresAt": 9_000_000, **fields}
    frame = entry(seq, prev, event, id="x", by=USER)
    del frame["lane"]
    return frame


async def opened_with(peer: Peer, *entries: Frame, after: str | None = None, **state: Any) -> Frame:
    """Welcome a client that has tools; a run is running after entry 1."""
    await peer.welcome()
    command = await peer.expect("subscribe", session="demo", after=after)
    await peer.ok(command, session="demo", epoch=EPOCH, head=0)
    await peer.send(*([snapshot(**state), started(1, 0)] if after is None else []), *entries)
    return command


async def take_claim(peer: Peer, call_id: str = "c") -> str:
    """Confirm a claim."""
    command = await peer.expect("tool.claim", toolCallId=call_id)
    claim_id: str = command["claimId"]
    await peer.ok(command, toolCallId=call_id, claimId=claim_id, expiresAt=9_000_000)
    return claim_id


async def take_result(peer: Peer, call_id: str = "c", **fields: Any) -> Frame:
    """Accept a result."""
    command = await peer.expect("tool.result", toolCallId=call_id, **fields)
    await peer.ok(command, toolCallId=call_id, status="resolved")
    return command


async def silent(peer: Peer) -> None:
    """The client sends nothing more until it closes."""
    with pytest.raises(Hung):
        await peer.receive()


class TestExecution:
    async def test_a_call_is_claimed_executed_and_answered(self) -> None:
        picker = Picker(description="Lets the user choose", result={"type": "object"}, needs_permission=True)

        async def script(peer: Peer) -> None:
            subscribe = await opened_with(peer, requested(2, 1))
            assert subscribe["tools"] == [
                {"name": "pick_file", "description": "Lets the user choose", "parameters": {"type": "object"},
                 "result": {"type": "object"}, "idempotent": False, "needsPermission": True},
            ]  # fmt: skip
            claim = await peer.expect("tool.claim", session="demo", toolCallId="c", leaseMs=15_000)
            # not before its own claim is confirmed: not when the entry is there, and not meanwhile
            await peer.send(by_client(3, 2, "tool.claimed", "c", claim["claimId"]), entry(4, 3, {"type": "CUSTOM"}))
            assert picker.asked == []
            await peer.ok(claim, toolCallId="c", claimId=claim["claimId"], expiresAt=9)
            result = await take_result(peer, claimId=claim["claimId"], result={"file": "a.txt"})
            assert "error" not in result
            await peer.send(by_client(5, 4, "tool.resolved", "c", claim["claimId"], result={}))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            opened.session("demo", tools=[picker.tool])
            await gateway.played(1)
        assert picker.asked == [({"kind": "text"}, "c")]

    async def test_other_calls_are_left_alone(self) -> None:
        picker = Picker()

        theirs = {"claimId": "theirs", "by": USER, "device": None, "expiresAt": 9}
        taken = {"toolCallId": "taken", "lane": "main", "runId": "run_i", "name": "pick_file", "executor": "client"}

        async def script(peer: Peer) -> None:
            others = requested(2, 1, "other", name="send_mail"), requested(3, 2, "server", executor="agent")
            await opened_with(peer, *others, requested(4, 3, "mine"), calls=[{**taken, "args": {}, "claim": theirs}])
            await take_claim(peer, "mine")
            await take_result(peer, "mine")

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            opened.session("demo", tools=[picker.tool])
            await gateway.played(1)
        assert [call for _, call in picker.asked] == ["mine"]

    @pytest.mark.parametrize(
        ("answer", "error"),
        [
            (ValueError("no such file"), "no such file"),
            (KeyError(), "KeyError"),
            (RuntimeError("x" * 5000), "x" * 4096),
            (object(), "the result is no JSON: Object of type object is not JSON serializable"),
            (math.nan, "the result is no JSON: Out of range float values are not JSON compliant"),
        ],
    )
    async def test_what_goes_wrong_is_told_to_the_agent(self, answer: Any, error: str) -> None:
        picker = Picker(answer)

        async def script(peer: Peer) -> None:
            await opened_with(peer, requested(2, 1))
            await take_claim(peer)
            result = await take_result(peer)
            assert result["error"].startswith(error)
            assert len(result["error"]) <= 4096
            assert "result" not in result

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            opened.session("demo", tools=[picker.tool])
            await gateway.played(1)

    @pytest.mark.parametrize("code", ["result_invalid", "content_too_large"])
    async def test_a_refused_result_becomes_an_error(self, code: str) -> None:
        picker = Picker()

        async def script(peer: Peer) -> None:
            await opened_with(peer, requested(2, 1))
            await take_claim(peer)
            await peer.error(await peer.expect("tool.result", result={"file": "a.txt"}), code, path="$.file")
            assert code in (await take_result(peer))["error"]

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            opened.session("demo", tools=[picker.tool])
            await gateway.played(1)
        assert len(picker.asked) == 1

    async def test_a_result_that_fits_no_frame(self) -> None:
        picker = Picker("x" * 2000)

        async def script(peer: Peer) -> None:
            await peer.welcome(limits={"frame_bytes": 1000, "commands_per_second": 1000})
            await peer.subscribed()
            await peer.send(snapshot(), started(1, 0), requested(2, 1))
            await take_claim(peer)
            assert "frame_too_large" in (await take_result(peer))["error"]

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            opened.session("demo", tools=[picker.tool])
            await gateway.played(1)

    async def test_progress(self) -> None:
        refused: list[str] = []

        async def execute(args: Any, execution: Execution) -> Any:
            await execution.progress({"done": 1})
            with pytest.raises(ValueError, match="progress is no JSON"):
                await execution.progress({1, 2})
            try:
                await execution.progress(None)
            except CommandRefused as error:
                refused.append(error.code)
            return None

        async def script(peer: Peer) -> None:
            await opened_with(peer, requested(2, 1))
            claim_id = await take_claim(peer)
            await peer.ok(await peer.expect("tool.progress", toolCallId="c", claimId=claim_id, value={"done": 1}))
            await peer.error(await peer.expect("tool.progress", value=None), "content_too_large")
            result = await take_result(peer)
            assert result["result"] is None

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            opened.session("demo", tools=[Tool("pick_file", execute=execute)])
            await gateway.played(1)
        assert refused == ["content_too_large"]

    async def test_so_many_at_once_and_no_more(self) -> None:
        picker = Picker(wait=True)

        async def script(peer: Peer) -> None:
            await opened_with(peer, requested(2, 1, "a"), requested(3, 2, "b"), requested(4, 3, "c"))
            await take_claim(peer, "a")
            await take_claim(peer, "b")
            await peer.send(entry(5, 4, {"type": "CUSTOM"}))
            picker.go.set()
            # only a slot that is free again is a reason to claim the third
            ops = []
            for _ in range(4):
                command = await peer.receive()
                ops.append(command["op"])
                await peer.ok(command)
            assert ops[0] == ops[-1] == "tool.result"
            assert sorted(ops) == ["tool.claim", *["tool.result"] * 3]

        async with ScriptedGateway(script) as gateway, client(gateway, tool_executions=2) as opened:
            opened.session("demo", tools=[picker.tool])
            await gateway.played(1)
        assert [call for _, call in picker.asked] == ["a", "b", "c"]

    async def test_a_slow_consumer_does_not_hold_calls_up(self) -> None:
        picker = Picker()

        async def script(peer: Peer) -> None:
            noise = [entry(seq, seq - 1, {"type": "CUSTOM"}) for seq in range(2, 30)]
            await opened_with(peer, *noise, requested(30, 29))
            await take_claim(peer)
            await take_result(peer)

        async with ScriptedGateway(script) as gateway, client(gateway, buffer_events=4) as opened:
            session = opened.session("demo", tools=[picker.tool])
            stream = session.events()
            await anext(stream)
            await gateway.played(1)


class TestClaims:
    async def test_are_renewed_while_it_is_executed(self) -> None:
        picker = Picker(wait=True)

        async def script(peer: Peer) -> None:
            await opened_with(peer, requested(2, 1))
            claim_id = await take_claim(peer)
            begun = asyncio.get_running_loop().time()
            for _ in range(3):
                assert await take_claim(peer) == claim_id
            assert 0.08 <= asyncio.get_running_loop().time() - begun < 2  # three times a third of the lease
            picker.go.set()
            await take_result(peer)

        async with ScriptedGateway(script) as gateway, client(gateway, tool_lease_ms=90) as opened:
            opened.session("demo", tools=[picker.tool])
            await gateway.played(1)
        assert len(picker.asked) == 1

    @pytest.mark.parametrize("code", ["already_claimed", "already_resolved", "deadline_passed"])
    async def test_that_are_lost_end_the_execution(self, code: str) -> None:
        picker = Picker(wait=True)

        async def script(peer: Peer) -> None:
            await opened_with(peer, requested(2, 1))
            await take_claim(peer)
            await peer.error(await peer.expect("tool.claim"), code)
            await picker.cancelled.wait()
            await silent(peer)

        async with ScriptedGateway(script) as gateway:
            async with client(gateway, tool_lease_ms=90) as opened:
                opened.session("demo", tools=[picker.tool])
                await picker.cancelled.wait()
            await gateway.played(1)
        assert len(picker.asked) == 1

    async def test_somebody_was_first_and_lets_go(self) -> None:
        picker = Picker()

        async def script(peer: Peer) -> None:
            await opened_with(peer, requested(2, 1))
            first = await peer.expect("tool.claim")
            await peer.error(first, "already_claimed", by=USER)
            # the refusal is faster than the entry: nothing is claimed on account of this one
            await peer.send(entry(3, 2, {"type": "CUSTOM"}), by_client(4, 3, "tool.claimed", "c", "theirs"))
            await peer.send(by_client(5, 4, "tool.released", "c", "theirs"))
            assert await take_claim(peer) != first["claimId"]
            await take_result(peer)

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            opened.session("demo", tools=[picker.tool])
            await gateway.played(1)
        assert len(picker.asked) == 1

    async def test_a_call_that_becomes_anybodys_is_claimed_again(self) -> None:
        picker = Picker()

        async def script(peer: Peer) -> None:
            await opened_with(peer, requested(2, 1, participant="user-2", anyAfter=3))
            for _ in range(3):
                await peer.error(await peer.expect("tool.claim"), "not_targeted")
            await take_claim(peer)
            await take_result(peer)

        async with ScriptedGateway(script) as gateway, client(gateway, backoff_base_s=0.001) as opened:
            opened.session("demo", tools=[picker.tool])
            await gateway.played(1)

    async def test_but_not_for_ever(self) -> None:
        picker = Picker()

        async def script(peer: Peer) -> None:
            await opened_with(peer, requested(2, 1, participant="user-2", anyAfter=3))
            for _ in range(2):
                await peer.error(await peer.expect("tool.claim"), "not_targeted")
            await peer.send(entry(3, 2, {"type": "CUSTOM"}), requested(4, 3, "next"))
            await take_claim(peer, "next")
            await take_result(peer, "next")

        async with ScriptedGateway(script) as gateway, client(gateway, backoff_base_s=0.001, tool_claims=2) as opened:
            opened.session("demo", tools=[picker.tool])
            await gateway.played(1)

    @pytest.mark.parametrize("code", ["not_targeted", "arguments_invalid", "call_not_found", "not_allowed"])
    async def test_that_are_refused_for_good(self, code: str) -> None:
        picker = Picker()

        async def script(peer: Peer) -> None:
            await opened_with(peer, requested(2, 1))
            await peer.error(await peer.expect("tool.claim", toolCallId="c"), code)
            await peer.send(entry(3, 2, {"type": "CUSTOM"}), requested(4, 3, "next"))
            await take_claim(peer, "next")
            await take_result(peer, "next")

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            opened.session("demo", tools=[picker.tool])
            await gateway.played(1)
        assert [call for _, call in picker.asked] == ["next"]

    @pytest.mark.parametrize(
        "over",
        [
            lambda claim: finished(4, 3),
            lambda claim: entry(4, 3, {"type": "tool.failed", "toolCallId": "c", "code": "deadline"}),
            lambda claim: by_client(4, 3, "tool.resolved", "c", claim, result=1),
        ],
    )
    async def test_a_call_that_is_over_is_not_executed_to_the_end(self, over: Callable[[str], Frame]) -> None:
        picker = Picker(wait=True)

        async def script(peer: Peer) -> None:
            await opened_with(peer, requested(2, 1))
            claim_id = await take_claim(peer)
            await picker.begun.wait()
            await peer.send(by_client(3, 2, "tool.claimed", "c", claim_id), over(claim_id))
            await silent(peer)

        async with ScriptedGateway(script) as gateway:
            async with client(gateway) as opened:
                opened.session("demo", tools=[picker.tool])
                await picker.cancelled.wait()
            await gateway.played(1)

    async def test_a_call_that_ended_while_it_was_claimed_is_not_begun(self) -> None:
        picker = Picker()
        answered = asyncio.Event()

        async def script(peer: Peer) -> None:
            await opened_with(peer, requested(2, 1))
            claim = await peer.expect("tool.claim")
            await peer.send(finished(3, 2), started(4, 3, "j"), requested(5, 4, "next"))
            assert (await peer.expect("tool.claim"))["toolCallId"] == "next"
            await peer.ok(claim, toolCallId="c", claimId=claim["claimId"], expiresAt=9)
            answered.set()
            await peer.ok(await peer.expect("tool.release", toolCallId="next"))
            await peer.expect("unsubscribe")

        async with ScriptedGateway(script) as gateway, client(gateway, tool_release_timeout_s=5) as opened:
            session = opened.session("demo", tools=[picker.tool])
            await answered.wait()
            await session.close()
            await gateway.played(1)
        assert picker.asked == []


class TestReconnect:
    async def test_in_the_middle_of_an_execution(self) -> None:
        picker = Picker(wait=True)
        claims: list[str] = []

        async def first(peer: Peer) -> None:
            await opened_with(peer, requested(2, 1))
            claims.append(await take_claim(peer))
            await peer.send(by_client(3, 2, "tool.claimed", "c", claims[0]))
            await picker.begun.wait()
            peer.abort()

        async def second(peer: Peer) -> None:
            again = await opened_with(peer, after=f"{EPOCH}:3")
            assert [tool["name"] for tool in again["tools"]] == ["pick_file"]
            picker.go.set()
            await take_result(peer, claimId=claims[0], result={"file": "a.txt"})

        async with ScriptedGateway(first, second) as gateway, client(gateway) as opened:
            session = opened.session("demo", tools=[picker.tool])
            async for event in session.events():
                if getattr(event, "seq", 0) == 3:
                    break
            await gateway.played(2)
        assert len(picker.asked) == 1

    async def test_with_the_claim_or_the_result_on_its_way(self) -> None:
        picker = Picker()
        seen: list[Frame] = []

        async def first(peer: Peer) -> None:
            await opened_with(peer, requested(2, 1))
            seen.append(await peer.expect("tool.claim"))
            peer.abort()

        async def second(peer: Peer) -> None:
            await opened_with(peer, by_client(3, 2, "tool.claimed", "c", seen[0]["claimId"]), after=f"{EPOCH}:2")
            assert await take_claim(peer) == seen[0]["claimId"]
            seen.append(await peer.expect("tool.result"))
            peer.abort()

        async def third(peer: Peer) -> None:
            await peer.welcome()
            await peer.ok(await peer.expect("subscribe"), session="demo", epoch=EPOCH, head=0)
            assert await take_result(peer) == seen[1]

        async with ScriptedGateway(first, second, third) as gateway, client(gateway) as opened:
            opened.session("demo", tools=[picker.tool])
            await gateway.played(3)
        assert len(picker.asked) == 1

    async def test_into_a_snapshot_that_has_our_claim(self) -> None:
        picker = Picker(wait=True)
        claims: list[str] = []

        async def first(peer: Peer) -> None:
            await opened_with(peer, requested(2, 1))
            claims.append(await take_claim(peer))
            await picker.begun.wait()
            peer.abort()

        async def second(peer: Peer) -> None:
            await peer.welcome()
            await peer.error(await peer.expect("subscribe", after=f"{EPOCH}:2"), "cursor_epoch")
            await peer.subscribed()
            claim = {"claimId": claims[0], "by": USER, "device": None, "expiresAt": 9}
            call = {"toolCallId": "c", "lane": "main", "runId": "run_i", "name": "pick_file", "executor": "client"}
            run = {"runId": "run_i", "lane": "main", "inputId": "i", "attempt": 1}
            lanes = {"main": {"owner": None, "fence": 1, "run": "run_i"}}
            await peer.send(snapshot(9, lanes=lanes, runs=[run], calls=[{**call, "args": {}, "claim": claim}]))
            await peer.send(entry(10, 9, {"type": "CUSTOM"}))
            picker.go.set()
            await take_result(peer, claimId=claims[0])
            await silent(peer)

        async with ScriptedGateway(first, second) as gateway:
            async with client(gateway) as opened:
                opened.session("demo", tools=[picker.tool])
                await gateway.played(1)
                async for event in opened.session("demo").events():
                    if getattr(event, "seq", 0) == 10:
                        break
                await picker.go.wait()
                await until(lambda: not opened.session("demo")._acting._executor._jobs)  # type: ignore[union-attr]
            await gateway.played(2)
        assert len(picker.asked) == 1

    async def test_a_call_that_was_executed_is_not_executed_again_though_it_is_offered(self) -> None:
        picker = Picker()

        async def script(peer: Peer) -> None:
            await opened_with(peer, requested(2, 1, idempotent=True))
            claim_id = await take_claim(peer)
            await take_result(peer)
            await peer.send(
                by_client(3, 2, "tool.claimed", "c", claim_id), by_client(4, 3, "tool.released", "c", claim_id)
            )
            await peer.send(requested(5, 4, "next"))
            await take_claim(peer, "next")
            await take_result(peer, "next")

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            opened.session("demo", tools=[picker.tool])
            await gateway.played(1)
        assert [call for _, call in picker.asked] == ["c", "next"]


class TestClosing:
    @pytest.mark.parametrize(("idempotent", "op"), [(True, "tool.release"), (False, "tool.result")])
    @pytest.mark.parametrize("what", ["session", "client"])
    async def test_lets_go_of_what_is_being_executed(self, idempotent: bool, op: str, what: str) -> None:
        picker = Picker(wait=True, idempotent=idempotent)

        async def script(peer: Peer) -> None:
            await opened_with(peer, requested(2, 1, idempotent=idempotent))
            claim_id = await take_claim(peer)
            command = await peer.expect(op, toolCallId="c", claimId=claim_id)
            # what may have been done in part is not offered to somebody else
            assert ("error" in command) is not idempotent
            await peer.ok(command)
            if what == "session":
                await peer.ok(await peer.expect("unsubscribe"))

        async with ScriptedGateway(script) as gateway:
            async with client(gateway, tool_release_timeout_s=5) as opened:
                session = opened.session("demo", tools=[picker.tool])
                await picker.begun.wait()
                if what == "session":
                    await session.close()
                    assert picker.cancelled.is_set()
                    with pytest.raises(ClientClosed):
                        await session.history()
                    await gateway.played(1)
            assert picker.cancelled.is_set()
            await gateway.played(1)

    async def test_releases_what_was_not_begun(self) -> None:
        asked = asyncio.Event()
        picker = Picker()

        async def script(peer: Peer) -> None:
            await opened_with(peer, requested(2, 1))
            claim = await peer.expect("tool.claim")
            asked.set()
            await peer.error(await peer.expect("tool.release", claimId=claim["claimId"]), "not_claimed")

        async with ScriptedGateway(script) as gateway:
            async with client(gateway, tool_release_timeout_s=5) as opened:
                opened.session("demo", tools=[picker.tool])
                await asked.wait()
            await gateway.played(1)
        assert picker.asked == []

    async def test_does_not_wait_for_a_gateway_that_says_nothing(self) -> None:
        picker = Picker(wait=True)

        async def script(peer: Peer) -> None:
            await opened_with(peer, requested(2, 1))
            await take_claim(peer)
            await peer.expect("tool.result")

        async with ScriptedGateway(script) as gateway:
            async with client(gateway, tool_release_timeout_s=0.05) as opened:
                opened.session("demo", tools=[picker.tool])
                await picker.begun.wait()
            await gateway.played(1)

    async def test_does_not_wait_for_a_connection(self) -> None:
        picker = Picker(wait=True)

        async def script(peer: Peer) -> None:
            await opened_with(peer, requested(2, 1))
            await take_claim(peer)
            await picker.begun.wait()
            await peer.close(4200, {"code": "draining", "retry_after_ms": 60_000})

        async with ScriptedGateway(script) as gateway, client(gateway, tool_release_timeout_s=60) as opened:
            opened.session("demo", tools=[picker.tool])
            await gateway.played(1)
            await until(lambda: not opened.connected)
        assert picker.cancelled.is_set()

    async def test_the_end_of_the_client_ends_executions(self) -> None:
        picker = Picker(wait=True)

        async def script(peer: Peer) -> None:
            await opened_with(peer, requested(2, 1))
            await take_claim(peer)
            await picker.begun.wait()
            await peer.close(4429, {"code": "flood"})

        async with ScriptedGateway(script) as gateway, client(gateway, tool_lease_ms=90) as opened:
            opened.session("demo", tools=[picker.tool])
            await picker.cancelled.wait()


async def nothing(args: Any, execution: Execution) -> None:
    return None


class TestDeclaration:
    @pytest.mark.parametrize(
        "fields",
        [
            {"name": ""},
            {"name": "a b"},
            {"name": "a" * 65},
            {"name": "a", "parameters": {"x": math.inf}},
            {"name": "a", "result": {"x": {1}}},
            {"name": "a", "description": "\ud800"},
        ],
    )
    async def test_of_what_is_no_tool(self, fields: Any) -> None:
        with pytest.raises(ValueError, match=r"name|JSON"):
            Tool(execute=nothing, **fields)

    @pytest.mark.parametrize(
        "tools",
        [
            [Tool("a", execute=nothing), Tool("a", execute=nothing)],
            [Tool(f"t{number}", execute=nothing) for number in range(65)],
            [Tool("a", execute=nothing, description="é" * 40_000)],
        ],
    )
    async def test_of_too_many(self, tools: list[Tool]) -> None:
        async def script(peer: Peer) -> None:
            await peer.welcome()

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            with pytest.raises(ValueError, match="tools"):
                opened.session("demo", tools=tools)
            await gateway.played(1)

    async def test_comes_first(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.welcome()
            await peer.expect("subscribe", watching=False, tools=None)

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            opened.session("demo", watching=False).follow()
            for options in ({"tools": [Tool("a", execute=nothing)]}, {"watching": False}):
                with pytest.raises(ValueError, match="is open"):
                    opened.session("demo", **options)  # type: ignore[arg-type]
            await gateway.played(1)

    async def test_that_is_refused(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.welcome()
            await peer.error(await peer.expect("subscribe"), "schema_invalid", path="$.type")

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            session = opened.session("demo", tools=[Tool("a", execute=nothing)])
            await until(lambda: session.error is not None)
            assert session.error is not None
            assert session.error.code == "schema_invalid"
