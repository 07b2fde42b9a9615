"""Processes of different versions on one log: those of earlier days, from the history, and writers of days to come."""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from broker.codec import encode
from broker.config import NatsSettings
from broker.events import Entry, InputSent, OtherEvent, Participant
from broker.jetstream.connection import Connection
from broker.jetstream.topology import META_FORMAT, META_STREAM
from broker.subjects import MAIN_LANE
from broker.versions import LOG_FORMAT, formats
from tests.support.nats import NatsNode
from tests.support.place import Place
from tests.support.rawclient import Wire, http_get, join
from tests.support.releases import BEFORE_PLANE, FIRST_PLANE, checked_out
from tests.support.stack import Process, Stack, open_log

SESSION = "mixed"
RUNS = 18
"""Enough that a worker writes a checkpoint, which stands 30 messages behind the end."""

earlier = pytest.mark.parametrize("commit", [FIRST_PLANE, BEFORE_PLANE])
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def stack(tmp_path: Path, nats_server: NatsNode) -> AsyncIterator[Stack]:
    async with Stack(tmp_path / "stack", nats_server.url) as running:
        yield running


# --- earlier days ------------------------------------------------------------------------------------------------------


@earlier
async def test_a_newer_worker_with_an_older_gateway(stack: Stack, tmp_path: Path, commit: str) -> None:
    stack.code = checked_out(commit, tmp_path)
    old_gateway = await stack.gateway()
    stack.code = None
    await stack.worker()
    await _converse(stack, old_gateway)
    await _all_see_the_same(stack, [old_gateway, await stack.gateway()])


@earlier
async def test_an_older_worker_with_a_newer_gateway(stack: Stack, tmp_path: Path, commit: str) -> None:
    stack.code = checked_out(commit, tmp_path)
    await stack.worker()
    old_gateway = await stack.gateway()
    stack.code = None
    gateway = await stack.gateway()
    await _converse(stack, gateway)
    await _all_see_the_same(stack, [old_gateway, gateway])


@earlier
async def test_a_newer_worker_goes_on_with_the_run_of_an_older_one_and_the_reverse(
    stack: Stack, tmp_path: Path, commit: str
) -> None:
    """As in an upgrade that is taken back half way; each writes a checkpoint that the other does not know."""
    tree = checked_out(commit, tmp_path)
    gateway = await stack.gateway()
    place = Place(SESSION)
    texts = []
    async with await Wire.open(gateway.url, stack.token()) as wire:
        await wire.subscribe(place)
        worker: Process | None = None
        for n, code in enumerate((tree, None, tree, None)):
            stack.code = code
            # The run of the worker before goes on here.
            if worker is not None:
                await wire.input(SESSION, f"long{n}", "stream 60 tokens at 20/s")
                await wire.follow(place, lambda p, run=f"run_long{n}": len(p.answer(run)) > 20)  # type: ignore[misc]
            fresh = await stack.worker(worker_drain_s="0")
            if worker is not None:
                assert await worker.terminate() == 0
                await wire.follow(place, lambda p, run=f"run_long{n}": run in p.ended)  # type: ignore[misc]
                texts.append(place.answer(f"run_long{n}"))
            worker = fresh
            for i in range(RUNS):
                await wire.input(SESSION, f"i{n}-{i}", f"answer {i}")
                await wire.follow(place, lambda p, run=f"run_i{n}-{i}": run in p.ended)  # type: ignore[misc]
    assert texts == ["".join(f"t{i} " for i in range(60))] * 3
    assert set(place.ended.values()) == {"success"}
    assert place.whole
    await _all_see_the_same(stack, [gateway])


async def test_what_an_older_gateway_does_not_know_reaches_its_clients(stack: Stack, tmp_path: Path) -> None:
    """A gateway from before approvals: its client sees the request and the decision, as one of today's does."""
    stack.code = checked_out(BEFORE_PLANE, tmp_path)
    old_gateway = await stack.gateway()
    stack.code = None
    gateway = await stack.gateway()
    await stack.worker("tests.support.agents_people:approving")
    place = Place(SESSION, frames=[])
    async with (
        await Wire.open(old_gateway.url, stack.token()) as old,
        await Wire.open(gateway.url, stack.token()) as new,
    ):
        await old.subscribe(place)
        await old.input(SESSION, "i0", "{}")
        await old.follow(place, lambda p: bool(_events(p, "approval.requested")))
        asked = _events(place, "approval.requested")[0]
        await new.command(
            "approval.respond", session=SESSION, approvalId=asked["approvalId"], option=asked["options"][0]
        )
        await old.follow(place, lambda p: "run_i0" in p.ended)
    assert place.ended == {"run_i0": "success"}
    assert [event["option"] for event in _events(place, "approval.responded")] == [asked["options"][0]]
    await _all_see_the_same(stack, [old_gateway, gateway])


# --- days to come ------------------------------------------------------------------------------------------------------


async def test_what_a_newer_writer_adds_is_taken_for_nothing_and_kept(stack: Stack) -> None:
    """Types of events, fields, subjects and a checkpoint that nobody here knows, in the middle of a conversation."""
    gateway = await stack.gateway()
    await stack.worker()
    place = Place(SESSION, frames=[], every=True)
    async with await Wire.open(gateway.url, stack.token()) as wire:
        await wire.subscribe(place)
        await wire.input(SESSION, "i0", "before")
        await wire.follow(place, lambda p: "run_i0" in p.ended)
        await _write_what_is_to_come(stack)
        await wire.input(SESSION, "i1", "after")
        await wire.follow(place, lambda p: "run_i1" in p.ended)
        await wire.follow(place, lambda p: "run_future" in p.ended)
    assert place.whole
    assert [place.answer(f"run_{name}") for name in ("i0", "i1", "future")] == ["before", "after", "sent"]
    # What is not known reaches clients as it is: theirs may be newer.
    assert _events(place, "mood.changed") == [{"type": "mood.changed", "mood": "good", "since": [1, 2]}]
    sent = next(event for event in _events(place, "input.sent") if event["inputId"] == "future")
    assert sent["priority"] == "high"
    await _all_see_the_same(stack, [gateway, await stack.gateway()])
    code, output = await stack.run("export", SESSION, "-o", str(stack.directory / "export"))
    assert code == 0, output
    assert b"mood.changed" in (stack.directory / "export").read_bytes()


async def test_a_newer_topology_is_no_fault(stack: Stack) -> None:
    """A stream and settings that this version does not know; what it depends on is there."""
    gateway = await stack.gateway()
    async with open_log(stack.nats_url) as (connection, _):
        await connection.api("STREAM.CREATE.LATER", {"name": "LATER", "subjects": ["later.>"], "storage": "file"})
        config = (await connection.api("STREAM.INFO.S00"))["config"]
        await connection.api("STREAM.UPDATE.S00", config | {"metadata": {"antiphon": "later"}, "max_msg_size": 900_000})
    status, body = await http_get(f"{gateway.url}/readyz")
    assert status == 200, body
    code, output = await stack.run("topology", "check")
    assert code == 0, output


async def test_a_log_of_a_newer_format_is_left_alone(stack: Stack) -> None:
    async with open_log(stack.nats_url) as (connection, _):
        await connection.publish(META_FORMAT, str(LOG_FORMAT + 1).encode())
    for command in (("topology", "apply"), ("export", SESSION)):
        code, output = await stack.run(*command)
        assert code == 1
        assert f"this log has format {LOG_FORMAT + 1}" in output
    gateway = await stack.gateway()
    status, body = await http_get(f"{gateway.url}/readyz")
    assert status == 503
    assert "run a newer version" in body
    async with Connection(NatsSettings(nats_url=stack.nats_url), name="test") as connection:
        last = await connection.api(f"STREAM.MSG.GET.{META_STREAM}", {"last_by_subj": META_FORMAT})
    assert base64.b64decode(last["message"]["data"]) == str(LOG_FORMAT + 1).encode(), "`topology apply` wrote over it"


async def test_each_process_says_which_version_it_is(stack: Stack) -> None:
    gateway = await stack.gateway()
    status, body = await http_get(f"{gateway.url}/healthz")
    said = orjson.loads(body)
    assert (status, said["formats"]) == (200, formats())
    async with await Wire.open(gateway.url, stack.token()) as wire:
        assert (await wire.command("ping"))["op"] == "pong"
    code, output = await stack.run("--version")
    assert (code, output.strip()) == (0, f"antiphon {said['version']}")


# --- helpers -------------------------------------------------------------------------------------------------------------


async def _converse(stack: Stack, gateway: Process) -> None:
    """Runs, a cancel, and a cut in the middle of an answer."""
    place, token = Place(SESSION), stack.token()
    async with await Wire.open(gateway.url, token) as wire:
        await wire.subscribe(place)
        for i in range(RUNS):
            await wire.input(SESSION, f"i{i}", "stream 20 tokens at 500/s")
            await wire.follow(place, lambda p, run=f"run_i{i}": run in p.ended)  # type: ignore[misc]
        await wire.input(SESSION, "endless", "stream 100000 tokens at 50/s")
        await wire.follow(place, lambda p: len(p.answer("run_endless")) > 20)
        await wire.command("run.cancel", session=SESSION, runId="run_endless")
        await wire.follow(place, lambda p: p.ended.get("run_endless") == "cancelled")
        await wire.input(SESSION, "cut", "stream 60 tokens at 30/s")
        await wire.follow(place, lambda p: len(p.answer("run_cut")) > 20)
    async with await Wire.open(gateway.url, token) as wire:
        await wire.subscribe(place)
        await wire.follow(place, lambda p: "run_cut" in p.ended)
    assert place.whole
    assert place.answer("run_cut") == "".join(f"t{i} " for i in range(60))
    assert place.applied == [*(f"i{i}" for i in range(RUNS)), "endless", "cut"]


async def _all_see_the_same(stack: Stack, gateways: list[Process]) -> None:
    """From each gateway the whole log, in the order and with the texts that it holds; and as one joins, the latest of it."""
    logs = []
    for gateway in gateways:
        log, latest = Place(SESSION, every=True), Place(SESSION)
        await join(gateway.url, stack.token(), log)
        await join(gateway.url, stack.token(), latest)
        assert log.whole
        assert latest.whole
        logs.append(log)
        for id_, text in latest.texts.items():
            assert str(text) == str(log.texts[id_])
        assert len(latest.texts) >= min(len(log.texts), 15)
    # After the last run only the owner's release may follow, which may have come to one gateway only.
    shortest = min(len(log.entries) for log in logs)
    assert shortest >= max(len(log.entries) for log in logs) - 1
    assert all(log.entries[:shortest] == logs[0].entries[:shortest] for log in logs)
    assert all(log.ended == logs[0].ended for log in logs)


async def _write_what_is_to_come(stack: Stack) -> None:
    """As a gateway and a worker of a later version would write."""
    by = Participant("user", "user-1")
    now = int(time.time() * 1000)
    async with open_log(stack.nats_url) as (connection, log):
        subjects = log.subjects(SESSION)
        mood = OtherEvent("mood.changed", {"type": "mood.changed", "mood": "good", "since": [1, 2]})
        await log.append_input(subjects, Entry("mood:1", now, (mood,), by=by), "mood:1")
        body = orjson.loads(encode(Entry("future", now, (InputSent("future", "sent"),), by=by)))
        body |= {"causes": ["mood:1"]}
        body["events"][0]["priority"] = "high"
        await connection.publish(subjects.inputs, orjson.dumps(body))
        await connection.publish(f"{subjects.root}.r.seal.{MAIN_LANE}", b"\x00 not even JSON")
        await connection.publish(f"{subjects.root}.x", b"{}")
        checkpoint: dict[str, Any] = {"version": 99, "asOf": 10**9}
        await connection.publish(subjects.checkpoint, orjson.dumps(checkpoint), {"Nats-Rollup": "sub"})


def _events(place: Place, type_: str) -> list[dict[str, Any]]:
    assert place.frames is not None
    return [event for frame in place.frames for event in frame["events"] if event["type"] == type_]
