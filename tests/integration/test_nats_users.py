"""As whom a process comes to NATS, and what it does when NATS lets it do less than it needs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from broker.config import LogSettings, NatsSettings
from broker.errors import ConfigError, NotPermitted
from broker.events import Entry, InputSent, Participant
from broker.jetstream.connection import Connection
from broker.jetstream.health import JetStreamHealth
from broker.jetstream.log import JetStreamLog
from broker.jetstream.taking import JetStreamJobSource
from broker.jetstream.topology import Topology
from broker.nats_config import Login, users_config
from broker.nats_jwt import signed, user_jwt
from broker.nkeys import Kind, NKey
from broker.permissions import Access, Role, User, access, inbox_of
from tests.support.nats import free_ports, single_server
from tests.support.nats_jwt import credentials_file
from tests.support.roles import settings_of
from tests.support.served_nats import served

WAIT_S = 15.0
USER = Participant("user", "user-1")
LOG = LogSettings(partitions=2)
GATEWAY_INBOX = inbox_of(Role.GATEWAY)

# nats-py leaves the socket of an attempt that failed to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <StreamWriter:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning"),
]


class Server:
    """A nats-server with a configuration of the test's, which may be changed while it runs."""

    def __init__(self, directory: Path) -> None:
        [self.port] = free_ports(1)
        self.path = directory / "nats.conf"
        self.directory = directory
        self.pid = 0

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def write(self, config: Mapping[str, Any]) -> None:
        shown = {"host": "127.0.0.1", "port": self.port, "jetstream": {"store_dir": str(self.directory / "js")}}
        self.path.write_text(json.dumps(shown | dict(config)))

    def change(self, config: Mapping[str, Any]) -> None:
        """Has the server read another configuration, as `nats-server --signal reload` does."""
        self.write(config)
        os.kill(self.pid, signal.SIGHUP)


@contextlib.asynccontextmanager
async def running(directory: Path, config: Mapping[str, Any]) -> AsyncIterator[Server]:
    server = Server(directory)
    server.write(config)
    async with served(server.path, server.port) as server.pid:
        yield server


def one(login: Login) -> dict[str, Any]:
    return users_config([login], LOG.partitions)


def quick(url: str, **values: str) -> NatsSettings:
    return NatsSettings(nats_url=url, connect_timeout_s=1.0, reconnect_wait_s=0.05, **values)  # type: ignore[arg-type]


async def let_in(connection: Connection) -> None:
    async with asyncio.timeout(WAIT_S):
        await connection.wait_connected()
        while not connection.connected:
            await asyncio.sleep(0.01)


async def kept_out(connection: Connection, said: str = "authorization violation") -> None:
    async with asyncio.timeout(WAIT_S):
        while said not in connection.last_error.lower():
            await asyncio.sleep(0.01)
    assert not connection.connected


# --- who it is -----------------------------------------------------------------------------------------------------------


async def test_a_password_is_changed_without_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first\n")
    login = Login("gateway", User(Role.GATEWAY), "first")
    async with running(tmp_path, one(login)) as server:
        who = {"nats_user": "gateway", "nats_password_file": str(file), "nats_inbox": GATEWAY_INBOX}
        async with Connection(quick(server.url, **who), name="test") as connection:
            await let_in(connection)
            assert "streams" in await connection.api("INFO")
            # The server ends what stands with the old password, and the old one is of no use any more.
            server.change(one(Login("gateway", login.user, "second")))
            await kept_out(connection)
            file.write_text("second\n")
            await let_in(connection)
            assert "streams" in await connection.api("INFO")


async def test_an_nkey_is_changed_without_a_restart(tmp_path: Path) -> None:
    first, second = NKey.made(Kind.USER), NKey.made(Kind.USER)
    file = tmp_path / "gateway.nk"
    file.write_text(first.seed)
    login = Login("gateway", User(Role.GATEWAY), nkey=first.public)
    async with running(tmp_path, one(login)) as server:
        who = {"nats_nkey_file": str(file), "nats_inbox": GATEWAY_INBOX}
        async with Connection(quick(server.url, **who), name="test") as connection:
            await let_in(connection)
            server.change(one(Login("gateway", login.user, nkey=second.public)))
            await kept_out(connection)
            file.write_text(second.seed)
            await let_in(connection)
            assert "streams" in await connection.api("INFO")


def account_claims(key: NKey, name: str, *, streams: bool) -> dict[str, Any]:
    limits = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
    limits |= dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1 if streams else 0)
    nats = {"type": "account", "version": 2, "limits": {**limits, "wildcards": True}}
    return {"sub": key.public, "name": name, "iat": 1, "nats": nats}


async def test_a_credentials_file_of_an_operator_that_has_run_out_is_read_again(tmp_path: Path) -> None:
    operator, user = NKey.made(Kind.OPERATOR), NKey.made(Kind.USER)
    account, system = NKey.made(Kind.ACCOUNT), NKey.made(Kind.ACCOUNT)
    claims = {"sub": operator.public, "name": "O", "iat": 1, "nats": {"type": "operator", "version": 2}}
    config = {
        "operator": signed(claims, operator),
        "resolver": "MEMORY",
        "system_account": system.public,
        "resolver_preload": {
            account.public: signed(account_claims(account, "ANTIPHON", streams=True), operator),
            system.public: signed(account_claims(system, "SYS", streams=False), operator),
        },
    }
    file, now_s = tmp_path / "gateway.creds", int(time.time())
    given = access(User(Role.GATEWAY), LOG.partitions)

    def write(expires_s: int) -> None:
        jwt = user_jwt(user.public, "gateway", given, account, now_s=now_s, expires_s=expires_s)
        file.write_text(credentials_file(jwt, user))

    write(now_s + 4)
    async with running(tmp_path, config) as server:
        who = {"nats_credentials": str(file), "nats_inbox": GATEWAY_INBOX}
        async with Connection(quick(server.url, **who), name="test") as connection:
            await let_in(connection)
            with pytest.raises(NotPermitted):
                await connection.publish("live.00.x", b"{}")
            async with asyncio.timeout(WAIT_S):
                while connection.connected:
                    await asyncio.sleep(0.02)
            write(now_s + 3600)
            await let_in(connection)
            assert (await connection.call("$SYS.REQ.USER.INFO"))["data"]["user"] == user.public


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    (tmp_path / "text").write_text("no key")
    jwt_alone = tmp_path / "jwt"
    jwt_alone.write_text(credentials_file("a.b.c", NKey.made(Kind.USER)).split("\n\n")[0])
    seed = NKey.made(Kind.USER).seed
    (tmp_path / "changed").write_text(seed[:20] + ("A" if seed[20] != "A" else "B") + seed[21:])
    for settings, said in (
        ({"nats_user": "x", "nats_password_file": str(tmp_path / "absent")}, "PASSWORD_FILE: cannot read it"),
        ({"nats_user": "x", "nats_password_file": str(tmp_path / "empty")}, "PASSWORD_FILE: it is empty"),
        ({"nats_nkey_file": str(tmp_path / "text")}, "NKEY_FILE: this is no NKey"),
        ({"nats_nkey_file": str(tmp_path / "changed")}, "NKEY_FILE: this is no NKey: its checksum"),
        ({"nats_credentials": str(tmp_path / "text")}, "CREDENTIALS: there is no JWT"),
        ({"nats_credentials": str(jwt_alone)}, "CREDENTIALS: there is no seed"),
    ):
        with pytest.raises(ConfigError, match=f"^ANTIPHON_NATS_{said}"):
            Connection(NatsSettings(**settings), name="test")  # type: ignore[arg-type]


def test_settings_that_contradict_each_other_are_refused() -> None:
    for settings in (
        {"nats_user": "x"},
        {"nats_password_file": "x"},
        {"nats_user": "x", "nats_password_file": "x", "nats_nkey_file": "x"},
        {"nats_credentials": "x", "nats_nkey_file": "x"},
        {"nats_inbox": "_INBOX.>"},
        {"nats_inbox": ""},
    ):
        with pytest.raises(ConfigError, match="ANTIPHON_NATS_"):
            NatsSettings(**settings)  # type: ignore[arg-type]


def test_no_secret_of_an_address_is_shown() -> None:
    settings = NatsSettings(nats_url="nats://user:secret@one:4222, tls://token@two:4222,nats://three:4222")
    assert settings.nats_addresses == "nats://one:4222,tls://two:4222,nats://three:4222"


# --- what it must not do ---------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def as_role(directory: Path, role: Role) -> AsyncIterator[tuple[Connection, JetStreamLog]]:
    """The log, with the user of a role."""
    async with single_server(directory / "nats", roles=True) as node:
        for each in (Role.PROVISIONER, role):
            settings = NatsSettings(nats_url=node.url, ack_timeout_s=WAIT_S, **settings_of(node.url, each))
            async with Connection(settings, name="test") as connection:
                if each is Role.PROVISIONER:
                    await Topology(connection, LOG).apply()
                if each is role:
                    async with JetStreamLog(connection, LOG) as log:
                        await log.prepare()
                        yield connection, log
                        return


async def test_a_write_that_is_refused_fails_at_once_and_is_counted_and_said(tmp_path: Path) -> None:
    async with as_role(tmp_path, Role.WORKER) as (connection, log):
        entry = Entry("i1", 1, (InputSent("i1", "hello"),), by=USER)
        begun = time.monotonic()
        with capture_logs() as logged:
            for session in ("demo", "other"):
                with pytest.raises(NotPermitted, match=rf"^NATS does not let this user publish s\.0\d\.{session}"):
                    await log.append_input(log.subjects(session), entry, "i1")
        assert time.monotonic() - begun < WAIT_S / 2
        assert [line["subject"].split(".")[0] for line in logged if line["event"] == "NATS refused"] == ["s"]
        registry = connection.metrics.registry
        assert registry.get_sample_value("antiphon_nats_permission_violations_total", {"operation": "publish"}) == 2
        assert registry.get_sample_value("antiphon_log_unknown_outcomes_total") == 0
        assert await log.head(log.subjects("demo")) is None


async def test_a_lane_that_may_not_be_written_is_not_tried_again_and_again(tmp_path: Path) -> None:
    async with as_role(tmp_path, Role.OBSERVER) as (_, log):
        begun = time.monotonic()
        with pytest.raises(NotPermitted, match=r"publish s\.\d\d\.demo\.r\.own\.main"):
            await log.claim(log.subjects("demo"), "main", 0, USER, 1)
        assert time.monotonic() - begun < WAIT_S / 2


async def test_reading_that_is_refused_fails_at_once(tmp_path: Path) -> None:
    """As of a user that was made for fewer partitions."""
    few = Login("gateway", User(Role.GATEWAY), "x")
    (tmp_path / "password").write_text("x")
    config = users_config([few], 1)
    config["authorization"]["users"].append({"user": "all", "password": "x"})
    async with running(tmp_path, config) as server:
        everything = f"nats://all:x@127.0.0.1:{server.port}"
        async with Connection(quick(everything), name="test") as connection:
            await Topology(connection, LOG).apply()
        who = {"nats_user": "gateway", "nats_password_file": str(tmp_path / "password"), "nats_inbox": GATEWAY_INBOX}
        async with (
            Connection(quick(server.url, **who), name="test") as connection,
            JetStreamLog(connection, LOG) as log,
        ):
            await log.prepare()
            session = next(name for name in map(str, range(99)) if log.subjects(name).partition == 1)
            with pytest.raises(NotPermitted, match=r"publish \$JS\.API\.DIRECT\.GET\.S01"):
                await log.read(log.subjects(session), 0)
            with pytest.raises(NotPermitted, match=r"publish \$JS\.API\.STREAM\.MSG\.GET\.S01"):
                await log.head(log.subjects(session))
            [problem] = await JetStreamHealth(connection, log, LOG, Role.GATEWAY).problems()
            assert problem.startswith("NATS does not let this user publish $JS.API.STREAM.INFO.S01")


async def test_jobs_of_another_pool_are_refused_at_once(tmp_path: Path) -> None:
    users = [Login("worker", User(Role.WORKER, ("default",)), "x"), Login("provisioner", User(Role.PROVISIONER), "x")]
    (tmp_path / "password").write_text("x")
    async with running(tmp_path, users_config(users, LOG.partitions)) as server:
        who = {"nats_user": "worker", "nats_password_file": str(tmp_path / "password")}
        settings = quick(server.url, **who, nats_inbox=inbox_of(Role.WORKER))
        async with (
            Connection(settings, name="test") as connection,
            JetStreamJobSource(connection, "other") as source,
        ):
            begun = time.monotonic()
            with pytest.raises(NotPermitted, match=r"publish \$JS\.API\.CONSUMER\.MSG\.NEXT\.WORK\.pool-other"):
                await source.take(WAIT_S)
            assert time.monotonic() - begun < WAIT_S / 2


async def test_a_reader_that_may_not_follow_says_so_and_follows_when_it_may(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("x")
    whole = access(User(Role.GATEWAY), LOG.partitions)
    less = Access(whole.publish, tuple(subject for subject in whole.subscribe if subject != "live.>"))

    def config(given: Access) -> dict[str, Any]:
        entry = {"user": "gateway", "password": "x"}
        permissions = {"publish": {"allow": list(given.publish)}, "subscribe": {"allow": list(given.subscribe)}}
        users = [{**entry, "permissions": permissions}, {"user": "all", "password": "x"}]
        return {"authorization": {"users": users}}

    async with running(tmp_path, config(less)) as server:
        async with Connection(quick(f"nats://all:x@127.0.0.1:{server.port}"), name="test") as connection:
            await Topology(connection, LOG).apply()
        who = {"nats_user": "gateway", "nats_password_file": str(tmp_path / "password"), "nats_inbox": GATEWAY_INBOX}
        async with (
            Connection(quick(server.url, **who), name="test") as connection,
            JetStreamLog(connection, LOG) as log,
        ):
            await log.prepare()
            subjects = log.subjects("demo")
            with capture_logs() as logged:
                async with log.tail(subjects, 0) as tail, asyncio.TaskGroup() as tasks:
                    following = tasks.create_task(tail.next())
                    async with asyncio.timeout(WAIT_S):
                        while not any("subscribe live." in str(line.get("reason")) for line in logged):
                            await asyncio.sleep(0.01)
                    assert not following.done()
                    server.change(config(whole))
                    async with asyncio.timeout(WAIT_S):
                        assert await following == []  # it is live
                    await log.append_input(subjects, Entry("i1", 1, (InputSent("i1", "hello"),), by=USER), "i1")
                    async with asyncio.timeout(WAIT_S):
                        assert len(await tail.next()) == 1


async def test_a_wrong_inbox_is_named(tmp_path: Path) -> None:
    async with single_server(tmp_path / "nats", roles=True) as node:
        who = settings_of(node.url, Role.GATEWAY) | {"nats_inbox": "_INBOX_another"}
        settings = NatsSettings(nats_url=node.url, ack_timeout_s=WAIT_S, **who)
        async with Connection(settings, name="test") as connection:
            begun = time.monotonic()
            with pytest.raises(NotPermitted, match="set ANTIPHON_NATS_INBOX to the prefix"):
                await connection.api("INFO")
            assert time.monotonic() - begun < WAIT_S / 2


async def test_what_is_played_into_the_live_copy_is_not_believed(tmp_path: Path) -> None:
    """Who may read the log may have the server answer on any subject: an entry of one session to readers of another."""
    async with as_role(tmp_path, Role.GATEWAY) as (connection, log):
        mine = log.subjects("mine")
        names = (f"s-{number}" for number in range(99))
        theirs = next(s for s in map(log.subjects, names) if s.partition == mine.partition)
        async with log.tail(theirs, 0) as tail:
            assert await tail.next() == []
            stored = await log.append_input(mine, Entry("i1", 1, (InputSent("i1", "forged"),), by=USER), "i1")
            body = json.dumps({"seq": stored.seq, "next_by_subj": mine.everything, "batch": 1}).encode()
            forged = theirs.live.replace(">", "r.in")
            heard: asyncio.Event = asyncio.Event()

            async def hear(_: object) -> None:
                heard.set()

            await connection.subscribe(forged, hear)
            with capture_logs() as logged:
                await connection.send(f"$JS.API.DIRECT.GET.{mine.stream}", body, reply=forged)
                async with asyncio.timeout(WAIT_S):
                    await heard.wait()
                await log.append_input(theirs, Entry("i2", 1, (InputSent("i2", "real"),), by=USER), "i2")
                async with asyncio.timeout(WAIT_S):
                    [delivery] = await tail.next()
            assert b"real" in delivery.body  # type: ignore[union-attr]
            assert any("was ignored" in line["event"] for line in logged)
