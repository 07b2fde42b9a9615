"""What each role may do in NATS, tried at a real server: all that it may works, and all else is refused."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from broker.config import LogSettings, NatsSettings
from broker.jetstream.connection import Connection
from broker.jetstream.probe import UserOptions
from broker.jetstream.server import EmbeddedServer, ServerOptions
from broker.jetstream.strict import StrictClient
from broker.jetstream.topology import Topology
from broker.nats_config import Login, users_config
from broker.permissions import Access, access, covers, inbox_of
from tests.support.operations import PARTITIONS, POOLS, USERS, accepted, patterns, subjects

WAIT_S = 30.0
SETTINGS = LogSettings(partitions=PARTITIONS, pools=",".join(POOLS))
FOREIGN_STREAMS = {"KV_other": "$KV.other.>", "OBJ_other": "$O.other.>"}
every_user = pytest.mark.parametrize("name", USERS)


@dataclass(frozen=True, slots=True)
class World:
    """A server with all users, and streams, ours and others'."""

    server: EmbeddedServer
    passwords: dict[str, str]

    @contextlib.asynccontextmanager
    async def client(self, name: str) -> AsyncIterator[tuple[Client, set[str]]]:
        """A plain client as that user, and the subjects that the server has refused to it, in small letters."""
        refused: set[str] = set()

        async def complaint(error: Exception) -> None:
            text = str(error)
            assert "permissions violation" in text, text
            refused.add(text.split('"')[1])

        client = StrictClient(NatsSettings())
        await client.connect(
            self.server.url,
            user=name,
            password=self.passwords[name],
            error_cb=complaint,
            inbox_prefix=USERS[name].inbox or inbox_of(name) if name in USERS else "_INBOX",
        )
        try:
            yield client, refused
        finally:
            await client.close()

    async def state(self) -> dict[str, Any]:
        """All that a write could change: each stream with what is in it, and its consumers."""
        async with self.client("tester") as (client, _):
            streams = await client.jetstream().streams_info()
            found: dict[str, Any] = {}
            for stream in streams:
                consumers = await client.jetstream().consumers_info(stream.config.name or "")
                found[stream.config.name or ""] = (
                    stream.config,
                    stream.state.messages,
                    stream.state.last_seq,
                    sorted((each.name, each.num_pending, each.num_ack_pending) for each in consumers),
                )
            return found


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    passwords = {name: secrets.token_hex(16) for name in (*USERS, "tester")}
    logins = [Login(name, user, passwords[name]) for name, user in USERS.items()]
    config = users_config(logins, PARTITIONS, system=("system", secrets.token_hex(16)))
    config["authorization"]["users"].append({"user": "tester", "password": passwords["tester"]})
    users = UserOptions(config, "tester", passwords["tester"], "_INBOX")
    async with EmbeddedServer(ServerOptions(data_dir=tmp_path / "nats", sync_always=False, users=users)) as server:
        made = World(server, passwords)
        async with made.client("tester") as (client, _):
            for name, subject in FOREIGN_STREAMS.items():
                await client.jetstream().add_stream(name=name, subjects=[subject])
        # With the permissions of its role alone.
        async with Connection(_settings(made, "provisioner", tmp_path), name="provisioner") as connection:
            await Topology(connection, SETTINGS).apply()
        async with made.client("tester") as (client, _):
            for subject in ("s.00.before.r.in", "work.default.00.before.main", "work.other.00.before.main"):
                await client.jetstream().publish(subject, b"{}")
        yield made


def _settings(world: World, name: str, directory: Path) -> NatsSettings:
    (directory / name).write_text(world.passwords[name])
    inbox = USERS[name].inbox or inbox_of(name)
    return NatsSettings(
        nats_url=world.server.url, nats_user=name, nats_password_file=str(directory / name), nats_inbox=inbox
    )


def given(name: str) -> Access:
    return access(USERS[name], PARTITIONS)


@every_user
async def test_what_a_user_must_not_publish_is_refused_and_changes_nothing(world: World, name: str) -> None:
    forbidden = [subject for subject in subjects() if not given(name).may_publish(subject)]
    before = await world.state()
    async with world.client(name) as (client, refused):
        for subject in forbidden:
            await client.publish(subject, b"{}", reply=f"{USERS[name].inbox or inbox_of(name)}.x")
        await client.flush()
        assert refused == {subject.lower() for subject in forbidden}
    assert await world.state() == before


@every_user
async def test_what_a_user_may_publish_is_not_refused(world: World, name: str) -> None:
    allowed = [subject for subject in subjects() if given(name).may_publish(subject)]
    async with world.client(name) as (client, refused):
        for subject in allowed:
            await client.publish(subject, b"{}", reply=f"{USERS[name].inbox or inbox_of(name)}.x")
        await client.flush()
        assert not refused


@every_user
async def test_a_user_hears_what_it_may_subscribe_to_and_nothing_else(world: World, name: str) -> None:
    heard: set[str] = set()

    async def hear(msg: Msg) -> None:
        heard.add(msg.subject)

    wanted, may = patterns(), given(name)
    forbidden = {pattern.lower() for pattern in wanted if not accepted(may, pattern)}
    spoken = [*subjects(), *(f"{user.inbox or inbox_of(user.role)}.probe" for user in USERS.values())]
    # What JetStream takes for itself is not passed on; and what is not refused would change streams in between.
    spoken = [subject for subject in spoken if not subject.startswith(("$JS.", "$SYS.", "work."))]
    async with world.client(name) as (client, refused), world.client("tester") as (tester, _):
        for pattern in wanted:
            await client.subscribe(pattern, cb=hear)
        await client.flush()
        assert refused == forbidden
        for subject in spoken:
            await tester.publish(subject, b"{}")
        await tester.flush()
        taken = [pattern for pattern in wanted if accepted(may, pattern)]
        expected = {subject for subject in spoken if any(covers(pattern, subject) for pattern in taken)}
        async with asyncio.timeout(WAIT_S):
            while not heard >= expected:
                await asyncio.sleep(0.01)
        await client.flush()
        # What the servers repeat of what the tester has written to the log comes as well.
        assert {subject for subject in heard if not subject.startswith("live.")} == {
            subject for subject in expected if not subject.startswith("live.")
        }


@every_user
async def test_the_live_copy_is_the_servers_alone(world: World, name: str) -> None:
    heard: list[str] = []

    async def hear(msg: Msg) -> None:
        heard.append(msg.subject)

    async with world.client("tester") as (tester, _), world.client(name) as (client, refused):
        await tester.subscribe("live.>", cb=hear)
        await tester.flush()
        for subject in ("live.00.probe.r.in", "live.01.probe.r.ev.main", "live.00.probe.d.main", "live.x"):
            await client.publish(subject, b"{}")
        await client.flush()
        assert len(refused) == 4
        await tester.publish("s.00.probe.r.in", b"{}")
        async with asyncio.timeout(WAIT_S):
            while not heard:
                await asyncio.sleep(0.01)
        assert heard == ["live.00.probe.r.in"]


async def test_a_worker_gets_jobs_of_its_pool_alone(world: World) -> None:
    body = b'{"batch": 1, "no_wait": true}'
    async with world.client("worker") as (client, refused):
        inbox = f"{inbox_of('worker')}.x"
        answers = await client.subscribe(inbox)
        await client.publish("$JS.API.CONSUMER.MSG.NEXT.WORK.pool-default", body, reply=inbox)
        job = await answers.next_msg(WAIT_S)
        assert job.subject == "work.default.00.before.main"
        await client.publish(job.reply, b"+ACK")
        await client.flush()
        assert not refused
        await client.publish("$JS.API.CONSUMER.MSG.NEXT.WORK.pool-other", body, reply=inbox)
        await client.flush()
        assert refused == {"$js.api.consumer.msg.next.work.pool-other"}
        assert answers.pending_msgs == 0


async def test_the_system_account_sees_servers_and_not_the_log(world: World) -> None:
    """Its user is in another account: what is on the log's subjects does not come there."""
    password = world.server.options.users.config["accounts"]["SYS"]["users"][0]["password"]  # type: ignore[union-attr]
    client = StrictClient(NatsSettings())
    await client.connect(world.server.url, user="system", password=password)
    try:
        answer = await client.request("$SYS.REQ.SERVER.PING", b"", timeout=WAIT_S)
        assert b'"server"' in answer.data
        heard = await client.subscribe("live.>")
        await client.flush()
        async with world.client("tester") as (tester, _):
            await tester.jetstream().publish("s.00.probe.r.in", b"{}")
        await client.flush()
        assert heard.pending_msgs == 0
        await client.publish("s.00.probe.r.in", b"forged")
        await client.flush()
        async with world.client("tester") as (tester, _):
            assert (await tester.jetstream().get_last_msg("S00", "s.00.probe.r.in")).data == b"{}"
    finally:
        await client.close()


async def test_an_answer_goes_where_the_question_says(world: World) -> None:
    """What NATS cannot do, and docs/SECURITY-NATS.md says. Should this fail, NATS has learnt it: say so there."""
    async with world.client("observer") as (client, refused):
        question = b'{"last_by_subj": "s.00.before.r.in"}'
        await client.publish("$JS.API.DIRECT.GET.S00", question, reply="s.00.forged.r.in")
        await client.flush()
        assert not refused
    async with world.client("tester") as (tester, _), asyncio.timeout(WAIT_S):
        while True:
            with contextlib.suppress(NotFoundError):
                assert (await tester.jetstream().get_last_msg("S00", "s.00.forged.r.in")).data == b"{}"
                return
            await asyncio.sleep(0.02)


# What must be refused, said once more and by hand: the table of roles may be wrong, too.
MUST_NOT = {
    "provisioner": ("live.00.probe.r.in", "$JS.API.STREAM.DELETE.S00", "$JS.API.STREAM.CREATE.KV_other", "gw.x"),
    "gateway": (
        "live.00.probe.r.in",
        "s.00.probe.d.main",
        "c.00.probe",
        "$JS.API.STREAM.CREATE.S00",
        "antiphon.meta.x",
    ),
    "worker": ("live.00.probe.r.in", "s.00.probe.r.in", "idx.user.x.probe", "gw.x", "$JS.API.STREAM.PURGE.S00"),
    "worker-other": ("$JS.API.CONSUMER.MSG.NEXT.WORK.pool-default", "$JS.ACK.WORK.pool-default.1.1.1.1.0"),
    "webhooks": (
        "live.00.probe.r.in",
        "s.00.probe.r.in",
        "s.00.probe.r.own.main",
        "work.default.00.probe.main",
        "gw.x",
    ),
    "observer": ("live.00.probe.r.in", "s.00.probe.r.in", "work.default.00.probe.main", "$JS.API.STREAM.PURGE.INDEX"),
    "callout": ("s.00.probe.r.in", "$JS.API.DIRECT.GET.S00", "revoked.token.x", "$SYS.REQ.USER.AUTH", "audit._"),
}
MUST_NOT_HEAR = {
    "provisioner": (">", "s.>", "work.>", "pres.00.probe.here", "_INBOX_gateway.>"),
    "gateway": (">", "s.>", "work.>", "_INBOX.>", "_INBOX_worker.>", "$JS.ACK.>"),
    "worker": (">", "s.>", "work.>", "_INBOX.>", "_INBOX_gateway.>", "_INBOX_worker-other.>", "pres.00.probe.ask"),
    "worker-other": ("_INBOX_worker.>",),
    "webhooks": (">", "s.>", "hooks.>", "_INBOX_gateway.>"),
    "observer": (">", "s.>", "pres.00.probe.here", "_INBOX_gateway.>"),
    "callout": (">", "live.>", "$SYS.>", "gw.*", "_INBOX_worker.>"),
}


@every_user
async def test_what_matters_most_is_refused(world: World, name: str) -> None:
    async with world.client(name) as (client, refused):
        for subject in MUST_NOT[name]:
            await client.publish(subject, b"{}")
        for pattern in MUST_NOT_HEAR[name]:
            await client.subscribe(pattern)
        await client.flush()
        assert refused == {subject.lower() for subject in (*MUST_NOT[name], *MUST_NOT_HEAR[name])}
