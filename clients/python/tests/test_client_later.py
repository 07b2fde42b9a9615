"""Messages that are sent later: what goes to the gateway, what the receipt tells, what is refused here."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from antiphon_client import Fold, Scheduled, ScheduleRefused
from antiphon_client.events import InputScheduled, InputSent, InputUnscheduled, read
from antiphon_client.frames import later
from antiphon_client.saved import dump_fold, load_fold
from clients.python.tests.scripted_gateway import (
    EPOCH,
    Frame,
    Peer,
    ScriptedGateway,
    applied,
    caught_up,
    client,
    entry,
    finished,
    snapshot,
    started,
    until,
)

AT = 1_763_904_000_000
WHEN = datetime.fromtimestamp(AT / 1000, UTC)
PLANNED: Frame = {"inputId": "i", "seq": 1, "ts": 1, "by": None, "content": "later", "at": AT, "mode": None}
LIMITS = {"frame_bytes": 131_072, "commands_per_second": 100_000, "commands_burst": 100_000, "scheduled_inputs": 64}


def participant(seq: int, kind: str, **event: Any) -> Frame:
    frame = entry(seq, seq - 1, {"type": kind, "inputId": "i", **event}, id=f"x{seq}")
    del frame["lane"]
    return frame


def scheduled(seq: int) -> Frame:
    return participant(seq, "input.scheduled", content="later", at=AT)


def due(seq: int) -> Frame:
    return participant(seq, "input.sent", content="later", at=AT)


async def opened(peer: Peer, as_of: int = 0, **state: Any) -> None:
    await peer.welcome(limits=LIMITS)
    await peer.subscribed()
    await peer.send(snapshot(as_of, **state))


async def take_scheduled(peer: Peer) -> Frame:
    command = await peer.expect("input.send")
    about = {"runId": "run_i", "seq": 1, "duplicate": False, "mode": None, "position": None, "reason": None}
    await peer.ok(command, inputId=command["inputId"], **about, status="scheduled", at=AT)
    return command


async def test_what_becomes_of_it() -> None:
    """It is scheduled, then waits, then is in the transcript, and its run ends."""
    seen: list[str] = []
    frames: list[Frame] = []

    async def script(peer: Peer) -> None:
        await opened(peer)
        frames.append(await take_scheduled(peer))
        await peer.send(scheduled(1), caught_up(1))
        await peer.send(due(2), started(3, 2), applied(4, 3), finished(5, 4))

    async with ScriptedGateway(script) as gateway, client(gateway) as opening:
        session = opening.session("demo")
        receipt = await session.send("later", input_id="i", at=WHEN)
        seen.append(receipt.status)
        assert (receipt.at, receipt.seq, receipt.position) == (AT, 1, None)
        assert (await receipt.finished()).ok
        assert receipt.status == "ended"
        assert session.state.scheduled == ()
    assert seen[0] in ("scheduled", "queued", "applied", "ended")
    assert (frames[0]["at"], "delayMs" in frames[0]) == (AT, False)


async def test_it_is_not_taken_for_over_after_a_snapshot() -> None:
    """Sent on a connection that was lost: the snapshot has it among what is scheduled."""

    async def first(peer: Peer) -> None:
        await opened(peer)
        await take_scheduled(peer)
        peer.abort()

    async def second(peer: Peer) -> None:
        await peer.welcome(limits=LIMITS)
        command = await peer.expect("subscribe")
        await peer.ok(command, session="demo", epoch=EPOCH, head=9)
        await peer.send({"op": "session.gap", "session": "demo", "from": 0, "to": 9})
        await peer.send(snapshot(9, scheduled=[PLANNED]), caught_up(9))
        await peer.send({**participant(10, "input.cancel.requested"), "prev": 9})

    async with ScriptedGateway(first, second) as gateway, client(gateway) as opening:
        session = opening.session("demo")
        receipt = await session.send("later", input_id="i", after_s=1.5)
        outcome = await receipt.finished()
        assert (outcome.kind, receipt.status) == ("cancelled", "cancelled")


async def test_a_gateway_that_would_send_it_now_is_not_asked() -> None:
    async def script(peer: Peer) -> None:
        await peer.opened()

    async with ScriptedGateway(script) as gateway, client(gateway) as opening:
        with pytest.raises(ScheduleRefused) as caught:
            await opening.session("demo").send("later", after_s=60)
        assert (caught.value.code, caught.value.retryable) == ("not_supported", False)


async def test_refusals() -> None:
    async def script(peer: Peer) -> None:
        await opened(peer)
        for code in ("schedule_full", "too_far_ahead"):
            await peer.error(await peer.expect("input.send", delayMs=60_000), code, limit=64)

    async with ScriptedGateway(script) as gateway, client(gateway) as opening:
        for _ in range(2):
            with pytest.raises(ScheduleRefused):
                await opening.session("demo").send("later", after_s=60)


def test_times() -> None:
    assert later(None, None) == {}
    assert later(WHEN, None) == later(WHEN.astimezone(timezone(timedelta(hours=5))), None) == {"at": AT}
    assert later(None, 0.25) == {"delayMs": 250}
    for at, after_s in ((WHEN, 1.0), (datetime(2030, 1, 1), None), (None, -1.0), (None, float("nan"))):  # noqa: DTZ001
        with pytest.raises(ValueError, match="`a"):
            later(at, after_s)


def test_it_is_saved() -> None:
    folded = load_fold(json.loads(json.dumps(dump_fold(Fold()))), None)
    folded.state.ledger.plan(Scheduled("i", 1, 1, None, "later", AT))
    again = load_fold(json.loads(json.dumps(dump_fold(folded))), None)
    assert again.state.scheduled == (Scheduled("i", 1, 1, None, "later", AT),)
    assert again.state.as_dict()["scheduled"] == [PLANNED]


def test_events() -> None:
    said = {"inputId": "i", "content": "later", "at": AT}
    assert read({"type": "input.scheduled", **said}) == InputScheduled("i", "later", AT)
    assert read({"type": "input.sent", **said}) == InputSent("i", "later", at=AT)
    assert read({"type": "input.unscheduled", "inputId": "i"}) == InputUnscheduled("i")


async def test_it_waits_no_more_for_a_session_that_is_deleted() -> None:
    async def script(peer: Peer) -> None:
        await opened(peer)
        await take_scheduled(peer)
        await peer.send(scheduled(1), caught_up(1))
        frame = entry(2, 1, {"type": "session.deleted"}, id="x2")
        del frame["lane"]
        await peer.send(frame)

    async with ScriptedGateway(script) as gateway, client(gateway) as opening:
        receipt = await opening.session("demo").send("later", input_id="i", after_s=60)
        await until(lambda: receipt.status == "cancelled")
        outcome = receipt.outcome
        assert outcome is not None
        assert outcome.kind == "cancelled"
