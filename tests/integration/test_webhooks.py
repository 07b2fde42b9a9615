"""Webhooks: real gateways, workers and senders, and receivers that fail, wait and go."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web

from broker.codec import encode
from broker.events import ApprovalRequested, Entry, HandoffRequested, RunError, RunFinished
from tests.support.dev import dev
from tests.support.place import Place
from tests.support.plane import AGENT, LaneOwner, PlaneWorld, now_ms, plane_world
from tests.support.rawclient import http_get
from tests.support.receiver import Received, Receiver, receiving, write_file
from tests.support.stack import Process, metric

pytestmark = [pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]

FAST = {"webhook_retry_max_s": "0.3", "webhook_retry_min_s": "0.05", "webhook_reload_s": "0.1"}
LEADING = "this process sends webhooks from now on"
WAIT_S = 30.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plane(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PlaneWorld]:
    async with plane_world(tmp_path_factory.mktemp("webhooks")) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def world(plane: PlaneWorld) -> AsyncIterator[PlaneWorld]:
    """Gateways and a log that all tests share; what a test has started beside them, and its outbox, go with it."""
    yield plane
    for process in plane.stack.processes:
        assert "Traceback" not in process.output()
        if process not in plane.gateways:
            process.resume()
            await process.kill()
    plane.stack.processes = list(plane.gateways)
    await plane.connection.purge("HOOKS", "hooks.>")


async def says(process: Process, event: str, count: int = 1) -> None:
    """Returns when the process has logged an event so often."""
    async with asyncio.timeout(WAIT_S):
        while sum(line.get("event") == event for line in process.logged()) < count:
            await asyncio.sleep(0.02)


async def sending(world: PlaneWorld, file: Path, **env: str) -> Process:
    """A process that sends, from now on."""
    process = await world.stack.webhooks(file, **{**FAST, **env})
    await says(process, LEADING)
    return process


def approval(id_: str, *, kind: str = "approval", roles: tuple[str, ...] | None = None) -> ApprovalRequested:
    options = ("allow_once", "reject_once") if kind == "approval" else ("answer", "decline")
    return ApprovalRequested(id_, kind, "Delete 3 files?", options, options[1], roles=roles)


async def after(receiver: Receiver, owner: LaneOwner) -> None:
    """Returns when the receiver has what happens now: what happened before and did not come will not come."""
    await owner.finish()
    await receiver.has("run.finished", owner.session)


# --- what is told --------------------------------------------------------------------------------------------------------


async def test_each_kind_is_told_once_and_withdrawn(world: PlaneWorld, tmp_path: Path) -> None:
    async with receiving("one") as (one,):
        await sending(world, write_file(tmp_path / "hooks.json", one.table()))
        session = world.session()
        owner = await world.running(session)
        await owner.write(approval("a1", roles=("boss",)), approval("q1", kind="question"))
        async with await world.wire("user-2", roles=["boss", "support"]) as wire:
            await wire.command("approval.respond", session=session, approvalId="a1", option="allow_once")
            await owner.write(HandoffRequested("h1", "support", "refund", "They want their money back"))
            await one.has("handoff.waiting", session)
            await wire.command("handoff.claim", session=session, handoffId="h1")
        await one.has("run.cancelled", session)
        failing = await world.running(world.session())
        await failing.write(RunError("it broke", "agent_error"))
        await one.has("run.failed", failing.session)
        assert one.types(session) == [
            *("approval.waiting", "question.waiting", "approval.resolved"),
            *("handoff.waiting", "handoff.resolved", "question.resolved", "run.cancelled"),
        ]
        told = {r.type: r.data for r in one.taken}
        assert told["approval.waiting"]["for"] == {"users": [], "roles": ["boss"]}
        assert told["question.waiting"]["for"] == {"users": ["user-1"], "roles": []}
        assert told["approval.resolved"]["by"] == ["user-2"]
        assert told["approval.resolved"]["decision"] == "allow_once"
        assert told["handoff.resolved"]["status"] == "accepted"
        assert told["question.resolved"]["status"] == "cancelled"
        assert (told["run.cancelled"]["reason"], told["run.failed"]["reason"]) == ("handed_over", "agent_error")
        assert len({r.id for r in one.requests}) == len(one.requests)
        # Nothing of what was said is told without being asked for.
        assert not any(word in r.body for r in one.requests for word in (b"Delete", b"money", b"it broke"))


async def test_only_what_the_fold_counts_is_told(world: PlaneWorld, tmp_path: Path) -> None:
    async with receiving("one") as (one,):
        await sending(world, write_file(tmp_path / "hooks.json", one.table()))
        owner = await world.running(world.session())
        session, subjects = owner.session, world.log.subjects(owner.session)
        stale = Entry(
            f"{owner.fence}-9", now_ms(), (approval("a0"), RunFinished(session, "run_first")), "main", by=AGENT
        )
        await owner.claim()
        # A zombie whom nothing guards the log from: the fold does not count its entry, so it is not told.
        await world.connection.publish(subjects.events("main"), encode(stale))
        # A repetition of a write whose outcome was not known, and a decision of somebody who may not decide.
        place = await owner.write(approval("a1", roles=("boss",)))
        await one.has("approval.waiting", session)
        again = Entry(f"{owner.fence}-{owner.n}", now_ms(), (approval("a2"),), "main", "run_first", AGENT)
        assert await world.log.append(subjects, "main", owner.fence, again) > place
        await after(one, owner)
        assert one.types(session) == ["approval.waiting", "approval.resolved", "run.finished"]
        assert [r.data["approvalId"] for r in one.taken[:2]] == ["a1", "a1"]
        assert one.taken[1].data["status"] == "cancelled"


async def test_a_copy_of_the_past_is_not_told(world: PlaneWorld, tmp_path: Path) -> None:
    async with receiving("one") as (one,):
        file = write_file(tmp_path / "hooks.json", one.table())
        await sending(world, file, webhook_stale_s="1")
        owner = await world.running(world.session())
        await owner.write(approval("a1"))
        await after(one, owner)
        async with await world.wire() as wire:
            fork = await wire.command("session.fork", session=owner.session, to="forked")
            assert fork["messages"] == 1
        exported = tmp_path / "exported.jsonl"
        code, output = await world.stack.run("export", owner.session, "-o", str(exported))
        assert code == 0, output
        # What was written is older than `webhook_stale_s` by the time it is restored.
        await asyncio.sleep(1.5)
        code, output = await world.stack.run("import", "copied", str(exported))
        assert code == 0, output
        async with await world.wire() as wire:
            await wire.input("copied", "more", "and now?")
        state = await world.state("copied")
        live = LaneOwner(world.log, "copied", fence=state.lane("main").fence)
        await live.claim()
        await live.start("more")
        await after(one, live)
        assert one.types("copied") == ["run.finished"]
        assert one.types("forked") == []


async def test_a_deleted_session_takes_what_waits_of_it_along(world: PlaneWorld, tmp_path: Path) -> None:
    async with receiving("one", "two") as (one, two):
        await two.down()
        await sending(world, write_file(tmp_path / "hooks.json", one.table(), two.table()))
        owner = await world.running(world.session())
        await owner.write(approval("a1"))
        await one.has("approval.waiting", owner.session)
        async with await world.wire() as wire:
            await wire.command("session.delete", session=owner.session)
        await one.has("run.cancelled", owner.session)
        assert one.types(owner.session) == ["approval.waiting", "approval.resolved", "run.cancelled"]
        assert one.taken[-1].data["reason"] == "session_deleted"
        await two.up()
        await two.has("run.cancelled", owner.session)
        # It has never heard that something waits: only that it waits no more.
        assert two.types(owner.session) == ["approval.resolved", "run.cancelled"]


async def test_a_user_who_watches_is_not_told(world: PlaneWorld, tmp_path: Path) -> None:
    async with receiving("away", "always") as (away, always):
        file = write_file(tmp_path / "hooks.json", away.table(when="away"), always.table())
        sender = await sending(world, file, webhook_port=str(port := Receiver("unused").port))
        owner = await world.running(world.session())
        async with await world.wire() as wire:
            await wire.subscribe(Place(owner.session))
            await owner.write(approval("a1"))
            told = await always.has("approval.waiting", owner.session)
            assert (told.data["watching"], told.data["away"]) == (["user-1"], False)
            async with asyncio.timeout(WAIT_S):
                while metric((await http_get(f"http://127.0.0.1:{port}/metrics"))[1], SKIPPED, endpoint="away") < 1:
                    await asyncio.sleep(0.05)
        # The grace, in which who has left may be reloading a page, is 10 s.
        async with asyncio.timeout(WAIT_S):
            for n in range(60):
                await owner.write(approval(f"b{n}"))
                if (await nth(always, "approval.waiting", owner.session, n + 1)).data["away"]:
                    break
                await asyncio.sleep(0.5)
        assert (await away.has("approval.waiting", owner.session)).data["away"] is True
        assert sender.running


SKIPPED = "antiphon_webhook_skipped_total"


async def nth(receiver: Receiver, type_: str, session: str, n: int) -> Received:
    def found(_: Receiver) -> list[Received]:
        return [r for r in receiver.taken if (r.type, r.session) == (type_, session)]

    await receiver.until(lambda r: len(found(r)) > n)
    return found(receiver)[n]


async def test_what_a_real_agent_does_is_told_with_its_name_and_its_words(world: PlaneWorld, tmp_path: Path) -> None:
    async with receiving("one", "text") as (one, text):
        file = write_file(tmp_path / "hooks.json", one.table(), text.table(include=["text"]))
        await sending(world, file)
        await world.stack.worker("tests.support.agents_people:approving")
        session = world.session()
        async with await world.wire() as wire:
            await wire.input(session, "ask", json.dumps({"roles": ["boss"]}))
            waiting = await text.has("approval.waiting", session)
            assert (waiting.data["agent"], waiting.data["text"]) == ("approving", "Delete 3 files?")
        async with await world.wire("user-2", roles=["boss"]) as wire:
            id_ = waiting.data["approvalId"]
            await wire.command("approval.respond", session=session, approvalId=id_, option="allow_once")
        finished = await text.has("run.finished", session)
        assert finished.data["text"].startswith("allow_once resolved by [user-2]")
        assert finished.data["for"] == {"users": ["user-1"], "roles": []}
        await one.has("run.finished", session)
        # Sessions of the tests before may end meanwhile: between sessions there is no order.
        told = [[r.id for r in receiver.taken if r.data["session"] == session] for receiver in (one, text)]
        assert told[0] == told[1]
        assert not any("text" in r.data for r in one.taken)


# --- that it comes, once -------------------------------------------------------------------------------------------------


async def test_a_receiver_that_was_down_gets_all_in_order(world: PlaneWorld, tmp_path: Path) -> None:
    async with receiving("one", "two") as (one, two):
        await two.down()
        await sending(world, write_file(tmp_path / "hooks.json", one.table(), two.table()))
        owners = [await world.running(world.session()) for _ in range(20)]
        for owner in owners:
            await owner.write(*(approval(f"a{n}") for n in range(25)))
            await owner.finish()
        wanted = [*["approval.waiting"] * 25, *["approval.resolved"] * 25, "run.finished"]
        await one.until(lambda r: len(r.taken) == 20 * 51)
        assert two.requests == []
        await two.up()
        await two.until(lambda r: len(r.taken) >= 20 * 51)
        for owner in owners:
            assert one.types(owner.session) == two.types(owner.session) == wanted
            ids = [[r.id for r in receiver.taken if r.session == owner.session] for receiver in (one, two)]
            assert ids[0] == ids[1]
            assert len(set(ids[0])) == 51


async def test_an_event_that_fails_is_sent_again_before_those_behind_it(world: PlaneWorld, tmp_path: Path) -> None:
    async with receiving("one") as (one,):
        failed: dict[str, int] = {}

        async def twice(received: Received) -> web.Response:
            failed[received.id] = failed.get(received.id, 0) + 1
            return web.Response(status=500 if failed[received.id] < 3 else 200)

        one.answer = twice
        await sending(world, write_file(tmp_path / "hooks.json", one.table()))
        owner = await world.running(world.session())
        await owner.write(approval("a1"))
        await after(one, owner)
        assert one.types(owner.session) == ["approval.waiting", "approval.resolved", "run.finished"]
        assert [r.id for r in one.requests] == [r.id for r in one.taken for _ in range(3)]
        bodies = {r.id: {other.body for other in one.requests if other.id == r.id} for r in one.taken}
        assert all(len(same) == 1 for same in bodies.values())


async def test_a_slow_receiver_does_not_hold_up_another(world: PlaneWorld, tmp_path: Path) -> None:
    async with receiving("slow", "fast") as (slow, fast):
        release = asyncio.Event()

        async def never(_: Received) -> web.Response:
            await release.wait()
            return web.Response()

        slow.answer = never
        file = write_file(tmp_path / "hooks.json", slow.table(timeout_s=60, in_flight=1), fast.table())
        await sending(world, file)
        owners = [await world.running(world.session()) for _ in range(20)]
        for owner in owners:
            await owner.finish()
        await fast.until(lambda r: len(r.taken) == 20)
        assert (len(slow.requests), slow.taken) == (1, [])
        release.set()
        await slow.until(lambda r: len(r.taken) == 20)


async def test_a_sender_that_is_killed_before_the_answer_sends_again(world: PlaneWorld, tmp_path: Path) -> None:
    async with receiving("one") as (one,):
        file = write_file(tmp_path / "hooks.json", one.table())
        first = await sending(world, file)
        second = await world.stack.webhooks(file, **FAST)

        async def kills(received: Received) -> web.Response:
            if first.running:
                await first.kill()
            return web.Response()

        one.answer = kills
        owner = await world.running(world.session())
        await owner.write(approval("a1"))
        await says(second, LEADING)
        await after(one, owner)
        ids = [r.id for r in one.requests]
        # The receiver has seen the first twice, and knows it by its id; the others once.
        assert ids[0] == ids[1]
        assert len(set(ids)) == len(ids) - 1 == 3


async def test_a_sender_that_stood_still_sends_nothing_any_more(world: PlaneWorld, tmp_path: Path) -> None:
    async with receiving("one") as (one,):
        file = write_file(tmp_path / "hooks.json", one.table())
        first = await sending(world, file)
        second = await world.stack.webhooks(file, **FAST)
        owner = await world.running(world.session())
        await owner.write(approval("a1"))
        await one.has("approval.waiting", owner.session)
        first.pause()
        await says(second, LEADING)
        first.resume()
        await says(first, "this process sends no webhooks any more")
        await after(one, owner)
        # It may have stood still between an answer and its note: then the first came twice.
        assert [r.type for r in one.events] == ["approval.waiting", "approval.resolved", "run.finished"]
        assert len(one.requests) <= 4
        # Told to leave, a sender lets the next one begin at once, not after its lease.
        await second.terminate()
        await says(first, LEADING, 2)


async def test_nothing_is_lost_while_nobody_sends(world: PlaneWorld, tmp_path: Path) -> None:
    async with receiving("one", "late") as (one, late):
        file = write_file(tmp_path / "hooks.json", one.table())
        before = await sending(world, file)
        owner = await world.running(world.session())
        await owner.write(approval("a1"))
        await one.has("approval.waiting", owner.session)
        await before.kill()
        await owner.write(approval("a2"))
        await owner.finish()
        # A receiver that is new begins at now, whatever the others still have to hear.
        write_file(file, one.table(), late.table())
        await sending(world, file)
        await one.has("run.finished", owner.session)
        assert [(r.type, r.data.get("approvalId")) for r in one.events] == [
            *(("approval.waiting", "a1"), ("approval.waiting", "a2")),
            *(("approval.resolved", "a1"), ("approval.resolved", "a2"), ("run.finished", None)),
        ]
        now = await world.running(world.session())
        await after(late, now)
        assert [r.session for r in late.taken] == [now.session]


# --- what an operator does -----------------------------------------------------------------------------------------------


async def test_the_file_is_read_again_when_it_changes(world: PlaneWorld, tmp_path: Path) -> None:
    async with receiving("one") as (one,):
        file = write_file(tmp_path / "hooks.json")
        sender = await sending(world, file)
        before = await world.running(world.session())
        await before.finish()
        write_file(file, one.table(sessions=["plane-*"]))
        await says(sender, "the file of endpoints has changed")
        owner = await world.running(world.session())
        await after(one, owner)
        assert one.types(before.session) == []
        old, one.secret = one.secret, replace_secret(one)
        write_file(file, one.table(secrets=[old, one.secret]))
        await says(sender, "the file of endpoints has changed", 2)
        await after(one, await world.running(world.session()))
        file.write_text("nonsense")
        await says(sender, "the file of endpoints cannot be used; the one before counts on")
        await after(one, await world.running(world.session()))
        assert old not in sender.output()
        assert one.secret not in sender.output()
        code, output = await world.stack.run("webhooks", "--webhook-file", str(file))
        assert code == 1
        assert "is not JSON" in output


async def test_a_signal_has_the_file_read_at_once(world: PlaneWorld, tmp_path: Path) -> None:
    async with receiving("one") as (one,):
        file = write_file(tmp_path / "hooks.json")
        sender = await sending(world, file, webhook_reload_s="3600")
        write_file(file, one.table())
        os.kill(sender.pid, signal.SIGHUP)
        await says(sender, "the file of endpoints has changed")
        await after(one, await world.running(world.session()))


def replace_secret(receiver: Receiver) -> str:
    return replace(receiver, secret=Receiver("fresh").secret).secret


async def test_what_was_given_up_is_listed_and_sent_again(world: PlaneWorld, tmp_path: Path) -> None:
    async with receiving("one") as (one,):

        async def refuse(_: Received) -> web.Response:
            return web.Response(status=400)

        one.answer = refuse
        file = write_file(tmp_path / "hooks.json", one.table(tries=2))
        sender = await sending(world, file)
        owner = await world.running(world.session())
        await owner.finish()
        await says(sender, "an event was given up")
        assert len(one.requests) == 2
        asked = {"webhook_file": str(file), "webhook_networks": "127.0.0.0/8"}
        code, output = await world.stack.run("webhooks", "list", "--json", **asked)
        assert code == 0, output
        (row,) = json.loads(output)
        assert (row["endpoint"], row["waiting"], row["givenUp"]) == ("one", 0, 1)
        (event,) = row["latest"]
        assert (event["reason"], event["status"], event["tries"]) == ("refused", 400, 2)
        assert f"{event['id']}  run.finished" in (await world.stack.run("webhooks", "list", **asked))[1]
        assert owner.session in (await world.stack.run("webhooks", "show", event["id"], **asked))[1]
        assert "refused (HTTP 400)" in (await world.stack.run("webhooks", "test", "one", **asked))[1]
        one.answer = None
        code, output = await world.stack.run("webhooks", "test", "one", **asked)
        assert (code, output.strip()) == (0, "one: delivered (HTTP 204)")
        code, output = await world.stack.run("webhooks", "retry", "one", **asked)
        assert (code, output.strip()) == (0, "1 events wait again")
        assert (await one.has("run.finished", owner.session)).id == event["id"]
        assert (await world.stack.run("webhooks", "retry", event["id"], **asked))[0] == 1


async def test_a_receiver_that_is_gone_is_left_alone(world: PlaneWorld, tmp_path: Path) -> None:
    async with receiving("one") as (one,):

        async def gone(_: Received) -> web.Response:
            return web.Response(status=410)

        one.answer = gone
        file = write_file(tmp_path / "hooks.json", one.table())
        first = await sending(world, file)
        await (await world.running(world.session())).finish()
        await says(first, "an endpoint is gone (410) and is sent nothing more")
        await says(first, "an event was given up")
        await first.terminate()
        second = await sending(world, file)
        await (await world.running(world.session())).finish()
        asked = {"webhook_file": str(file)}
        assert "one [gone]: 0 waiting" in (await world.stack.run("webhooks", "list", **asked))[1]
        assert len(one.requests) == 1
        one.answer = None
        code, output = await world.stack.run("webhooks", "resume", "one", **asked)
        assert code == 0, output
        await says(second, "an endpoint is told again")
        await after(one, owner := await world.running(world.session()))
        assert {r.session for r in one.taken} == {owner.session}


async def test_retry_after_is_waited_for(world: PlaneWorld, tmp_path: Path) -> None:
    async with receiving("one") as (one,):
        times: list[float] = []

        async def later(_: Received) -> web.Response:
            times.append(asyncio.get_running_loop().time())
            return web.Response(status=429 if len(times) == 1 else 200, headers={"Retry-After": "2"})

        one.answer = later
        await sending(world, write_file(tmp_path / "hooks.json", one.table()))
        owners = [await world.running(world.session()) for _ in range(3)]
        await owners[0].finish()
        await one.until(lambda r: r.requests)
        for owner in owners[1:]:
            await owner.finish()
        await one.until(lambda r: len(r.taken) == 3)
        # It speaks for the receiver: no other event was sent meanwhile.
        assert times[1] - times[0] >= 1.95


async def test_dev_sends_webhooks_if_there_is_a_file(tmp_path: Path) -> None:
    async with receiving("one") as (one,):
        file = write_file(tmp_path / "hooks.json", one.table())
        async with dev(tmp_path / "data", "--port", "0", "--webhook-file", str(file)) as running:
            ran = await running.run("send", "demo", "hello", "--wait")
            assert ran.code == 0, ran
            assert (await one.has("run.finished", "demo")).data["agent"] == "echo"
