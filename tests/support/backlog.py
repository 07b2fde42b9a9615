"""A long answer, put into a session's log quickly: as a worker writes it, a token an entry, under a real fence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Final

from agent_worker.lane import LaneQueue, Write
from broker.codec import encode
from broker.events import (
    AGUI_PROTOCOL_VERSION,
    Entry,
    InputApplied,
    Participant,
    RunFinished,
    RunStarted,
    TextMessageStart,
)
from broker.jetstream.connection import Connection
from broker.lease import WriteId
from broker.subjects import MAIN_LANE, SessionSubjects, run_id_of
from tests.support.stack import Stack, open_log

IN_FLIGHT: Final = 128
"""Writes on their way at once. One server takes them in the order in which they are sent (a cluster would not)."""
_OWNER = Participant("agent", "w-backlog", "echo")


async def write_answer(stack: Stack, session: str, input_id: str, tokens: list[str]) -> int:
    """Answers an input that is queued, at the speed of the log. Returns how many entries it took.

    There must be no worker, which would claim the lane.
    """
    async with open_log(stack.nats_url) as (connection, log):
        subjects = log.subjects(session)
        fence = await log.claim(subjects, MAIN_LANE, 0, _OWNER, _now_ms())
        room = asyncio.Semaphore(IN_FLIGHT)
        count = 0
        async with asyncio.TaskGroup() as tasks:
            for write in _writes(session, input_id, tokens):
                count += 1
                await room.acquire()
                task = tasks.create_task(_store(connection, subjects, fence, _entry(fence, count, write)))
                task.add_done_callback(lambda _: room.release())
        await log.release(subjects, MAIN_LANE, fence, _OWNER, _now_ms())
        return count + 2


def _writes(session: str, input_id: str, tokens: list[str]) -> Iterator[Write]:
    """What a worker's lane writes when no token ever waits for another."""
    queue = LaneQueue(delta_chars=16_384, segment_chars=16_384, segment_deltas=256)
    run_id, message_id = run_id_of(input_id), f"msg_{input_id}_answer"
    queue.record(RunStarted(session, run_id, AGUI_PROTOCOL_VERSION), InputApplied(input_id, run_id, f"msg_{input_id}"))
    queue.open(TextMessageStart(message_id), message_id, "text")
    for token in tokens:
        queue.text(message_id, token)
        while (write := queue.next_write()) is not None:
            yield write
    queue.close(message_id)
    queue.record(RunFinished(session, run_id, {"type": "success"}))
    while (write := queue.next_write()) is not None:
        yield write


def _entry(fence: int, n: int, write: Write) -> Entry:
    by = None if write.off is not None else _OWNER
    return Entry(str(WriteId(fence, n)), _now_ms(), write.events, lane=MAIN_LANE, by=by, off=write.off)


async def _store(connection: Connection, subjects: SessionSubjects, fence: int, entry: Entry) -> None:
    headers = {
        "Nats-Expected-Last-Subject-Sequence": str(fence),
        "Nats-Expected-Last-Subject-Sequence-Subject": subjects.owner(MAIN_LANE),
    }
    subject = subjects.deltas(MAIN_LANE)
    if entry.off is None:
        subject = subjects.events(MAIN_LANE)
        headers["Nats-TTL"] = "never"
    await connection.publish(subject, encode(entry), headers)


def _now_ms() -> int:
    return int(time.time() * 1000)
