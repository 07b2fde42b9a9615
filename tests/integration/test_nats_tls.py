"""TLS between a process and NATS: who is trusted, who is let in."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker.config import NatsSettings
from broker.errors import ConfigError, NotPermitted
from broker.jetstream.connection import Connection
from broker.jetstream.tls import tls_context
from broker.nats_config import Login, users_config
from broker.permissions import Role, User
from tests.support.certificates import Authority
from tests.support.nats import NatsNode, free_ports
from tests.support.served_nats import served

WAIT_S = 10.0

# nats-py leaves the socket of an attempt that failed to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <StreamWriter:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning"),
]


@dataclass(frozen=True, slots=True)
class Site:
    """A server that wants to see certificates of `authority`."""

    authority: Authority
    port: int

    def settings(self, **values: str) -> NatsSettings:
        return NatsSettings(
            nats_url=f"tls://127.0.0.1:{self.port}",
            connect_timeout_s=0.5,
            reconnect_wait_s=0.05,
            **values,  # type: ignore[arg-type]
        )


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    authority = Authority.made(tmp_path, "authority")
    certificate, key = authority.signs("server")
    [port] = free_ports(1)
    (tmp_path / "nats.conf").write_text(
        f'host: 127.0.0.1, port: {port}\njetstream {{ store_dir: "{tmp_path}/js" }}\n'
        f'tls {{ cert_file: "{certificate}", key_file: "{key}", ca_file: "{authority.file}", verify: true }}\n'
    )
    async with served(tmp_path / "nats.conf", port):
        yield Site(authority, port)


async def failure(connection: Connection) -> str:
    """Why it does not connect, once it has tried."""
    async with asyncio.timeout(WAIT_S):
        while connection.last_error == "not connected yet":
            await asyncio.sleep(0.02)
    assert not connection.connected
    return connection.last_error


async def test_both_prove_who_they_are(site: Site) -> None:
    certificate, key = site.authority.signs("client")
    settings = site.settings(nats_ca_file=site.authority.file, nats_cert_file=certificate, nats_key_file=key)
    async with Connection(settings, name="test") as connection:
        await asyncio.wait_for(connection.wait_connected(), WAIT_S)
        await connection.api("STREAM.CREATE.S", {"name": "S", "subjects": ["s.>"]})
        assert (await connection.publish("s.a", b"x")).seq == 1


async def test_a_server_of_an_unknown_authority_is_refused(site: Site) -> None:
    async with Connection(site.settings(), name="test") as connection:
        assert "CERTIFICATE_VERIFY_FAILED" in await failure(connection)


async def test_who_shows_nothing_is_not_let_in(site: Site) -> None:
    async with Connection(site.settings(nats_ca_file=site.authority.file), name="test") as connection:
        await failure(connection)


async def test_who_shows_what_another_signed_is_not_let_in(site: Site, tmp_path: Path) -> None:
    certificate, key = Authority.made(tmp_path, "stranger").signs("imposter")
    settings = site.settings(nats_ca_file=site.authority.file, nats_cert_file=certificate, nats_key_file=key)
    async with Connection(settings, name="test") as connection:
        await failure(connection)


async def test_a_certificate_for_another_name_is_refused(site: Site) -> None:
    """The server's is for 127.0.0.1."""
    certificate, key = site.authority.signs("client")
    files = {"nats_ca_file": site.authority.file, "nats_cert_file": certificate, "nats_key_file": key}
    settings = dataclasses.replace(site.settings(**files), nats_url=f"tls://localhost:{site.port}")
    async with Connection(settings, name="test") as connection:
        assert "Hostname mismatch" in await failure(connection)


async def test_a_certificate_tells_the_user_and_is_changed_without_a_restart(tmp_path: Path) -> None:
    authority, [port] = Authority.made(tmp_path, "authority"), free_ports(1)
    server, server_key = authority.signs("server")
    config = users_config([Login("CN=worker", User(Role.WORKER), "x"), Login("CN=gateway", User(Role.GATEWAY), "x")], 2)
    for user in config["authorization"]["users"]:
        del user["password"]
    tls = {"cert_file": server, "key_file": server_key, "ca_file": authority.file, "verify_and_map": True}
    (tmp_path / "nats.conf").write_text(json.dumps({"host": "127.0.0.1", "port": port, "tls": tls, **config}))
    certificate, key = authority.signs("worker")
    async with served(tmp_path / "nats.conf", port) as pid:
        files = {"nats_ca_file": authority.file, "nats_cert_file": certificate, "nats_key_file": key}
        settings = dataclasses.replace(Site(authority, port).settings(**files), nats_inbox="_INBOX_worker")
        async with Connection(settings, name="test") as connection:
            await asyncio.wait_for(connection.wait_connected(), WAIT_S)
            assert (await connection.call("$SYS.REQ.USER.INFO"))["data"]["user"] == "CN=worker"
            # Another certificate takes the place of the first, here of another user; the server sends everybody away.
            other, other_key = authority.signs("gateway")
            shutil.copyfile(other, certificate)
            shutil.copyfile(other_key, key)
            back = asyncio.Event()
            connection.on_disturbed(lambda _: back.set())
            del config["authorization"]["users"][0]
            (tmp_path / "nats.conf").write_text(json.dumps({"host": "127.0.0.1", "port": port, "tls": tls, **config}))
            os.kill(pid, signal.SIGHUP)
            await asyncio.wait_for(back.wait(), WAIT_S)
            with pytest.raises(NotPermitted, match="ANTIPHON_NATS_INBOX"):
                await connection.call("$SYS.REQ.USER.INFO")


async def test_tls_cannot_be_switched_off_by_the_other_side(nats_server: NatsNode, tmp_path: Path) -> None:
    authority = Authority.made(tmp_path, "authority")
    asks = NatsSettings(nats_url=nats_server.url.replace("nats://", "tls://"), reconnect_wait_s=0.05)
    trusts = NatsSettings(nats_url=nats_server.url, nats_ca_file=authority.file, reconnect_wait_s=0.05)
    for settings in (asks, trusts):
        async with Connection(settings, name="test") as connection:
            assert "offers no TLS" in await failure(connection)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent.pem")
    certificate, _ = Authority.made(tmp_path, "one").signs("client")
    _, other = Authority.made(tmp_path, "two").signs("other")
    (tmp_path / "text").write_text("no certificate")
    for settings, name in (
        (NatsSettings(nats_ca_file=absent), "CA"),
        (NatsSettings(nats_ca_file=str(tmp_path / "text")), "CA"),
        (NatsSettings(nats_cert_file=absent), "CERT"),
        (NatsSettings(nats_cert_file=certificate, nats_key_file=other), "CERT"),
        (NatsSettings(nats_key_file=other), "KEY"),
    ):
        with pytest.raises(ConfigError, match=f"^ANTIPHON_NATS_{name}_FILE: "):
            tls_context(settings)


def test_without_files_the_system_is_trusted() -> None:
    assert tls_context(NatsSettings()) is None
