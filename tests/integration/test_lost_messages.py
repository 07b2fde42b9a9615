"""A gateway whose live messages get lost, as they may when a stream's leader dies: its clients end up with the log."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from antiphon.gateway_process import running_gateway
from antiphon.place import make_token
from antiphon.processes import BrokerSettings
from broker.config import LogSettings, NatsSettings
from broker.events import Entry, InputSent, MessageSegment, Participant, TextMessageContent, TextMessageStart
from broker.jetstream.connection import Connection
from broker.jetstream.log import JetStreamLog
from broker.jetstream.tailing import JetStreamTail
from broker.jetstream.topology import Topology
from broker.subjects import SessionSubjects
from gateway.config import GatewaySettings
from tests.support.nats import NatsNode
from tests.support.place import Place
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

    async def lossy(self: JetStreamTail, msg: Msg) -> None:
        nonlocal lost
        if losing and chance.random() < 0.2:
            lost += 1
        else:
            await received(self, msg)

    monkeypatch.setattr(JetStreamTail, "_on_message", lossy)
    broker = BrokerSettings(NatsSettings(nats_url=nats_server.url), LogSettings(partitions=2, join_recheck_s=0.0))
    secret = "a secret of more than thirty-two bytes"
    async with Connection(broker.nats, name="test") as connection, JetStreamLog(connection, broker.log) as log:
        await Topology(connection, broker.log).apply()
        await log.prepare()
        subjects = log.subjects(SESSION)
        settings = GatewaySettings(port=0, jwt_secret=secret, ring_entries=chance.choice((4, 512)))
        async with running_gateway(broker, settings) as (_, url):
            token = make_token(secret, "user-1", None, {"*": ["read"]})
            writer = Writer(log, subjects, chance)
            await writer.begin()
            async with await Wire.open(url, token) as wire:
                place = Place(SESSION)
                await wire.subscribe(place)
                await wire.follow(place, lambda p: p.caught_up)
                await writer.write(60)
                losing = False
                await writer.end()
                live = await _read_to_the_end(wire, place)
            every = Place(SESSION, every=True)
            await join(url, token, every)
    assert lost > 0, "nothing was lost, so nothing was shown"
    assert str(live.texts["m"]) == str(every.texts["m"])
    assert live.lost == live.twice == 0
    assert not live.texts["m"].holes


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
