"""The users that we make for others' servers: those of compose.yaml, and those of `antiphon nats-users`."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from broker.config import LogSettings, NatsSettings
from broker.jetstream.access import user_access
from broker.jetstream.connection import Connection
from broker.jetstream.topology import Topology
from broker.permissions import STANDARD, Access, Role, User, access, inbox_of
from tests.support.dev import run
from tests.support.nats import free_ports
from tests.support.served_nats import served
from tools.nats_roles import PARTITIONS
from tools.nats_roles import main as roles_main

ROOT = Path(__file__).resolve().parents[2]


async def allowed(settings: NatsSettings) -> Access:
    async with Connection(settings, name="test") as connection:
        await connection.wait_connected()
        found = await user_access(connection)
    assert found is not None
    return found[1]


def make_secrets(directory: Path) -> None:
    """As its main program does, into another directory."""
    script = "import pathlib, sys, make_secrets; make_secrets.main(pathlib.Path(sys.argv[1]))"
    command = (sys.executable, "-c", script, str(directory))
    subprocess.run(command, cwd=ROOT / "deploy", check=True, capture_output=True)


def contents(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir()}


def same(one: Access, other: Access) -> bool:
    return not [*one.lacks(other), *other.lacks(one)]


def test_what_is_made_of_the_table_is_not_stale() -> None:
    assert roles_main(["--check"]) == 0


async def test_each_role_of_compose_may_do_what_the_table_says(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    before = contents(tmp_path)
    make_secrets(tmp_path)
    assert contents(tmp_path) == before
    for path in (ROOT / "deploy/nats").glob("*.conf"):
        (tmp_path / path.name).write_text(path.read_text())
    [port] = free_ports(1)
    conf = f'host: 127.0.0.1, port: {port}\njetstream {{ store_dir: "{tmp_path}/js" }}\ninclude nats_users.conf\n'
    (tmp_path / "server.conf").write_text(conf)
    async with served(tmp_path / "server.conf", port):
        for role in STANDARD:
            told = tomllib.loads((tmp_path / f"nats_{role}.toml").read_text())
            assert told["nats_inbox"] == inbox_of(role)
            address = told["nats_url"].split(",")[0].replace("nats-1:4222", f"127.0.0.1:{port}")
            settings = NatsSettings(nats_url=address, nats_inbox=told["nats_inbox"])
            assert same(await allowed(settings), access(User(role), PARTITIONS)), role
            if role is Role.PROVISIONER:
                async with Connection(settings, name="test") as connection:
                    assert await Topology(connection, LogSettings()).apply()


@pytest.mark.parametrize("account", ["", "ANTIPHON"])
async def test_the_users_that_are_made_may_do_what_the_table_says(tmp_path: Path, account: str) -> None:
    """Also of a worker of one pool, and in an account of their own."""
    directory, [port] = tmp_path / "users", free_ports(1)
    command = ["nats-users", str(directory), "--partitions", "2", "--account", account]
    command += ["--user", "ops=provisioner", "--user", "critics=worker:critic"]
    assert (await run(*command)).code == 0
    made = contents(directory)
    assert made.keys() == {"users.conf", "ops.nk", "critics.nk"}
    told = await run(*command, "--user", "gw=gateway")
    assert f"ANTIPHON_NATS_INBOX={inbox_of('gw')}" in told.out
    now = contents(directory)
    for name in ("ops.nk", "critics.nk"):
        assert now[name] == made[name]
        assert now[name].strip() not in now["users.conf"]
        assert (directory / name).stat().st_mode & 0o077 == 0
    conf = f'host: 127.0.0.1, port: {port}\njetstream {{ store_dir: "{tmp_path}/js" }}\ninclude users/users.conf\n'
    (tmp_path / "server.conf").write_text(conf)
    async with served(tmp_path / "server.conf", port):
        base = NatsSettings(nats_url=f"nats://127.0.0.1:{port}")
        for name, user in (("ops", User(Role.PROVISIONER)), ("critics", User(Role.WORKER, ("critic",)))):
            settings = replace(base, nats_nkey_file=str(directory / f"{name}.nk"), nats_inbox=inbox_of(name))
            assert same(await allowed(settings), access(replace(user, inbox=inbox_of(name)), 2)), name
        ops = replace(base, nats_nkey_file=str(directory / "ops.nk"), nats_inbox=inbox_of("ops"))
        async with Connection(ops, name="test") as connection:
            assert await Topology(connection, LogSettings(partitions=2)).apply()


async def test_users_of_several_accounts_and_of_the_callout(tmp_path: Path) -> None:
    directory, [port] = tmp_path / "users", free_ports(1)
    command = ["nats-users", str(directory), "--partitions", "2", "--account", "MAIN", "--callout"]
    command += ["--user", "ops=provisioner", "--user", "acme-ops=provisioner@acme", "--storage", "acme=1000000"]
    told = await run(*command)
    assert told.code == 0, told.err
    assert f"ANTIPHON_CALLOUT_ISSUER_FILE={directory}/callout-issuer.nk" in told.out
    made = contents(directory)
    assert made.keys() == {
        "users.conf",
        "ops.nk",
        "acme-ops.nk",
        "callout.nk",
        "callout-issuer.nk",
        "callout-system.nk",
    }
    assert not [name for name, text in made.items() if name.endswith(".nk") and text.strip() in made["users.conf"]]
    assert all((directory / name).stat().st_mode & 0o077 == 0 for name in made if name.endswith(".nk"))
    conf = f'host: 127.0.0.1, port: {port}\njetstream {{ store_dir: "{tmp_path}/js" }}\ninclude users/users.conf\n'
    (tmp_path / "server.conf").write_text(conf)
    async with served(tmp_path / "server.conf", port):
        base = NatsSettings(nats_url=f"nats://127.0.0.1:{port}")
        limits = {}
        for name in ("ops", "acme-ops"):
            settings = replace(base, nats_nkey_file=str(directory / f"{name}.nk"), nats_inbox=inbox_of(name))
            async with Connection(settings, name="test") as connection:
                await Topology(connection, LogSettings(partitions=2)).apply()
                limits[name] = (await connection.api("INFO"))["limits"]["max_storage"]
        assert limits == {"ops": -1, "acme-ops": 1_000_000}
        callout = replace(base, nats_nkey_file=str(directory / "callout.nk"), nats_inbox=inbox_of("callout"))
        assert same(await allowed(callout), access(User(Role.CALLOUT), 2))
    assert (await run(*command, "--storage", "nobody=5")).code == 1


@pytest.mark.parametrize(
    ("users", "said"),
    [
        (["x=nobody"], "must be NAME=ROLE"),
        (["=worker"], "must be NAME=ROLE"),
        (["a.b=worker"], "must be NAME=ROLE"),
        (["x=worker", "x=gateway"], "two users have one name"),
    ],
)
async def test_users_that_cannot_be(tmp_path: Path, users: list[str], said: str) -> None:
    flags = [flag for user in users for flag in ("--user", user)]
    assert said in (await run("nats-users", str(tmp_path / "users"), *flags)).complaint
    assert not contents(tmp_path)
