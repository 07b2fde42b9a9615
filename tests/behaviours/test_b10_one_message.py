"""B10: a message that is sent twice with one id is one message: at once, after any window, after anything restarted."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest

from broker.checkpoint import checkpoint_of
from broker.events import Entry, InputSent, Participant
from broker.jetstream.log import JetStreamLog
from broker.state import FATES_KEPT
from broker.subjects import SessionSubjects
from tests.behaviours.conftest import Figure
from tests.support.nats import NatsNode
from tests.support.place import Frame, Place
from tests.support.rawclient import WAIT_S, Wire, join
from tests.support.stack import Process, Stack

SESSIONS, IDS, TIMES = 20, 8, 3
SESSION = "once"
LATER = FATES_KEPT + 6
BATCH = 8
WINDOW_S = 1.0
FAST = {
    "commands_per_second": "10000",
    "commands_burst": "10000",
    "inputs_per_second": "10000",
    "inputs_burst": "10000",
}


async def test_sent_at_once_through_two_gateways(stack: Stack, figure: Figure) -> None:
    gateways = await stack.start(2, workers=1, **FAST)
    token = stack.token()
    sessions = [f"{SESSION}-{i}" for i in range(SESSIONS)]
    async with asyncio.TaskGroup() as tasks:
        sendings = [
            tasks.create_task(_send_all(gateway.url, token, sessions)) for gateway in gateways for _ in range(TIMES)
        ]
    receipts: dict[tuple[str, str], list[Frame]] = {}
    for sending in sendings:
        for key, reply in sending.result().items():
            receipts.setdefault(key, []).append(reply)
    for replies in receipts.values():
        assert len(replies) == 2 * TIMES
        assert len({reply["seq"] for reply in replies}) == 1
        assert len({reply["runId"] for reply in replies}) == 1
        assert [reply["duplicate"] for reply in replies].count(False) == 1, replies
    expected = [f"run_i{i}" for i in range(IDS)]
    for session in sessions:
        place = await _until_ended(gateways[0], token, session, expected)
        assert sorted(place.started) == expected
    figure(f"{len(receipts)} ids sent {2 * TIMES} times each at once through 2 gateways: {len(receipts)} runs")


@pytest.mark.timeout(120)
async def test_sent_again_a_day_later(tmp_path: Path, nats_server: NatsNode, figure: Figure) -> None:
    """A day is more than any window: NATS forgets ids after a second here, and every process forgets everything."""
    async with Stack(tmp_path / "stack", nats_server.url, delta_ttl_s=WINDOW_S) as stack:
        (gateway,) = await stack.start(1, workers=1, **FAST)
        token = stack.token()
        ids = [f"i{i}" for i in range(LATER + 1)]
        first = await _talk(gateway, token, ids)
        await _only_hashes_know(stack, ids[0])
        await _window_passed(stack)
        await _send_again(gateway, token, first)

        for process in stack.processes:
            await process.kill()
        await nats_server.restart()
        (gateway,) = await stack.start(1, workers=1, **FAST)
        await _send_again(gateway, token, first)

        await _talk(gateway, token, ["new"])
        place = Place(SESSION, every=True)
        await join(gateway.url, token, place)
        assert place.started == [f"run_{id_}" for id_ in (*ids, "new")]
        assert _sent(await stack.entries(SESSION)) == Counter([*ids, "new"])
    figure(
        f"{len(ids)} ids sent again past the window, past {LATER} later ones and a checkpoint, past a restart of "
        f"everything: 0 stored again, 0 run again"
    )


async def test_stored_twice_counts_once(tmp_path: Path, nats_server: NatsNode, figure: Figure) -> None:
    """A gateway that has not seen the first one stores the second: the fold tells them apart, for all alike."""
    async with Stack(tmp_path / "stack", nats_server.url) as stack:
        gateways = await stack.start(2, workers=0)
        token = stack.token()
        async with await Wire.open(gateways[0].url, token) as wire:
            queued = await wire.input(SESSION, "a", "the first")
        async with stack.log() as log:
            await _store_again(log, "a", "queued-twice")
        worker = await stack.worker()
        await _until_ended(gateways[1], token, SESSION, ["run_a"])
        async with stack.log() as log:
            await _store_again(log, "a", "ended-twice")
        async with await Wire.open(gateways[1].url, token) as wire:
            again = await wire.input(SESSION, "a", "the first")
            await wire.input(SESSION, "b", "the end")
        place = await _until_ended(gateways[1], token, SESSION, ["run_b"])
        assert worker.running
        assert (again["duplicate"], again["seq"], again["status"]) == (True, queued["seq"], "ended")
        assert place.started == ["run_a", "run_b"]
        assert place.answer("run_a") == "the first"
        assert _sent(await stack.entries(SESSION)) == Counter({"a": 3, "b": 1})
    figure("an id stored 3 times in the log, with other words: 1 run, the first words")


async def _send_all(url: str, token: str, sessions: list[str]) -> dict[tuple[str, str], Frame]:
    replies = {}
    async with await Wire.open(url, token) as wire:
        for i in range(IDS):
            for session in sessions:
                replies[session, f"i{i}"] = await wire.input(session, f"i{i}", "some words")
    return replies


async def _talk(gateway: Process, token: str, ids: list[str]) -> dict[str, Frame]:
    """Sends the inputs, a few at a time, and sees all runs end. Returns the receipts."""
    receipts = {}
    place = Place(SESSION)
    async with await Wire.open(gateway.url, token) as wire:
        await wire.subscribe(place)
        for start in range(0, len(ids), BATCH):
            batch = ids[start : start + BATCH]
            for id_ in batch:
                receipts[id_] = await wire.input(SESSION, id_, f"words of {id_}")
                assert receipts[id_]["duplicate"] is False
            await wire.follow(place, lambda p, last=f"run_{batch[-1]}": last in p.ended)  # type: ignore[misc]
    assert place.whole
    return receipts


async def _send_again(gateway: Process, token: str, first: dict[str, Frame]) -> None:
    async with await Wire.open(gateway.url, token) as wire:
        for id_, receipt in first.items():
            again = await wire.input(SESSION, id_, f"words of {id_}")
            assert (again["duplicate"], again["status"], again["runId"]) == (True, "ended", receipt["runId"])
            # Of what ended long ago it is known only that it was.
            assert again["seq"] in (receipt["seq"], None)


async def _only_hashes_know(stack: Stack, input_id: str) -> None:
    """A checkpoint stands behind the input, and its fate is no longer in the state."""
    async with stack.log() as log, asyncio.timeout(WAIT_S):
        while True:
            state = checkpoint_of(await log.read_checkpoint(log.subjects(SESSION))).state
            if input_id in state.seen:
                break
            await asyncio.sleep(0.05)
    assert state.as_of > 0


async def _window_passed(stack: Stack) -> None:
    """NATS has forgotten an id that it was told after all those of the test."""
    async with stack.log() as log, asyncio.timeout(WAIT_S):
        subjects = SessionSubjects("probe", log.subjects(SESSION).partition)
        entry = _entry("probe", "probe")
        assert not (await log.append_input(subjects, entry, "probe")).duplicate
        while (await log.append_input(subjects, entry, "probe")).duplicate:
            await asyncio.sleep(0.1)


async def _store_again(log: JetStreamLog, input_id: str, message_id: str) -> None:
    stored = await log.append_input(log.subjects(SESSION), _entry(input_id, message_id), message_id)
    assert not stored.duplicate


def _entry(input_id: str, write_id: str) -> Entry:
    event = InputSent(input_id, "other words")
    return Entry(write_id, int(time.time() * 1000), (event,), by=Participant("user", "user-1"))


async def _until_ended(gateway: Process, token: str, session: str, runs: list[str]) -> Place:
    place = Place(session, every=True)
    async with await Wire.open(gateway.url, token) as wire:
        await wire.subscribe(place)
        await wire.follow(place, lambda p: p.caught_up and all(run in p.ended for run in runs))
    assert place.whole
    return place


def _sent(entries: list[tuple[int, Entry]]) -> Counter[str]:
    return Counter(event.input_id for _, entry in entries for event in entry.events if isinstance(event, InputSent))
