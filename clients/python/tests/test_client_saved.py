"""What is saved of a session, and gone on from: in every place of every conformance case, and through a client."""

from __future__ import annotations

import json
from typing import Any

import pytest

from antiphon_client import CursorInvalid, Entry, Execution, Fold, Session, Snapshot, tool
from antiphon_client.saved import Saved, dump_fold, load_fold
from clients.python.tests.scripted_gateway import (
    END,
    EPOCH,
    START,
    Peer,
    ScriptedGateway,
    applied,
    approval_requested,
    call_requested,
    client,
    delta,
    entry,
    finished,
    running,
    sent,
    seqs,
    started,
    take,
)
from clients.python.tests.test_conformance import load_cases

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("case", load_cases())
def test_a_fold_goes_on_as_if_it_had_not_been_stored(case: dict[str, Any]) -> None:
    """Stored and loaded after every entry: the end is that of the case."""
    fold = Fold()
    for frame in case["entries"]:
        parsed = Entry.parse(frame)
        if parsed is not None:
            fold.apply(parsed)
            stored = through_json(dump_fold(fold))
            fold = load_fold(stored, None)
            assert through_json(dump_fold(fold)) == stored
    found = through_json(fold.as_dict())
    assert found["state"] == case["state"]
    if not any("seq" in message for message in case["messages"]):
        for message in found["messages"]:
            del message["seq"]
    assert found["messages"] == case["messages"]


def test_what_is_malformed_is_left_out() -> None:
    broken = {
        "state": {
            "snapshot": {"lanes": 5},
            "asked": {"i": 1},
            "ended": [["i"], "x"],
            "past": {"r": 1},
            "written": {"main": "x"},
        },
        "messages": [{"text": "without an id"}, 7],
    }
    assert load_fold(broken, None).as_dict() == Fold().as_dict()
    assert load_fold({}, None).as_dict() == Fold().as_dict()


@pytest.mark.parametrize("change", [{"format": 2}, {"session": "other"}, {"format": None}])
def test_what_is_not_of_this_session(change: dict[str, Any]) -> None:
    good = Saved("demo", None, None).as_dict()
    assert Saved.parse(good, "demo") == Saved("demo", None, None)
    with pytest.raises(ValueError, match="session demo"):
        Saved.parse({**good, **change}, "demo")


def test_cursors_of_what_is_saved() -> None:
    good = Saved("demo", None, None).as_dict()
    with pytest.raises(CursorInvalid):
        Saved.parse({**good, "cursor": "nonsense"}, "demo")
    beyond = Saved.parse({**good, "cursor": "e:5", "handled": "e:6"}, "demo")
    elsewhere = Saved.parse({**good, "cursor": "e:5", "handled": "f:4"}, "demo")
    assert (str(beyond.begin), str(elsewhere.begin)) == ("e:5", "e:5")
    assert str(Saved.parse({**good, "cursor": "e:5", "handled": "e:4"}, "demo").begin) == "e:4"


async def in_the_middle(peer: Peer) -> None:
    """A run that is at its third token."""
    await peer.opened()
    await peer.send(sent(1, 0, "i"), started(2, 1), applied(3, 2), entry(4, 3, START, run="run_i"))
    await peer.send(delta(5, 4, 0, "one "), delta(6, 5, 4, "two "))


async def folded(session: Session, seq: int) -> None:
    async for view in session.changes():
        if view.cursor == f"{EPOCH}:{seq}":
            return


class TestThroughAClient:
    async def test_in_the_middle_of_a_run(self) -> None:
        """State, text and events go on where they were; the events that were not given out come, folded once."""

        async def later(peer: Peer) -> None:
            await peer.welcome()
            await peer.subscribed(after=f"{EPOCH}:4")
            await peer.send(delta(5, 4, 0, "one "), delta(6, 5, 4, "two "), delta(7, 6, 8, "three"))
            await peer.send(entry(8, 7, END), finished(9, 8))

        async with ScriptedGateway(in_the_middle, later) as gateway:
            async with client(gateway) as opened:
                session = opened.session("demo")
                given = await take(session, 5)
                assert seqs(given) == [1, 2, 3, 4]
                await folded(session, 6)
                stored = through_json(session.save())
            async with client(gateway) as opened:
                session = opened.session("demo", saved=stored)
                assert [message.text for message in session.messages] == ["hi", "one two "]
                assert session.state.status == "running"
                assert session.cursor == f"{EPOCH}:4"
                assert seqs(await take(session, 5)) == [5, 6, 7, 8, 9]
                assert [message.text for message in session.messages] == ["hi", "one two three"]
                assert session.state.status == "idle"
                with pytest.raises(ValueError, match="is open"):
                    opened.session("demo", saved=stored)

    async def test_of_a_reader_who_does_not_iterate(self) -> None:
        async def later(peer: Peer) -> None:
            await peer.welcome()
            await peer.subscribed(after=f"{EPOCH}:6")
            await peer.send(delta(7, 6, 8, "three"), entry(8, 7, END), finished(9, 8))

        async with ScriptedGateway(in_the_middle, later) as gateway:
            async with client(gateway) as opened:
                session = opened.session("demo")
                await folded(session, 6)
                stored = through_json(session.save())
            async with client(gateway) as opened:
                session = opened.session("demo", saved=stored)
                await folded(session, 9)
                assert [message.text for message in session.messages] == ["hi", "one two three"]

    async def test_a_call_that_was_open_is_executed(self) -> None:
        """With a cursor alone it would not be seen: it was requested before that."""

        async def before(peer: Peer) -> None:
            await running(peer, {**call_requested(2, 1), "traceparent": TRACE}, approval_requested(3, 2))

        async def later(peer: Peer) -> None:
            await peer.welcome()
            await peer.subscribed(after=f"{EPOCH}:3")
            done: set[str] = set()
            while done != {"tool.result", "approval.respond"}:
                command = await peer.receive()
                await peer.ok(command, expiresAt=9_000_000, status="resolved")
                done |= {command["op"]} - {"tool.claim"}

        traces: list[str | None] = []

        @tool
        async def count(n: int, execution: Execution) -> int:
            traces.append(execution.trace.get("traceparent"))
            return n

        async with ScriptedGateway(before, later) as gateway:
            async with client(gateway) as opened:
                session = opened.session("demo")
                await folded(session, 3)
                stored = through_json(session.save())
            async with client(gateway) as opened:
                opened.session("demo", saved=stored, tools=[count], decide=lambda approval: "allow_once")
                await gateway.played(2)
        assert traces == [TRACE]

    async def test_a_log_that_is_another_by_now(self) -> None:
        """What was saved is void; the session begins with a snapshot, as with any cursor."""

        async def later(peer: Peer) -> None:
            await peer.welcome()
            await peer.error(await peer.expect("subscribe"), "cursor_epoch")
            await peer.subscribed()
            await peer.send({"op": "session.snapshot", "session": "demo", "asOf": 3, "messagesBefore": 0, "state": {}})

        async with ScriptedGateway(in_the_middle, later) as gateway:
            async with client(gateway) as opened:
                session = opened.session("demo")
                await folded(session, 6)
                stored = session.save()
            async with client(gateway) as opened:
                session = opened.session("demo", saved=stored)
                async for event in session.events():
                    if isinstance(event, Snapshot):
                        break
                assert session.messages == []

    async def test_nothing_was_read(self) -> None:
        async with ScriptedGateway() as gateway:
            opened = client(gateway)
            stored = opened.session("demo").save()
            again = client(gateway).session("demo", saved=stored)
            assert (again.cursor, again.messages) == (None, [])
            with pytest.raises(ValueError, match="its own cursor"):
                client(gateway).session("demo", cursor="e:1", saved=stored)
