"""A stream without a leader, as for seconds after one has died: its sessions cannot be written, but they can be read (ADR 40)."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from antiphon.gateway_process import running_gateway
from antiphon.place import make_token
from antiphon.processes import BrokerSettings
from broker.config import LogSettings, NatsSettings
from broker.events import Entry, InputSent, MessageSegment, Participant, TextMessageEnd, TextMessageStart
from broker.interfaces import Of
from broker.jetstream.connection import Connection
from broker.jetstream.log import JetStreamLog
from broker.jetstream.topology import Topology
from broker.subjects import SessionSubjects
from broker.tail import StoredEntry
from gateway.config import GatewaySettings
from tests.support.nats import NatsCluster, NatsNode, cluster
from tests.support.place import Place, Text
from tests.support.plane import LaneOwner
from tests.support.rawclient import WAIT_S, Wire, join
from tests.support.stack import Process, Stack, open_log

OPEN, UNOPENED, SETTLED = "open", "unopened", "settled"
"""Sessions: one that the gateways have open, one that they have not, and one of which all texts are whole."""
USER = Participant("user", "user-1")
SAID = [f"[{n}]" for n in range(20)]


async def say(owner: LaneOwner, *, settled: bool = False) -> int:
    """Begins a text, in the middle of which it ends, unless it is `settled`. Returns its last entry's sequence."""
    await owner.claim()
    await owner.write(TextMessageStart("m"))
    length, last = 0, 0
    for piece in SAID:
        last = await owner.delta("m", length, piece)
        length += len(piece)
    return await end(owner) if settled else last


async def end(owner: LaneOwner) -> int:
    text = "".join(SAID)
    segment = MessageSegment("m", 0, len(text), text, final=True, reason="complete")
    return await owner.write(segment, TextMessageEnd("m"))


async def has(server: NatsNode, session: str, seq: int) -> None:
    """Returns when the copy on this server has the entry."""
    async with open_log(server.url) as (_, log), asyncio.timeout(WAIT_S):
        while not (await log.read(log.subjects(session), seq - 1))[0]:
            await asyncio.sleep(0.02)


async def without_leader(servers: NatsCluster, survivor: int) -> list[int]:
    """Kills all servers but one, so that there is no leader until one of them is started again."""
    killed = [index for index in range(len(servers.nodes)) if index != survivor]
    for index in killed:
        await servers.kill(index)
    return killed


@pytest.mark.cluster
@pytest.mark.timeout(240)
async def test_sessions_are_read_while_their_stream_has_no_leader(tmp_path: Path) -> None:
    async with (
        cluster(tmp_path / "nats", sync_always=True) as servers,
        Stack(tmp_path / "stack", ",".join(servers.urls), replicas=3, partitions=1) as stack,
        open_log(stack.nats_url, LogSettings(lease_s=60.0)) as (_, log),
    ):
        survivor = (await servers.stream_leader("S00") + 1) % 3
        # One has its server all the time, the other one loses it, and with it what it knew of the streams.
        stays = await stack.gateway(nats_url=servers.nodes[survivor].url, reconnect_wait_s="0.1")
        moves = await stack.gateway(nats_url=servers.nodes[(survivor + 1) % 3].url, reconnect_wait_s="0.1")
        owners = {name: LaneOwner(log, name) for name in (OPEN, UNOPENED, SETTLED)}
        ends = {name: await say(owner, settled=name == SETTLED) for name, owner in owners.items()}
        async with (
            await Wire.open(stays.url, stack.token()) as here,
            await Wire.open(moves.url, stack.token()) as there,
        ):
            live = [Place(OPEN), Place(OPEN)]
            for wire, place in zip((here, there), live, strict=True):
                await wire.subscribe(place)
                await wire.follow(place, lambda p: p.caught_up)
            for name, seq in ends.items():
                await has(servers.nodes[survivor], name, seq)
            killed = await without_leader(servers, survivor)
            resumed = [await resumes(stack, gateway, live[0]) for gateway in (stays, moves)]
            fresh = [await joins(stack, gateway, OPEN) for gateway in (stays, moves)]
            assert {place.last for place in (*resumed, *fresh)} == {ends[OPEN]}
            await opens(stack, stays, ends, servers, killed, owners)
            for wire, place in zip((here, there), live, strict=True):
                await wire.follow(place, lambda p: p.texts["m"].done)
            for place in live:
                assert place.whole, place
                assert place.text("m") == "".join(SAID)


async def resumes(stack: Stack, gateway: Process, live: Place) -> Place:
    """Somebody whose connection was cut in the middle of the text: it has had the first half of it."""
    place = Place(OPEN)
    place.epoch, place.last = live.epoch, live.entries[len(live.entries) // 2][0]
    place.texts["m"] = Text()
    place.texts["m"].put(0, "".join(SAID))
    await join(gateway.url, stack.token(), place)
    return place


async def joins(stack: Stack, gateway: Process, session: str) -> Place:
    place = Place(session)
    await join(gateway.url, stack.token(), place)
    assert place.whole, place
    assert place.text("m") == "".join(SAID)
    return place


async def opens(
    stack: Stack,
    gateway: Process,
    ends: dict[str, int],
    servers: NatsCluster,
    killed: list[int],
    owners: dict[str, LaneOwner],
) -> None:
    """Sessions that the gateway did not have open are shown as far as a copy has them, which may not be all: that they are
    caught up is said when there is a leader, and then they go on.
    """
    async with contextlib.AsyncExitStack() as opened:
        readers = [
            (await opened.enter_async_context(await Wire.open(gateway.url, stack.token())), Place(name))
            for name in (UNOPENED, SETTLED)
        ]
        for wire, place in readers:
            await wire.subscribe(place)
            await wire.follow(place, lambda p: p.last == ends[p.session])
            assert place.text("m") == "".join(SAID)
            assert not place.caught_up
        for index in killed:
            await servers.restart(index)
        await end(owners[OPEN])
        await end(owners[UNOPENED])
        for wire, place in readers:
            await wire.follow(place, lambda p: p.caught_up and p.texts["m"].done)
            assert place.whole, place
            assert place.text("m") == "".join(SAID)


async def test_who_was_cut_behind_deltas_that_were_left_out_gets_their_text_from_a_gateway_that_is_behind(
    nats_server: NatsNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another gateway had the text's segment already, and left its deltas out for it. This one gets it later, live, and no
    leader tells it that it is behind.
    """
    head, answers = JetStreamLog.head, asyncio.Event()
    answers.set()

    async def silent(self: JetStreamLog, subjects: SessionSubjects, of: Of = Of.EVERYTHING) -> StoredEntry | None:
        await answers.wait()
        return await head(self, subjects, of)

    monkeypatch.setattr(JetStreamLog, "head", silent)
    broker = BrokerSettings(NatsSettings(nats_url=nats_server.url), LogSettings(partitions=2, join_recheck_s=0.0))
    secret = "a secret of more than thirty-two bytes"
    async with Connection(broker.nats, name="test") as connection, JetStreamLog(connection, broker.log) as log:
        await Topology(connection, broker.log).apply()
        await log.prepare()
        owner = LaneOwner(log, OPEN)
        await owner.claim()
        await owner.write(TextMessageStart("m"))
        for offset, piece in ((0, "one "), (4, "two ")):
            await owner.delta("m", offset, piece)
        entry = Entry("i", 1, (InputSent("i", "text"),), by=USER)
        cut_at = (await log.append_input(log.subjects(OPEN), entry, "i")).seq
        token = make_token(secret, "user-1", None, {"*": ["read"]})
        async with (
            running_gateway(broker, GatewaySettings(port=0, jwt_secret=secret)) as (_, url),
            await Wire.open(url, token) as here,
            await Wire.open(url, token) as there,
        ):
            live, cut = Place(OPEN), Place(OPEN)
            live.frames, cut.frames = [], []
            await here.subscribe(live)
            await here.follow(live, lambda p: p.caught_up)
            cut.epoch, cut.last, cut.texts["m"] = live.epoch, cut_at, Text()
            answers.clear()
            await there.subscribe(cut)
            await there.follow(cut, lambda p: p.caught_up)
            assert cut.text("m") == ""
            await owner.write(MessageSegment("m", 0, 8, "one two "))
            await owner.delta("m", 8, "three ")
            last = await owner.write(MessageSegment("m", 8, 6, "three "))
            for wire, place in ((here, live), (there, cut)):
                await wire.follow(place, lambda p: p.last == last)
                assert place.whole, place
                assert place.text("m") == "one two three "
    assert segments(live) == [None, None], "of what it has had the deltas, a reader needs no text"
    assert segments(cut) == ["one two ", None]


def segments(place: Place) -> list[str | None]:
    """The texts of the segments that came; None for one that came without."""
    events = [event for frame in place.frames or () for event in frame["events"]]
    return [event.get("text") for event in events if event["type"] == "message.segment"]
