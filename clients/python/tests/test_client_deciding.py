"""Functions that decide approvals: asked once each, left alone once somebody else has decided."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from antiphon_client import Approval, Choice
from clients.python.tests.scripted_gateway import (
    Frame,
    Peer,
    ScriptedGateway,
    approval_requested,
    client,
    entry,
    running,
    until,
)


def resolved(seq: int, prev: int, approval_id: str = "a") -> Frame:
    return entry(seq, prev, {"type": "approval.resolved", "approvalId": approval_id, "status": "expired"})


async def decided(peer: Peer, approval_id: str = "a", **fields: Any) -> None:
    """Take a decision."""
    command = await peer.expect("approval.respond", approvalId=approval_id, **fields)
    await peer.ok(command, approvalId=approval_id, status="resolved", decision=command["option"], votes=[])


async def test_a_coroutine_function() -> None:
    seen: list[Approval] = []

    async def decide(approval: Approval) -> Choice:
        seen.append(approval)
        return Choice("allow_once", {"path": "b"})

    async def script(peer: Peer) -> None:
        await running(peer, approval_requested(2, 1))
        await decided(peer, option="allow_once", payload={"path": "b"})

    async with ScriptedGateway(script) as gateway, client(gateway) as opened:
        opened.session("demo", decide=decide)
        await gateway.played(1)
    assert [approval.message for approval in seen] == ["Delete 3 files?"]


async def test_a_plain_function_runs_in_a_thread() -> None:
    threads: list[threading.Thread] = []

    def decide(approval: Approval) -> str:
        threads.append(threading.current_thread())
        return "reject_once"

    async def script(peer: Peer) -> None:
        await running(peer, approval_requested(2, 1))
        await decided(peer, option="reject_once", payload=None)

    async with ScriptedGateway(script) as gateway, client(gateway) as opened:
        opened.session("demo", decide=decide)
        await gateway.played(1)
    assert threads[0] is not threading.main_thread()


async def test_none_leaves_it_to_others_and_so_does_a_fault(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is sent for these two; the third is decided."""

    def decide(approval: Approval) -> str | None:
        if approval.approval_id == "broken":
            raise KeyError("secret")
        return None if approval.approval_id == "none" else "allow_once"

    async def script(peer: Peer) -> None:
        await running(
            peer, approval_requested(2, 1, "none"), approval_requested(3, 2, "broken"), approval_requested(4, 3, "good")
        )
        await decided(peer, "good", option="allow_once")

    async with ScriptedGateway(script) as gateway, client(gateway) as opened:
        opened.session("demo", decide=decide)
        await gateway.played(1)
    assert "broken: the function that decides raised KeyError" in caplog.text
    assert "secret" not in caplog.text


async def test_asked_once_though_it_is_read_again() -> None:
    asked: list[str] = []

    def decide(approval: Approval) -> None:
        asked.append(approval.approval_id)

    async def first(peer: Peer) -> None:
        await running(peer, approval_requested(2, 1), approval_requested(3, 2, "b"))
        await until(lambda: len(asked) == 2)
        peer.abort()

    async def second(peer: Peer) -> None:
        await peer.welcome()
        await peer.subscribed(after="mb1x9k:3")
        await peer.send(resolved(4, 3, "b"), approval_requested(5, 4, "c"))
        await until(lambda: len(asked) == 3)

    async with ScriptedGateway(first, second) as gateway, client(gateway) as opened:
        opened.session("demo", decide=decide)
        await gateway.played(2)
    assert sorted(asked) == ["a", "b", "c"]


async def test_cancelled_when_somebody_else_has_decided() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def decide(approval: Approval) -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return "allow_once"

    async def script(peer: Peer) -> None:
        await running(peer, approval_requested(2, 1))
        await begun.wait()
        await peer.send(resolved(3, 2))
        await ended.wait()

    async with ScriptedGateway(script) as gateway, client(gateway) as opened:
        opened.session("demo", decide=decide)
        await gateway.played(1)


async def test_a_decision_that_comes_too_late(caplog: pytest.LogCaptureFixture) -> None:
    """It counts as nothing, and the next one is decided."""
    caplog.set_level("INFO")

    async def script(peer: Peer) -> None:
        await running(peer, approval_requested(2, 1), approval_requested(3, 2, "b"))
        command = await peer.expect("approval.respond", approvalId="a")
        await peer.error(command, "already_resolved", status="resolved")
        await decided(peer, "b", option="allow_once")

    async with ScriptedGateway(script) as gateway, client(gateway, decisions=1) as opened:
        opened.session("demo", decide=lambda approval: "allow_once")
        await gateway.played(1)
    assert "already_resolved" in caplog.text


async def test_decide_is_heeded_when_the_session_is_opened() -> None:
    async with ScriptedGateway() as gateway:
        opened = client(gateway)
        opened.session("demo")
        with pytest.raises(ValueError, match="is open"):
            opened.session("demo", decide=lambda approval: None)
