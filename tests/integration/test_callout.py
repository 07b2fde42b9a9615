"""Service tokens: a worker comes into NATS by a token that is issued, expires, is changed and revoked (`antiphon callout`)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.config import LogSettings, NatsSettings
from broker.errors import NotPermitted, Unavailable
from broker.events import Entry, InputSent, Participant, TextMessageStart
from broker.jetstream.access import user_access
from broker.jetstream.connection import Connection
from broker.jetstream.log import JetStreamLog
from broker.jetstream.strict import StrictClient
from broker.jetstream.taking import JetStreamJobSource
from broker.permissions import Access, Role, User, access, inbox_of_service
from broker.subjects import SessionSubjects
from tests.support.nats import free_ports
from tests.support.operations import accepted, patterns, subjects
from tests.support.place import Place
from tests.support.rawclient import WAIT_S, Wire, http_get
from tests.support.stack import Process, metric
from tests.support.walled import PARTITIONS, Walled, walled

AGENT = Participant("agent", "w-test")
USER = Participant("user", "user-1")
MINE, OTHERS, CHILD = "mine", "others", "helper"

# nats-py leaves the socket of an attempt that failed to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <StreamWriter:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:loop is closed:ResourceWarning"),
]


@pytest.fixture(autouse=True)
async def _collected() -> AsyncIterator[None]:
    """What is left of them goes while the test's loop is there."""
    yield
    gc.collect()


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Walled]:
    async with walled(tmp_path, pools="default,other,acme~default") as stack:
        await stack.start_callout()
        yield stack


async def let_in(connection: Connection) -> None:
    async with asyncio.timeout(WAIT_S):
        await connection.wait_connected()
        while not connection.connected:
            await asyncio.sleep(0.01)


async def kept_out(connection: Connection) -> None:
    async with asyncio.timeout(WAIT_S):
        while connection.connected or "authorization violation" not in connection.last_error.lower():
            await asyncio.sleep(0.01)


def reasons(callout: Process) -> list[str]:
    return [line["reason"] for line in callout.logged() if line["event"] == "turned away"]


# --- a worker comes and goes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("narrowed", [(), ("--sessions", MINE, "--lanes", "main")], ids=["all", "one lane"])
async def test_a_worker_works_by_a_service_token(stack: Walled, narrowed: tuple[str, ...]) -> None:
    secret = str(stack.directory / "secret")
    code, token = await stack.run("token", "svc-1", "--worker", "default", *narrowed, "--secret-file", secret)
    assert code == 0, token
    gateway = await stack.gateway()
    worker = await stack.worker(**stack.by_token("svc-1", token.strip()))
    async with await Wire.open(gateway.url, stack.token()) as wire:
        place = Place(MINE)
        await wire.subscribe(place)
        await wire.input(MINE, "i", "hello")
        await wire.follow(place, lambda p: "run_i" in p.ended)
        assert place.answer("run_i") == "hello"
    # Of one that may not do all that others do, it says what.
    assert ("not all will work" in worker.output()) == bool(narrowed)
    assert "NATS refused" not in worker.output()
    assert await worker.terminate() == 0


async def test_what_is_revoked_is_out_within_a_second_and_stays_out(stack: Walled) -> None:
    """One token, then all of a user's; who has another token stays."""
    tokens = {name: stack.service_token(name, "default") for name in ("first", "second", "third")}
    async with contextlib.AsyncExitStack() as opened:
        connections = {
            name: await opened.enter_async_context(Connection(stack.settings_by_token(name, token), name=name))
            for name, token in tokens.items()
        }
        for connection in connections.values():
            await let_in(connection)
        begun = time.monotonic()
        assert (await stack.run("revoke", "token", "id-first"))[0] == 0
        await kept_out(connections["first"])
        took_s = time.monotonic() - begun
        assert connections["second"].connected
        # The time of the command's own start is in it; the bound itself is looked at in the callout's own log.
        assert took_s < WAIT_S
        assert (await stack.run("revoke", "user", "second"))[0] == 0
        await kept_out(connections["second"])
        third = connections["third"]
        assert third.connected
        assert third.metrics.registry.get_sample_value("antiphon_nats_reconnects_total") == 0
        # A token that is issued anew is another one.
        await asyncio.sleep(max(0.0, int(time.time()) + 1 - time.time()))
        stack.token_file("first").write_text(stack.service_token("first", "default", jti="id-again"))
        await let_in(connections["first"])


async def test_a_connection_ends_with_its_token_and_comes_back_with_a_new_one(stack: Walled) -> None:
    short = stack.service_token("svc", "default", ttl_s=3)
    async with Connection(stack.settings_by_token("svc", short), name="test") as connection:
        await let_in(connection)
        await kept_out(connection)
        stack.token_file("svc").write_text(stack.service_token("svc", "default"))
        await let_in(connection)
        found = await user_access(connection)
    assert found is not None
    assert found[0].startswith("svc ")


async def test_without_the_callout_no_token_lets_in_and_users_of_the_servers_are_not_held_up(tmp_path: Path) -> None:
    async with walled(tmp_path) as stack:
        settings = stack.settings_by_token("svc", stack.service_token("svc", "default"))
        async with Connection(settings, name="test") as connection, stack.as_user(Role.GATEWAY) as gateway:
            await let_in(gateway)
            await kept_out(connection)
            first, _ = await stack.start_callout(), await stack.start_callout()
            await let_in(connection)
            # Any of several will do.
            await first.kill()
            async with Connection(settings, name="test") as another:
                await let_in(another)


# --- who is turned away --------------------------------------------------------------------------------------------------


async def test_who_is_turned_away(tmp_path: Path) -> None:
    async with walled(tmp_path, callout_accounts="-=$G") as stack:
        callout = await stack.start_callout()
        good = stack.service_token("svc", "default")
        tokens = {
            "no service token": "",
            "not a JWT": "nonsense",
            "not signed with a key known here": f"{good[:-6]}AAAAAA",
            "no claim `worker`": stack.token("svc"),
            "has expired": stack.service_token("svc", "default", ttl_s=-60),
            "no account here": stack.service_token("svc", "default", tenant="acme"),
            "`pools`, and": stack.service_token("svc"),
            "cannot be a worker's": stack.service_token("a b", "default"),
            "pool must be": stack.service_token("svc", "a.b"),
            "session must be": stack.service_token("svc", "default", only=["x.>"]),
            "lane must be": stack.service_token("svc", "default", only=["x"], lanes=["*"]),
            "say whose lanes": stack.service_token("svc", "default", lanes=["main"]),
        }
        tokens |= {"must be": stack.service_token("svc", "default", jti="a b")}
        for said, token in tokens.items():
            nobody = NatsSettings(nats_url=stack.nats_url, reconnect_wait_s=0.05)
            # It is answered at once: no need for the patience that a server without a callout asks for.
            settings = replace(stack.settings_by_token("svc", token) if token else nobody, connect_timeout_s=1.0)
            async with Connection(settings, name="test") as connection:
                await kept_out(connection)
            async with asyncio.timeout(WAIT_S):
                while not any(said in reason for reason in reasons(callout)):
                    await asyncio.sleep(0.02)
            assert token == "" or token not in callout.output()
        async with Connection(stack.settings_by_token("svc", good), name="test") as connection:
            await let_in(connection)


async def test_a_tenants_token_is_for_its_own_pools(stack: Walled) -> None:
    callout = stack.processes[0]
    anything = stack.service_token("svc", "*", tenant="acme")
    async with Connection(stack.settings_by_token("svc", anything, "acme"), name="test") as connection:
        await kept_out(connection)
    assert "pool must be" in reasons(callout)[-1]


# --- what it must not do -------------------------------------------------------------------------------------------------

TOKENS: dict[str, tuple[dict[str, Any], User]] = {
    "one pool": ({"pools": ["default"]}, User(Role.WORKER, ("default",), inbox_of_service("", "svc"))),
    "all pools": ({"pools": ["*"]}, User(Role.WORKER, ("*",), inbox_of_service("", "svc"))),
    "a tenant": (
        {"pools": ["default"], "tenant": "acme"},
        User(Role.WORKER, ("acme~default",), inbox_of_service("acme", "svc")),
    ),
    "a tenant's session": (
        {"pools": ["default"], "only": [MINE], "tenant": "acme"},
        User(
            Role.WORKER,
            ("acme~default",),
            inbox_of_service("acme", "svc"),
            (SessionSubjects.of(f"acme~{MINE}", PARTITIONS).key,),
        ),
    ),
    "a session": (
        {"pools": ["default"], "only": [MINE]},
        User(Role.WORKER, ("default",), inbox_of_service("", "svc"), (SessionSubjects.of(MINE, PARTITIONS).key,)),
    ),
    "a lane": (
        {"pools": ["default"], "only": [MINE], "lanes": [CHILD]},
        User(
            Role.WORKER,
            ("default",),
            inbox_of_service("", "svc"),
            (SessionSubjects.of(MINE, PARTITIONS).key,),
            (CHILD,),
        ),
    ),
}


def tried() -> list[str]:
    """All that is tried of each role, and as much of a session that the token is for and of another one."""
    mine, others = SessionSubjects.of(MINE, PARTITIONS), SessionSubjects.of(OTHERS, PARTITIONS)
    found = [*subjects()]
    for each in (mine, others, SessionSubjects.of(f"acme~{MINE}", PARTITIONS)):
        for lane in ("main", CHILD):
            found += [each.events(lane), each.owner(lane), each.deltas(lane)]
            found += [each.job(pool, lane) for pool in ("default", "other", "acme~default")]
        found += [each.inputs, each.checkpoint]
        found += [f"att.{each.key}.0.x.info", f"idx.handoff.hash.{each.key}", each.presence, each.presence_ask]
        found += [f"$JS.API.DIRECT.GET.{each.stream}", f"$JS.API.STREAM.PURGE.{each.stream}"]
    found += [f"$JS.API.CONSUMER.MSG.NEXT.WORK.pool-{pool}" for pool in ("acme~default", "globex~default")]
    found += ["$SYS.REQ.USER.AUTH", "$SYS.REQ.SERVER.PING.CONNZ", "$SYS._INBOX.a.b", "revoked.token.x"]
    return [*dict.fromkeys(found)]


@pytest.mark.parametrize("kind", TOKENS)
async def test_what_a_token_does_not_give_is_refused(stack: Walled, kind: str) -> None:
    claims, user = TOKENS[kind]
    given = access(user, PARTITIONS)
    forbidden = [subject for subject in tried() if not given.may_publish(subject)]
    unheard = [pattern for pattern in patterns() if not accepted(given, pattern)]
    token = stack.service_token("svc", *claims["pools"], **{k: v for k, v in claims.items() if k != "pools"})
    refused: set[str] = set()

    async def complaint(error: Exception) -> None:
        assert "permissions violation" in str(error), error
        refused.add(str(error).split('"')[1])

    settings = stack.settings_by_token("svc", token, claims.get("tenant", ""))
    client = StrictClient(settings)
    await client.connect(stack.nats_url, error_cb=complaint, inbox_prefix=settings.nats_inbox, **client.credentials())
    try:
        for subject in forbidden:
            await client.publish(subject, b"{}", reply=f"{settings.nats_inbox}.x")
        for pattern in unheard:
            await client.subscribe(pattern)
        await client.flush()
    finally:
        await client.close()
    assert refused == {subject.lower() for subject in (*forbidden, *unheard)}
    assert {"s.00.probe.r.in", "live.00.probe.r.in", "$SYS.REQ.USER.AUTH"} <= {*forbidden}
    async with stack.as_user(Role.PROVISIONER) as connection:
        for number in range(PARTITIONS):
            state = (await connection.api(f"STREAM.INFO.S{number:02d}"))["state"]
            assert state["messages"] == 0


def test_what_the_tokens_give() -> None:
    """Said once more and by hand: the functions that narrow may be wrong, too."""
    mine, others = SessionSubjects.of(MINE, PARTITIONS), SessionSubjects.of(OTHERS, PARTITIONS)

    def given(kind: str) -> Access:
        return access(TOKENS[kind][1], PARTITIONS)

    one = given("a session")
    assert mine.stream != others.stream
    for subject in (mine.events("main"), mine.owner("x"), mine.deltas("main"), mine.checkpoint):
        assert one.may_publish(subject)
    for subject in (others.events("main"), others.owner("x"), others.deltas("main"), others.checkpoint):
        assert not one.may_publish(subject)
        assert given("one pool").may_publish(subject)
    assert one.may_subscribe(mine.live)
    assert not one.may_subscribe(others.live)
    assert not one.may_subscribe("live.>")
    assert one.may_publish(f"$JS.API.DIRECT.GET.{mine.stream}")
    assert not one.may_publish(f"$JS.API.DIRECT.GET.{others.stream}")
    assert not one.may_publish("$JS.API.STREAM.PURGE.ATTACHMENTS")
    lane = given("a lane")
    for kind in (SessionSubjects.events, SessionSubjects.owner, SessionSubjects.deltas):
        assert lane.may_publish(kind(mine, CHILD))
        assert not lane.may_publish(kind(mine, "main"))
        assert not lane.may_publish(kind(others, CHILD))
    assert lane.may_publish(mine.job("default", CHILD))
    assert not lane.may_publish(mine.job("default", "main"))
    assert not lane.may_publish(mine.checkpoint)
    assert lane.may_subscribe(mine.live)
    for pool, may in (("acme~default", True), ("default", False), ("globex~default", False)):
        assert given("a tenant").may_publish(f"$JS.API.CONSUMER.MSG.NEXT.WORK.pool-{pool}") == may
        assert given("a tenant").may_publish(others.job(pool, "main")) == may
        theirs = SessionSubjects.of(f"acme~{MINE}", PARTITIONS)
        assert given("a tenant's session").may_publish(theirs.job(pool, "main")) == may
        assert not given("a tenant's session").may_publish(mine.job(pool, "main"))


async def test_a_run_in_the_one_session_that_a_token_is_for(stack: Walled) -> None:
    """It claims the lane, writes, reads and follows there; it can do nothing in another session of the same pool."""
    settings = stack.settings_by_token("svc", stack.service_token("svc", "default", only=[MINE]))
    async with (
        stack.as_user(Role.GATEWAY) as gateway,
        Connection(settings, name="test") as connection,
        JetStreamLog(gateway, LogSettings()) as theirs,
        JetStreamLog(connection, LogSettings()) as log,
    ):
        await let_in(gateway)
        await let_in(connection)
        await theirs.prepare()
        await log.prepare()
        for name in (MINE, OTHERS):
            entry = Entry("i", 1, (InputSent("i", "hello"),), by=USER)
            await theirs.append_input(theirs.subjects(name), entry, "i")
        subjects_ = log.subjects(MINE)
        page, _ = await log.read(subjects_, 0)
        assert len(page) == 1
        fence = await log.claim(subjects_, "main", 0, AGENT, 1)
        async with log.tail(subjects_, fence) as tail:
            assert await tail.next() == []
            await theirs.append_input(subjects_, Entry("j", 1, (InputSent("j", "more"),), by=USER), "j")
            async with asyncio.timeout(WAIT_S):
                assert len(await tail.next()) == 1
        with pytest.raises(NotPermitted):
            await log.claim(log.subjects(OTHERS), "main", 0, AGENT, 1)
        with pytest.raises(NotPermitted):
            await log.read(log.subjects(OTHERS), 0)


async def test_a_run_in_the_one_lane_that_a_token_is_for(stack: Walled) -> None:
    """It claims the lane and writes there; what is in the session's other lanes it can read, and cannot touch."""
    settings = stack.settings_by_token("svc", stack.service_token("svc", "default", only=[MINE], lanes=[CHILD]))
    async with (
        stack.as_user(Role.WORKER) as worker,
        Connection(settings, name="test") as connection,
        JetStreamLog(worker, LogSettings()) as theirs,
        JetStreamLog(connection, LogSettings()) as log,
    ):
        await let_in(worker)
        await let_in(connection)
        await theirs.prepare()
        await log.prepare()
        main = await theirs.claim(theirs.subjects(MINE), "main", 0, AGENT, 1)
        mine = log.subjects(MINE)
        fence = await log.claim(mine, CHILD, 0, AGENT, 1)
        said = await log.append(mine, CHILD, fence, Entry("1", 1, (TextMessageStart("m"),), CHILD, by=AGENT))
        page, _ = await log.read(mine, 0)
        assert [stored.seq for stored in page] == [main, fence, said]
        for refused in (
            log.claim(mine, "main", main, AGENT, 1),
            log.append(mine, "main", main, Entry("2", 1, (TextMessageStart("n"),), "main", by=AGENT)),
            log.write_checkpoint(mine, CHILD, fence, b"{}"),
            log.append_input(mine, Entry("i", 1, (InputSent("i", "hello"),), by=USER), "i"),
        ):
            with pytest.raises(NotPermitted):
                await refused
        assert [stored.seq for stored in (await theirs.read(mine, 0))[0]] == [main, fence, said]


# --- tenants' own workers ------------------------------------------------------------------------------------------------


async def test_a_tenants_jobs_go_to_its_own_workers_and_nobody_elses_do(stack: Walled) -> None:
    gateway = await stack.gateway()
    own = await stack.worker(
        **stack.by_token("svc", stack.service_token("svc", "default", tenant="acme"), "acme"), pool="acme~default"
    )
    async with (
        await Wire.open(gateway.url, stack.token(tenant="acme")) as acme,
        await Wire.open(gateway.url, stack.token(tenant="globex")) as globex,
        await Wire.open(gateway.url, stack.token()) as default,
    ):
        # Nobody can name a tenant's pool, be it in a config.
        with pytest.raises(Exception, match="pool"):
            await globex.command("session.create", session="steal", config={"pool": "acme~default"})
        for wire in (globex, default):
            await wire.input("s", "i", "hello")
        place = Place("s")
        await acme.subscribe(place)
        await acme.input("s", "i", "hello")
        await acme.follow(place, lambda p: "run_i" in p.ended)
        assert own.claimed() == {"acme~s"}
        shared = await stack.worker()
        for wire in (globex, default):
            place = Place("s")
            await wire.subscribe(place)
            await wire.follow(place, lambda p: "run_i" in p.ended)
    assert own.claimed() == {"acme~s"}
    assert shared.claimed() == {"globex~s", "s"}
    assert "not all will work" not in own.output()


async def test_a_job_of_another_tenant_is_not_done_by_a_tenants_worker(stack: Walled) -> None:
    """Should somebody put it there who may write jobs."""
    settings = stack.settings_by_token("svc", stack.service_token("svc", "default", tenant="acme"), "acme")
    async with (
        stack.as_user(Role.GATEWAY) as gateway,
        Connection(settings, name="test") as connection,
        JetStreamJobSource(connection, "acme~default") as source,
    ):
        await let_in(gateway)
        await let_in(connection)
        for key in ("victim", "globex~victim", "acme~own"):
            await gateway.publish(SessionSubjects.of(key, PARTITIONS).job("acme~default", "main"), b"{}")
        async with asyncio.timeout(WAIT_S):
            while (job := await source.take(1.0)) is None:
                pass
        assert job.session == "acme~own"
        await job.done()
        async with asyncio.timeout(WAIT_S):
            while (await gateway.api("STREAM.INFO.WORK"))["state"]["messages"]:
                await asyncio.sleep(0.02)


async def test_what_the_callout_counts(tmp_path: Path) -> None:
    async with walled(tmp_path) as stack:
        [port] = map(str, free_ports(1))
        await stack.start_callout(callout_port=port)
        name = f"svc-{secrets.token_hex(2)}"
        async with Connection(
            stack.settings_by_token(name, stack.service_token(name, "default")), name="test"
        ) as connection:
            await let_in(connection)
            assert (await stack.run("revoke", "token", f"id-{name}"))[0] == 0
            await kept_out(connection)
        metrics = ""
        async with asyncio.timeout(WAIT_S):
            while not metric(metrics, "antiphon_callout_ended_total"):
                _, metrics = await http_get(f"http://127.0.0.1:{port}/metrics")
        assert metric(metrics, "antiphon_callout_answers_total", outcome="admitted") == 1
        assert metric(metrics, "antiphon_callout_answers_total", outcome="unauthorized") >= 1
        assert metric(metrics, "antiphon_callout_ended_total") == 1
        with pytest.raises(Unavailable):
            await connection.api("INFO")
