"""Tenants: what one has is nothing to another, by any command and any request.

Each is tried from a tenant that has a session of no name against the same names: what is answered must be what is
answered about a session that nobody ever had, but for its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio

from broker.events import ApprovalRequested, Entry, HandoffRequested, ToolRequested
from broker.jetstream.directory import JetStreamDirectory
from broker.subjects import session_key
from gateway.http.asyncapi import commands
from gateway.http.declarations import EVENT_STREAM
from gateway.http.operations import OPERATIONS
from tests.support.http import Http
from tests.support.issuer import Issuer
from tests.support.place import Frame, Place
from tests.support.plane import LaneOwner, PlaneWorld, now_ms, plane_world
from tests.support.rawclient import WAIT_S, Refusal, Wire

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "the word that nobody else may see"
KNOWN, NEVER = "victim", "absent"
"""A session that tenant `a` and the default one have, and one that nobody has."""
ENV = {"requests_per_second": "10000", "requests_burst": "10000"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PlaneWorld]:
    async with plane_world(tmp_path_factory.mktemp("tenants"), **ENV) as world:
        await _filled(world)
        yield world


def token(world: PlaneWorld, tenant: str | None, user: str = "user-1", **claims: Any) -> str:
    """Of the same user id in every tenant, with the same rights."""
    named = {} if tenant is None else {"tenant": tenant}
    return world.stack.token(user, roles=["support"], **named, **claims)


async def wire(world: PlaneWorld, tenant: str | None, user: str = "user-1", *, gateway: int = 0) -> Wire:
    return await Wire.open(world.gateways[gateway].url, token(world, tenant, user))


async def _filled(world: PlaneWorld) -> None:
    """A session of tenant `a`, and one of the default tenant: forgetting the tenant somewhere would lead to that."""
    for tenant in ("a", None):
        async with await wire(world, tenant) as owner:
            await owner.command("session.create", session=KNOWN, title=SECRET, metadata={"word": SECRET})
            await owner.input(KNOWN, "first", SECRET)
            await owner.input(KNOWN, "second", SECRET)
        key = session_key(tenant or "", KNOWN)
        lane = LaneOwner(world.log, key)
        await lane.claim()
        await lane.start("first")
        await lane.write(ToolRequested("call-1", "pick", {"word": SECRET}, "client"))
        options = ("allow_once", "reject_once")
        await lane.write(ApprovalRequested("approval-1", "permission", SECRET, options, "reject_once"))
        await lane.write(HandoffRequested("handoff-1", "support", SECRET, SECRET))
        await JetStreamDirectory(world.connection).note("handoff", "support", key, now_ms())


async def _theirs(world: PlaneWorld) -> list[Entry]:
    """All that both of them hold."""
    return [entry for key in (KNOWN, f"a~{KNOWN}") for entry in await world.entries(key)]


# --- nothing tells ---------------------------------------------------------------------------------------------------

IDS: dict[str, Any] = {
    "inputId": "second",
    "runId": "run_first",
    "toolCallId": "call-1",
    "claimId": "claim-1",
    "approvalId": "approval-1",
    "handoffId": "handoff-1",
    "lane": "main",
    "content": "x",
    "option": "allow_once",
    "key": "x",
    "value": 1,
    "result": 1,
    "title": "x",
    "state": "typing",
    "seq": 1,
    "requests": [],
    "kind": "session",
    "whose": "x",
    "major": "6",
    "id": "att-1",
}
"""Names of what there is in the session of tenant `a`, and of what anybody may say."""
TELLING = frozenset({"op", "code", "status", "mode", "type", "kind", "right", "field", "message", "detail"})
"""Fields whose text is compared as it is, but for the session's name; of others, that there is one."""
OF_SESSIONS = sorted(op for op, schema in commands().items() if "session" in schema["properties"])
WITHOUT_SESSION = {"listSessions", "listHandoffs", "createRevocation", "listRevocations", "readAudit"}
"""Operations that name no session; all others are tried."""


def shape(value: Any, session: str, key: str = "") -> Any:
    """What is left of an answer without what differs from one session to another anyway: numbers, ids, its name."""
    match value:
        case dict():
            return {name: shape(part, session, name) for name, part in sorted(value.items())}
        case list():
            return [shape(part, session, key) for part in value]
        case str() if key in TELLING:
            return value.replace(session, "…")
        case bool() | None:
            return value
        case _:
            return type(value).__name__


async def test_all_commands_about_sessions_are_tried() -> None:
    assert set(commands()) - set(OF_SESSIONS) == {"hello", "auth.refresh", "ping", "session.list", "handoff.list"}


@pytest.mark.parametrize("op", OF_SESSIONS)
async def test_no_command_tells_of_another_tenants_session(world: PlaneWorld, op: str) -> None:
    """On a WebSocket. Each command comes from a tenant that has not been there before, and so has nothing yet."""
    properties = commands()[op]["properties"]
    fields = {name: IDS[name] for name in properties if name in IDS}
    if op == "tool.result":
        fields.pop("error", None)
    before = await _theirs(world)
    answers = {}
    for session in (KNOWN, NEVER):
        async with await wire(world, f"ws-{op.replace('.', '-')}") as outsider:
            answers[session] = await _said(outsider, op, {**fields, "session": session, "to": f"copy-of-{session}"})
    assert shape(answers[KNOWN], KNOWN) == shape(answers[NEVER], NEVER)
    assert SECRET not in orjson.dumps(answers).decode()
    assert await _theirs(world) == before


async def _said(outsider: Wire, op: str, fields: dict[str, Any]) -> list[Frame]:
    """The reply, and the frames that come by themselves, in the order of their kinds."""
    frames: list[Frame] = []
    try:
        frames.append(await outsider.command(op, **fields))
    except Refusal as refusal:
        return [refusal.reply]
    if op == "subscribe":
        while not frames or frames[-1]["op"] != "session.presence":
            async with asyncio.timeout(WAIT_S):
                frames.append(await outsider.receive())
    return frames


@pytest.mark.parametrize(
    "operation",
    [o for o in OPERATIONS if o.name not in WITHOUT_SESSION],
    ids=lambda operation: operation.name,
)
async def test_no_request_tells_of_another_tenants_session(world: PlaneWorld, operation: Any) -> None:
    body: dict[str, Any] | None = None
    if operation.body is not None:
        properties = operation.body["properties"]
        body = {name: IDS[name] for name in properties if name in IDS}
    before = await _theirs(world)
    answers = {}
    for session in (KNOWN, NEVER):
        path = re.sub(r"\{(\w+)\}", lambda m, own=session: own if m[1] == "session" else IDS[m[1]], operation.path)
        sent = _named(body, session, operation.name)
        async with Http(world.gateways[0].url, token(world, f"http-{operation.name.lower()}")) as http:
            if EVENT_STREAM in [media for answer in operation.answers.values() for media in answer.also]:
                answers[session, "stream"] = await _streamed(http, operation.method, path, sent)
            if operation.name not in ("subscribe", "sendChat", "runAgent"):
                answer = await http.ask(operation.method, path, sent)
                answers[session, "answer"] = [answer.status, answer.json() if answer.body else None]
    for kind in {kind for _, kind in answers}:
        assert shape(answers[KNOWN, kind], KNOWN) == shape(answers[NEVER, kind], NEVER)
    assert SECRET not in orjson.dumps(list(answers.values())).decode()
    assert await _theirs(world) == before


def _named(body: dict[str, Any] | None, session: str, operation: str) -> dict[str, Any] | None:
    """The body, of an operation whose path does not name the session, with its name."""
    match operation:
        case "createSession":
            return {"session": session}
        case "forkSession":
            return {"to": f"copy-of-{session}"}
        case "createRun":
            return {"wait": 0, "content": "x", "session": session, "inputId": "second"}
        case "createRuns":
            return {"wait": 0, "requests": [{"content": "x", "session": session, "inputId": "second"}]}
        case "runAgent":
            message = {"id": "m-1", "role": "user", "content": "x"}
            return {"threadId": session, "runId": "r", "messages": [message], "protocolVersion": "1.0"}
        case "sendChat":
            parts = [{"type": "text", "text": "x"}]
            return {"id": session, "messages": [{"id": "second", "role": "user", "parts": parts}]}
        case _:
            return body


async def _streamed(http: Http, method: str, path: str, body: dict[str, Any] | None) -> list[Any]:
    """What a stream begins with."""
    if "/ai-sdk/" in path and method == "GET":
        return [(await http.ask(method, path)).status]
    if "/ai-sdk/" in path or path == "/v1/ag-ui":
        async with http.stream(path, body) as stream:
            event = await stream.event()
            return [event and event.json()]
    if path == "/v1/runs":
        async with http.stream(path, {**(body or {}), "stream": "entries", "inputId": "third"}) as stream:
            return [(await stream.until("entry"))[-1].json()["events"]]
    async with http.stream(path, body if method == "POST" else None) as stream:
        return [event.json() for event in await stream.until("session.presence")]


async def test_no_listing_tells(world: PlaneWorld) -> None:
    """The same user id, the same role; and it is there for whose it is."""
    for tenant, seen in (("lists", False), (None, True), ("a", True)):
        async with await wire(world, tenant) as listing, Http(world.gateways[1].url, token(world, tenant)) as http:
            found = [
                await listing.command("session.list"),
                await listing.command("handoff.list"),
                await http.ok("GET", "/v1/sessions"),
                await http.ok("GET", "/v1/handoffs"),
            ]
        for listed in found:
            assert (KNOWN in orjson.dumps(listed).decode()) is seen
            assert f"a~{KNOWN}" not in orjson.dumps(listed).decode()


async def test_no_name_and_no_claim_reaches_across(world: PlaneWorld) -> None:
    outsider = token(world, None, sessions={"a~*": ["admin"], "*": ["admin"], f"a~{KNOWN}": ["admin"]})
    async with await Wire.open(world.gateways[0].url, outsider) as wire_, Http(world.gateways[0].url, outsider) as http:
        for name in (f"a~{KNOWN}", f"~{KNOWN}", "a~", "a.victim", f"a%7E{KNOWN}"):
            with pytest.raises(Refusal, match="bad_name"):
                await wire_.command("subscribe", session=name)
            assert (await http.ask("GET", f"/v1/sessions/{name}")).status in (400, 404)
        # A token of another tenant is another user's, whatever its `sub`.
        with pytest.raises(Refusal, match="of another tenant"):
            await wire_.command("auth.refresh", token=token(world, "a"))
    for tenant in ("", "A", "a~b", "a.b", "-a", "a" * 33, 7, ["a"]):
        with pytest.raises(Refusal, match="unauthorized"):
            await Wire.open(world.gateways[0].url, world.stack.token(tenant=tenant))


# --- and everything works for each -----------------------------------------------------------------------------------


async def test_two_tenants_in_sessions_of_one_name(world: PlaneWorld) -> None:
    """Runs, presence, ids and order are each one's own, at two gateways and with one worker."""
    worker = await world.stack.worker()
    places = {tenant: Place("twin", frames=[]) for tenant in (None, "t1", "t2")}
    async with contextlib.AsyncExitStack() as stack:
        wires = {
            tenant: await stack.enter_async_context(await wire(world, tenant, f"user-{n}", gateway=n % 2))
            for n, tenant in enumerate(places)
        }
        for tenant, place in places.items():
            await wires[tenant].subscribe(place)
        for tenant in places:
            reply = await wires[tenant].input("twin", "same", f"words of {tenant}")
            assert reply["duplicate"] is False
        for n, (tenant, place) in enumerate(places.items()):
            await wires[tenant].follow(place, lambda p: "run_same" in p.ended)
            assert place.answer("run_same") == f"words of {tenant}"
            assert place.whole
            assert await _who_is_there(world, tenant) == [f"user-{n}"]
            assert place.frames is not None
            started = [e for f in place.frames if f["op"] == "entry" for e in f["events"] if e["type"] == "RUN_STARTED"]
            assert [event["threadId"] for event in started] == ["twin"]
    keys = ["twin", "t1~twin", "t2~twin"]
    assert [len(await world.entries(key)) > 3 for key in keys] == [True] * 3
    await worker.terminate()


async def _who_is_there(world: PlaneWorld, tenant: str | None) -> list[str]:
    async with await wire(world, tenant, "looks") as looking, asyncio.timeout(WAIT_S):
        await looking.command("subscribe", session="twin", watching=False)
        while (frame := await looking.receive())["op"] != "session.presence":
            pass
    return [participant["id"] for participant in frame["participants"]]


async def test_a_tenants_revocations_are_its_own(world: PlaneWorld) -> None:
    async with (
        await wire(world, "r1", "same") as one,
        await wire(world, "r2", "same") as other,
        await wire(world, None, "same") as default,
        Http(world.gateways[0].url, token(world, "r1", "admin")) as http,
        Http(world.gateways[0].url, token(world, "r2", "admin")) as foreign,
    ):
        await http.ok("POST", "/v1/revocations", {"kind": "user", "whose": "same"})
        with pytest.raises(Exception, match="token_revoked"):
            async with asyncio.timeout(WAIT_S):
                await one.receive()
        for unharmed in (other, default):
            await unharmed.command("history", session="x")
        assert await foreign.ok("GET", "/v1/revocations") == {"revocations": []}
        assert [r["whose"] for r in (await http.ok("GET", "/v1/revocations"))["revocations"]] == ["same"]


async def test_what_operators_name(world: PlaneWorld, tmp_path: Path) -> None:
    """On the command line a tenant's session has the tenant before it; what is exported comes back."""
    file = tmp_path / "victim.jsonl"
    code, output = await world.stack.run("export", NEVER)
    assert (code, "is empty" in output) == (1, True)
    assert (await world.stack.run("export", f"a~{KNOWN}", "-o", str(file)))[0] == 0
    assert (await world.stack.run("import", "again~restored", str(file)))[0] == 0
    async with Http(world.gateways[0].url, token(world, "again")) as http:
        assert (await http.ok("GET", "/v1/sessions/restored"))["state"]["title"] == SECRET
        assert [s["session"] for s in (await http.ok("GET", "/v1/sessions"))["sessions"]] == ["restored"]
    async with Http(world.gateways[0].url, token(world, None)) as http:
        await http.refused(404, "not_found", "GET", "/v1/sessions/restored")
    code, output = await world.stack.run("backup", str(tmp_path / "saved"), "--sessions", "a~*")
    assert (code, output.startswith("1 sessions saved")) == (0, True), output
    code, output = await world.stack.run("restore", str(tmp_path / "saved"), "--check")
    assert code == 0, output


async def test_gateways_for_some_tenants(world: PlaneWorld, tmp_path: Path) -> None:
    """A tenant on its own gateways, and an issuer that speaks for one tenant alone."""
    acme, open_ = Issuer("https://acme.example"), Issuer("https://all.example")
    for issuer in (acme, open_):
        issuer.rotate("key")
    acme.write(tmp_path / "acme.json")
    open_.write(tmp_path / "open.json")
    jwks = f"{acme.name} {tmp_path / 'acme.json'} acme, {open_.name} {tmp_path / 'open.json'}"
    gateway = await world.stack.gateway(jwks=jwks, jwt_secret_file="")
    own = await world.stack.gateway(jwks=jwks, jwt_secret_file="", tenants="acme, -")
    for good in (acme.token(), acme.token(tenant="acme"), open_.token(tenant="acme")):
        for at in (gateway, own):
            async with await Wire.open(at.url, good) as wire_:
                await wire_.input("shared", "i", "the session of acme")
    for good in (open_.token(), open_.token(tenant="other")):
        async with Http(gateway.url, good) as http:
            await http.refused(404, "not_found", "GET", "/v1/sessions/shared")
    for wrong, at in ((acme.token(tenant="other"), gateway), (open_.token(tenant="other"), own)):
        with pytest.raises(Refusal, match="unauthorized"):
            await Wire.open(at.url, wrong)
    async with await Wire.open(own.url, open_.token()):
        pass
    assert [e.input_id for e in await world.events("acme~shared", "input.sent")] == ["i"]
    code, output = await world.stack.run("gateway", "--port", "0", "--tenants", "A~B")
    assert (code, "ANTIPHON_TENANTS" in output) == (1, True), output
    await gateway.kill()
    await own.kill()
