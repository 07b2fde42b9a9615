"""Attachments over HTTP at two real gateways: in and out, who may, what is refused, and that they go with their session."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import psutil
import pytest
import pytest_asyncio

from broker.events import Entry, Participant, SessionDeleted
from tests.support.http import SEEN, Http, HttpAnswer
from tests.support.plane import PlaneWorld, now_ms, plane_world
from tests.support.plane import refused as plane_refused
from tests.support.rawclient import WAIT_S, http_get
from tests.support.stack import metric

pytestmark = pytest.mark.asyncio(loop_scope="module")

PNG = b"\x89PNG\r\n\x1a\n"
LIMIT = 400_000
ENV = {
    "requests_per_second": "10000",
    "requests_burst": "10000",
    "attachment_bytes": str(LIMIT),
    "attachments_per_session": "6",
    "attachments_session_bytes": "900000",
    "attachment_idle_s": "1",
    "attachment_uploads": "4",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PlaneWorld]:
    async with plane_world(tmp_path_factory.mktemp("attachments"), **ENV) as world:
        yield world


def client(world: PlaneWorld, user: str = "user-1", *, gateway: int = 0, **token: Any) -> Http:
    return Http(world.gateways[gateway].url, world.token(user, **token))


def png(size: int) -> bytes:
    return PNG + os.urandom(size - len(PNG))


async def upload(http: Http, session: str, data: bytes, media_type: str = "image/png", **more: Any) -> HttpAnswer:
    headers = {"Content-Type": media_type, **more.pop("headers", {})}
    return await http.ask("POST", f"/v1/sessions/{session}/attachments", data, headers=headers, **more)


async def uploaded(http: Http, session: str, data: bytes, media_type: str = "image/png", **more: Any) -> Any:
    answer = await upload(http, session, data, media_type, **more)
    assert answer.status in (200, 201), (answer.status, answer.body)
    return answer.json()


async def refused(http: Http, status: int, code: str, session: str, data: bytes, *args: Any, **more: Any) -> Any:
    answer = await upload(http, session, data, *args, **more)
    assert (answer.status, answer.code) == (status, code), answer.body
    return answer.json()


async def held(world: PlaneWorld, session: str) -> int:
    """Messages that the store holds of a session."""
    answer = await world.connection.api("STREAM.INFO.ATTACHMENTS", {"subjects_filter": f"att.{session}.>"})
    return sum((answer["state"].get("subjects") or {}).values())


@contextlib.asynccontextmanager
async def all_places_taken(world: PlaneWorld) -> AsyncIterator[None]:
    """As many uploads as may be at once, each to a session of its own, never idle and never done."""
    host, _, port = world.gateways[0].url.removeprefix("http://").partition(":")

    async def upload_slowly(session: str) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        request = (
            f"POST /v1/sessions/{session}/attachments HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"
            f"Authorization: Bearer {world.token('user-1')}\r\nContent-Length: 300000\r\n\r\n"
        )
        writer.write(request.encode() + b"x" * 200_000)
        try:
            while not reader.at_eof():
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.1)
        finally:
            writer.transport.abort()

    sessions = [world.session() for _ in range(int(ENV["attachment_uploads"]))]
    async with asyncio.TaskGroup() as tasks:
        uploading = [tasks.create_task(upload_slowly(session)) for session in sessions]
        async with asyncio.timeout(WAIT_S):
            for session in sessions:
                while not await held(world, session):
                    await asyncio.sleep(0.02)
        yield
        for each in uploading:
            each.cancel()
    async with client(world) as http, asyncio.timeout(WAIT_S):
        while (await upload(http, world.session(), b"x", "text/plain")).status == 503:
            await asyncio.sleep(0.05)


# --- in and out --------------------------------------------------------------------------------------------------------


async def test_what_is_uploaded_here_is_downloaded_there(world: PlaneWorld) -> None:
    session, data = world.session(), png(300_001)
    async with client(world) as http, client(world, "user-2", gateway=1, rights=["read"]) as reader:
        answer = await upload(http, session, data, name="Zeugnis für Ä.png")
        stored = answer.json()
        path = f"/v1/sessions/{session}/attachments/{stored['id']}"
        assert (answer.status, answer.headers["Location"]) == (201, path)
        about = {"name": "Zeugnis für Ä.png", "mediaType": "image/png", "size": 300_001, "by": "user-1", "used": False}
        assert stored.items() >= about.items()
        assert stored["sha256"] == hashlib.sha256(data).hexdigest()
        found = await reader.ask("GET", path)
        assert (found.status, found.body) == (200, data)
        assert found.headers["Content-Type"] == "image/png"
        assert found.headers["X-Content-Type-Options"] == "nosniff"
        assert found.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
        assert found.headers["Cache-Control"] == "private, no-cache"
        assert found.headers["Content-Disposition"] == (
            "attachment; filename=\"Zeugnis f_r _.png\"; filename*=UTF-8''Zeugnis%20f%C3%BCr%20%C3%84.png"
        )
        head = await reader.ask("HEAD", path)
        assert (head.status, head.headers["Content-Length"], head.body) == (200, "300001", b"")
        listed = await reader.ok("GET", f"/v1/sessions/{session}/attachments")
        assert [a["id"] for a in listed["attachments"]] == [stored["id"]]


async def test_ranges_and_what_is_here_already(world: PlaneWorld) -> None:
    session, data = world.session(), png(200_000)
    async with client(world) as http:
        stored = await uploaded(http, session, data)
        path = f"/v1/sessions/{session}/attachments/{stored['id']}"
        etag = f'"{stored["sha256"]}"'
        for wanted, first, last in (
            ("bytes=0-0", 0, 0),
            ("bytes=131071-131072", 131_071, 131_072),
            ("bytes=150000-", 150_000, 199_999),
            ("bytes=-7", 199_993, 199_999),
            ("bytes=199999-999999", 199_999, 199_999),
        ):
            part = await http.ask("GET", path, headers={"Range": wanted, "If-Range": etag})
            assert (part.status, part.body) == (206, data[first : last + 1]), wanted
            assert part.headers["Content-Range"] == f"bytes {first}-{last}/200000"
            assert part.headers["ETag"] == etag
        for nothing in ("bytes=0-1,5-9", "bytes=9-3", "lines=1-2", "bytes=0-199999"):
            assert (await http.ask("GET", path, headers={"Range": nothing})).status == 200
        assert (await http.ask("GET", path, headers={"Range": "bytes=0-1", "If-Range": '"other"'})).body == data
        beyond = await http.ask("GET", path, headers={"Range": "bytes=200000-"})
        assert (beyond.status, beyond.code) == (416, "range_not_satisfiable")
        assert beyond.headers["Content-Range"] == "bytes */200000"
        same = await http.ask("GET", path, headers={"If-None-Match": etag})
        assert (same.status, same.body) == (304, b"")


async def test_sent_again_it_is_stored_once(world: PlaneWorld) -> None:
    session, data = world.session(), png(150_000)
    async with client(world) as http, client(world, "user-2", gateway=1) as other:
        key = {"Idempotency-Key": "photo-1"}
        first = await uploaded(http, session, data, headers=key)
        assert (first["id"], first["duplicate"]) == ("photo-1", False)
        again = await upload(other, session, data, headers=key)
        assert (again.status, again.json()) == (200, first | {"duplicate": True})
        await refused(http, 409, "attachment_exists", session, png(150_000), headers=key)
        key = {"Idempotency-Key": "photo-2"}
        async with asyncio.TaskGroup() as tasks:
            at_once = [tasks.create_task(uploaded(c, session, data, headers=key)) for c in (http, other)]
        assert sorted(task.result()["duplicate"] for task in at_once) == [False, True]
        # Of each: what it is, where its upload began, and two pieces.
        assert await held(world, session) == 8


async def test_a_name_may_come_as_browsers_send_it(world: PlaneWorld) -> None:
    session = world.session()
    async with client(world) as http:
        for header, name in (
            ('attachment; filename="a b.txt"', "a b.txt"),
            ("attachment; filename=x; filename*=UTF-8''%E2%82%AC.txt", "€.txt"),
            ("inline", "attachment"),
            ("=?;;", "attachment"),
        ):
            stored = await uploaded(http, session, b"x", "text/plain", headers={"Content-Disposition": header})
            assert stored["name"] == name


# --- refused -----------------------------------------------------------------------------------------------------------


async def test_bad_uploads_are_refused_and_leave_nothing(world: PlaneWorld) -> None:
    session = world.session()
    async with client(world) as http:
        problem = await refused(http, 413, "content_too_large", session, png(LIMIT + 1))
        assert problem["data"]["limit"] == LIMIT
        for media_type, data in (
            ("image/png", b"MZ\x90\x00 this is a program"),
            ("image/jpeg", png(100)),
            ("text/plain", b"\x00\x01\x02"),
            ("text/plain", b"<!DOCTYPE html><script>alert(1)</script>"),
            ("text/csv", b"a,\xff\xfe"),
            ("image/svg+xml", b"<svg/>"),
            ("text/html", b"<p>"),
            ("nothing", b"x"),
            ("application/x-msdownload", b"MZ"),
        ):
            await refused(http, 415, "media_type_refused", session, data, media_type)
        for name in ("../../etc/passwd", "a\\b", "a\nb", "\u202egnp.exe", ".."):
            problem = await refused(http, 400, "bad_name", session, png(100), name=name)
            assert problem["data"]["field"] == "name"
        await refused(http, 400, "bad_command", session, png(100), name="x" * 256)
        await refused(http, 400, "bad_command", session, png(100), headers={"Idempotency-Key": "a/b"})
        await http.refused(400, "bad_name", "POST", "/v1/sessions/a.b/attachments", b"x")
        assert await held(world, session) == 0


async def test_without_a_length_it_is_refused_when_it_is_too_large(world: PlaneWorld) -> None:
    session = world.session()

    async def endless() -> AsyncIterator[bytes]:
        yield PNG
        for _ in range(200):
            yield os.urandom(10_000)

    headers = {"Authorization": f"Bearer {world.token('user-1')}", "Content-Type": "image/png"}
    async with aiohttp.ClientSession() as http:
        url = f"{world.gateways[0].url}/v1/sessions/{session}/attachments"
        async with http.post(url, data=endless(), headers=headers) as answer:
            assert (answer.status, (await answer.json(content_type=None))["code"]) == (413, "content_too_large")
    async with asyncio.timeout(WAIT_S):
        while await held(world, session):
            await asyncio.sleep(0.05)


async def test_a_session_may_have_so_many(world: PlaneWorld) -> None:
    many, large = world.session(), world.session()
    async with client(world) as http:
        for _ in range(6):
            await uploaded(http, many, b"x", "text/plain")
        problem = await refused(http, 409, "attachments_full", many, b"x", "text/plain")
        assert problem["data"]["limit"] == 6
        for _ in range(2):
            await uploaded(http, large, png(LIMIT))
        problem = await refused(http, 409, "attachments_full", large, png(LIMIT))
        assert problem["data"]["limit"] == 900_000


async def test_who_may(world: PlaneWorld) -> None:
    session, other = world.session(), world.session()
    async with client(world) as http:
        stored = await uploaded(http, session, b"secret", "text/plain")
    path = f"/v1/sessions/{session}/attachments"
    async with client(world, "user-2", rights=["read"]) as reader, client(world, "user-3", rights=["send"]) as sender:
        await refused(reader, 403, "not_allowed", session, b"x", "text/plain")
        await reader.refused(403, "not_allowed", "DELETE", f"{path}/{stored['id']}")
        await sender.refused(403, "not_allowed", "GET", f"{path}/{stored['id']}")
        await sender.refused(403, "not_allowed", "GET", path)
        await sender.refused(403, "not_allowed", "DELETE", f"{path}/{stored['id']}")
        await reader.refused(404, "attachment_not_found", "GET", f"/v1/sessions/{other}/attachments/{stored['id']}")
        await reader.refused(400, "bad_name", "GET", f"{path}/..%2f{stored['id']}")
        await reader.refused(400, "bad_name", "GET", f"{path}/a.b")
    async with Http(world.gateways[0].url) as nobody:
        await nobody.refused(401, "unauthorized", "GET", f"{path}/{stored['id']}")


async def test_a_closed_session_takes_none(world: PlaneWorld) -> None:
    session = world.session()
    async with client(world) as http:
        await http.ok("POST", "/v1/sessions", {"session": session})
        await http.ok("POST", f"/v1/sessions/{session}/close")
        await refused(http, 409, "session_closed", session, b"x", "text/plain")


async def test_slow_and_broken_uploads_leave_nothing(world: PlaneWorld) -> None:
    session = world.session()
    head = (
        f"POST /v1/sessions/{session}/attachments HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        f"Authorization: Bearer {world.token('user-1')}\r\nContent-Length: 300000\r\n\r\n"
    )
    url = world.gateways[0].url
    begun = head + PNG.decode("latin-1")
    before = metric((await http_get(f"{url}/metrics"))[1], "antiphon_attachments_refused_total", reason="cut_short")
    host, _, port = url.removeprefix("http://").partition(":")
    for slow in (True, False):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(begun.encode("latin-1") + os.urandom(200_000))
        await writer.drain()
        if slow:
            async with asyncio.timeout(WAIT_S):
                assert b" 408 " in await reader.readline()
                await reader.readuntil(b"upload_timeout")
            SEEN.add(("uploadAttachment", 408, "upload_timeout"))
            writer.close()
        else:
            async with asyncio.timeout(WAIT_S):
                while not await held(world, session):
                    await asyncio.sleep(0.02)
            writer.transport.abort()
        async with asyncio.timeout(WAIT_S):
            while await held(world, session):
                await asyncio.sleep(0.05)
    async with asyncio.timeout(WAIT_S):
        name = "antiphon_attachments_refused_total"
        while metric((await http_get(f"{url}/metrics"))[1], name, reason="cut_short") <= before:
            await asyncio.sleep(0.05)


async def test_so_many_at_once_and_no_more(world: PlaneWorld) -> None:
    async with client(world) as http, all_places_taken(world):
        answer = await upload(http, world.session(), b"x", "text/plain")
        assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "overloaded", "1")


# --- in messages -------------------------------------------------------------------------------------------------------


async def test_an_input_says_what_belongs_to_it(world: PlaneWorld) -> None:
    session, data = world.session(), png(1000)
    async with client(world) as http, client(world, gateway=1) as other:
        stored = await uploaded(http, session, data, name="a.png")
        reference = {name: stored[name] for name in ("id", "name", "mediaType", "size", "sha256")}
        path = f"/v1/sessions/{session}/inputs"
        ids = [{"id": stored["id"]}]
        await other.refused(404, "attachment_not_found", "POST", path, {"content": "x", "attachments": [{"id": "no"}]})
        await other.refused(400, "bad_command", "POST", path, {"content": "x", "attachments": ids * 17})
        await other.refused(400, "bad_command", "POST", path, {"content": ""})
        receipt = await other.ok("POST", path, {"content": "", "inputId": "i1", "attachments": ids})
        assert receipt["status"] == "queued"
        state = (await http.ok("GET", f"/v1/sessions/{session}"))["state"]
        assert state["inputs"][0]["attachments"] == [reference]
        (sent,) = await world.events(session, "input.sent")
        assert sent.attachments == [reference]
        again = await other.ok("POST", path, {"content": "", "inputId": "i1", "attachments": [{"id": "gone"}]})
        assert again["duplicate"]
        listed = await http.ok("GET", f"/v1/sessions/{session}/attachments")
        assert [a["used"] for a in listed["attachments"]] == [True]


async def test_what_a_message_refers_to_stays(world: PlaneWorld) -> None:
    session = world.session()
    path = f"/v1/sessions/{session}/attachments"
    async with (
        client(world, rights=["read", "send"]) as http,
        client(world, "user-2", rights=["read", "send"]) as other,
        client(world, "user-3") as admin,
    ):
        used, loose = [await uploaded(http, session, b"x", "text/plain") for _ in range(2)]
        await http.ok("POST", f"/v1/sessions/{session}/inputs", {"content": "x", "attachments": [{"id": used["id"]}]})
        await http.refused(409, "attachment_in_use", "DELETE", f"{path}/{used['id']}")
        await other.refused(403, "not_allowed", "DELETE", f"{path}/{loose['id']}")
        assert await http.ok("DELETE", f"{path}/{loose['id']}") == {"session": session, "id": loose["id"]}
        await http.refused(404, "attachment_not_found", "GET", f"{path}/{loose['id']}")
        await http.refused(404, "attachment_not_found", "DELETE", f"{path}/{loose['id']}")
        await admin.ok("DELETE", f"{path}/{used['id']}")
        await http.refused(404, "attachment_not_found", "GET", f"{path}/{used['id']}")
        assert await held(world, session) == 0


async def test_over_a_websocket_too(world: PlaneWorld) -> None:
    session = world.session()
    async with client(world) as http, await world.wire(gateway=1) as wire:
        stored = await uploaded(http, session, b"x", "text/plain")
        await wire.command(
            "input.send", session=session, inputId="i1", content="look", attachments=[{"id": stored["id"]}]
        )
        (sent,) = await world.events(session, "input.sent")
        assert sent.attachments[0]["sha256"] == stored["sha256"]
        fields = {"session": session, "inputId": "i2", "content": "look", "attachments": [{"id": "none"}]}
        reply = await plane_refused(wire, "attachment_not_found", "input.send", **fields)
        assert reply["attachment"] == "none"
        await plane_refused(wire, "bad_command", "input.send", **(fields | {"attachments": "none"}))
        await plane_refused(wire, "bad_name", "input.send", **(fields | {"attachments": [{"id": "a/b"}]}))


# --- their life --------------------------------------------------------------------------------------------------------


async def test_gone_with_their_session_and_not_those_of_the_next(world: PlaneWorld) -> None:
    session = world.session()
    path = f"/v1/sessions/{session}"
    async with client(world) as http, client(world, gateway=1) as other:
        await http.ok("POST", "/v1/sessions", {"session": session})
        stored = await uploaded(http, session, b"old", "text/plain", headers={"Idempotency-Key": "a"})
        await http.ok("POST", f"{path}/inputs", {"content": "x", "attachments": [{"id": "a"}]})
        await http.ok("DELETE", path)
        await other.refused(404, "attachment_not_found", "GET", f"{path}/attachments/a")
        assert await held(world, session) == 0
        await http.ok("POST", "/v1/sessions", {"session": session})
        fresh = await uploaded(other, session, b"new", "text/plain", headers={"Idempotency-Key": "a"})
        assert fresh["sha256"] != stored["sha256"]
        assert (await other.ask("GET", f"{path}/attachments/a")).body == b"new"


@pytest.mark.parametrize(("deleted", "kept"), [("a", ""), ("", "a"), ("a", "b")])
async def test_deleting_a_tenants_session_leaves_those_of_others(world: PlaneWorld, deleted: str, kept: str) -> None:
    session = world.session()
    path = f"/v1/sessions/{session}"
    async with client(world, tenant=deleted) as gone, client(world, gateway=1, tenant=kept) as stays:
        for http, content in ((gone, b"theirs"), (stays, b"ours")):
            await http.ok("POST", "/v1/sessions", {"session": session})
            await uploaded(http, session, content, "text/plain", headers={"Idempotency-Key": "a"})
            await http.ok("POST", f"{path}/inputs", {"content": "x", "attachments": [{"id": "a"}]})
        await gone.ok("DELETE", path)
        await gone.refused(404, "attachment_not_found", "GET", f"{path}/attachments/a")
        assert (await stays.ask("GET", f"{path}/attachments/a")).body == b"ours"
        assert [input_["content"] for input_ in (await stays.ok("GET", path))["state"]["inputs"]] == ["x"]


async def test_a_fork_has_its_own(world: PlaneWorld) -> None:
    session, copy, data = world.session(), world.session(), png(250_000)
    async with client(world) as http:
        await http.ok("POST", "/v1/sessions", {"session": session})
        await uploaded(http, session, data, name="a.png", headers={"Idempotency-Key": "a"})
        await uploaded(http, session, b"nobody refers to it", "text/plain")
        owner = await world.running(session)
        await owner.finish()
        await http.ok(
            "POST",
            f"/v1/sessions/{session}/inputs",
            {"content": "look", "inputId": "second", "attachments": [{"id": "a"}]},
        )
        await owner.start("second")
        await owner.finish()
        assert (await http.ok("POST", f"/v1/sessions/{session}/fork", {"to": copy}))["messages"] == 2
        await http.ok("DELETE", f"/v1/sessions/{session}")
        messages = (await http.ok("GET", f"/v1/sessions/{copy}/messages"))["messages"]
        assert [m.get("attachments", [{}])[0].get("id") for m in messages] == [None, "a"]
        found = await http.ask("GET", f"/v1/sessions/{copy}/attachments/a")
        assert (found.body, found.headers["Content-Disposition"][:28]) == (data, 'attachment; filename="a.png"')
        listed = (await http.ok("GET", f"/v1/sessions/{copy}/attachments"))["attachments"]
        assert [(a["id"], a["used"]) for a in listed] == [("a", True)]


async def test_what_nobody_refers_to_runs_out(world: PlaneWorld) -> None:
    session = world.session()
    gateway = await world.stack.gateway(attachment_unused_s="1", attachment_sweep_s="0.2", **ENV)
    async with Http(gateway.url, world.token("user-1")) as http:
        loose = await uploaded(http, session, b"x", "text/plain")
        path = f"/v1/sessions/{session}/attachments/{loose['id']}"
        async with asyncio.timeout(WAIT_S):
            while (await http.ask("GET", path)).status != 404:
                await asyncio.sleep(0.1)
        problem = await http.refused(
            404,
            "attachment_not_found",
            "POST",
            f"/v1/sessions/{session}/inputs",
            {"content": "x", "attachments": [{"id": loose["id"]}]},
        )
        assert problem["data"]["attachment"] == loose["id"]
        assert await world.entries(session) == []


async def test_pages_of_other_origins_may_upload(world: PlaneWorld) -> None:
    gateway = await world.stack.gateway(cors_origins="https://app.example", **ENV)
    async with Http(gateway.url) as http:
        answer = await http.ask("OPTIONS", "/v1/sessions/x/attachments", headers={"Origin": "https://app.example"})
        allowed = answer.headers["Access-Control-Allow-Headers"].split(", ")
        assert {"Content-Type", "Content-Disposition", "Idempotency-Key", "Range"} <= set(allowed)
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]
        assert "Content-Disposition" in answer.headers["Access-Control-Expose-Headers"]


async def test_a_large_upload_takes_little_memory(world: PlaneWorld) -> None:
    """100 MB through a gateway, in and out: it never holds more than some pieces of it."""
    session, part, parts = world.session(), os.urandom(1 << 20), 100
    gateway = await world.stack.gateway(
        **(ENV | {"attachment_bytes": str(1 << 30), "attachments_session_bytes": str(1 << 30)})
    )
    process = psutil.Process(gateway.pid)

    async def body() -> AsyncIterator[bytes]:
        yield PNG
        for _ in range(parts):
            yield part

    headers = {"Authorization": f"Bearer {world.token('user-1')}", "Content-Type": "image/png"}
    url = f"{gateway.url}/v1/sessions/{session}/attachments"
    highest = before = process.memory_info().rss
    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as tasks:

        async def watch() -> None:
            nonlocal highest
            while True:
                highest = max(highest, process.memory_info().rss)
                await asyncio.sleep(0.01)

        watching = tasks.create_task(watch())
        async with http.post(url, data=body(), headers=headers) as answer:
            stored = await answer.json()
            assert answer.status == 201
        size = 0
        async with http.get(f"{url}/{stored['id']}", headers=headers) as answer:
            async for piece in answer.content.iter_any():
                size += len(piece)
        watching.cancel()
    assert size == stored["size"] == len(PNG) + parts * len(part)
    grown_mb = (highest - before) / (1 << 20)
    print(f"grown by {grown_mb:.1f} MB")  # noqa: T201 (for whoever measures)
    assert grown_mb < 32


async def test_the_metrics_say_what_has_moved(world: PlaneWorld) -> None:
    session, url = world.session(), world.gateways[0].url
    async with client(world) as http:
        before = (await http_get(f"{url}/metrics"))[1]
        stored = await uploaded(http, session, png(50_000))
        await http.ask("GET", f"/v1/sessions/{session}/attachments/{stored['id']}")
        await refused(http, 415, "media_type_refused", session, b"x")
        after = (await http_get(f"{url}/metrics"))[1]
    for direction in ("up", "down"):
        name = "antiphon_attachments_bytes_total"
        assert metric(after, name, direction=direction) - metric(before, name, direction=direction) == 50_000
    name = "antiphon_attachments_refused_total"
    reason = "media_type_refused"
    assert metric(after, name, reason=reason) - metric(before, name, reason=reason) == 1


async def test_a_deletion_that_was_cut_short_is_finished(world: PlaneWorld) -> None:
    """The gateway died when the entry was stored: whoever has the session open deletes the attachments, then the log."""
    session = world.session()
    path = f"/v1/sessions/{session}"
    gateway = await world.stack.gateway(**(ENV | {"job_repair_s": "0.2"}))
    async with Http(gateway.url, world.token("user-1")) as http:
        await http.ok("POST", "/v1/sessions", {"session": session})
        await uploaded(http, session, b"old", "text/plain", headers={"Idempotency-Key": "a"})
        await http.ok("POST", f"{path}/inputs", {"content": "x", "attachments": [{"id": "a"}]})
        entry = Entry("delete:cut", now_ms(), (SessionDeleted(),), by=Participant("user", "user-1"))
        await world.log.append_input(world.log.subjects(session), entry, entry.id)
        await http.refused(404, "attachment_not_found", "GET", f"{path}/attachments/a")
        async with asyncio.timeout(WAIT_S), http.stream(f"{path}/events"):
            while await held(world, session):
                await asyncio.sleep(0.05)
        assert len(await world.entries(session)) == 1


async def test_a_one_shot_run_has_attachments_too(world: PlaneWorld) -> None:
    session = world.session()
    async with client(world) as http:
        stored = await uploaded(http, session, b"x", "text/plain")
        body = {"content": "", "session": session, "inputId": "i1", "wait": 0}
        ids = [{"id": stored["id"]}]
        await http.refused(404, "attachment_not_found", "POST", "/v1/runs", body | {"attachments": [{"id": "none"}]})
        answer = await http.ask("POST", "/v1/runs", body | {"attachments": ids})
        assert answer.status == 202
        (sent,) = await world.events(session, "input.sent")
        assert [a["id"] for a in sent.attachments] == [stored["id"]]


async def test_while_all_places_are_taken_nobody_downloads(world: PlaneWorld) -> None:
    session = world.session()
    async with client(world) as http:
        stored = await uploaded(http, session, b"x", "text/plain")
        async with all_places_taken(world):
            answer = await http.ask("GET", f"/v1/sessions/{session}/attachments/{stored['id']}")
            assert (answer.status, answer.code) == (503, "overloaded")
