"""Versions of an agent in one pool: which of them answered, and draining one while its runs are going on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from broker.events import ApprovalResponded, Entry, RunFinished, RunStarted, RunTakenOver, SessionCreated
from broker.permissions import Role
from broker.transcript import Transcript
from tests.support.nats import NatsNode, free_ports
from tests.support.rawclient import http_get
from tests.support.releases import FIRST_PLANE, checked_out
from tests.support.roles import settings_of
from tests.support.site import LEASE_S, WAIT_S, Site, open_site
from tests.support.stack import Process, Stack, metric, read_entries

pytestmark = [pytest.mark.timeout(300), pytest.mark.nats_roles]

OLD, NEW = "1.0", "2.0"
GATED = "tests.support.agents:until_open"
"""Says a token twice a second until the file is there that is its input."""
LONG_S = "200"
"""A drain time that no run here outlasts."""


@asynccontextmanager
async def opened(
    nats: NatsNode, tmp_path: Path, *, lease_s: float = LEASE_S, pools: str = "default"
) -> AsyncIterator[tuple[Site, Stack]]:
    stack = Stack(tmp_path / "stack", nats.url, partitions=2, lease_s=lease_s, env={"POOLS": pools})
    async with open_site(nats.url, lease_s=lease_s, pools=pools) as site, stack:
        yield site, stack


async def hire(stack: Stack, version: str, agent: str = GATED, drain_s: str = LONG_S, **env: str) -> Process:
    return await stack.worker(agent, worker_version=version, worker_drain_s=drain_s, **env)


async def workers(stack: Stack, *args: str, **env: str) -> str:
    """An `antiphon workers` that must succeed; what it printed."""
    code, output = await stack.run("workers", *args, **env)
    assert code == 0, output
    return output


async def drain(stack: Stack, version: str = OLD, *args: str, pool: str = "default") -> str:
    return await workers(stack, "drain", "--pool", pool, "--version", version, *args)


async def listed(stack: Stack, *args: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (await workers(stack, "list", "--json", *args)).splitlines()]


async def until_listed(stack: Stack, wanted: dict[str, str], *args: str) -> None:
    """Returns when the workers are in these states, by version; one of each."""
    found: dict[str, str] = {}
    try:
        async with asyncio.timeout(WAIT_S):
            while found != wanted:
                found = {each["version"]: each["state"] for each in await listed(stack, *args) if "state" in each}
    except TimeoutError:
        raise AssertionError(f"there are {found}, not {wanted}") from None


async def logged(worker: Process, event: str) -> dict[str, Any]:
    """Returns when a worker has logged this."""
    async with asyncio.timeout(WAIT_S):
        while True:
            for line in worker.logged():
                if line["event"] == event:
                    return line
            await asyncio.sleep(0.02)


async def at_work(worker: Process, sessions: list[str]) -> None:
    async with asyncio.timeout(WAIT_S):
        while worker.claimed() != set(sessions):
            await asyncio.sleep(0.02)


async def says_more(site: Site, session: str, count: int) -> None:
    """Returns when an agent has said so many tokens more than it has by now."""

    async def said() -> int:
        return sum(entry.off is not None for _, entry in await read_entries(site.log, session))

    before = await said()
    async with asyncio.timeout(WAIT_S):
        while await said() < before + count:
            await asyncio.sleep(0.1)


def attempt_of(transcript: Transcript, run_id: str) -> int:
    run = transcript.state.runs.get(run_id)
    return 0 if run is None else run.attempt


def versions_of(entries: list[tuple[int, Entry]], kind: type) -> list[str | None]:
    """By which versions events of a kind were written, in order."""
    return [
        entry.by.version if entry.by is not None else None
        for _, entry in entries
        for event in entry.events
        if isinstance(event, kind)
    ]


# --- draining in the middle of runs --------------------------------------------------------------------------------


async def test_a_version_is_drained_in_the_middle_of_its_runs_and_taken_back(
    nats_server: NatsNode, tmp_path: Path
) -> None:
    """No run is cut, none is lost, and no new one begins on it. The lease is long: what moves at once has been let go of."""
    gate, sessions = tmp_path / "gate", [f"s{i}" for i in range(5)]
    async with opened(nats_server, tmp_path, lease_s=60.0) as (site, stack):
        old = await hire(stack, OLD)
        running = [await site.send(name, str(gate), "a") for name in sessions]
        for name in sessions:
            await site.streaming(name)
        queued = [await site.send(name, str(gate), "b") for name in sessions]
        new = await hire(stack, NEW)
        output = await drain(stack)
        assert output.startswith("workers of version 1.0 take no more jobs of the pool default until 2")
        await until_listed(stack, {OLD: "draining", NEW: "taking"})
        fresh = [await site.send(f"t{i}", str(gate), "a") for i in range(5)]
        await at_work(new, [f"t{i}" for i in range(5)])
        gate.touch()
        for name, first, second in zip(sessions, running, queued, strict=True):
            for run_id in (first, second):
                transcript = await site.ended(name, run_id)
                assert transcript.state.end_of(run_id).status == "success"  # type: ignore[union-attr]
            entries = await read_entries(site.log, name)
            assert versions_of(entries, RunStarted) == [OLD, NEW]
            assert versions_of(entries, RunFinished) == [OLD, NEW]
            assert versions_of(entries, RunTakenOver) == []
        for i, run_id in enumerate(fresh):
            await site.ended(f"t{i}", run_id)
        assert old.claimed() == set(sessions)

        # It stays, with nothing left; and one of it that starts now takes nothing.
        await drain(stack, OLD, "--wait-s", "60")
        assert old.running
        newer = await hire(stack, OLD)
        await logged(newer, "drained: no more jobs are taken")
        for i in range(5, 10):
            name = f"t{i}"
            await site.ended(name, await site.send(name, str(gate), "a"))
            assert versions_of(await read_entries(site.log, name), RunStarted) == [NEW]
        assert newer.claimed() == set()

        # Taken back: both versions of before serve again, without a restart.
        assert await new.terminate() == 0
        await newer.terminate()
        await workers(stack, "undrain", "--pool", "default", "--version", OLD)
        await site.ended("last", await site.send("last", str(gate), "a"))
        assert versions_of(await read_entries(site.log, "last"), RunFinished) == [OLD]
        assert old.claimed() == {*sessions, "last"}


async def test_what_outlasts_the_drain_time_or_waits_for_people_is_handed_over(
    nats_server: NatsNode, tmp_path: Path
) -> None:
    """One process for two pools: draining one of them leaves the other alone."""
    gate, agents = (
        tmp_path / "gate",
        ("--agent", f"default={GATED}", "--agent", "people=tests.support.agents_people:approving"),
    )
    async with opened(nats_server, tmp_path, lease_s=60.0, pools="default,people") as (site, stack):
        await site.say("waits", SessionCreated(config={"pool": "people"}))
        old = await stack.start_worker(agents, worker_version=OLD, worker_drain_s="0.5")
        long = await site.send("long", str(gate), "a")
        await site.streaming("long")
        waits = await ask(site, "waits")
        new = await stack.start_worker(agents, worker_version=NEW, worker_drain_s="0.5")

        await drain(stack, pool="people")
        await site.until("waits", lambda t: attempt_of(t, waits) == 2)
        assert await states(stack) == {
            ("default", OLD, "taking"),
            ("default", NEW, "taking"),
            ("people", OLD, "drained"),
            ("people", NEW, "taking"),
        }
        assert versions_of(await read_entries(site.log, "long"), RunTakenOver) == []
        await drain(stack)
        await site.until("long", lambda t: attempt_of(t, long) == 2)
        gate.touch()
        transcript = await site.ended("long", long)
        assert transcript.state.end_of(long).status == "success"  # type: ignore[union-attr]
        text = "".join(m.text for m in transcript.messages if m.role == "assistant")
        assert text == "".join(f"t{i} " for i in range(text.count("t"))) + "end"
        entries = await read_entries(site.log, "long")
        assert versions_of(entries, RunTakenOver) == versions_of(entries, RunFinished) == [NEW]

        transcript = await site.until("waits", lambda t: t.state.approvals)
        (approval,) = transcript.state.approvals.values()
        await site.say("waits", ApprovalResponded(approval.id, "allow_once"))
        await site.ended("waits", waits)
        entries = await read_entries(site.log, "waits")
        assert versions_of(entries, RunTakenOver) == versions_of(entries, RunFinished) == [NEW]
        assert old.running
        assert new.running


async def ask(site: Site, session: str) -> str:
    """Has a run of the pool `people` wait for a decision; returns its id."""
    run_id = await site.send(session, "{}", "a", pool="people")
    await site.until(session, lambda t: any(a.run == run_id for a in t.state.approvals.values()))
    return run_id


async def states(stack: Stack) -> set[tuple[str, str, str]]:
    return {(each["pool"], each["version"], each["state"]) for each in await listed(stack) if "state" in each}


async def test_a_version_that_finishes_hands_nothing_over(nats_server: NatsNode, tmp_path: Path) -> None:
    """Its drain time is over at once; its run goes on for as long as it takes, and what is queued behind is the new one's."""
    gate = tmp_path / "gate"
    async with opened(nats_server, tmp_path, lease_s=60.0) as (site, stack):
        old = await hire(stack, OLD, drain_s="0")
        run_id = await site.send("s", str(gate), "a")
        await site.streaming("s")
        behind = await site.send("s", str(gate), "b")
        await hire(stack, NEW)
        await drain(stack, OLD, "--finish")
        await until_listed(stack, {OLD: "finishing", NEW: "taking"})
        code, output = await stack.run(
            "workers", "drain", "--pool", "default", "--version", OLD, "--finish", "--wait-s=1"
        )
        assert (code, output.splitlines()[-1]) == (1, "antiphon: 1 workers of it still have 1 sessions")
        await says_more(site, "s", 3)
        gate.touch()
        await site.ended("s", run_id)
        await site.ended("s", behind)
        entries = await read_entries(site.log, "s")
        assert versions_of(entries, RunStarted) == versions_of(entries, RunFinished) == [OLD, NEW]
        assert versions_of(entries, RunTakenOver) == []
        await until_listed(stack, {OLD: "drained", NEW: "taking"})
        assert old.running


async def test_a_finishing_version_that_is_told_to_hurry_hands_over(nats_server: NatsNode, tmp_path: Path) -> None:
    """By a drain without --finish, and by SIGTERM."""
    gate = tmp_path / "gate"
    async with opened(nats_server, tmp_path, lease_s=60.0) as (site, stack):
        await hire(stack, OLD, drain_s="0")
        run_id = await site.send("s", str(gate), "a")
        await site.streaming("s")
        new = await hire(stack, NEW, drain_s="0")
        await drain(stack, OLD, "--finish")
        await until_listed(stack, {OLD: "finishing", NEW: "taking"})
        await drain(stack)
        await at_work(new, ["s"])
        await drain(stack, NEW, "--finish")
        await until_listed(stack, {OLD: "drained", NEW: "finishing"})
        assert await stack.run("workers", "undrain", "--pool", "default", "--version", OLD) == (
            0,
            "workers of version 1.0 take jobs of the pool default again\n",
        )
        assert await new.terminate() == 0
        await site.until("s", lambda t: attempt_of(t, run_id) == 3)
        gate.touch()
        transcript = await site.ended("s", run_id)
        assert transcript.state.end_of(run_id).status == "success"  # type: ignore[union-attr]
        entries = await read_entries(site.log, "s")
        assert versions_of(entries, RunTakenOver) == [NEW, OLD]
        assert versions_of(entries, RunFinished) == [OLD]


async def test_a_worker_that_is_killed_while_it_is_drained_loses_nothing(nats_server: NatsNode, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with opened(nats_server, tmp_path) as (site, stack):
        old = await hire(stack, OLD)
        run_id = await site.send("s", str(gate), "a")
        await site.streaming("s")
        await hire(stack, NEW)
        await drain(stack)
        await until_listed(stack, {OLD: "draining", NEW: "taking"})
        await old.kill()
        # The one that takes its place takes nothing: the run is not its own any more.
        again = await hire(stack, OLD)
        await site.until("s", lambda t: attempt_of(t, run_id) == 2)
        gate.touch()
        transcript = await site.ended("s", run_id)
        assert transcript.state.end_of(run_id).status == "success"  # type: ignore[union-attr]
        entries = await read_entries(site.log, "s")
        assert versions_of(entries, RunTakenOver) == versions_of(entries, RunFinished) == [NEW]
        assert again.claimed() == set()


# --- what stays, and what ends -----------------------------------------------------------------------------------------


async def test_a_drain_outlives_everything_and_ends_with_its_time(nats_server: NatsNode, tmp_path: Path) -> None:
    async with opened(nats_server, tmp_path) as (site, stack):
        first = await hire(stack, OLD, "echo")
        await drain(stack, OLD, "--ttl", "0")
        await logged(first, "drained: no more jobs are taken")
        await nats_server.restart()
        await first.kill()
        second = await hire(stack, OLD, "echo")
        await logged(second, "drained: no more jobs are taken")
        await until_listed(stack, {OLD: "drained"})
        (record,) = [each for each in await listed(stack) if each["kind"] == "drain"]
        assert (record["pool"], record["version"], record["until"], record["finish"]) == ("default", OLD, 0, False)
        run_id = await site.send("s", "hello", "a")
        output = await drain(stack, OLD, "--ttl", "1")
        assert "antiphon: no other worker that answers takes jobs of this pool" in output
        await site.ended("s", run_id)
        assert second.claimed() == {"s"}
        assert [each["kind"] for each in await listed(stack)] == ["worker"]


async def test_workers_without_a_label_and_those_that_know_none(nats_server: NatsNode, tmp_path: Path) -> None:
    """The former can be drained together, the latter serve on; neither are taken for the other, or for a version."""
    async with opened(nats_server, tmp_path) as (site, stack):
        unnamed = await stack.worker("echo")
        named = await hire(stack, OLD, "echo")
        await drain(stack, "-")
        await logged(unnamed, "drained: no more jobs are taken")
        for i in range(4):
            await site.ended(f"s{i}", await site.send(f"s{i}", "hello", "a"))
        assert named.claimed() == {f"s{i}" for i in range(4)}
        await drain(stack)
        await until_listed(stack, {"": "drained", OLD: "drained"})
        stack.code = checked_out(FIRST_PLANE, tmp_path)
        older = await stack.worker("echo")
        stack.code = None
        run_id = await site.send("t", "hello", "a")
        await site.ended("t", run_id)
        assert versions_of(await read_entries(site.log, "t"), RunStarted) == [None]
        assert older.claimed() == {"t"}
        assert len([each for each in await listed(stack) if each["kind"] == "worker"]) == 2


# --- who sees it, and who may ----------------------------------------------------------------------------------------


async def test_what_operators_see_of_a_drained_version(nats_server: NatsNode, tmp_path: Path) -> None:
    [port] = map(str, free_ports(1))
    async with opened(nats_server, tmp_path) as (site, stack):
        worker = await hire(stack, OLD, "echo", worker_port=port)
        assert await finding(stack, "workers of pool default") == ("ok", "1 of version 1.0 taking", "")
        url = f"http://127.0.0.1:{port}"
        _, exposition = await http_get(f"{url}/metrics")
        assert metric(exposition, "antiphon_worker_info", agent="echo", pool="default", version=OLD) == 1
        assert metric(exposition, "antiphon_worker_capacity") == 16
        await drain(stack)
        await logged(worker, "drained: no more jobs are taken")
        assert worker.logged()[-1]["version"] == OLD
        _, exposition = await http_get(f"{url}/metrics")
        assert (metric(exposition, "antiphon_worker_drained"), metric(exposition, "antiphon_worker_capacity")) == (1, 0)
        status, health = await http_get(f"{url}/healthz")
        (of_pool,) = orjson.loads(health)["workers"]
        assert (status, of_pool["state"], of_pool["version"], of_pool["lanes"]) == (200, "drained", OLD, 0)
        line, record = (await workers(stack, "list")).splitlines()
        assert line.startswith("default           1.0               drained    0/16 sessions  echo  w-")
        assert record.startswith("drained: version 1.0 of default since ")
        assert record.endswith("; 1 workers of it are there")
        assert await workers(stack, "list", "--version", NEW) == ""

        # Nothing waits yet; then something does.
        async with asyncio.timeout(WAIT_S):
            while (said := await finding(stack, "pool default: 0 jobs wait, and all"))[0] != "note":
                pass
        assert "antiphon workers undrain --pool default" in said[2]
        run_id = await site.send("s", "hello", "a")
        async with asyncio.timeout(WAIT_S):
            while (said := await finding(stack, "pool default: 1 jobs wait, and all"))[0] != "fail":
                pass
        assert said[1].endswith("all 1 workers are of drained versions")
        assert (await finding(stack, "drained"))[0] == "note"
        await workers(stack, "undrain", "--pool", "default", "--version", OLD)
        await site.ended("s", run_id)
        assert (await finding(stack, "drained"))[0] == ""
        _, records = await stack.run("audit", "--json")
        said_of = [(each["action"], each["target"], each["outcome"]) for each in map(json.loads, records.splitlines())]
        assert said_of == [("workers.drain", "default 1.0", "done"), ("workers.undrain", "default 1.0", "done")]


async def finding(stack: Stack, about: str) -> tuple[str, str, str]:
    """Of the doctor: its status, what is said behind the colon, and what mends it; all empty if it says nothing."""
    _, output = await stack.run("doctor", "--json")
    for each in orjson.loads(output[output.index("{") :])["findings"]:
        if each["what"].startswith(about):
            return each["status"], each["what"].partition(": ")[2], each["mend"]
    return "", "", ""


async def test_who_only_looks_may_list_but_not_drain(nats_server: NatsNode, tmp_path: Path) -> None:
    async with opened(nats_server, tmp_path) as (site, stack):
        await hire(stack, OLD, "echo")
        observer = {name: str(value) for name, value in settings_of(nats_server.url, Role.OBSERVER).items()}
        assert OLD in await workers(stack, "list", **observer)
        code, output = await stack.run("workers", "drain", "--pool", "default", "--version", OLD, **observer)
        assert code == 1
        assert "antiphon.meta.drains" in output
        assert [each["kind"] for each in await listed(stack)] == ["worker"]
        await site.ended("s", await site.send("s", "hello", "a"))


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("drain",), "needs --pool and --version"),
        (("undrain", "--pool", "default"), "needs --pool and --version"),
        (("drain", "--pool", "nobody", "--version", OLD), "there is no pool 'nobody': there are default"),
        (("drain", "--pool", "a b", "--version", OLD), "pool must be"),
        (("drain", "--pool", "default", "--version", ".hidden"), "version must be"),
        (("drain", "--pool", "default", "--version", OLD, "--ttl", "soon"), "--ttl must be a whole number"),
    ],
)
async def test_what_is_wrong_is_said_in_one_line(
    nats_server: NatsNode, tmp_path: Path, args: tuple[str, ...], said: str
) -> None:
    async with opened(nats_server, tmp_path) as (_, stack):
        code, output = await stack.run("workers", *args)
    (line,) = output.splitlines()
    assert code == 1
    assert line.startswith("antiphon: ")
    assert said in line


async def test_a_label_that_is_none_is_refused(nats_server: NatsNode, tmp_path: Path) -> None:
    async with opened(nats_server, tmp_path) as (_, stack):
        code, output = await stack.run("worker", "echo", worker_version="a b")
    assert code == 1
    assert output.startswith("antiphon: ANTIPHON_WORKER_VERSION: version must be")
