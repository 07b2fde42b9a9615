"""A consumer that is slow, or waits for something else; and a storm of kills."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from antiphon_client import Entry, Gap, Outcome, Snapshot
from clients.python.tests.scripted_gateway import (
    END,
    EPOCH,
    START,
    Hung,
    Peer,
    ScriptedGateway,
    applied,
    client,
    delta,
    entry,
    finished,
    sent,
    seqs,
    snapshot,
    started,
    take,
)


class Flood:
    """Sends `total` entries of `pad` bytes as fast as the client takes them."""

    def __init__(self, total: int, pad: int = 1000) -> None:
        self.total = total
        self.text = "x" * pad
        self.sent = 0

    async def pour(self, peer: Peer, after: int = 0, session: str = "demo") -> None:
        for seq in range(after + 1, self.total + 1):
            await peer.send(delta(seq, seq - 1, 0, self.text, session=session))
            self.sent = seq


async def stalled(flood: Flood) -> int:
    """Wait until no more is taken; returns how many entries were."""
    while True:
        before = flood.sent
        await asyncio.sleep(0.3)
        if before == flood.sent > 0:
            return before


class TestBackpressure:
    async def test_a_slow_consumer_stops_the_socket(self) -> None:
        flood = Flood(60_000)

        async def script(peer: Peer) -> None:
            await peer.opened()
            await flood.pour(peer)

        async with ScriptedGateway(script, limit_s=50) as gateway, client(gateway, buffer_events=100) as opened:
            session = opened.session("demo")
            stream = session.events()
            assert isinstance(await anext(stream), Snapshot)
            taken = await stalled(flood)
            assert taken < flood.total  # 60 MB: more than sockets hold
            assert len(session._buffer) <= 100
            for expected in range(1, flood.total + 1):
                event = await anext(stream)
                assert isinstance(event, Entry)
                assert event.seq == expected
            assert gateway.connections == 1

    async def test_the_buffer_is_bounded_by_size_too(self) -> None:
        flood = Flood(400, pad=100_000)

        async def script(peer: Peer) -> None:
            await peer.opened()
            await flood.pour(peer)

        async with ScriptedGateway(script) as gateway, client(gateway, buffer_bytes=1_000_000) as opened:
            session = opened.session("demo")
            stream = session.events()
            await anext(stream)
            assert await stalled(flood) < flood.total
            assert len(session._buffer) <= 10
            for expected in range(1, flood.total + 1):
                assert seqs([await anext(stream)]) == [expected]

    async def test_silence_of_our_own_making_is_not_a_dead_connection(self) -> None:
        flood = Flood(20_000)

        async def script(peer: Peer) -> None:
            await peer.welcome(heartbeat_ms=100)
            await peer.subscribed()
            await peer.send(snapshot())
            await flood.pour(peer)

        async with ScriptedGateway(script, limit_s=50) as gateway, client(gateway, buffer_events=10) as opened:
            stream = opened.session("demo").events()
            await anext(stream)
            assert await stalled(flood) < flood.total  # for longer than two heartbeats
            for expected in range(1, flood.total + 1):
                assert seqs([await anext(stream)]) == [expected]
            assert gateway.connections == 1

    async def test_a_command_inside_the_loop_does_not_deadlock(self) -> None:
        flood = Flood(500, pad=10)

        async def script(peer: Peer) -> None:
            await peer.opened()
            await flood.pour(peer)
            while True:
                command = await peer.receive()
                match command["op"]:
                    case "history":
                        await peer.ok(command, messages=[], before=None)
                    case "unsubscribe":
                        await peer.ok(command)
                    case "subscribe":
                        after = command["after"].split(":")[1]
                        await peer.ok(command, session="demo", epoch=EPOCH, head=flood.total)
                        await flood.pour(peer, int(after))
                    case "run.cancel":
                        await peer.ok(command, status="cancelled")
                        return

        async with ScriptedGateway(script) as gateway, client(gateway, buffer_events=50) as opened:
            session = opened.session("demo")
            found = []
            async for event in session.events():
                if isinstance(event, Entry):
                    found.append(event.seq)
                    if event.seq % 100 == 1:
                        await session.history()
                if len(found) == flood.total:
                    break
            assert found == list(range(1, flood.total + 1))
            await session.cancel("r")

    async def test_a_receipt_needs_no_consumer_and_events_still_gives_all(self) -> None:
        total = 300

        async def pour(peer: Peer, after: int) -> None:
            frames = [sent(1, 0, "i"), started(2, 1), applied(3, 2), entry(4, 3, START)]
            frames += [delta(seq, seq - 1, seq - 5, "x") for seq in range(5, total)]
            frames += [finished(total, total - 1)]
            await peer.send(*frames[after:])

        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.take_input(1)
            await pour(peer, 0)
            await peer.ok(await peer.expect("unsubscribe"))
            await peer.subscribed(after=f"{EPOCH}:199")  # with the snapshot, as much as the buffer holds
            await pour(peer, 199)

        async with ScriptedGateway(script) as gateway, client(gateway, buffer_events=200) as opened:
            session = opened.session("demo")
            receipt = await session.send("Hi", input_id="i")
            assert await receipt.finished() == Outcome("success")
            assert [message.text for message in session.messages] == ["hi", "x" * (total - 5)]
            assert session.cursor is None
            events = await take(session, total + 1)
            assert seqs(events) == list(range(1, total + 1))
            assert [len(message.text) for message in session.messages] == [2, total - 5]

    async def test_a_session_nobody_reads_does_not_hold_up_another(self) -> None:
        flood = Flood(300, pad=10)

        async def script(peer: Peer) -> None:
            await peer.welcome()
            for name in ("slow", "quick"):
                await peer.subscribed(session=name)
                await peer.send(snapshot(session=name))
            await flood.pour(peer, session="slow")
            await peer.send(delta(1, 0, 0, "x", session="quick"))
            await peer.ok(await peer.expect("unsubscribe", session="slow"))
            command = await peer.expect("subscribe", session="slow")
            await peer.ok(command, session="slow", epoch=EPOCH, head=flood.total)
            await flood.pour(peer, int(command["after"].split(":")[1]), session="slow")

        async with ScriptedGateway(script) as gateway, client(gateway, buffer_events=200) as opened:
            slow, quick = opened.session("slow"), opened.session("quick")
            stream = slow.events()
            await anext(stream)
            assert seqs(await take(quick, 2)) == [1]
            for expected in range(1, flood.total + 1):
                assert seqs([await anext(stream)]) == [expected]


class TestBehind:
    """What happens to a session whose buffer was full while somebody waited for something else."""

    async def test_a_gap_begins_anew(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.take_input(1)
            await peer.send(sent(1, 0, "i"), started(2, 1), applied(3, 2), entry(4, 3, START), delta(5, 4, 0, "x"))
            await peer.send({"op": "session.gap", "session": "demo", "from": 3, "to": 5}, snapshot(2), finished(6, 2))

        async with ScriptedGateway(script) as gateway, client(gateway, buffer_events=3) as opened:
            session = opened.session("demo")
            receipt = await session.send("Hi", input_id="i")
            await receipt.finished()
            assert [type(event) for event in await take(session, 3)] == [Gap, Snapshot, Entry]
            assert session.messages == []

    async def test_a_lost_connection_goes_on_where_the_fold_is(self) -> None:
        async def first(peer: Peer) -> None:
            await peer.opened()
            await peer.take_input(1)
            await peer.send(sent(1, 0, "i"), started(2, 1), applied(3, 2))
            peer.abort()

        async def second(peer: Peer) -> None:
            await peer.welcome()
            await peer.subscribed(after=f"{EPOCH}:3")
            await peer.send(finished(4, 3))
            await peer.ok(await peer.expect("unsubscribe"))
            await peer.subscribed(after=f"{EPOCH}:1")
            await peer.send(started(2, 1), applied(3, 2))
            await go_on.wait()
            await peer.send(finished(4, 3))

        go_on = asyncio.Event()
        async with ScriptedGateway(first, second) as gateway, client(gateway, buffer_events=2) as opened:
            session = opened.session("demo")
            receipt = await session.send("Hi", input_id="i")
            assert (await receipt.finished()).ok
            assert seqs(await take(session, 4)) == [1, 2, 3]
            assert session.state.runs == ()  # the fold is further on than what is read again
            go_on.set()
            assert seqs(await take(session, 1)) == [4]
            assert [message.text for message in session.messages] == ["hi"]


class Storm:
    """A gateway with one log, which kills each connection after a random number of frames."""

    def __init__(self, seed: int, total: int) -> None:
        self.random = Random(seed)
        self.total = total
        self.text = "".join(self.random.choices("abc \u00e9\U0001f600\n", k=total))

    def log(self, after: int) -> list[dict[str, Any]]:
        """The entries after a place: one message, one character for each delta."""
        last = self.total + 2
        frames = [entry(1, 0, START)]
        frames += [delta(seq, seq - 1, seq - 2, self.text[seq - 2]) for seq in range(2, last)]
        return [*frames, entry(last, last - 1, END)][after:]

    async def script(self, peer: Peer) -> None:
        """Play the gateway until the connection is killed, or the client is content."""
        frames_left = self.random.randrange(5, self.total // 4)
        await peer.welcome()
        while True:
            command = await peer.receive()
            match command["op"]:
                case "subscribe":
                    after = command.get("after")
                    await peer.ok(command, session="demo", epoch=EPOCH, head=self.total)
                    if after is None:
                        await peer.send(snapshot())
                    for frame in self.log(0 if after is None else int(after.split(":")[1])):
                        await peer.send(frame)
                        frames_left -= 1
                        if frames_left == 0:
                            peer.abort()
                            return
                case "history":
                    await peer.ok(command, messages=[], before=None)
                case _:
                    await peer.ok(command)

    async def serve(self, peer: Peer) -> None:
        """The same; the client may leave whenever it likes."""
        try:
            await self.script(peer)
        except (Hung, ConnectionError):
            pass


@pytest.mark.parametrize("seed", range(5))
async def test_a_storm_of_kills_loses_nothing_and_repeats_nothing(seed: int) -> None:
    storm, dice = Storm(seed, total=2000), Random(-seed)
    async with (
        ScriptedGateway(*[storm.serve] * 400, limit_s=50, exact=False) as gateway,
        client(gateway, buffer_events=64, command_sends=400) as opened,
    ):
        session = opened.session("demo")
        found: list[int] = []
        while not found or found[-1] < storm.total + 2:
            async for event in session.events():
                if isinstance(event, Entry):
                    found.append(event.seq)
                    if event.seq == storm.total + 2:
                        break
                if dice.random() < 0.01:
                    await session.history()
                if dice.random() < 0.01:
                    break  # and enter the loop again
        assert found == list(range(1, storm.total + 3))
        (message,) = session.messages
        assert (message.text, message.status) == (storm.text, "done")
        assert gateway.connections > 4
