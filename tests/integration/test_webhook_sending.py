"""One request to an endpoint, to real servers on loopback: where it may go, and what an answer means."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from tests.support.certificates import Authority
from webhooks.addresses import Network
from webhooks.endpoints import Endpoint
from webhooks.sending import Outcome, Sender
from webhooks.signing import key_of

LOOPBACK: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
KEY = key_of("whsec_" + "QUJD" * 10)


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that answers every request so; its port, and nothing else, is told."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    await web.SockSite(runner, listener, ssl_context=tls).start()
    try:
        yield listener.getsockname()[1]
    finally:
        await runner.cleanup()


async def post(url: str, networks: tuple[Network, ...] = LOOPBACK, timeout_s: float = 20.0) -> Outcome:
    async with Sender(networks) as sender:
        return await sender.post(Endpoint("one", url, (KEY,)), "msg_1", b"{}", timeout_s, {})


class Counting:
    """Answers with a status, and counts."""

    def __init__(self, status: int = 200, **headers: str) -> None:
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.requests: list[web.Request] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        return web.Response(status=self.status, headers=self.headers)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        *((200, None), (202, None), (204, None), (302, "redirect"), (307, "redirect"), (400, "refused")),
        *((404, "refused"), (410, "refused"), (429, "throttled"), (500, "server_error"), (503, "throttled")),
    ],
)
async def test_what_an_answer_means(status: int, reason: str | None) -> None:
    handler = Counting(status, Location="/elsewhere", Retry_After="7")
    async with serving(handler.handle) as port:
        outcome = await post(f"http://127.0.0.1:{port}/hooks")
    assert outcome == Outcome(reason, status, 7 if reason == "throttled" else None)
    assert outcome.gone == (status == 410)
    # A redirect is not followed.
    assert [request.path for request in handler.requests] == ["/hooks"]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "[::ffff:127.0.0.1]", "0.0.0.0"]
)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_an_address_that_is_not_public_is_not_reached_however_it_is_written(scheme: str, host: str) -> None:
    handler = Counting()
    async with serving(handler.handle) as port:
        outcome = await post(f"{scheme}://{host}:{port}/", ())
    assert outcome.reason == "address"
    assert handler.requests == []


async def test_plain_http_is_for_networks_that_were_named() -> None:
    # Of an address of documentation: it is refused before anything is sent.
    assert await post("http://8.8.8.8/", LOOPBACK) == Outcome("address")


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, handler = Counting(502), Counting()
    async with serving(proxy.handle) as proxy_port, serving(handler.handle) as port:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy_port}")
        assert (await post(f"http://127.0.0.1:{port}/")).reason is None
    assert proxy.requests == []


async def test_certificates_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*Authority.made(tmp_path, "nobody").signs("server"))
    handler = Counting()
    async with serving(handler.handle, tls) as port:
        assert await post(f"https://127.0.0.1:{port}/") == Outcome("tls")
    assert handler.requests == []


async def test_a_receiver_that_is_slow_in_any_part_of_its_answer() -> None:
    async def never(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)

    async with serving(never) as port:
        assert await post(f"http://127.0.0.1:{port}/", timeout_s=0.3) == Outcome("timeout")
    # Its headers have said all: no body is read.
    async with serving(endless) as port:
        assert await post(f"http://127.0.0.1:{port}/") == Outcome(None, 200)


async def test_nobody_there_and_no_such_name() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert await post(f"http://127.0.0.1:{unused.getsockname()[1]}/") == Outcome("connection")
    assert await post("https://nowhere.invalid/") == Outcome("name")
