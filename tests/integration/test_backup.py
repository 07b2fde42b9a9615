"""Backup, restoration and moves, by the command line against real servers: what comes out folds to what went in."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker.jetstream.log import JetStreamLog
from broker.loading import load
from broker.permissions import Role
from broker.subjects import stream_name
from broker.transcript import Transcript
from broker.view import public_view
from tests.support.nats import NatsNode, single_server
from tests.support.place import Place
from tests.support.rawclient import Refusal, Wire, join
from tests.support.roles import TESTER, settings_of
from tests.support.snapshots import given, taken
from tests.support.stack import Process, Stack, open_log, read_entries

TENANT = [f"acme-{i}" for i in range(5)]
OTHERS = [f"other-{i}" for i in range(3)]
NAMES = [*TENANT, *OTHERS]
RUNS = 18
"""Enough for a checkpoint."""
pytestmark = [pytest.mark.timeout(120), pytest.mark.nats_roles]


@pytest.fixture
async def stack(tmp_path: Path, nats_server: NatsNode) -> AsyncIterator[Stack]:
    async with Stack(tmp_path / "stack", nats_server.url) as running:
        yield running


@pytest.fixture
async def fresh(tmp_path: Path) -> AsyncIterator[Stack]:
    """Another server, with another number of partitions."""
    async with (
        single_server(tmp_path / "nats-2", roles=True) as node,
        Stack(tmp_path / "stack-2", node.url, partitions=2) as running,
    ):
        yield running


async def test_what_is_restored_folds_to_what_was_saved(stack: Stack, fresh: Stack, tmp_path: Path) -> None:
    await _conversations(stack)
    saved = await _ok(stack, "backup", tmp_path / "backup")
    assert saved.startswith(f"{len(NAMES)} sessions saved")
    restored = await _ok(fresh, "restore", tmp_path / "backup")
    assert restored.startswith(f"{len(NAMES)} sessions restored")
    before, after = await _folds(stack), await _folds(fresh)
    assert after == before
    assert await _ok(fresh, "restore", tmp_path / "backup", "--check")
    # It is a log like any other: one joins near the end, lists one's sessions in the order of activity, and goes on.
    there = await fresh.gateway()
    await fresh.worker()
    said, listed = await _last_said(stack), await _listed(fresh, there)
    assert sorted(listed) == sorted(NAMES)
    assert [said[name] for name in listed] == sorted(said.values(), reverse=True)
    await _goes_on(fresh, there, "acme-0")


async def test_a_backup_takes_only_what_has_changed_and_goes_on_where_it_was_cut_short(
    stack: Stack, tmp_path: Path
) -> None:
    gateway = await _conversations(stack)
    directory = tmp_path / "backup"
    assert (await _ok(stack, "backup", directory, "--sessions", "acme-*")).startswith("5 sessions saved")
    # As a crash leaves it: a file half written, a line half written.
    part = next(path for path in directory.glob("S*") if (path / "manifest.jsonl").read_bytes())
    (part / ".acme-9.jsonl.gz.part").write_bytes(b"half")
    with (part / "manifest.jsonl").open("ab") as manifest:
        manifest.write(b'{"session":"acme-9","fi')
    await _say(stack, gateway, "acme-1", "later", "and later")
    said = await _ok(stack, "backup", directory)
    assert said.startswith("4 sessions saved"), "the three others, and the one that has changed"
    assert "4 unchanged" in said
    assert (await _ok(stack, "backup", directory)).startswith("0 sessions saved")
    assert (await _ok(stack, "restore", directory, "--check")).startswith(f"{len(NAMES)} sessions are as in the backup")


async def test_what_is_deleted_leaves_the_backup_at_the_next_one(stack: Stack, tmp_path: Path) -> None:
    gateway = await _conversations(stack)
    directory = tmp_path / "backup"
    await _ok(stack, "backup", directory)
    async with await Wire.open(gateway.url, stack.token()) as wire:
        await wire.command("session.delete", session="acme-0")
    assert (await _ok(stack, "backup", directory)).startswith("1 sessions saved")
    (file,) = directory.glob("S*/acme-0.*")
    lines = gzip.decompress(file.read_bytes()).splitlines()
    assert len(lines) == 2
    assert b"session.deleted" in lines[1]


async def test_a_restoration_that_was_cut_short_is_gone_on_with(stack: Stack, fresh: Stack, tmp_path: Path) -> None:
    """Killed again and again, at any entry; in the end every entry is there once."""
    await _conversations(stack)
    await _ok(stack, "backup", tmp_path / "backup")
    async with stack.log() as log:
        whole = sum([len(await read_entries(log, name)) for name in NAMES])
    cut = 0
    for part in (0.1, 0.4, 0.7):
        process = await fresh.begin("restore", str(tmp_path / "backup"), "--at-once", "1")
        await _holds(fresh, int(part * whole))
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        cut += await process.wait() == -signal.SIGKILL
    assert cut, "each had ended before"
    await _ok(fresh, "restore", tmp_path / "backup")
    assert await _folds(fresh) == await _folds(stack)
    async with stack.log() as old, fresh.log() as new:
        for name in NAMES:
            assert len(await read_entries(new, name)) == len(await read_entries(old, name))


async def test_a_spoilt_backup_is_told_and_the_rest_is_restored(stack: Stack, fresh: Stack, tmp_path: Path) -> None:
    await _conversations(stack)
    directory = tmp_path / "backup"
    await _ok(stack, "backup", directory)
    (spoilt,) = directory.glob("S*/acme-0.*")
    lines = gzip.decompress(spoilt.read_bytes()).replace(b"answer 1", b"answer 7")
    spoilt.write_bytes(gzip.compress(lines))
    (cut,) = directory.glob("S*/acme-1.*")
    cut.write_bytes(cut.read_bytes()[:-20])
    code, output = await fresh.run("restore", str(directory))
    assert code == 1
    assert "acme-0: " in output
    assert "its checksum differs" in output
    assert "acme-1: " in output
    assert f"{len(NAMES) - 2} sessions restored" in output
    async with fresh.log() as log:
        assert await log.head(log.subjects("acme-0")) is None, "nothing of it was written"


async def test_a_session_with_other_content_is_not_written_into(stack: Stack, fresh: Stack, tmp_path: Path) -> None:
    await _conversations(stack)
    await _ok(stack, "backup", tmp_path / "backup")
    there = await fresh.gateway()
    async with await Wire.open(there.url, fresh.token()) as wire:
        await wire.input("acme-0", "mine", "something else")
    code, output = await fresh.run("restore", str(tmp_path / "backup"))
    assert code == 1
    assert "acme-0: line 2: the session 'acme-0' holds something else" in output
    async with fresh.log() as log:
        assert len(await read_entries(log, "acme-0")) == 1


# --- moving --------------------------------------------------------------------------------------------------------------


async def test_a_tenant_moves_to_a_log_with_another_number_of_partitions(stack: Stack, fresh: Stack) -> None:
    """People are in the middle of it; what the old log gave them as cursors is refused by name in the new one."""
    gateway = await _conversations(stack)
    await _ok(stack, "backup", stack.directory / "keep")
    before = await _folds(stack)
    place = Place("acme-0")
    await join(gateway.url, stack.token(), place)
    # Its user there is in the flags, with a password of its own.
    who = settings_of(fresh.nats_url, Role.PROVISIONER).items()
    flags = [f"--to-{name.replace('_', '-')}={value}" for name, value in who]
    moved = await _ok(stack, "move", "acme-*", "--to-nats-url", fresh.nats_url.replace(f"{TESTER}:", "nobody:"), *flags)
    assert moved.startswith(f"{len(TENANT)} sessions moved")
    after = await _folds(fresh, TENANT)
    # It was closed and opened again on the way, which is in the log and in nothing else.
    assert after == {name: before[name] for name in TENANT}
    async with fresh.log() as log:
        assert await log.head(log.subjects("other-0")) is None
    async with await Wire.open(gateway.url, stack.token()) as wire:
        reply = await wire.command("session.list")
        assert {each["session"]: each["status"] for each in reply["sessions"]} == {
            name: "closed" if name in TENANT else "human" if name == "other-2" else "idle" for name in NAMES
        }
    there = await fresh.gateway()
    await fresh.worker()
    async with await Wire.open(there.url, fresh.token()) as wire:
        with pytest.raises(Refusal) as refused:
            await wire.subscribe(place)
        assert refused.value.code == "cursor_epoch"
    await _goes_on(fresh, there, "acme-0")
    # Again, as after a crash: nothing changes where it has arrived, and what has gone on there stays.
    await _ok(stack, "move", "acme-*", "--to-nats-url", fresh.nats_url, "--delete")
    assert {name: fold for name, fold in (await _folds(fresh, TENANT)).items() if name != "acme-0"} == {
        name: before[name] for name in TENANT if name != "acme-0"
    }
    async with stack.log() as log:
        for name in TENANT:
            assert len(await read_entries(log, name)) == 1, "one entry says that it was deleted"
    await _ok(stack, "move", "acme-*", "--to-nats-url", fresh.nats_url, "--delete")


async def test_a_session_moves_in_the_middle_of_a_conversation(stack: Stack, fresh: Stack) -> None:
    """It is copied while its agent speaks; the run ends where it began, and what is said next is refused there."""
    (gateway,) = await stack.start(1)
    place = Place("acme-0")
    async with await Wire.open(gateway.url, stack.token()) as wire:
        await wire.subscribe(place)
        await wire.input("acme-0", "i0", "stream 100 tokens at 20/s")
        await wire.follow(place, lambda p: len(p.answer("run_i0")) > 20)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_ok(stack, "move", "acme-*", "--to-nats-url", fresh.nats_url))
            await wire.follow(place, lambda p: "run_i0" in p.ended)
        with pytest.raises(Refusal) as refused:
            await wire.input("acme-0", "i1", "and here?")
        assert refused.value.code == "session_closed"
    assert place.whole
    there = await fresh.gateway()
    moved = Place("acme-0")
    await join(there.url, fresh.token(), moved)
    assert moved.answer("run_i0") == place.answer("run_i0") == "".join(f"t{i} " for i in range(100))
    assert moved.ended == {"run_i0": "success"}


async def test_a_session_whose_run_does_not_end_stays_where_it_is(stack: Stack, fresh: Stack) -> None:
    gateway = await stack.gateway()
    await stack.worker()
    async with await Wire.open(gateway.url, stack.token()) as wire:
        await wire.input("acme-0", "i0", "hang")
        place = Place("acme-0")
        await wire.subscribe(place)
        await wire.follow(place, lambda p: "run_i0" in p.started)
        code, output = await stack.run("move", "acme-*", "--to-nats-url", fresh.nats_url, "--wait-s", "1")
        assert code == 1
        assert "acme-0: it stays where it is: 1 runs" in output
        # It is open again, and what was copied is gone on with the next time.
        await wire.command("run.cancel", session="acme-0", runId="run_i0")
        await wire.follow(place, lambda p: "run_i0" in p.ended)
        reply = await wire.input("acme-0", "i1", "still here")
        assert reply["status"] != "refused"
        await wire.follow(place, lambda p: "run_i1" in p.ended)
    await _ok(stack, "move", "acme-*", "--to-nats-url", fresh.nats_url)
    assert await _folds(fresh, ["acme-0"]) == await _folds(stack, ["acme-0"], reopened=True)


async def test_a_log_is_not_moved_into_itself(stack: Stack) -> None:
    code, output = await stack.run("move", "*", "--to-nats-url", stack.nats_url, "--delete")
    assert code == 1
    assert "both addresses lead to the same log" in output


# --- helpers -------------------------------------------------------------------------------------------------------------


async def _conversations(stack: Stack) -> Process:
    """Sessions of every kind that a backup may meet: long ones, one with several owners, one that a human has."""
    (gateway,) = await stack.start(1)
    await stack.worker()
    async with asyncio.TaskGroup() as tasks:
        for n, name in enumerate(NAMES):
            tasks.create_task(_talk(stack, gateway, name, RUNS if n < 2 else 2))
    async with await Wire.open(gateway.url, stack.token("operator")) as wire:
        await wire.command("handoff.claim", session="other-2", lane="main")
        await wire.input("other-2", "human", "I am here")
    await _quiet(stack)
    return gateway


async def _quiet(stack: Stack) -> None:
    """Returns when the worker has released its lanes: nothing is written from then on that a test does not ask for."""
    async with stack.log() as log, asyncio.timeout(30):
        for name in NAMES:
            while any(
                lane.owner is not None and lane.owner.kind == "agent"
                for lane in (await load(log, log.subjects(name))).transcript.state.lanes.values()
            ):
                await asyncio.sleep(0.05)


async def _talk(stack: Stack, gateway: Process, name: str, runs: int) -> None:
    place = Place(name)
    async with await Wire.open(gateway.url, stack.token()) as wire:
        await wire.command("session.create", session=name, title=f"About {name}", config={"onBusy": "enqueue"})
        await wire.subscribe(place)
        for i in range(runs):
            await wire.input(name, f"i{i}", f"answer {i} of {name}")
            await wire.follow(place, lambda p, run=f"run_i{i}": run in p.ended)  # type: ignore[misc]


async def _say(stack: Stack, gateway: Process, name: str, input_id: str, content: str) -> None:
    place = Place(name)
    await join(gateway.url, stack.token(), place)
    async with await Wire.open(gateway.url, stack.token()) as wire:
        await wire.subscribe(place)
        await wire.input(name, input_id, content)
        await wire.follow(place, lambda p: f"run_{input_id}" in p.ended)
    assert place.answer(f"run_{input_id}") == content


async def _goes_on(stack: Stack, gateway: Process, name: str) -> None:
    """One joins near the end, for the checkpoint came along, and the agent answers."""
    place = Place(name)
    await join(gateway.url, stack.token(), place)
    assert place.as_of > 0, "the log is read from its start"
    await _say(stack, gateway, name, "onwards", "here we are")


async def _listed(stack: Stack, gateway: Process) -> list[str]:
    async with await Wire.open(gateway.url, stack.token()) as wire:
        reply = await wire.command("session.list")
    return [each["session"] for each in reply["sessions"]]


async def _last_said(stack: Stack) -> dict[str, int]:
    """When the user has last said something in each session, ms since 1970."""
    latest = {}
    async with stack.log() as log:
        for name in NAMES:
            entries = [entry for _, entry in await read_entries(log, name)]
            latest[name] = max(entry.ts for entry in entries if entry.by is not None and entry.by.id == "user-1")
    return latest


async def _ok(stack: Stack, *command: str | Path) -> str:
    code, output = await stack.run(*map(str, command))
    assert code == 0, output
    return output


async def _holds(stack: Stack, entries: int) -> None:
    """Returns when the log has so many."""
    async with open_log(stack.nats_url) as (connection, log), asyncio.timeout(30):
        while True:
            infos = [await connection.api(f"STREAM.INFO.{stream_name(n)}") for n in range(log.partitions)]
            if sum(info["state"]["messages"] for info in infos) >= entries:
                return


async def _folds(stack: Stack, names: list[str] = NAMES, *, reopened: bool = False) -> dict[str, Any]:
    """What the sessions come to: the state as clients see it and the messages, without the sequences, which are the log's."""
    async with stack.log() as log:
        return {name: await _fold(log, name, reopened=reopened) for name in names}


async def _fold(log: JetStreamLog, name: str, *, reopened: bool) -> Any:
    transcript: Transcript = (await load(log, log.subjects(name))).transcript
    whole = Transcript()
    for seq, entry in await read_entries(log, name):
        whole.apply(seq, entry)
    assert public_view(transcript.state) == public_view(whole.state), "the checkpoint says something else than the log"
    view = public_view(whole.state)
    if reopened:
        view = {**view, "status": "idle"}
    return json.loads(json.dumps([_bare(view), [_bare(m.as_dict()) for m in whole.messages]], default=str))


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _bare(v) for k, v in value.items() if k not in ("seq", "fence")}
    return [_bare(v) for v in value] if isinstance(value, list | tuple) else value


# --- NATS's own backup ---------------------------------------------------------------------------------------------------


async def test_snapshots_of_streams_bring_back_everything_but_cursors(stack: Stack, tmp_path: Path) -> None:
    """Every stream from its snapshot, on another server: a new incarnation, in which entries have their old places."""
    gateway = await _conversations(stack)
    before, listed = await _folds(stack), await _listed(stack, gateway)
    place = Place("acme-0")
    await join(gateway.url, stack.token(), place)
    shared = ["ANTIPHON_META", "INDEX", "HOOKS", "WORK", "ATTACHMENTS"]
    names = [*(f"S{n:02d}" for n in range(stack.partitions)), *shared]
    snapshots = [await taken(stack.nats_url, name) for name in names]
    async with stack.log() as log:
        old = await read_entries(log, "acme-0")
    async with single_server(tmp_path / "nats-2", roles=True) as node:
        for snapshot in snapshots:
            await given(node.url, snapshot)
        async with Stack(tmp_path / "stack-2", node.url, partitions=stack.partitions) as other:
            assert await _folds(other) == before
            async with other.log() as log:
                assert await read_entries(log, "acme-0") == old
            there = await other.gateway()
            await other.worker()
            assert await _listed(other, there) == listed
            async with await Wire.open(there.url, other.token()) as wire:
                with pytest.raises(Refusal) as refused:
                    await wire.subscribe(place)
                # Else a cursor from after the snapshot would be taken for a place in what was written since.
                assert refused.value.code == "cursor_epoch"
            await _goes_on(other, there, "acme-0")
