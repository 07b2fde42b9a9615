"""TLS between a process and NATS: who is trusted, who is let in."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from broker.config import NatsSettings
from broker.errors import ConfigError
from broker.jetstream.connection import Connection
from broker.jetstream.server import find_binary
from broker.jetstream.tls import tls_context
from tests.support.nats import NatsNode, free_ports

WAIT_S = 10.0

# nats-py leaves the socket of an attempt that failed to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <StreamWriter:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning"),
]


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority in a directory, where it also puts what it signs."""

    directory: Path
    name: str
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def made(cls, directory: Path, name: str) -> Authority:
        authority = cls(directory, name, ec.generate_private_key(ec.SECP256R1()))
        builder = authority.builder(name, authority.key).add_extension(x509.BasicConstraints(True, None), True)
        authority.write(name, builder)
        return authority

    @property
    def file(self) -> str:
        return str(self.directory / f"{self.name}.crt")

    def signs(self, name: str) -> tuple[str, str]:
        """The files of a new certificate for 127.0.0.1, and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        certificate = self.write(name, self.builder(name, key).add_extension(address, False))
        path = self.directory / f"{name}.key"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, str(path)

    def builder(self, name: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        issuer = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(_named(name))
            .issuer_name(_named(self.name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), False)
        )

    def write(self, name: str, builder: x509.CertificateBuilder) -> str:
        path = self.directory / f"{name}.crt"
        path.write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return str(path)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


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
    process = await asyncio.create_subprocess_exec(
        find_binary(), "-c", str(tmp_path / "nats.conf"), "-l", str(tmp_path / "nats.log")
    )
    try:
        await _listening(port)
        yield Site(authority, port)
    finally:
        process.kill()
        await process.wait()


async def _listening(port: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.02)


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
