"""A tenant in a cell of its own: an account of NATS with streams, storage, gateways and workers of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.errors import LogFull
from broker.jetstream.connection import Connection
from broker.permissions import Role, inbox_of
from broker.subjects import SessionSubjects
from tests.support.http import Http
from tests.support.place import Place
from tests.support.rawclient import WAIT_S, Refusal, Wire
from tests.support.walled import MAIN, PARTITIONS, Walled, walled

STORAGE = 4 << 20
SECRET = "the word that nobody else may see"

pytestmark = pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")


@pytest.fixture
async def main(tmp_path: Path) -> AsyncIterator[Walled]:
    async with walled(tmp_path, cells=["acme"], storage={"acme": STORAGE}) as stack:
        yield stack


async def keys(connection: Connection) -> set[str]:
    """The sessions of the account that a connection is in."""
    found: set[str] = set()
    for number in range(PARTITIONS):
        answer = await connection.api(f"STREAM.INFO.S{number:02d}", {"subjects_filter": ">"})
        found |= {subject.split(".")[2] for subject in answer["state"].get("subjects") or ()}
    return found


async def test_a_tenant_moves_into_a_cell_and_works_there_alone(main: Walled) -> None:
    async with main.of_cell("acme", pools="default,acme~default") as cell:
        shared = await main.gateway()
        acme = main.token(tenant="acme")
        async with Http(shared.url, acme) as http, Http(shared.url, main.token()) as default:
            await http.ok("POST", "/v1/sessions", {"session": "s", "title": SECRET})
            await default.ok("POST", "/v1/sessions", {"session": "s", "title": "of everybody"})
        code, output = await main.run(
            *("move", "acme~*", "--to-nats-url", main.nats_url, "--delete"),
            *("--to-nats-nkey-file", str(main.users / "acme-provisioner.nk")),
            *("--to-nats-inbox", inbox_of("acme-provisioner")),
        )
        assert (code, "1 sessions moved" in output) == (0, True), output
        assert (await main.run("tenant", "delete", "acme", "--yes"))[0] == 0
        await main.start_callout(callout_accounts=f"acme=acme,-={MAIN}")
        token = main.service_token("svc", "default", tenant="acme")
        worker = await cell.worker(**main.by_token("svc", token, "acme"), pool="acme~default")
        # The gateway of the cell takes its own tenant's tokens, the other one everybody else's.
        own = await cell.gateway(tenants="acme", jwt_secret_file=str(main.directory / "secret"))
        with pytest.raises(Refusal, match="unauthorized"):
            await Wire.open(own.url, main.token())
        async with main.as_user(Role.PROVISIONER) as here, cell.as_user(Role.PROVISIONER) as there:
            heard: list[str] = []

            async def hear(msg: object) -> None:
                heard.append(str(getattr(msg, "subject", "")))

            await here.confirm(await here.subscribe("live.>", hear))
            async with await Wire.open(own.url, acme) as wire:
                place = Place("s")
                await wire.subscribe(place)
                await wire.input("s", "i", "hello")
                await wire.follow(place, lambda p: "run_i" in p.ended)
                assert place.answer("run_i") == "hello"
            await here.flush()
            assert not heard
            assert await keys(here) == {"s"}
            assert await keys(there) == {"acme~s"}
        assert worker.claimed() == {"acme~s"}


async def test_a_cell_that_is_full_is_full_alone(main: Walled) -> None:
    """What its streams may take is the account's own, and the servers hold it to that."""
    subjects = SessionSubjects.of("acme~s", PARTITIONS)
    async with (
        main.of_cell("acme") as cell,
        cell.as_user(Role.GATEWAY) as there,
        main.as_user(Role.GATEWAY) as here,
    ):
        for connection in (here, there):
            async with asyncio.timeout(WAIT_S):
                await connection.wait_connected()
        body = b"x" * (256 << 10)

        async def written(connection: Connection) -> None:
            for _ in range(2 * STORAGE // len(body)):
                await connection.publish(subjects.inputs, body)

        with pytest.raises(LogFull):
            await written(there)
        await written(here)


async def test_no_user_of_an_account_reaches_another(main: Walled) -> None:
    """With the rights of the provisioner, the widest there are: the same subjects are others in the other account."""
    subjects = SessionSubjects.of("acme~s", PARTITIONS)
    async with (
        main.of_cell("acme") as cell,
        cell.as_user(Role.PROVISIONER) as there,
        main.as_user(Role.PROVISIONER) as here,
    ):
        for connection in (here, there):
            async with asyncio.timeout(WAIT_S):
                await connection.wait_connected()
        await there.publish(subjects.inputs, SECRET.encode())
        # An answer that is to go into the other account's log stays in this one.
        query = b'{"last_by_subj": "%s"}' % subjects.inputs.encode()
        await there.send(f"$JS.API.DIRECT.GET.{subjects.stream}", query, reply="s.00.forged.r.in")
        await there.flush()
        await here.api(f"STREAM.PURGE.{subjects.stream}", {"filter": ">"})
        assert await keys(here) == set()
        assert "acme~s" in await keys(there)
        assert (await there.api(f"STREAM.INFO.{subjects.stream}"))["state"]["messages"] >= 1
