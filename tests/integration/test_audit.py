"""The audit log: what is deleted, copied, revoked and taken over is written down before it is done, and with its outcome."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.js.errors import APIError

from broker.audit import AuditRecord
from broker.jetstream.audit import JetStreamAuditLog
from tests.support.http import Http
from tests.support.nats import NatsNode, single_server
from tests.support.plane import refused
from tests.support.rawclient import WAIT_S, Wire
from tests.support.stack import Stack, open_log

SECRET = "nothing of this is for an auditor"


@pytest.fixture
async def stack(tmp_path: Path, nats_server: NatsNode) -> AsyncIterator[Stack]:
    async with Stack(tmp_path / "stack", nats_server.url) as stack:
        yield stack


async def audit(stack: Stack, *args: str) -> list[dict[str, Any]]:
    code, output = await stack.run("audit", "--json", *args)
    assert code == 0, output
    assert SECRET not in output
    return [json.loads(line) for line in output.splitlines()]


def short(actions: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(a["action"], a["target"], a["by"], a["tenant"], a["outcome"]) for a in actions]


async def test_what_users_do(stack: Stack) -> None:
    gateway = await stack.gateway()
    writer = {"*": ["read", "send"]}
    async with (
        await Wire.open(gateway.url, stack.token("owner", writer)) as owner,
        await Wire.open(gateway.url, stack.token("other", writer)) as other,
        Http(gateway.url, stack.token("boss", tenant="acme")) as boss,
    ):
        await owner.command("session.create", session="s", title=SECRET, metadata={"m": SECRET})
        await owner.input("s", "i", SECRET)
        await owner.command("session.update", session="s", title=SECRET + "!")
        await owner.command("session.update", session="s", config={"onBusy": "reject", "maxQueue": 3})
        await refused(other, "not_allowed", "session.delete", session="s")
        await refused(other, "not_allowed", "handoff.claim", session="s")
        await refused(other, "not_allowed", "session.close", session="s")
        await other.command("session.fork", session="s", to="copy")
        await owner.command("session.close", session="s")
        await owner.command("session.delete", session="s")
        await boss.ok("DELETE", "/v1/sessions/theirs")
        await boss.ok("POST", "/v1/revocations", {"kind": "session", "whose": "theirs", "user": "user-1"})
        async with Http(gateway.url, stack.token("other", writer, tenant="acme")) as http:
            await http.refused(403, "not_allowed", "POST", "/v1/revocations", {"kind": "user", "whose": "boss"})
    found = await audit(stack)
    assert short(found) == [
        ("session.config", "s: maxQueue, onBusy", "owner", "", "done"),
        ("session.delete", "s", "other", "", "not_allowed"),
        ("lane.take", "s main", "other", "", "not_allowed"),
        ("session.close", "s", "other", "", "not_allowed"),
        ("session.fork", "s to copy", "other", "", "done"),
        ("session.close", "s", "owner", "", "done"),
        ("session.delete", "s", "owner", "", "done"),
        ("session.delete", "theirs", "boss", "acme", "done"),
        ("revoke", "session theirs of user-1", "boss", "acme", "done"),
        ("revoke", "user boss", "other", "acme", "not_allowed"),
    ]
    assert {(a["kind"], a["address"]) for a in found} == {("user", "127.0.0.1")}
    assert {a["process"] for a in found} == {found[0]["process"]}
    assert all(a["process"].startswith("gw-") for a in found)
    assert short(await audit(stack, "--tenant", "acme")) == short(found)[7:]
    assert short(await audit(stack, "--tenant", "-", "--action", "session.delete")) == [
        short(found)[1],
        short(found)[6],
    ]
    assert short(await audit(stack, "--limit", "1")) == short(found)[-1:]
    code, output = await stack.run("audit", "--limit", "2")
    assert code == 0
    first, second = output.splitlines()
    assert first.endswith(
        "done          revoke            session theirs of user-1  by user boss of acme from 127.0.0.1"
    )
    assert "  not_allowed   revoke" in second


async def test_an_admin_reads_its_own_tenants_records_page_by_page(stack: Stack) -> None:
    gateway = await stack.gateway()
    async with (
        Http(gateway.url, stack.token("boss", tenant="acme")) as acme,
        Http(gateway.url, stack.token("chief")) as default,
        Http(gateway.url, stack.token("other", {"s*": ["admin"], "*": ["read"]}, tenant="acme")) as other,
    ):
        assert await acme.ok("GET", "/v1/audit") == {"records": [], "after": "0", "end": True}
        for number in range(3):
            await acme.ok("DELETE", f"/v1/sessions/s-{number}")
            await default.ok("DELETE", f"/v1/sessions/d-{number}")
        await other.refused(403, "not_allowed", "GET", "/v1/audit")
        read: list[dict[str, Any]] = []
        after = "0"
        async with asyncio.timeout(WAIT_S):
            while len(read) < 6:
                page = await acme.ok("GET", "/v1/audit", limit=4, after=after)
                assert len(page["records"]) <= 4
                read += page["records"]
                after = page["after"]
        assert page["end"]
        assert [(r["target"], r["outcome"]) for r in read] == [
            (f"s-{number}", outcome) for number in range(3) for outcome in ("asked", "done")
        ]
        assert [r["id"] for r in read[::2]] == [r["id"] for r in read[1::2]]
        assert {(r["action"], r["kind"], r["by"], r["address"]) for r in read} == {
            ("session.delete", "user", "boss", "127.0.0.1")
        }
        # Whoever asks from there gets what comes next, and nothing of another tenant.
        assert await acme.ok("GET", "/v1/audit", after=after) == {"records": [], "after": after, "end": True}
        await acme.ok("DELETE", "/v1/sessions/s-9")
        async with asyncio.timeout(WAIT_S):
            while not (more := (await acme.ok("GET", "/v1/audit", after=after))["records"]):
                await asyncio.sleep(0.02)
        assert {r["target"] for r in more} == {"s-9"}
        assert {r["target"] for r in (await default.ok("GET", "/v1/audit"))["records"]} == {"d-0", "d-1", "d-2"}
        for wrong in ({"limit": 0}, {"limit": 1001}, {"after": "x"}, {"after": "-1"}):
            await acme.refused(400, "bad_command", "GET", "/v1/audit", **wrong)


async def test_an_admin_that_deletes_anothers_attachment_is_written_down(stack: Stack) -> None:
    gateway = await stack.gateway()
    path = "/v1/sessions/s/attachments"
    async with (
        Http(gateway.url, stack.token("owner", {"*": ["read", "send"]})) as owner,
        Http(gateway.url, stack.token("boss")) as boss,
    ):
        for name in ("mine", "theirs"):
            headers = {"Content-Type": "text/plain", "Idempotency-Key": name}
            assert (await owner.ask("POST", path, SECRET.encode(), headers=headers)).status == 201
        await owner.ok("DELETE", f"{path}/mine")
        assert await audit(stack) == []
        await boss.ok("DELETE", f"{path}/theirs")
    assert short(await audit(stack)) == [("attachment.delete", "s theirs of owner", "boss", "", "done")]


async def test_what_operators_do(stack: Stack, tmp_path: Path) -> None:
    gateway = await stack.gateway()
    async with await Wire.open(gateway.url, stack.token(tenant="acme")) as wire:
        await wire.input("s", "i", SECRET)
    file, saved = str(tmp_path / "s.jsonl"), str(tmp_path / "saved")
    assert (await stack.run("export", "acme~s", "-o", file))[0] == 0
    assert (await stack.run("export", "nothing"))[0] == 1
    assert (await stack.run("import", "copy", file))[0] == 0
    assert (await stack.run("import", "copy", file))[0] == 1
    assert (await stack.run("backup", saved, "--sessions", "acme~*"))[0] == 0
    assert (await stack.run("restore", saved, "--check"))[0] == 0
    assert (await stack.run("restore", saved))[0] == 0
    assert (await stack.run("revoke", "user", "a~b", "--tenant", "acme"))[0] == 0
    found = await audit(stack)
    assert [(a["action"], a["target"], a["tenant"], a["outcome"]) for a in found] == [
        ("export", "acme~s", "acme", "done"),
        ("export", "nothing", "", "failed"),
        ("import", "copy", "", "done"),
        ("import", "copy", "", "failed"),
        ("backup", "acme~*", "acme", "done"),
        ("restore", "*", "", "done"),
        ("revoke", "user a~b", "acme", "done"),
    ]
    assert {(a["kind"], a["process"]) for a in found} == {("operator", "antiphon")}
    assert all(a["by"] and a["address"] for a in found)


async def test_nothing_is_done_that_cannot_be_written_down(tmp_path: Path) -> None:
    """Without a place for records nothing is deleted; what people say goes on."""
    async with single_server(tmp_path / "nats") as node, Stack(tmp_path / "stack", node.url) as stack:
        gateway = await stack.gateway()
        async with await Wire.open(gateway.url, stack.token()) as wire:
            await wire.input("s", "i", "hello")
            client = await nats.connect(node.url)
            await client.jetstream().delete_stream("AUDIT")
            await refused(wire, "unavailable", "session.delete", session="s")
            await wire.input("s", "j", "hello")
            assert len(await stack.entries("s")) == 2
            await stack.apply_topology()
            await wire.command("session.delete", session="s")
            await client.close()
        assert short(await audit(stack)) == [("session.delete", "s", "user-1", "", "done")]


async def test_records_cannot_be_taken_away(stack: Stack) -> None:
    gateway = await stack.gateway()
    async with await Wire.open(gateway.url, stack.token()) as wire:
        await wire.command("session.delete", session="s")
    client = await nats.connect(stack.nats_url)
    streams = client.jetstream()
    with pytest.raises(APIError):
        await streams.delete_msg("AUDIT", 1)
    with pytest.raises(APIError):
        await streams.purge_stream("AUDIT")
    config = (await streams.stream_info("AUDIT")).config
    assert config.max_age == 400 * 86_400
    await client.close()
    await stack.apply_topology(audit_ttl_s="7200", audit_records="5000")
    assert len(await audit(stack)) == 1


async def test_a_gateway_that_dies_leaves_an_outcome_that_is_not_known(stack: Stack) -> None:
    gateway = await stack.gateway()
    async with await Wire.open(gateway.url, stack.token()) as wire:
        await wire.command("session.delete", session="s")
    async with open_log(stack.nats_url) as (connection, _):
        log = JetStreamAuditLog(connection)
        await log.note(AuditRecord("lone", 1, "session.delete", "x", "asked", "user", "user-1"))
        await log.note(AuditRecord("late", 1, "session.delete", "x", "done", "user", "user-1"))
        assert [record.id for record in await log.read(None, 1)] == ["late"]
    assert [(a["target"], a["outcome"]) for a in await audit(stack)] == [("s", "done"), ("x", None)]


@pytest.mark.parametrize("args", [("--limit", "0"), ("--limit", "x"), ("--tenant", "A~B")])
async def test_what_cannot_be_listed(stack: Stack, args: tuple[str, ...]) -> None:
    assert (await stack.run("audit", *args))[0] == 1
