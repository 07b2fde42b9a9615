"""`antiphon tenant`: what each has, and that nothing is left anywhere of one that is deleted."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import nats
import pytest

from broker.audit import AuditRecord
from broker.clock import now_ms
from broker.events import Entry, InputSent, Participant
from broker.jetstream.directory import JetStreamDirectory
from broker.jetstream.topology import OWN_STREAMS
from broker.jetstream.usage import JetStreamUsage
from broker.subjects import session_key
from broker.usage import SessionUse
from tests.support.http import Http
from tests.support.nats import NatsNode
from tests.support.place import Place
from tests.support.rawclient import Wire
from tests.support.stack import Stack, open_log

SECRET = "the word that must be gone"
FILE = b"the bytes that must be gone"
KEPT = {"AUDIT", "REVOKED"}
USER = Participant("user", "user-1")


@pytest.fixture
async def stack(tmp_path: Path, nats_server: NatsNode) -> AsyncIterator[Stack]:
    async with Stack(tmp_path / "stack", nats_server.url) as stack:
        yield stack


TENANTS = ("acme", "acme2", None)


async def fill(stack: Stack) -> None:
    """All that a tenant can have: a run with its tokens and checkpoint, a file, notes, a job, what waits to be sent."""
    gateway = await stack.gateway()
    worker = await stack.worker()
    tokens = {tenant: stack.token(**({"tenant": tenant} if tenant else {})) for tenant in TENANTS}
    for token in tokens.values():
        async with await Wire.open(gateway.url, token) as wire, Http(gateway.url, token) as http:
            await wire.command("session.create", session="s", title=SECRET)
            place = Place("s")
            await wire.subscribe(place)
            await wire.input("s", "i", SECRET)
            await wire.follow(place, lambda p: "run_i" in p.ended)
            headers = {"Content-Type": "text/plain", "Idempotency-Key": "a-1"}
            uploaded = await http.ask("POST", "/v1/sessions/s/attachments", FILE, headers=headers)
            assert uploaded.status == 201, uploaded.body
            await http.ok("POST", "/v1/revocations", {"kind": "token", "whose": "a-token"})
    assert await worker.terminate() == 0
    for tenant, token in tokens.items():
        async with await Wire.open(gateway.url, token) as wire:
            await wire.input("waits", "i", SECRET)
        key = f"{tenant}~s" if tenant else "s"
        async with open_log(stack.nats_url) as (connection, _):
            await JetStreamDirectory(connection).note("handoff", SECRET, key, now_ms())
            await connection.publish(f"hooks.due.endpoint.{key}.m-1", SECRET.encode())
            await connection.publish(f"hooks.dead.endpoint.{key}.m-2", SECRET.encode())
    await gateway.kill()


async def everything(url: str) -> dict[str, list[tuple[str, bytes]]]:
    """Every message of every stream there is, by stream."""
    client = await nats.connect(url)
    found: dict[str, list[tuple[str, bytes]]] = {}
    try:
        streams = client.jetstream()
        for stream in await streams.streams_info():
            name = stream.config.name or ""
            found[name] = []
            for seq in range(max(1, stream.state.first_seq), stream.state.last_seq + 1):
                try:
                    msg = await streams.get_msg(name, seq)
                except nats.js.errors.NotFoundError:
                    continue
                found[name].append((msg.subject or "", msg.data or b""))
    finally:
        await client.close()
    return found


async def listed(stack: Stack) -> dict[str, dict[str, Any]]:
    code, output = await stack.run("tenant", "list", "--json")
    assert code == 0, output
    return {one["tenant"]: one for one in map(json.loads, output.splitlines())}


async def test_nothing_is_left_of_a_tenant_that_is_deleted(stack: Stack) -> None:
    await fill(stack)
    assert {tenant: one["bytes"] for tenant, one in (await listed(stack)).items()} == dict.fromkeys(
        ("-", "acme", "acme2")
    )
    async with open_log(stack.nats_url) as (connection, _):
        await JetStreamUsage(connection).note(session_key("acme", "s"), SessionUse(1, 100, 50))
    before = await everything(stack.nats_url)
    mine = [name for name, held in before.items() if any("acme~" in subject for subject, _ in held)]
    assert {"ATTACHMENTS", "INDEX", "WORK", "HOOKS"} < {*mine}
    assert any(name.startswith("S") for name in mine)
    use = await listed(stack)
    assert use.keys() == {"-", "acme", "acme2"}
    assert (use["acme"]["sessions"], use["acme"]["jobs"], use["acme"]["webhooks"]) == (2, 1, 2)
    assert use["acme"]["messages"] > 3
    assert use["acme"]["attachments"] >= 2
    assert [use[tenant]["bytes"] for tenant in ("-", "acme", "acme2")] == [None, 150, None]

    code, output = await stack.run("tenant", "delete", "acme")
    assert (code, "say --yes" in output) == (1, True), output
    assert await everything(stack.nats_url) == before
    code, output = await stack.run("tenant", "delete", "acme", "--yes")
    assert code == 0, output
    assert "2 sessions deleted; nothing of acme is left in" in output
    assert "kept: 1 revocations" in output

    after = await everything(stack.nats_url)
    for name, held in after.items():
        kept = [pair for pair in before[name] if not _is_of("acme", *pair)]
        if name not in KEPT:
            assert held == kept, name
    assert not any("acme~" in subject for held in after.values() for subject, _ in held)
    records = [AuditRecord.decode(body) for subject, body in after["AUDIT"] if subject == "audit.acme"]
    assert [(r.action, r.target, r.outcome) for r in records if r.action == "tenant.delete"] == [
        ("tenant.delete", "acme~*", "asked"),
        ("tenant.delete", "acme~*", "done"),
    ]
    assert (await listed(stack)).keys() == {"-", "acme2"}
    code, output = await stack.run("tenant", "delete", "acme", "--yes")
    assert (code, "0 sessions deleted" in output) == (0, True), output


def _is_of(tenant: str, subject: str, _body: bytes) -> bool:
    return any(part.startswith(f"{tenant}~") for part in subject.split("."))


async def test_all_places_are_looked_at() -> None:
    """A stream that comes to hold something by session must be among them, or be known to hold nothing."""
    from broker.jetstream.catalogue import holdings

    looked = {holding.stream for holding in holdings(1)}
    assert looked | KEPT | {"ANTIPHON_META"} == {"S00", *OWN_STREAMS}


async def test_a_tenant_that_still_writes_is_told(stack: Stack) -> None:
    names = [[f"s{writer}-{number}" for number in range(50)] for writer in range(8)]
    begun = asyncio.Barrier(len(names) + 1)
    async with open_log(stack.nats_url) as (_, log), asyncio.TaskGroup() as tasks:

        async def go_on(sessions: Sequence[str]) -> None:
            """Into the log itself: a gateway has much to do when many of its sessions are deleted, and may not write meanwhile."""
            for number in itertools.count():
                for name in sessions:
                    entry = Entry(f"i-{number}", now_ms(), (InputSent(f"i-{number}", SECRET),), by=USER)
                    await log.append_input(log.subjects(session_key("acme", name)), entry, entry.id)
                if number == 0:
                    await begun.wait()

        writing = [tasks.create_task(go_on(sessions)) for sessions in names]
        # There is much to delete, so that each pass takes longer than many writes.
        await begun.wait()
        code, output = await stack.run("tenant", "delete", "acme", "--yes")
        for task in writing:
            task.cancel()
    assert (code, "take its tokens from it first" in output) == (1, True), output
    assert (await stack.run("tenant", "delete", "acme", "--yes"))[0] == 0


@pytest.mark.parametrize("name", ["", "A", "a~b", "*"])
async def test_a_name_that_is_none(stack: Stack, name: str) -> None:
    assert (await stack.run("tenant", "delete", name, "--yes"))[0] == 1
