"""What every operation of the HTTP API is refused with, and what is around all of them: methods, CORS, headers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import orjson
import pytest
import pytest_asyncio

from gateway.http.declarations import Operation
from gateway.http.operations import OPERATIONS
from gateway.http.schemas import TEXT
from tests.support.bare import until_status
from tests.support.http import Http, raw
from tests.support.nats import single_server
from tests.support.plane import PlaneWorld, now_ms, plane_world
from tests.support.stack import Process, Stack

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENV = {
    "requests_per_second": "10000",
    "requests_burst": "10000",
    "cors_origins": "https://app.example, https://b.example/",
    "chat_bytes": "131072",
}
BODIES: dict[str, dict[str, Any]] = {
    "createRun": {"content": "x", "session": "x1", "wait": 0},
    "createRuns": {"requests": [{"content": "x", "session": "x1"}], "wait": 0},
    "createSession": {"session": "x1"},
    "updateSession": {"title": "x"},
    "forkSession": {"to": "x2"},
    "sendInput": {"content": "x"},
    "uploadAttachment": {"any": "file"},
    "claimCall": {"claimId": "x"},
    "showProgress": {"claimId": "x", "value": 1},
    "resolveCall": {"claimId": "x", "result": 1},
    "releaseCall": {"claimId": "x"},
    "respondToApproval": {"option": "allow_once"},
    "revokeApproval": {"key": "x"},
    "sendChat": {"id": "x1", "messages": [{"id": "x", "role": "user", "parts": [{"type": "text", "text": "x"}]}]},
    "runAgent": {"threadId": "x1", "runId": "r", "messages": []},
    "createRevocation": {"kind": "user", "whose": "nobody"},
}
"""A good body for each operation that must have one."""

every = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PlaneWorld]:
    async with plane_world(tmp_path_factory.mktemp("http"), **ENV) as world:
        yield world


def sample(operation: Operation, part: str = "x1") -> tuple[str, str, dict[str, Any] | None]:
    """A good request for the operation."""
    special = {"runId": f"run_{part}", "major": "6" if part == "x1" else part}
    path = re.sub(r"\{(\w+)\}", lambda m: special.get(m[1], part), operation.path)
    return operation.method, path, BODIES.get(operation.name)


def client(world: PlaneWorld, **token: Any) -> Http:
    return Http(world.gateways[0].url, world.token("user-1", **token))


@asynccontextmanager
async def another(world: PlaneWorld, **env: str) -> AsyncIterator[Process]:
    gateway = await world.stack.gateway(**(ENV | env))
    yield gateway
    await gateway.kill()


# --- who ------------------------------------------------------------------------------------------------------------------


@every
async def test_without_a_good_token(world: PlaneWorld, operation: Operation) -> None:
    for token in (None, "nonsense", world.stack.token(ttl_s=-60)):
        async with Http(world.gateways[0].url, token) as http:
            answer = await http.ask(*sample(operation))
            assert (answer.status, answer.code) == (401, "unauthorized")
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            if token is not None:
                assert token.encode() not in answer.body


async def test_a_token_in_the_url_is_no_token(world: PlaneWorld) -> None:
    token = world.token("user-1")
    async with Http(world.gateways[0].url) as http:
        for name in ("token", "access_token", "authorization"):
            await http.refused(401, "unauthorized", "GET", "/v1/sessions", **{name: token})


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o.right], ids=lambda operation: operation.name)
async def test_without_the_right(world: PlaneWorld, operation: Operation) -> None:
    rights = sorted({"read", "send", "steer", "cancel", "tools", "approve"} - {operation.right})
    if operation.name in ("forkSession", "claimHandoff"):
        rights = [right for right in rights if right == "send"]
    async with client(world, rights=rights, roles=["x"]) as http:
        problem = await http.refused(403, "not_allowed", *sample(operation))
        assert problem["data"]["right"] == operation.right


@every
async def test_too_fast(world: PlaneWorld, limited: Process, operation: Operation) -> None:
    async with Http(limited.url, world.token("quick")) as http:
        await http.ask("GET", "/v1/sessions")
        answer = await http.ask(*sample(operation))
        assert (answer.status, answer.code) == (429, "rate_limited")
        assert int(answer.headers["Retry-After"]) > 1
    async with Http(limited.url, world.token("another")) as other:
        await other.ask("GET", "/v1/handoffs")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def limited(world: PlaneWorld) -> AsyncIterator[Process]:
    async with another(world, requests_per_second="0.1", requests_burst="1") as gateway:
        yield gateway


async def test_guessing_tokens_is_limited_by_address(world: PlaneWorld) -> None:
    async with (
        another(world, requests_per_second="0.1", requests_burst="3") as gateway,
        Http(gateway.url, "guess") as guesser,
        Http(gateway.url, world.token("user-1")) as user,
    ):
        answers = [await guesser.ask("GET", "/v1/sessions") for _ in range(5)]
        assert [answer.status for answer in answers] == [401, 401, 401, 429, 429]
        assert (await user.ask("GET", "/v1/sessions")).status == 200


# --- what -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o.body], ids=lambda operation: operation.name)
async def test_bodies_that_are_none(world: PlaneWorld, operation: Operation) -> None:
    method, path, _ = sample(operation)
    deep = b'{"x":' * 2000 + b"1" + b"}" * 2000
    async with client(world) as http:
        for body in (b"{", b"[]", b"5", b'"x"', b"\xff", b'{"x":NaN}', deep):
            await http.refused(400, "bad_json", method, path, body)
        for media in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            headers = {"Content-Type": media}
            await http.refused(415, "unsupported_media_type", method, path, b"x=1", headers=headers)
        large = orjson.dumps({"x": "y" * 131_072})
        await http.refused(413, "content_too_large", method, path, large)
        if not operation.optional:
            await http.refused(415, "unsupported_media_type", method, path)
            await http.refused(400, "bad_json", method, path, b"", headers={"Content-Type": "application/json"})


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("createSession", {"session": "a b"}, "session"),
    ("createSession", {"metadata": []}, "metadata"),
    ("forkSession", {}, "the body"),
    ("forkSession", {"to": "x", "before": "y"}, "before"),
    ("subscribe", {"replay": "some"}, "replay"),
    ("sendInput", {"content": ""}, "content"),
    ("sendInput", {"content": "x", "mode": "never"}, "mode"),
    ("sendInput", {"content": "x", "inputId": 5}, "inputId"),
    ("updateSession", {}, "the body"),
    ("cancelRun", {"mode": "soon"}, "mode"),
    ("claimCall", {"claimId": "a", "leaseMs": 1}, "leaseMs"),
    ("claimCall", {}, "the body"),
    ("showProgress", {"claimId": "a"}, "the body"),
    ("resolveCall", {"claimId": "a", "result": 1, "error": "x"}, "the body"),
    ("releaseCall", {"claimId": ""}, "claimId"),
    ("respondToApproval", {"option": 5}, "option"),
    ("revokeApproval", {"key": ""}, "key"),
    ("returnLane", {"note": 5}, "note"),
    ("sendChat", {"id": "a b", "messages": []}, "id"),
    ("createRevocation", {"kind": "token", "whose": "t-1", "user": "user-1"}, "user"),
    ("runAgent", {"threadId": "x1", "runId": "r"}, "the body"),
    ("runAgent", {"threadId": "x1", "runId": "r", "messages": [{"id": "a", "role": "x"}]}, "messages/0/role"),
]


@pytest.mark.parametrize(("name", "body", "place"), WRONG, ids=[f"{name}-{place}" for name, _, place in WRONG])
async def test_fields_that_are_wrong_are_named(world: PlaneWorld, name: str, body: dict[str, Any], place: str) -> None:
    (operation,) = (o for o in OPERATIONS if o.name == name)
    method, path, _ = sample(operation)
    async with client(world) as http:
        problem = await http.refused(400, "bad_command", method, path, body)
        assert problem["data"]["field"] == place


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o.parameters], ids=lambda operation: operation.name)
async def test_parameters_that_are_wrong_are_named(world: PlaneWorld, operation: Operation) -> None:
    async with client(world) as http:
        for parameter in (p for p in operation.parameters if p.schema is not TEXT):
            wrong = "" if parameter.name == "name" else "! no"
            kwargs: dict[str, Any] = {parameter.name: wrong} if parameter.place == "query" else {}
            headers = {parameter.name: wrong} if parameter.place == "header" else {}
            answer = await http.ask(*sample(operation), headers=headers, **kwargs)
            assert (answer.status, answer.json()["data"]["field"]) == (400, parameter.name)


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o.places], ids=lambda operation: operation.name)
async def test_names_in_the_path_that_are_wrong(world: PlaneWorld, operation: Operation) -> None:
    method, path, body = sample(operation, "a%20b")
    async with client(world) as http:
        for wrong in (path, sample(operation, "x" * 200)[1]):
            problem = await http.refused(400, "bad_name", method, wrong, body)
            assert problem["data"]["field"] in operation.places


async def test_a_parameter_that_comes_twice(world: PlaneWorld) -> None:
    async with client(world) as http:
        await http.refused(400, "bad_command", "GET", "/v1/sessions?limit=1&limit=2")


async def test_values_that_are_nested_too_deeply(world: PlaneWorld) -> None:
    nested: Any = 1
    for _ in range(250):
        nested = {"x": nested}
    async with client(world) as http:
        body = {"session": world.session(), "metadata": nested}
        problem = await http.refused(400, "bad_json", "POST", "/v1/sessions", body)
        assert "128 levels" in problem["detail"]


async def test_contents_that_are_too_large(world: PlaneWorld) -> None:
    path = f"/v1/sessions/{world.session()}"
    async with client(world) as http:
        problem = await http.refused(413, "content_too_large", "POST", f"{path}/inputs", {"content": "x" * 65_537})
        assert problem["data"]["limit"] == 65_536
        large = {"metadata": {"x": "y" * 8192}}
        await http.refused(413, "content_too_large", "POST", "/v1/sessions", large)


async def test_a_body_that_does_not_come_holds_up_nobody(world: PlaneWorld) -> None:
    request = (
        "POST /v1/sessions/x9/inputs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {world.token('user-1')}\r\nContent-Length: 100\r\n\r\n{{"
    )
    async with raw(world.gateways[0].url, request), client(world) as http:
        await asyncio.sleep(0)
        assert (await http.ask("GET", "/v1/sessions")).status == 200


# --- the log is away ---------------------------------------------------------------------------------------------------------


async def test_every_operation_says_that_the_log_is_away(tmp_path: Path) -> None:
    async with single_server(tmp_path / "nats") as nats, Stack(tmp_path / "stack", nats.url) as stack:
        gateway = await stack.gateway(**ENV, command_timeout_s="0.5")
        claims = {"sub": "user-1", "exp": now_ms() / 1000 + 60, "sessions": {"*": ["admin"]}, "roles": ["x"]}
        token = jwt.encode(claims, (stack.directory / "secret").read_text(), "HS256")
        async with Http(gateway.url, token) as http:
            await http.ok("POST", "/v1/sessions", {"session": "known"})
            await nats.kill()
            await until_status(f"{gateway.url}/readyz", 503)
            for operation in OPERATIONS:
                answer = await http.ask(*sample(operation))
                if operation.batch:
                    (outcome,) = answer.json()["outcomes"]
                    assert (outcome["status"], outcome["problem"]["code"]) == (503, "unavailable")
                    continue
                assert (answer.status, answer.code) == (503, "unavailable"), operation.name
                assert answer.headers["Retry-After"] == "1"


# --- around all of them --------------------------------------------------------------------------------------------------------


async def test_methods(world: PlaneWorld) -> None:
    async with client(world) as http:
        for path in {sample(operation)[1] for operation in OPERATIONS}:
            known = {o.method for o in OPERATIONS if sample(o)[1] == path}
            allowed = ", ".join(sorted(known | {"OPTIONS"} | ({"HEAD"} if "GET" in known else set())))
            options = await http.ask("OPTIONS", path)
            assert (options.status, options.headers["Allow"]) == (204, allowed)
            answer = await http.ask("PUT", path, {})
            assert (answer.status, answer.code, answer.headers["Allow"]) == (405, "method_not_allowed", allowed)
            if "GET" in known:
                head = await http.ask("HEAD", path)
                whole = await http.ask("GET", path)
                assert (head.status, head.body) == (whole.status, b"")
        await http.refused(404, "not_found", "GET", "/v1/nothing")
        await http.refused(404, "not_found", "POST", "/v1/sessions/")


async def test_pages_of_other_origins(world: PlaneWorld) -> None:
    async with client(world) as http:
        for origin in ("https://app.example", "https://b.example"):
            answer = await http.ask("GET", "/v1/sessions", headers={"Origin": origin})
            assert (answer.headers["Access-Control-Allow-Origin"], answer.headers["Vary"]) == (origin, "Origin")
            assert "Access-Control-Allow-Credentials" not in answer.headers
            problem = await http.ask("GET", "/v1/nothing", headers={"Origin": origin})
            assert problem.headers["Access-Control-Allow-Origin"] == origin
            asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            preflight = await http.ask("OPTIONS", "/v1/sessions/x1/inputs", headers=asked)
            assert preflight.status == 204
            assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
            assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
            async with http.stream("/v1/sessions/x1/events", headers={"Origin": origin}) as stream:
                assert stream.headers["Access-Control-Allow-Origin"] == origin
        for origin in ("https://evil.example", "https://app.example.evil.example", "null"):
            answer = await http.ask("GET", "/v1/sessions", headers={"Origin": origin})
            assert "Access-Control-Allow-Origin" not in answer.headers
            assert answer.headers["Vary"] == "Origin"
    async with another(world, cors_origins="") as closed, Http(closed.url, world.token("user-1")) as http:
        answer = await http.ask("GET", "/v1/sessions", headers={"Origin": "https://app.example"})
        assert "Access-Control-Allow-Origin" not in answer.headers
    async with another(world, cors_origins="*") as open_, Http(open_.url, world.token("user-1")) as http:
        answer = await http.ask("GET", "/v1/sessions", headers={"Origin": "https://anybody.example"})
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


async def test_answers_are_for_nobody_else(world: PlaneWorld) -> None:
    async with client(world) as http:
        for answer in (await http.ask("GET", "/v1/sessions"), await http.ask("GET", "/v1/nothing")):
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Server"] == "antiphon"


async def test_what_is_no_http_is_refused_and_says_nothing_in_the_log(world: PlaneWorld) -> None:
    for garbage in (
        "\x16\x03\x01\x00\xa5\x01\r\n\r\n",
        "GET /v1/sessions HTTP/1.1\r\nHost: x\r\nno header\r\n\r\n",
        "GET /v1/sessions HTTP/1.1\r\nHost: x\r\nX: " + "y" * 20_000 + "\r\n\r\n",
        "POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    ):
        async with raw(world.gateways[0].url, garbage) as socket, asyncio.timeout(10):
            assert (await socket.readline()).startswith(b"HTTP/1.0 400 "), garbage[:60]
    assert "Traceback" not in world.gateways[0].output()


async def test_streams_count_as_connections(world: PlaneWorld) -> None:
    async with another(world, connections="1") as gateway, Http(gateway.url, world.token("user-1")) as http:
        path = f"/v1/sessions/{world.session()}/events"
        async with http.stream(path) as stream:
            await stream.until("session.caught_up")
            answer = await http.ask("GET", path, format="sse")
            assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "overloaded", "1")
            await http.refused(503, "overloaded", "POST", path.replace("events", "subscribe"), {})
            body = {"content": "x", "session": "x3"}
            await http.refused(503, "overloaded", "POST", "/v1/runs", body)
            await http.refused(503, "overloaded", "POST", "/v1/runs", body | {"stream": "text"})
            await http.refused(503, "overloaded", "POST", "/v1/ai-sdk/6", BODIES["sendChat"] | {"id": "x3"})
            await http.refused(503, "overloaded", "GET", "/v1/ai-sdk/6/x3/stream")
            await http.refused(503, "overloaded", "POST", "/v1/ag-ui", BODIES["runAgent"])
            batch = await http.ok("POST", "/v1/runs/batch", {"requests": [body]})
            assert batch["outcomes"][0]["problem"]["code"] == "overloaded"
            # What nobody can wait for has not been sent.
            await http.refused(404, "not_found", "GET", "/v1/sessions/x3")
            assert (await http.ask("GET", path)).status == 200
        async with asyncio.timeout(10):
            while (await http.ask("GET", path, format="sse", after="x:1")).code == "overloaded":
                await asyncio.sleep(0.02)
