"""Inputs that are sent later: once, at their time, whoever is connected and whatever is killed meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent_worker.context import SessionContext
from agent_worker.errors import ScheduleRefused
from agent_worker.testing import Conversation, Harness, crash_everywhere
from antiphon_client import Client
from antiphon_client import ScheduleRefused as ClientRefused
from antiphon_client.sync import Client as SyncClient
from broker.config import NatsSettings
from broker.errors import Unavailable
from broker.events import Entry, InputSent
from broker.jetstream.connection import Connection
from broker.jetstream.server import ServerOptions
from broker.jetstream.topology import ALARM_STREAM
from broker.permissions import Role
from broker.state import MAX_SCHEDULED
from broker.subjects import AlarmPlace, SessionKey, alarms_of
from tests.support.bare import until_status
from tests.support.http import Http
from tests.support.nats import NatsNode, cluster, free_ports
from tests.support.place import Place
from tests.support.rawclient import WAIT_S, Refusal, Wire, http_get
from tests.support.releases import FIRST_PLANE, checked_out
from tests.support.roles import settings_of
from tests.support.stack import Process, Stack, metric

SESSION = "demo"
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def stack(tmp_path: Path, nats_server: NatsNode) -> AsyncIterator[Stack]:
    async with Stack(tmp_path / "stack", nats_server.url, env={"JOB_REPAIR_S": "0.5"}) as running:
        yield running


@contextlib.asynccontextmanager
async def operating(stack: Stack) -> AsyncIterator[Connection]:
    user = settings_of(stack.nats_url, Role.PROVISIONER)
    async with Connection(NatsSettings(nats_url=stack.nats_url, **user), name="test") as connection:
        yield connection


async def later(wire: Wire, input_id: str, delay_ms: int, content: str = "hello", **more: Any) -> dict[str, Any]:
    return await wire.command(
        "input.send", session=SESSION, inputId=input_id, content=content, delayMs=delay_ms, **more
    )


async def state_of(gateway: Process, token: str, session: str = SESSION) -> dict[str, Any]:
    async with Http(gateway.url, token) as http:
        state: dict[str, Any] = (await http.ok("GET", f"/v1/sessions/{session}"))["state"]
        return state


async def until(check: Any, wait_s: float = WAIT_S) -> Any:
    """What the check comes to, once it is anything."""
    async with asyncio.timeout(wait_s):
        while not (found := await check()):
            await asyncio.sleep(0.05)
    return found


async def ended(gateway: Process, token: str, *input_ids: str, session: str = SESSION) -> Place:
    """A reader's place, once the runs of these inputs are over."""
    place = Place(session, every=True, frames=[])
    async with await Wire.open(gateway.url, token) as wire, asyncio.timeout(3 * WAIT_S):
        await _subscribed(wire, place)
        await wire.follow(place, lambda p: {f"run_{id_}" for id_ in input_ids} <= p.ended.keys(), 2 * WAIT_S)
    assert place.whole
    return place


async def _subscribed(wire: Wire, place: Place) -> None:
    """As soon as can be: a stream may have no leader just now."""
    while True:
        try:
            await wire.subscribe(place)
        except Refusal as refusal:
            if refusal.code != "unavailable":
                raise
            await asyncio.sleep(0.2)
        else:
            return


def sent(entries: list[tuple[int, Entry]]) -> list[tuple[Entry, InputSent]]:
    return [(entry, event) for _, entry in entries for event in entry.events if isinstance(event, InputSent)]


async def alarms(stack: Stack, session: str = SESSION) -> int:
    async with operating(stack) as connection:
        body = {"subjects_filter": alarms_of(SessionKey(session))}
        answer = await connection.api(f"STREAM.INFO.{ALARM_STREAM}", body)
        return sum((answer["state"].get("subjects") or {}).values())


# --- its time --------------------------------------------------------------------------------------------------------------


async def test_it_is_sent_at_its_time_though_nobody_is_there(stack: Stack) -> None:
    gateway, token = await stack.gateway(session_linger_s="0"), stack.token("user-7", name="A user", roles=["lead"])
    await stack.worker()
    before = int(time.time() * 1000)
    async with await Wire.open(gateway.url, token) as wire:
        reply = await later(wire, "a", 2000, "hello there", mode="enqueue")
        again = await later(wire, "a", 9000, "something else")
    assert (reply["status"], reply["runId"], reply["mode"], reply["position"]) == (
        "scheduled",
        "run_a",
        "enqueue",
        None,
    )
    assert before + 2000 <= reply["at"] <= int(time.time() * 1000) + 2000
    assert (again["duplicate"], again["status"], again["at"], again["seq"]) == (
        True,
        "scheduled",
        reply["at"],
        reply["seq"],
    )
    state = await state_of(gateway, token)
    assert state["status"] == "idle"
    (planned,) = state["scheduled"]
    assert (planned["inputId"], planned["at"], planned["content"]) == ("a", reply["at"], "hello there")
    assert planned["by"] == {"kind": "user", "id": "user-7", "name": "A user", "roles": ["lead"]}
    # Nobody looks until a run must long have begun by itself.
    entries = await until(lambda: _sent_in(stack))
    ((entry, event),) = entries
    assert (event.content, event.mode, event.at) == ("hello there", "enqueue", reply["at"])
    assert entry.ts >= reply["at"], "never before its time"
    assert (entry.by and entry.by.id, entry.by and entry.by.roles) == ("user-7", ("lead",))
    place = await ended(gateway, token, "a")
    assert place.answer("run_a") == "hello there"
    state = await state_of(gateway, token)
    assert (state["scheduled"], await alarms(stack)) == ([], 0)
    _, told = await http_get(f"{gateway.url}/metrics")
    assert metric(told, "antiphon_gateway_scheduled_total", outcome="sent") == 1
    assert metric(told, "antiphon_gateway_schedule_late_seconds_count") == 1


async def _sent_in(stack: Stack, session: str = SESSION) -> list[tuple[Entry, InputSent]]:
    return sent(await stack.entries(session))


async def test_a_time_that_has_passed_is_now(stack: Stack) -> None:
    gateway, token = await stack.gateway(), stack.token()
    async with await Wire.open(gateway.url, token) as wire:
        for n, when in enumerate(({"at": 1}, {"delayMs": 0})):
            reply = await wire.command("input.send", session=SESSION, inputId=f"i{n}", content="x", **when)
            assert (reply["status"], "at" in reply) == ("queued", False)


async def test_over_http(stack: Stack) -> None:
    gateway, token = await stack.gateway(), stack.token()
    path = f"/v1/sessions/{SESSION}/inputs"
    at = int(time.time() * 1000) + 3_600_000
    async with Http(gateway.url, token) as http:
        key = {"Idempotency-Key": "k-1"}
        first = await http.ask("POST", path, {"content": "later", "at": at}, headers=key)
        assert (first.status, first.json()["status"], first.json()["at"]) == (201, "scheduled", at)
        again = await http.ask("POST", path, {"content": "later", "delayMs": 5}, headers=key)
        assert (again.status, again.json()["at"], again.json()["duplicate"]) == (200, at, True)
        run = await http.ok("GET", f"/v1/sessions/{SESSION}/runs/run_k-1")
        assert run["status"] == "scheduled"
        await http.refused(400, "bad_command", "POST", path, {"content": "x", "at": "tomorrow"})
        await http.refused(400, "bad_command", "POST", path, {"content": "x", "at": at, "delayMs": 1})
        far = at + 400 * 86_400_000
        problem = await http.refused(422, "too_far_ahead", "POST", path, {"content": "x", "at": far})
        assert problem["data"]["limit"] == 31_622_400
        assert await http.ok("DELETE", f"{path}/k-1") == {"inputId": "k-1", "status": "cancelled"}
        run = await http.ok("GET", f"/v1/sessions/{SESSION}/runs/run_k-1")
        assert run["status"] == "cancelled"


async def test_from_the_command_line(stack: Stack) -> None:
    gateway, token = await stack.gateway(), stack.token()
    await stack.worker()
    where = ("--url", gateway.url, "--token", token)
    code, output = await stack.run("send", SESSION, "hello there", "--in", "1s", "--wait", *where)
    assert (code, output.strip()) == (0, "hello there")
    code, output = await stack.run("send", SESSION, "hello", "--at", "2999-01-01T00:00", *where)
    assert code == 1
    assert "schedule" in output
    code, output = await stack.run("send", SESSION, "tomorrow", "--in", "1d", *where)
    assert code == 0
    assert output.startswith("scheduled for 2")
    for wrong in (("--in", "soon"), ("--at", "noon")):
        code, output = await stack.run("send", SESSION, "x", *wrong, *where)
        assert code != 0
        assert wrong[0] in output
    (entry,) = [e for _, e in await stack.entries(SESSION) if e.events[0].TYPE == "input.scheduled" and e.ts][-1:]
    input_id = entry.events[0].input_id  # type: ignore[union-attr]
    code, output = await stack.run("trace", input_id, "--session", SESSION, "--nats-url", stack.nats_url)
    assert code == 0, output
    assert "input scheduled" in output


# --- taking back -------------------------------------------------------------------------------------------------------------


async def test_who_may_take_it_back(stack: Stack) -> None:
    gateway = await stack.gateway()
    await stack.worker("tests.support.agents_later:later")
    mine, other = (stack.token(user, {"*": ["read", "send"]}) for user in ("user-1", "user-2"))
    async with await Wire.open(gateway.url, mine) as wire, await Wire.open(gateway.url, other) as stranger:
        for id_ in ("a", "b"):
            await later(wire, id_, 3_600_000)
        with pytest.raises(Refusal, match="not_allowed"):
            await stranger.command("input.cancel", session=SESSION, inputId="a")
        reply = await wire.command("input.cancel", session=SESSION, inputId="a")
        assert reply["status"] == "cancelled"
        assert (await wire.command("input.cancel", session=SESSION, inputId="a"))["status"] == "cancelled"
        async with await Wire.open(gateway.url, stack.token("user-3")) as admin:
            assert (await admin.command("run.cancel", session=SESSION, runId="run_b"))["status"] == "cancelled"
        with pytest.raises(Refusal, match="input_not_found"):
            await wire.command("input.cancel", session=SESSION, inputId="none")
        await wire.input(SESSION, "c", "3600 look again")
        await ended(gateway, mine, "c")
        (planned,) = (await state_of(gateway, mine))["scheduled"]
        assert planned["by"]["kind"] == "agent"
        await stranger.command("input.cancel", session=SESSION, inputId=planned["inputId"])
    assert (await state_of(gateway, mine))["scheduled"] == []
    assert await alarms(stack) == 0


async def test_a_cancel_in_the_moment_in_which_it_is_due_has_one_outcome(stack: Stack) -> None:
    """Each is told what the log says: cancelled and never run, or too late and run."""
    gateway, other = await stack.start(2)
    token, count = stack.token(), 24
    told: dict[str, str] = {}

    async def race(n: int) -> None:
        async with await Wire.open((gateway, other)[n % 2].url, token) as wire:
            at = (await later(wire, f"i{n}", 1500))["at"]
            await asyncio.sleep(max(0.0, at / 1000 - time.time() + random.uniform(-0.02, 0.08)))
            try:
                told[f"i{n}"] = (await wire.command("input.cancel", session=SESSION, inputId=f"i{n}"))["status"]
            except Refusal as refusal:
                told[f"i{n}"] = refusal.code

    async with await Wire.open(gateway.url, token) as wire:
        await wire.command("session.create", session=SESSION, config={"maxQueue": 64})
    async with asyncio.TaskGroup() as tasks:
        for n in range(count):
            tasks.create_task(race(n))
    assert set(told.values()) <= {"cancelled", "input_already_applied"}
    run = [id_ for id_, what in told.items() if what == "input_already_applied"]
    await until(lambda: _nothing_left(gateway, token))
    place = await ended(gateway, token, *run)
    assert sorted(place.applied) == sorted(run)
    assert place.ended.keys() == {f"run_{id_}" for id_ in run}
    assert max(Counter(event.input_id for _, event in await _sent_in(stack)).values(), default=1) == 1


async def _nothing_left(gateway: Process, token: str) -> bool:
    state = await state_of(gateway, token)
    return not (state["scheduled"] or state["inputs"] or state["runs"])


# --- limits ------------------------------------------------------------------------------------------------------------------


async def test_as_much_as_may_be_scheduled(stack: Stack) -> None:
    gateway, token = await stack.gateway(schedule_ahead_s="100"), stack.token()
    async with await Wire.open(gateway.url, token) as wire:
        for n in range(MAX_SCHEDULED):
            await later(wire, f"i{n}", 90_000)
        with pytest.raises(Refusal, match="schedule_full") as caught:
            await later(wire, "more", 90_000)
        assert (caught.value.reply["limit"], caught.value.reply["retryable"]) == (MAX_SCHEDULED, False)
        async with Http(gateway.url, token) as http:
            path, body = f"/v1/sessions/{SESSION}/inputs", {"inputId": "more", "content": "x", "delayMs": 90_000}
            problem = await http.refused(409, "schedule_full", "POST", path, body)
            assert problem["data"]["limit"] == MAX_SCHEDULED
        await wire.command("input.cancel", session=SESSION, inputId="i0")
        await later(wire, "more", 90_000)  # its id was not used up
        with pytest.raises(Refusal, match="too_far_ahead"):
            await later(wire, "far", 101_000)
        await wire.command("session.create", session="modes", config={"roles": {"*": {"modes": ["enqueue"]}}})
        with pytest.raises(Refusal, match="mode_not_allowed"):
            await wire.command(
                "input.send", session="modes", inputId="x", content="x", mode="interrupt", delayMs=90_000
            )
    weak = stack.token("user-2", {"*": ["read", "send"]})
    async with await Wire.open(gateway.url, weak) as wire:
        with pytest.raises(Refusal, match="not_allowed"):
            await later(wire, "steer", 90_000, mode="interrupt")
    assert len((await state_of(gateway, token))["scheduled"]) == MAX_SCHEDULED


# --- what is killed ------------------------------------------------------------------------------------------------------------


async def test_gateways_and_workers_are_killed_around_the_time(stack: Stack) -> None:
    """Inputs come due all along; at each moment something is killed. Each runs once."""
    gateway, spare = await stack.start(2, 2)
    token, count = stack.token(), 16
    workers = [process for process in stack.processes if process.name.startswith("worker")]
    async with await Wire.open(gateway.url, token) as wire:
        await wire.command("session.create", session=SESSION, config={"maxQueue": 64})
        for n in range(count):
            await later(wire, f"i{n}", 1000 + 150 * n, f"word {n}")
    await until(lambda: _sent_in(stack))
    await gateway.kill()
    await workers[0].kill()
    await asyncio.sleep(0.3)
    await spare.kill()
    await workers[1].kill()
    fresh = (await stack.start(1))[0]
    place = await ended(fresh, token, *(f"i{n}" for n in range(count)))
    assert sorted(place.applied) == sorted(f"i{n}" for n in range(count))
    assert [place.answer(f"run_i{n}") for n in range(count)] == [f"word {n}" for n in range(count)]
    assert set(place.ended.values()) == {"success"}
    assert set(Counter(event.input_id for _, event in await _sent_in(stack)).values()) == {1}


async def test_no_gateway_runs_at_the_time(stack: Stack) -> None:
    gateway, token = await stack.gateway(), stack.token()
    async with await Wire.open(gateway.url, token) as wire:
        reply = await later(wire, "a", 500, "hello there")
    await gateway.kill()
    await asyncio.sleep(max(0.0, reply["at"] / 1000 - time.time() + 1))
    (fresh,) = await stack.start(1)
    place = await ended(fresh, token, "a")
    assert place.answer("run_a") == "hello there"


async def test_nats_is_away_at_the_time(tmp_path: Path) -> None:
    port, http_port = free_ports(2)
    options = ServerOptions(data_dir=tmp_path / "nats", port=port, http_port=http_port, sync_always=True)
    env = {"ACK_TIMEOUT_S": "1", "RECONNECT_WAIT_S": "0.05"}
    async with NatsNode(options) as node, Stack(tmp_path / "stack", node.url, env=env) as stack:
        (gateway,) = await stack.start(1)
        token = stack.token()
        async with await Wire.open(gateway.url, token) as wire:
            at = [(await later(wire, f"i{n}", 1200 + 300 * n, f"word {n}"))["at"] for n in range(3)]
            await later(wire, "much", 3_600_000)
        await node.kill()
        await asyncio.sleep(max(0.0, at[-1] / 1000 - time.time() + 1))
        await node.start()
        await until_status(f"{gateway.url}/readyz", 200)
        place = await ended(gateway, token, "i0", "i1", "i2")
        assert sorted(place.applied) == ["i0", "i1", "i2"]
        assert Counter(event.input_id for _, event in await _sent_in(stack)) == {"i0": 1, "i1": 1, "i2": 1}
        state = await state_of(gateway, token)
        assert [planned["inputId"] for planned in state["scheduled"]] == ["much"]


async def test_the_stream_of_alarms_loses_its_leader(tmp_path: Path) -> None:
    """Three servers: the leader of the alarms is killed before they go off; each goes off once."""
    async with (
        cluster(tmp_path / "nats") as servers,
        Stack(tmp_path / "stack", ",".join(servers.urls), replicas=3) as stack,
    ):
        (gateway,) = await stack.start(1)
        token, count = stack.token(), 8
        async with await Wire.open(gateway.url, token) as wire:
            for n in range(count):
                await later(wire, f"i{n}", 2500 + 250 * n, f"word {n}")
        async with operating(stack) as connection:
            leader = (await connection.api(f"STREAM.INFO.{ALARM_STREAM}"))["cluster"]["leader"]
        node = next(each for each in servers.nodes if each.name == leader)
        await node.kill()
        place = await ended(gateway, token, *(f"i{n}" for n in range(count)))
        assert sorted(place.applied) == [f"i{n}" for n in range(count)]
        # Who led the alarms may have led another stream, too, which has nobody for as long as an election takes.
        found: list[tuple[Entry, InputSent]] | None = None
        async with asyncio.timeout(60):
            while found is None:
                try:
                    found = await _sent_in(stack)
                except* Unavailable:
                    pass
        assert set(Counter(event.input_id for _, event in found).values()) == {1}


# --- alarms are hints --------------------------------------------------------------------------------------------------------------


async def test_an_alarm_that_lies_does_nothing(stack: Stack) -> None:
    """Too early, for another's session, for none, twice: what the log says is scheduled is sent once, at its time."""
    gateway, token = await stack.gateway(), stack.token()
    await stack.worker()
    async with await Wire.open(gateway.url, token) as wire:
        at = (await later(wire, "a", 3000))["at"]
        await later(wire, "gone", 3_600_000)
        await wire.command("input.cancel", session=SESSION, inputId="gone")
    lies = [
        AlarmPlace(SessionKey(SESSION), 0, "a"),
        AlarmPlace(SessionKey(SESSION), 99, "a"),
        AlarmPlace(SessionKey(SESSION), 0, "gone"),
        AlarmPlace(SessionKey("nowhere"), 0, "a"),
    ]
    async with operating(stack) as connection:
        for n, place in enumerate(lies):
            past = {"Nats-Schedule": "@at 2020-01-01T00:00:00Z", "Nats-Schedule-Target": place.due}
            await connection.publish(f"alarm.at.lie.{n}.x", b"", past)
    place = await ended(gateway, token, "a")
    ((entry, _),) = await _sent_in(stack)
    assert entry.ts >= at
    assert place.applied == ["a"]
    _, told = await http_get(f"{gateway.url}/metrics")
    assert metric(told, "antiphon_gateway_scheduled_total", outcome="sent") == 1


async def test_alarms_that_were_lost_are_set_again(stack: Stack) -> None:
    gateway, token = await stack.gateway(), stack.token()
    await stack.worker()
    async with await Wire.open(gateway.url, token) as wire:
        await later(wire, "a", 3000, "hello there")
    await gateway.kill()
    async with operating(stack) as connection:
        await connection.purge(ALARM_STREAM, ">")
    assert await alarms(stack) == 0
    fresh = await stack.gateway()
    await state_of(fresh, token)  # opens the session
    place = await ended(fresh, token, "a")
    assert place.answer("run_a") == "hello there"


# --- sessions ------------------------------------------------------------------------------------------------------------------------


async def test_it_goes_with_its_session(stack: Stack) -> None:
    gateway, token = await stack.gateway(), stack.token()
    await stack.worker()
    async with await Wire.open(gateway.url, token) as wire:
        await later(wire, "a", 1000, "of before")
        await later(wire, "b", 3_600_000, "of before")
        await wire.command("session.delete", session=SESSION)
        assert await alarms(stack) == 0
        await later(wire, "b", 1000, "of now")
        place = await ended(gateway, token, "b")
    assert place.applied == ["b"]
    assert place.answer("run_b") == "of now"
    assert [event.content for _, event in await _sent_in(stack)] == ["of now"]


async def test_a_closed_session_is_waited_for_and_given_up_in_the_end(stack: Stack) -> None:
    gateway, token = await stack.gateway(schedule_keep_s="3"), stack.token()
    await stack.worker()
    async with await Wire.open(gateway.url, token) as wire:
        await later(wire, "a", 300, "hello there")
        await wire.command("session.close", session=SESSION)
        await until(lambda: _counted(gateway, "waits"))
        await wire.command("session.reopen", session=SESSION)
        place = await ended(gateway, token, "a")
        assert place.answer("run_a") == "hello there"
        await later(wire, "b", 300)
        await wire.command("session.close", session=SESSION)
        await until(lambda: _counted(gateway, "given_up"))
    state = await state_of(gateway, token)
    assert state["scheduled"] == []
    entry = (await stack.entries(SESSION))[-1][1]
    assert (entry.events[0].TYPE, entry.by and entry.by.kind) == ("input.cancel.requested", "system")


async def _counted(gateway: Process, outcome: str) -> float:
    _, told = await http_get(f"{gateway.url}/metrics")
    return metric(told, "antiphon_gateway_scheduled_total", outcome=outcome)


async def test_a_restored_session_sends_what_is_overdue_once(stack: Stack) -> None:
    gateway, token = await stack.gateway(), stack.token()
    export = str(stack.directory / "export")
    async with await Wire.open(gateway.url, token) as wire:
        at = (await later(wire, "a", 1500, "hello there"))["at"]
        await later(wire, "b", 3_600_000)
        code, output = await stack.run("export", SESSION, "-o", export)
        assert code == 0, output
        await wire.command("session.delete", session=SESSION)
    await asyncio.sleep(max(0.0, at / 1000 - time.time() + 0.5))
    code, output = await stack.run("import", "again", export)
    assert code == 0, output
    await stack.worker()
    place = await ended(gateway, token, "a", session="again")
    assert place.answer("run_a") == "hello there"
    assert [event.input_id for _, event in await _sent_in(stack, "again")] == ["a"]
    state = await state_of(gateway, token, "again")
    assert [planned["inputId"] for planned in state["scheduled"]] == ["b"]
    assert await alarms(stack, "again") == 1


async def test_it_outlives_a_checkpoint(stack: Stack) -> None:
    """A worker writes one while something is scheduled; who joins then gets it in the snapshot, and it is sent."""
    gateway, token = await stack.gateway(), stack.token()
    await stack.worker()
    async with await Wire.open(gateway.url, token) as wire:
        at = (await later(wire, "a", 12_000, "hello there"))["at"]
        for n in range(20):
            await wire.input(SESSION, f"i{n}", f"answer {n}")
            await ended(gateway, token, f"i{n}")
    async with operating(stack) as connection:
        found = await until(lambda: _checkpoint(connection))
    assert found
    place = Place(SESSION)
    async with await Wire.open(gateway.url, token) as wire:
        await wire.subscribe(place)
        frame = await wire.receive()
        assert frame["op"] == "session.snapshot"
        assert frame["asOf"] > 0
        assert [planned["at"] for planned in frame["state"]["scheduled"]] == [at]
    await ended(gateway, token, "a")


async def _checkpoint(connection: Connection) -> bool:
    for number in range(4):
        answer = await connection.api(f"STREAM.INFO.S{number:02d}", {"subjects_filter": f"c.{number:02d}.{SESSION}"})
        if answer["state"].get("subjects"):
            return True
    return False


# --- agents, and others --------------------------------------------------------------------------------------------------------------


async def test_an_agent_sends_later(stack: Stack) -> None:
    gateway, token = await stack.gateway(), stack.token()
    await stack.worker("tests.support.agents_later:later")
    async with await Wire.open(gateway.url, token) as wire:
        await wire.input(SESSION, "a", "1 water the plants")
        place = await ended(gateway, token, "a")
        id_ = place.answer("run_a").removeprefix("scheduled ")
        place = await ended(gateway, token, id_)
        assert place.answer(f"run_{id_}") == "now: water the plants"
        ((entry, _),) = [pair for pair in await _sent_in(stack) if pair[1].input_id == id_]
        assert entry.by is not None
        assert entry.by.kind == "agent"
        await wire.input(SESSION, "b", "3600 never")
        await wire.input(SESSION, "c", "drop")
        place = await ended(gateway, token, "b", "c")
    assert place.answer("run_c") == "taken back: 1"
    assert (await state_of(gateway, token))["scheduled"] == []


async def test_an_agent_whose_worker_dies_anywhere_schedules_once() -> None:
    async def reminding(ctx: SessionContext) -> None:
        if ctx.input is not None and ctx.input.by is not None and ctx.input.by.kind == "agent":
            await ctx.text(f"now: {ctx.input.content}")
            return
        await ctx.schedule("by a time", at=datetime.now(UTC) + timedelta(hours=1), key="reminder")
        await ctx.schedule("in a while", after_s=7200)
        await ctx.flush()

    async def script(session: Conversation) -> None:
        assert (await session.say("remind me")).kind == "success"
        planned = [each.content for each in session.client.state.scheduled]
        assert planned == ["by a time", "in a while"]

    crashes = await crash_everywhere(reminding, script)
    assert any("input.scheduled" in crash.what for crash in crashes)


async def test_what_an_agent_may_not_ask_for() -> None:
    async def asking(ctx: SessionContext) -> None:
        wrong: list[dict[str, Any]] = [
            {},
            {"after_s": 1, "at": datetime.now(UTC)},
            {"at": datetime(2030, 1, 1)},  # noqa: DTZ001
            {"after_s": 1e9},
            {"after_s": 1, "mode": "someday"},
        ]
        for more in wrong:
            with pytest.raises(ValueError, match=r"must|give|ahead"):
                await ctx.schedule("later", **more)
        for n in range(MAX_SCHEDULED):
            await ctx.schedule("later", after_s=3600, key=f"k{n}")
        with pytest.raises(ScheduleRefused, match="schedule_full"):
            await ctx.schedule("later", after_s=3600)
        assert len(ctx.scheduled) == MAX_SCHEDULED
        assert await ctx.unschedule(ctx.scheduled[0].input_id)
        assert not await ctx.unschedule("none")
        await ctx.text("done")

    async with Harness(asking) as session:
        assert (await session.say("go")).text == "done"


async def test_by_the_python_clients(stack: Stack) -> None:
    gateway, token = await stack.gateway(), stack.token()
    await stack.worker()
    async with Client(gateway.url, token) as client:
        session = client.session(SESSION)
        gone = await session.send("never", at=datetime.now(UTC) + timedelta(days=1))
        receipt = await session.send("hello there", after_s=1.5)
        assert (gone.status, gone.position) == ("scheduled", None)
        await session.cancel_input(gone.input_id)
        assert (await receipt.finished()).ok
        assert (receipt.status, (await gone.finished()).kind) == ("ended", "cancelled")
        assert (session.messages[-1].text, session.state.scheduled) == ("hello there", ())
        with pytest.raises(ClientRefused) as caught:
            await session.send("never", at=datetime(2999, 1, 1, tzinfo=UTC))
        assert caught.value.code == "too_far_ahead"

    def blocking() -> tuple[str, str | None]:
        with SyncClient(gateway.url, token) as plain:
            session = plain.session("blocking")
            receipt = session.send("hello there", after_s=1)
            return receipt.finished(timeout_s=WAIT_S).kind, session.messages[-1].text

    assert await asyncio.to_thread(blocking) == ("success", "hello there")


async def test_an_older_worker_runs_what_is_due(stack: Stack, tmp_path: Path) -> None:
    """To a reader of before there were schedules it is an input as any other, once it is sent."""
    stack.code = checked_out(FIRST_PLANE, tmp_path)
    await stack.worker()
    stack.code = None
    gateway, token = await stack.gateway(), stack.token()
    async with await Wire.open(gateway.url, token) as wire:
        await later(wire, "a", 800, "hello there")
        await later(wire, "b", 3_600_000)
    place = await ended(gateway, token, "a")
    assert place.answer("run_a") == "hello there"
    assert [planned["inputId"] for planned in (await state_of(gateway, token))["scheduled"]] == ["b"]
