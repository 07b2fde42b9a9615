"""The console's files as a gateway gives them out: compressed where that is understood, cacheable for as long as they last."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from gateway.console import Console

PAGE = "<!doctype html><title>Antiphon</title>" + " " * 500
SCRIPT = "console.log('x');" * 100
ICON = "<svg/>"


@pytest_asyncio.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    for name, text in {"index.html": PAGE, "index-abc.js": SCRIPT, "icon-abc.svg": ICON}.items():
        (tmp_path / name).write_text(text)
    app = web.Application()
    Console(tmp_path).add_to(app)
    async with TestServer(app) as server:
        yield str(server.make_url("/"))


@pytest_asyncio.fixture
async def http() -> AsyncIterator[ClientSession]:
    async with ClientSession(auto_decompress=False) as session:
        yield session


@pytest.mark.parametrize(("path", "text"), [("", PAGE), ("web/index-abc.js", SCRIPT)])
async def test_compressed_for_those_who_take_it(url: str, http: ClientSession, path: str, text: str) -> None:
    async with http.get(url + path, headers={"Accept-Encoding": "br, gzip"}) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        body = await answer.read()
    assert len(body) < len(text)
    assert gzip.decompress(body).decode() == text
    async with http.get(url + path, headers={"Accept-Encoding": "identity"}) as answer:
        assert "Content-Encoding" not in answer.headers
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert await answer.text() == text


async def test_what_gets_no_smaller_is_sent_as_it_is(url: str, http: ClientSession) -> None:
    async with http.get(url + "web/icon-abc.svg", headers={"Accept-Encoding": "gzip"}) as answer:
        assert "Content-Encoding" not in answer.headers
        assert answer.headers["Content-Type"] == "image/svg+xml; charset=utf-8"
        assert await answer.text() == ICON


async def test_the_page_is_asked_for_again_and_the_rest_never(url: str, http: ClientSession) -> None:
    async with http.get(url) as answer:
        assert answer.headers["Cache-Control"] == "no-cache"
        etag = answer.headers["ETag"]
    async with http.get(url, headers={"If-None-Match": f'"other", {etag}'}) as answer:
        assert answer.status == 304
        assert answer.headers["ETag"] == etag
        assert await answer.read() == b""
    async with http.get(url, headers={"If-None-Match": '"other"'}) as answer:
        assert answer.status == 200
    async with http.get(url + "web/index-abc.js") as answer:
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"


async def test_head_says_the_same_without_the_body(url: str, http: ClientSession) -> None:
    async with http.head(url) as answer:
        assert answer.status == 200
        assert await answer.read() == b""


@pytest.mark.parametrize("path", ["web/index.html", "web/other.js", "web/", "web/..%2findex.html"])
async def test_nothing_else(url: str, http: ClientSession, path: str) -> None:
    async with http.get(url + path) as answer:
        assert answer.status == 404


def test_a_kind_of_file_that_nobody_expects_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(PAGE)
    (tmp_path / "notes.docx").write_text("?")
    with pytest.raises(KeyError):
        Console(tmp_path)
