"""Writes tokens into sessions' logs at a given rate, from a process of its own (`main`).

It stands for the workers of a cluster where the readers' side is measured: no agent, and no acknowledgement is waited
for, so that it is cheap. Each token is an entry of its own, as the log has it from a worker that is not in a hurry.
What a worker costs, and how it joins tokens, is measured by the benchmarks `latency` and `publish`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import orjson

from antiphon.bench.harness import TOKEN_CHARS, cpu_of_this_process, token
from antiphon.processes import run
from broker.clock import now_ms
from broker.codec import encode
from broker.config import LogSettings, NatsSettings
from broker.events import Entry, Participant, RunStarted, TextMessageContent, TextMessageStart
from broker.interfaces import Of
from broker.jetstream.connection import Connection
from broker.jetstream.log import JetStreamLog
from broker.subjects import MAIN_LANE, SessionSubjects
from broker.telemetry import configure

_BY = Participant("agent", "source")
_TICK_S = 0.001
_STALE_S = 0.25
"""When the source is so far behind its rate, the machine cannot offer it: it says so instead of a burst."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What to write: `per_second` tokens in all, taken by turns by the sessions `<prefix>0` and on."""

    nats_url: str
    prefix: str
    sessions: int
    per_second: float
    seconds: float


@dataclass(slots=True)
class _Text:
    """A text that grows."""

    subjects: SessionSubjects
    fence: int
    message: str
    chars: int = 0
    written: int = 0

    def next(self) -> tuple[str, bytes]:
        """The subject and the body of the next token's entry."""
        event = TextMessageContent(self.message, token())
        entry = Entry(
            id=f"{self.fence}-{self.written + 3}",
            ts=now_ms(),
            events=(event,),
            lane=MAIN_LANE,
            run="run_bench",
            off=self.chars,
        )
        self.chars += TOKEN_CHARS
        self.written += 1
        return self.subjects.deltas(MAIN_LANE), encode(entry)


async def _write(wish: Wish) -> None:
    async with (
        Connection(NatsSettings(nats_url=wish.nats_url), name="source") as connection,
        JetStreamLog(connection, LogSettings()) as log,
    ):
        await log.prepare()
        texts = [await _begin(log, f"{wish.prefix}{i}") for i in range(wish.sessions)]
        print("begun", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        before = cpu_of_this_process()
        written, took_s = await _stream(connection, texts, wish)
        await connection.flush()
        answer = {"written": written, "took_s": took_s, "cpu_s": cpu_of_this_process() - before}
        print(orjson.dumps(answer).decode(), flush=True)


async def _begin(log: JetStreamLog, session: str) -> _Text:
    """Claims the lane and opens a text in it."""
    subjects = log.subjects(session)
    fence = await log.claim(subjects, MAIN_LANE, await _owned_at(log, subjects), _BY, now_ms())
    message = f"msg_{fence}"
    events = (RunStarted(session, "run_bench"), TextMessageStart(message))
    entry = Entry(id=f"{fence}-1", ts=now_ms(), events=events, lane=MAIN_LANE, run="run_bench", by=_BY)
    await log.append(subjects, MAIN_LANE, fence, entry)
    return _Text(subjects, fence, message)


async def _owned_at(log: JetStreamLog, subjects: SessionSubjects) -> int:
    """The lane's last ownership record: of a source before this one, or 0."""
    records, _ = await log.read(subjects, 0, Of.RECORDS)
    return max((record.seq for record in records if record.subject == subjects.owner(MAIN_LANE)), default=0)


async def _stream(connection: Connection, texts: list[_Text], wish: Wish) -> tuple[int, float]:
    """How many tokens were written, and in how many seconds."""

    async def write(number: int) -> None:
        await connection.send(*texts[number % len(texts)].next())

    return await paced(write, wish.per_second, wish.seconds)


async def paced(write: Callable[[int], Awaitable[None]], per_second: float, seconds: float) -> tuple[int, float]:
    """Calls `write` with 0, 1, … at a rate; how often it was called, and in how many seconds."""
    written = due = 0
    missed, begun = 0, time.monotonic()
    while (passed := time.monotonic() - begun) < seconds:
        due = int(passed * per_second) - missed
        if due - written > max(100, per_second * _STALE_S):
            missed += due - written  # what was not offered in time is not offered at all: the figures count what was
            continue
        while written < due and time.monotonic() - begun < seconds:
            await write(written)
            written += 1
        await asyncio.sleep(_TICK_S)
    return written, time.monotonic() - begun


def main() -> None:
    """What the process does: its argument is the wish, as JSON."""
    configure(level="warning")
    run(lambda: _write(Wish(**orjson.loads(sys.argv[1]))))
