"""The headers by which browsers are told what to refuse: all of them, on whatever a gateway answers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping

import aiohttp
import pytest
import pytest_asyncio

from tests.support.bare import bare, get
from tests.support.http import Http, raw
from tests.support.nats import single_server
from tests.support.stack import Process, Stack

pytestmark = pytest.mark.asyncio(loop_scope="module")

POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",
    "img-src": "'self' data:",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
}
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Not which versions of what.
    "Server": "antiphon",
}
NOT_ALLOWED = {"camera", "microphone", "geolocation", "display-capture", "payment", "usb", "serial", "hid", "midi"}
NO_STORE, ASKED = "no-store", "no-cache"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    directory = tmp_path_factory.mktemp("headers")
    async with single_server(directory / "nats") as nats, Stack(directory / "stack", nats.url) as stack:
        yield stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(stack: Stack) -> Process:
    return await stack.gateway()


def is_guarded(headers: Mapping[str, str], caching: str, policy: Mapping[str, str] = POLICY) -> None:
    for name, value in HEADERS.items():
        assert headers.get(name) == value, (name, dict(headers))
    rules = (rule.strip().partition(" ") for rule in headers["Content-Security-Policy"].split(";"))
    assert {name: value for name, _, value in rules} == policy
    denied = dict(re.findall(r"([\w-]+)=(\(\)|[^,]+)", headers["Permissions-Policy"]))
    assert set(denied.values()) == {"()"}
    assert denied.keys() >= NOT_ALLOWED
    assert headers["Cache-Control"] == caching
    # A token is given by who asks: no cookie is ever set, and none is ever looked at.
    assert "Set-Cookie" not in headers
    assert "Access-Control-Allow-Credentials" not in headers
    assert "Access-Control-Allow-Origin" not in headers


async def test_a_check_of_headers_can_fail() -> None:
    good = HEADERS | {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in POLICY.items()),
        "Permissions-Policy": ", ".join(f"{name}=()" for name in NOT_ALLOWED),
        "Cache-Control": NO_STORE,
    }
    is_guarded(good, NO_STORE)
    for name in good:
        with pytest.raises((AssertionError, KeyError)):
            is_guarded({key: value for key, value in good.items() if key != name}, NO_STORE)
    for name, value in (
        ("Content-Security-Policy", good["Content-Security-Policy"] + "; worker-src *"),
        ("Permissions-Policy", good["Permissions-Policy"] + ", fullscreen=(self)"),
        ("Set-Cookie", "a=b"),
        ("Access-Control-Allow-Origin", "*"),
    ):
        with pytest.raises(AssertionError):
            is_guarded(good | {name: value}, NO_STORE)


async def test_pages_and_what_is_for_everybody(gateway: Process) -> None:
    page = await get(f"{gateway.url}/")
    is_guarded(page.headers, ASKED)
    assets = re.findall(r'(?:src|href)="(web/[^"]+)"', page.text)
    assert assets
    for asset in assets:
        is_guarded((await get(f"{gateway.url}/{asset}")).headers, "public, max-age=31536000, immutable")
    for path in ("/healthz", "/readyz", "/metrics", "/nothing", "/web/nothing"):
        is_guarded((await get(f"{gateway.url}{path}")).headers, ASKED)


async def test_the_api(stack: Stack, gateway: Process) -> None:
    async with Http(gateway.url, stack.token()) as http:
        path = "/v1/sessions/s1"
        for method, where, body in (
            ("POST", "/v1/sessions", {"session": "s1"}),
            ("GET", path, None),
            ("GET", "/v1/sessions", None),
            ("GET", f"{path}/messages", None),
            ("GET", "/v1/nothing", None),
            ("GET", "/v1/sessions/none", None),
            ("DELETE", "/v1/sessions", None),
            ("POST", "/v1/sessions", b"nonsense"),
        ):
            is_guarded((await http.ask(method, where, body)).headers, NO_STORE)
        async with http.stream(f"{path}/events") as stream:
            is_guarded(stream.headers, NO_STORE)
        plain = {"Content-Type": "text/plain"}
        stored = await http.ask("POST", f"{path}/attachments", b"hello", headers=plain)
        is_guarded(stored.headers, NO_STORE)
        found = await http.ask("GET", f"{path}/attachments/{stored.json()['id']}")
        # What somebody has uploaded is no page of ours, whatever is in it.
        is_guarded(found.headers, "private, no-cache", {"sandbox": "", "default-src": "'none'"})
        assert found.headers["Content-Disposition"].startswith("attachment")
    async with Http(gateway.url, "nonsense") as http:
        is_guarded((await http.ask("GET", "/v1/sessions")).headers, NO_STORE)


async def test_the_documents_are_for_pages_of_all_origins(gateway: Process) -> None:
    for path in ("/openapi.json", "/asyncapi.json"):
        headers = dict((await get(f"{gateway.url}{path}")).headers)
        assert headers.pop("Access-Control-Allow-Origin") == "*"
        is_guarded(headers, ASKED)


async def test_upgrades(stack: Stack, gateway: Process) -> None:
    async with bare(gateway.url, stack.token()) as client:
        assert client.ws._response.headers["Server"] == "antiphon"
        assert "Set-Cookie" not in client.ws._response.headers
    process = await stack.gateway(connections="1")
    async with bare(process.url, stack.token()):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with bare(process.url):
                pass
        assert refused.value.headers is not None
        is_guarded(refused.value.headers, NO_STORE)
    await process.kill()


async def test_what_is_no_http_is_told_no_versions(gateway: Process) -> None:
    async with raw(gateway.url, "GET / HTTP/1.1\r\nno header\r\n\r\n") as socket, asyncio.timeout(10):
        answer = (await socket.read(10_000)).decode()
    assert " 400 " in answer
    assert "ython" not in answer
    assert "aiohttp" not in answer
