"""A gateway whose live messages get lost, as they may when a stream's leader dies: its clients end up with the log."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from broker.events import (
    Entry,
    InputCancelRequested,
    InputSent,
    MessageSegment,
    Participant,
    TextMessageContent,
    TextMessageStart,
)
from broker.interfaces import Stored
from broker.jetstream.log import JetStreamLog
from broker.jetstream.tailing import JetStreamTail
from broker.subjects import SessionSubjects
from gateway.feed import Feed
from tests.support.inside import gateway_inside
from tests.support.nats import NatsNode
from tests.support.place import Place
from tests.support.plane import LaneOwner, refused
from tests.support.rawclient import Wire, join

SESSION = "lossy"
AGENT = Participant("agent", "w-test")
LAST_TEXT = "the end"


class Writer:
    """Writes a session as an owner and a participant do, in a random order."""

    def __init__(self, log: JetStreamLog, subjects: SessionSubjects, chance: random.Random) -> None:
        self._log = log
        self._subjects = subjects
        self._chance = chance
        self._fence = 0
        self._n = 0
        self._length = 0
        self._unsettled = ""
        self.inputs = 0

    async def begin(self) -> None:
        self._fence = await self._log.claim(self._subjects, "main", 0, AGENT, 1)
        await self._append(TextMessageStart("m"))

    async def write(self, count: int) -> None:
        for _ in range(count):
            match self._chance.choice(("delta", "delta", "segment", "input")):
                case "delta":
                    await self._delta(f"[{self._length}]")
                case "segment":
                    await self._segment()
                case "input":
                    await self._input()

    async def end(self) -> None:
        """On every subject once more: what was lost there comes to light with the next message."""
        await self._input()
        await self._segment()
        await self._delta(LAST_TEXT)

    async def _delta(self, text: str) -> None:
        await self._append(TextMessageContent("m", text), off=self._length)
        self._length += len(text)
        self._unsettled += text

    async def _segment(self) -> None:
        text, self._unsettled = self._unsettled, ""
        await self._append(MessageSegment("m", self._length - len(text), len(text), text))

    async def _input(self) -> None:
        self.inputs += 1
        input_id = f"i{self.inputs}"
        entry = Entry(input_id, 1, (InputSent(input_id, "text"),), by=Participant("user", "user-1"))
        await self._log.append_input(self._subjects, entry, input_id)

    async def _append(
        self, event: TextMessageStart | TextMessageContent | MessageSegment, off: int | None = None
    ) -> None:
        self._n += 1
        entry = Entry(f"{self._fence}-{self._n}", 1, (event,), lane="main", by=AGENT, off=off)
        await self._log.append(self._subjects, "main", self._fence, entry)


@pytest.mark.parametrize("seed", range(6))
async def test_clients_of_a_gateway_that_loses_messages_end_with_the_log(
    nats_server: NatsNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    received = JetStreamTail._on_message
    lost, losing = 0, True

    def lossy(self: JetStreamTail, headers: bytes, body: bytes) -> None:
        nonlocal lost
        if losing and chance.random() < 0.2:
            lost += 1
        else:
            received(self, headers, body)

    monkeypatch.setattr(JetStreamTail, "_on_message", lossy)
    async with gateway_inside(nats_server.url, ring_entries=chance.choice((4, 512))) as gateway:
        token = gateway.token("read")
        writer = Writer(gateway.log, gateway.log.subjects(SESSION), chance)
        await writer.begin()
        async with await Wire.open(gateway.url, token) as wire:
            place = Place(SESSION)
            await wire.subscribe(place)
            await wire.follow(place, lambda p: p.caught_up)
            await writer.write(60)
            losing = False
            await writer.end()
            live = await _read_to_the_end(wire, place)
        every = Place(SESSION, every=True)
        await join(gateway.url, token, every)
    assert lost > 0, "nothing was lost, so nothing was shown"
    assert str(live.texts["m"]) == str(every.texts["m"])
    assert live.lost == live.twice == 0
    assert not live.texts["m"].holes


async def test_a_command_is_not_answered_by_what_was_folded_without_a_lost_entry(
    nats_server: NatsNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An input is applied, which its gateway misses, and taken back. When the write is confirmed, the loss has come to light."""
    received, stored, reset = JetStreamTail._on_message, JetStreamLog.append_input, Feed._reset
    losing, afresh = False, asyncio.Event()

    def lossy(self: JetStreamTail, headers: bytes, body: bytes) -> None:
        if not (losing and b"input.applied" in body):
            received(self, headers, body)

    def noticed(self: Feed) -> None:
        reset(self)
        afresh.set()

    async def late(self: JetStreamLog, subjects: SessionSubjects, entry: Entry, message_id: str, *more: Any) -> Stored:
        nonlocal losing
        if isinstance(entry.events[0], InputCancelRequested):
            losing = True
            await owner.start("first")
            found = await stored(self, subjects, entry, message_id, *more)
            for tails in self._tails.values():
                for tail in tails:
                    tail.disturbed()
            await afresh.wait()
            return found
        return await stored(self, subjects, entry, message_id, *more)

    monkeypatch.setattr(JetStreamTail, "_on_message", lossy)
    monkeypatch.setattr(Feed, "_reset", noticed)
    monkeypatch.setattr(JetStreamLog, "append_input", late)
    async with gateway_inside(nats_server.url) as gateway, await Wire.open(gateway.url, gateway.token()) as wire:
        owner = LaneOwner(gateway.log, SESSION)
        await wire.input(SESSION, "first", "do something")
        await owner.claim()
        await refused(wire, "input_already_applied", "input.cancel", session=SESSION, inputId="first")


@pytest.mark.parametrize("lost", ["behind its own entry", "as the last one"])
async def test_a_command_is_answered_by_all_that_is_before_its_entry(
    nats_server: NatsNode, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """An input is applied, which its gateway misses, and taken back. Nothing tells the gateway that it has missed anything."""
    received, stored = JetStreamTail._on_message, JetStreamLog.append_input
    missed: list[bytes] = []

    def lossy(self: JetStreamTail, headers: bytes, body: bytes) -> None:
        if b"input.applied" in body:
            missed.append(body)
        else:
            received(self, headers, body)

    async def late(self: JetStreamLog, subjects: SessionSubjects, entry: Entry, message_id: str, *more: Any) -> Stored:
        if lost == "behind its own entry" and isinstance(entry.events[0], InputCancelRequested):
            await owner.start("first")
        return await stored(self, subjects, entry, message_id, *more)

    monkeypatch.setattr(JetStreamTail, "_on_message", lossy)
    monkeypatch.setattr(JetStreamLog, "append_input", late)
    async with gateway_inside(nats_server.url) as gateway, await Wire.open(gateway.url, gateway.token()) as wire:
        owner = LaneOwner(gateway.log, SESSION)
        await wire.input(SESSION, "first", "do something")
        await owner.claim()
        if lost == "as the last one":
            await owner.start("first")
        await refused(wire, "input_already_applied", "input.cancel", session=SESSION, inputId="first")
    assert missed, "nothing was lost, so nothing was shown"


async def _read_to_the_end(wire: Wire, place: Place) -> Place:
    """Reads until the last text is there. After a gap the place is forgotten, as the protocol says."""
    async with asyncio.timeout(20):
        while not _has_ended(place):
            frame = await wire.receive()
            if frame["op"] == "session.gap":
                epoch, place = place.epoch, Place(SESSION, gaps=place.gaps)
                place._epoch_of_reply = epoch or ""
            place.take(frame)
    return place


def _has_ended(place: Place) -> bool:
    return "m" in place.texts and str(place.texts["m"]).endswith(LAST_TEXT)
