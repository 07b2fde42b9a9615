"""Inputs that workers die of: given up after as many as is allowed, seen by an operator, and sent again."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from broker.dead import dead_of, retry_id
from broker.events import Entry, InputApplied, InputSent, Participant, RunError, RunStarted, SessionOwner
from tests.support.nats import NatsNode
from tests.support.site import LEASE_S, open_site, said
from tests.support.stack import Stack

pytestmark = [pytest.mark.timeout(300), pytest.mark.nats_roles]

AGENT = Participant("agent", "echo")


async def test_an_input_that_kills_its_workers(nats_server: NatsNode, tmp_path: Path) -> None:
    async with (
        open_site(nats_server.url) as site,
        Stack(tmp_path / "stack", nats_server.url, partitions=2, lease_s=LEASE_S, env={"MAX_ATTEMPTS": "2"}) as stack,
    ):
        workers = [await stack.worker("tests.support.agents:poisoned") for _ in range(2)]
        run_id = await site.send("s", "poison", "a")
        async with asyncio.timeout(60):
            for worker in workers:
                await worker.process.wait()
        assert (await stack.run("dead", "list"))[1] == ""
        third = await stack.worker("tests.support.agents:poisoned")
        transcript = await site.ended("s", run_id)
        assert transcript.state.end_of(run_id).status == "error"  # type: ignore[union-attr]
        # The worker is not lost over it, nor is the session.
        assert said(await site.ended("s", await site.send("s", "bread", "b"))) == "got bread"
        assert third.running
        await site.send("other", "bread", "b")
        code, listed = await stack.run("dead", "list", "--json")
        (dead,) = [json.loads(line) for line in listed.splitlines()]
        assert code == 0
        assert (dead["session"], dead["inputId"], dead["lost"], dead["by"]) == ("s", "a", 2, "user-1")
        assert "poison" not in listed
        _, shown = await stack.run("dead", "show", "s", "a")
        assert shown.endswith("a by user-1:\npoison\n")
        code, said_no = await stack.run("dead", "show", "s", "b")
        assert (code, said_no) == (
            1,
            "antiphon: no input 'b' of the session 's' was given up: see `antiphon dead list`\n",
        )
        assert (await stack.run("dead", "retry", "s"))[0] == 1
        await third.terminate()
        await stack.worker("tests.support.agents:cured")
        assert await stack.run("dead", "retry", "s", "a") == (0, f"a is sent again, as {retry_id('a')}\n")
        again = await site.ended("s", f"run_{retry_id('a')}")
        assert again.messages[-1].text == "swallowed poison"
        assert again.messages[-2].by == Participant("user", "user-1")
        # Twice is once, and it is listed no more.
        code, already = await stack.run("dead", "retry", "s", "a")
        assert (code, already) == (0, f"a has been sent again already, as {retry_id('a')}\n")
        assert (await stack.run("dead", "list"))[1] == ""
        assert "sent again" in (await stack.run("dead", "list", "s", "--all"))[1]
        audited = await stack.run("audit", "--action", "dead.retry")
        assert audited[1].count("dead.retry") == 2


async def test_a_session_that_takes_no_inputs_says_why(nats_server: NatsNode, tmp_path: Path) -> None:
    from broker.events import SessionClosed

    async with (
        open_site(nats_server.url) as site,
        Stack(tmp_path / "stack", nats_server.url, partitions=2, lease_s=LEASE_S) as stack,
    ):
        worker = await stack.worker("tests.support.agents:fails")
        run_id = await site.send("s", "stream 500 tokens at 50/s", "a")
        await site.streaming("s")
        await worker.kill()
        await stack.worker("tests.support.agents:fails")
        await site.ended("s", run_id)
        await site.say("s", SessionClosed())
        assert "s  a  workers lost: 1" in (await stack.run("dead", "list"))[1]
        assert await stack.run("dead", "retry", "s", run_id) == (
            1,
            "antiphon: the session does not take it: session_closed\n",
        )


def test_only_what_counts_is_dead() -> None:
    """A former owner's word that the run is lost, written after the lane was taken, is none."""

    def lane(seq: int, id_: str, *events: object) -> tuple[int, Entry]:
        return seq, Entry(id_, seq, events, "main", "run_a", AGENT)  # type: ignore[arg-type]

    def owner(seq: int, worker: str) -> tuple[int, Entry]:
        return seq, Entry(f"own-{worker}", seq, (SessionOwner("main", "agent", worker),), "main", by=AGENT)

    begin = [
        (1, Entry("a", 1, (InputSent("a", "x"),), by=Participant("user", "user-1"))),
        owner(2, "w-1"),
        lane(3, "2-1", RunStarted("s", "run_a"), InputApplied("a", "run_a", "msg_a")),
        owner(4, "w-2"),
    ]
    lost = RunError("lost", "worker_lost")
    assert dead_of([*begin, lane(5, "2-2", lost)]) == []
    assert dead_of([*begin, lane(5, "4-1", RunError("raised", "agent_error"))]) == []
    (dead,) = dead_of([*begin, lane(5, "4-1", lost)])
    assert (dead.run_id, dead.input_id, dead.lost, dead.retried) == ("run_a", "a", 1, False)
    again = (6, Entry("r", 6, (InputSent(retry_id("a"), "x"),)))
    assert [d.retried for d in dead_of([*begin, lane(5, "4-1", lost), again])] == [True]
