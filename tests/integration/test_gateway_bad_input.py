"""What clients may do wrong, on real gateways: each gets its typed answer, and everybody else is served as before."""

from __future__ import annotations

import asyncio
import base64
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import jwt
import orjson
import psutil
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from tests.support.bare import Bare, bare, get
from tests.support.nats import single_server
from tests.support.place import Place
from tests.support.rawclient import Wire
from tests.support.stack import Process, Stack, metric

pytestmark = pytest.mark.asyncio(loop_scope="module")

HEARTBEAT_S = 2.0
QUEUE = 16


@dataclass(frozen=True, slots=True)
class World:
    """`gateway` has its usual limits, and a worker. `strict` has narrow ones, and no worker takes what it is sent."""

    stack: Stack
    gateway: Process
    strict: Process
    sessions: count[int]

    def session(self) -> str:
        """A session that no other test has."""
        return f"s{next(self.sessions)}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("bad-input")
    async with (
        single_server(directory / "nats") as nats,
        Stack(directory / "stack", nats.url, env={"POOLS": "default,idle"}) as stack,
        asyncio.TaskGroup() as tasks,
    ):
        worker = tasks.create_task(stack.worker())
        gateway = await stack.gateway()
        strict = await stack.gateway(
            pools="idle,default",
            hello_timeout_s="1",
            heartbeat_s=str(HEARTBEAT_S),
            slow_reader_s="1",
            subscriptions="2",
            commands_per_second="20",
            commands_burst="40",
            flood_refusals="50",
        )
        await worker
        yield World(stack, gateway, strict, count())


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def others_are_served(world: World) -> AsyncIterator[None]:
    """Whatever a test did, somebody else's message is still answered, and no fault of the server is in the logs."""
    yield
    place = Place(world.session())
    async with await Wire.open(world.gateway.url, world.stack.token("bystander")) as wire:
        await wire.subscribe(place)
        run = (await wire.input(place.session, "hello", "are you there"))["runId"]
        await wire.follow(place, lambda p: run in p.ended)
    assert place.answer(run) == "are you there"
    for process in (world.gateway, world.strict):
        assert "Traceback" not in process.output(), process.output()


async def is_well(client: Bare) -> None:
    assert (await client.ask("ping"))["op"] == "pong"


def error(reply: Mapping[str, Any], code: str, *, retryable: bool = False) -> Mapping[str, Any]:
    """Checks the form of a refusal: typed, explained, and in one line."""
    assert reply["op"] == "error", reply
    assert reply["code"] == code, reply
    assert reply["retryable"] is retryable, reply
    assert reply["message"], reply
    assert "\n" not in reply["message"], reply
    return reply


# --- frames ------------------------------------------------------------------------------------------------------------

NOT_AN_OBJECT = ["{", "", "nonsense", "[1]", "null", '"text"', "7", "[" * 100_000, '{"op":"ping","id":1}}', '"\\ud800"']


@pytest.mark.parametrize("frame", NOT_AN_OBJECT, ids=range(len(NOT_AN_OBJECT)))
async def test_a_frame_that_is_no_json_object(world: World, frame: str) -> None:
    async with bare(world.gateway.url, world.stack.token()) as client:
        await client.say(frame)
        error(await client.reply(None), "bad_json")
        await is_well(client)


ID = 1
VALID: dict[str, dict[str, Any]] = {
    "auth.refresh": {"token": "t"},
    "subscribe": {"session": "s", "after": "e:1", "replay": "merged"},
    "unsubscribe": {"session": "s"},
    "input.send": {"session": "s", "inputId": "i", "content": "c", "mode": "m"},
    "input.cancel": {"session": "s", "inputId": "i"},
    "run.cancel": {"session": "s", "runId": "run_i", "mode": "immediate"},
    "history": {"session": "s", "before": 1, "limit": 1},
    "hello": {"token": "t", "client": "c"},
}
OPTIONAL = {"after", "replay", "mode", "before", "limit", "client"} | {"hello.token"}
NUMBERS = {"before", "limit"}


def wrong_values(op: str, field: str) -> list[Any]:
    values: list[Any] = [[], {}, True, 1.5, "1" if field in NUMBERS else 1]
    if field not in OPTIONAL and f"{op}.{field}" not in OPTIONAL:
        values.append(None)
    return values


FIELDS = [(op, field) for op, fields in VALID.items() for field in fields]


@pytest.mark.parametrize(("op", "field"), FIELDS, ids=[f"{op}-{field}" for op, field in FIELDS])
async def test_a_field_of_the_wrong_type_is_named(world: World, op: str, field: str) -> None:
    async with bare(world.gateway.url, world.stack.token()) as client:
        for value in wrong_values(op, field):
            reply = error(await client.ask(op, **{**VALID[op], field: value}), "bad_command")
            assert reply["field"] == field, (value, reply)
        await is_well(client)


@pytest.mark.parametrize("value", ["missing", None, -1, 1.5, "1", True, [], 2**53])
async def test_an_id_of_the_wrong_form(world: World, value: object) -> None:
    async with bare(world.gateway.url, world.stack.token()) as client:
        frame = {"op": "ping"} | ({} if value == "missing" else {"id": value})
        await client.say(orjson.dumps(frame).decode())
        assert error(await client.reply(None), "bad_command")["field"] == "id"
        await is_well(client)


OUT_OF_RANGE = [
    ("history", "limit", 0),
    ("history", "limit", 201),
    ("history", "before", -1),
    ("history", "before", 2**54),
    ("subscribe", "replay", "some"),
    ("run.cancel", "mode", "gently"),
    ("input.send", "content", ""),
]


@pytest.mark.parametrize(("op", "field", "value"), OUT_OF_RANGE)
async def test_a_value_out_of_range_is_named(world: World, op: str, field: str, value: object) -> None:
    async with bare(world.gateway.url, world.stack.token()) as client:
        reply = error(await client.ask(op, **{**VALID[op], field: value}), "bad_command")
        assert reply["field"] == field
        await is_well(client)


@pytest.mark.parametrize("op", ["fly", "", "INPUT.SEND", "x" * 1000, 5, None])
async def test_an_unknown_command(world: World, op: object) -> None:
    async with bare(world.gateway.url, world.stack.token()) as client:
        await client.say(orjson.dumps({"op": op, "id": 77}).decode())
        reply = error(await client.reply(77), "bad_command")
        assert reply["field"] == "op"
        assert len(reply["message"]) < 100
        await is_well(client)


async def test_unknown_fields_are_ignored(world: World) -> None:
    async with bare(world.gateway.url, world.stack.token()) as client:
        assert (await client.ask("ping", colour="green", nested={"a": [1]}))["op"] == "pong"


NAMES: list[tuple[str, str, str]] = [
    *(
        ("subscribe", "session", name)
        for name in ("", "a" * 129, "a b", "ä", "a.b", "a/b", "*", ">", "a\n", "\0", "..")
    ),
    *((op, "session", "a.>") for op in ("unsubscribe", "input.send", "input.cancel", "run.cancel", "history")),
    *(("input.send", "inputId", value) for value in ("", "a" * 65, "a.b", "a b", "a\n", "*")),
    ("input.cancel", "inputId", "a.b"),
    *(("run.cancel", "runId", value) for value in ("", "i", "run_", "run_a.b", "run_" + "a" * 65)),
]


@pytest.mark.parametrize(("op", "field", "value"), NAMES, ids=range(len(NAMES)))
async def test_a_name_outside_its_form(world: World, op: str, field: str, value: str) -> None:
    async with bare(world.gateway.url, world.stack.token()) as client:
        fields = {key: item for key, item in VALID[op].items() if key != "after"}
        assert error(await client.ask(op, **{**fields, field: value}), "bad_name")["field"] == field
        await is_well(client)


async def test_the_longest_names_are_taken(world: World) -> None:
    async with bare(world.gateway.url, world.stack.token()) as client:
        session, input_id = "a-Z_9" * 25 + "abc", "a-Z_" * 16
        assert (len(session), len(input_id)) == (128, 64)
        reply = await client.ask("input.send", session=session, inputId=input_id, content="hi")
        assert (reply["op"], reply["runId"]) == ("ok", f"run_{input_id}")


async def test_too_many_bad_frames_end_the_connection(world: World) -> None:
    async with bare(world.gateway.url, world.stack.token()) as client:
        for _ in range(9):
            await client.say("{")
            error(await client.reply(None), "bad_json")
        await is_well(client)
        await client.say("{")
        ended = await client.end()
    assert (ended.code, ended.reason) == (4400, {"code": "bad_frame"})


async def test_a_binary_frame_ends_the_connection(world: World) -> None:
    async with bare(world.gateway.url, world.stack.token()) as client:
        await client.ws.send_bytes(b'{"op":"ping","id":1}')
        error(await client.reply(None), "bad_json")
        ended = await client.end()
    assert (ended.code, ended.reason) == (4400, {"code": "bad_frame"})


async def test_a_frame_over_the_limit_that_welcome_names(world: World) -> None:
    async with bare(world.gateway.url) as client:
        welcome = await client.ask("hello", token=world.stack.token())
        limit = welcome["limits"]["frame_bytes"]
        frame = orjson.dumps({"op": "ping", "id": 5, "pad": ""}).decode()
        await client.say(frame[:-2] + "x" * (limit - len(frame)) + '"}')
        assert (await client.reply(5))["op"] == "pong"
        await client.say(frame[:-2] + "x" * (limit + 1 - len(frame)) + '"}')
        assert (await client.end()).code == 1009


async def test_text_that_is_not_utf_8(world: World) -> None:
    async with bare(world.gateway.url, world.stack.token()) as client:
        await client.ws._writer.send_frame(b'{"op":"\xff"}', 0x1)  # type: ignore[union-attr]
        assert (await client.end()).code == 1007


# --- hello -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ['{"op":"ping","id":3}', "{", '{"op":"hello","id":3,"token":5}', '{"op":"hello"}'])
async def test_the_first_frame_must_be_a_hello(world: World, first: str) -> None:
    async with bare(world.gateway.url) as client:
        await client.say(first)
        ended = await client.end()
    error(client.frames[-1], "hello_required")
    assert (ended.code, ended.reason) == (4400, {"code": "hello_required"})


async def test_a_second_hello(world: World) -> None:
    async with bare(world.gateway.url, world.stack.token()) as client:
        reply = error(await client.ask("hello", token=world.stack.token("somebody-else")), "bad_command")
        assert reply["field"] == "op"
        await is_well(client)


async def test_no_hello_in_time(world: World) -> None:
    async with bare(world.strict.url) as client:
        ended = await client.end()
    assert (ended.code, ended.reason) == (4408, {"code": "hello_timeout"})


@pytest.mark.parametrize("protocols", [(), ("antiphon.v2",), ("Antiphon.V1", "chat")], ids=["none", "v2", "others"])
async def test_another_subprotocol(world: World, protocols: tuple[str, ...]) -> None:
    async with bare(world.gateway.url, protocols=protocols) as client:
        ended = await client.end()
    assert (ended.code, ended.reason) == (4406, {"code": "unsupported_protocol"})


async def test_our_subprotocol_among_others(world: World) -> None:
    async with bare(world.gateway.url, world.stack.token(), protocols=("chat", "antiphon.v1")) as client:
        assert client.ws.protocol == "antiphon.v1"


async def test_no_websocket(world: World) -> None:
    assert (await get(f"{world.gateway.url}/v1/connect")).status == 400


# --- tokens ------------------------------------------------------------------------------------------------------------

SOON = int(time.time()) + 3600
CLAIMS: dict[str, Any] = {"sub": "user-1", "exp": SOON, "sessions": {"*": ["admin"]}}


def signed(key: str, algorithm: str = "HS256", **changed: Any) -> str:
    claims = {name: value for name, value in (CLAIMS | changed).items() if value is not None}
    return jwt.encode(claims, key, algorithm)


def unsigned(_key: str) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(orjson.dumps(value)).rstrip(b"=").decode()

    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(CLAIMS)}."


def with_the_claims_of_another(key: str) -> str:
    head, _, signature = signed(key).split(".")
    return ".".join((head, signed(key, sub="user-2").split(".")[1], signature))


BAD_TOKENS: dict[str, Callable[[str], str | None]] = {
    "missing": lambda _: None,
    "empty": lambda _: "",
    "garbage": lambda _: "nonsense",
    "three parts of garbage": lambda _: "a.b.c",
    "not ascii": lambda _: "ä.ö.ü",
    "expired": lambda key: signed(key, exp=SOON - 7200),
    "foreign key": lambda _: signed("k" * 64),
    "no signature": unsigned,
    "signature cut off": lambda key: signed(key).rpartition(".")[0] + ".",
    "claims of another": with_the_claims_of_another,
    "another algorithm": lambda key: signed(key, "HS512"),
    "an RSA key of somebody": lambda _: jwt.encode(CLAIMS, generate_private_key(65537, 2048), "RS256"),
    "never expires": lambda key: signed(key, exp=None),
    "expires beyond all time": lambda key: signed(key, exp=10**20),
    "expires at a word": lambda key: signed(key, exp="tomorrow"),
    "no user": lambda key: signed(key, sub=None),
    "an empty user": lambda key: signed(key, sub=""),
    "a user too long": lambda key: signed(key, sub="u" * 129),
    "not valid yet": lambda key: signed(key, nbf=SOON),
    "sessions as a list": lambda key: signed(key, sessions=["*"]),
    "rights as text": lambda key: signed(key, sessions={"*": "admin"}),
    "too many patterns": lambda key: signed(key, sessions={f"s{n}": ["read"] for n in range(101)}),
    "too large": lambda key: signed(key, pad="x" * 20_000),
}


@pytest.mark.parametrize("kind", BAD_TOKENS)
async def test_a_token_that_proves_nothing(world: World, kind: str) -> None:
    token = BAD_TOKENS[kind]((world.stack.directory / "secret").read_text())
    async with bare(world.gateway.url) as client:
        id_ = await client.post("hello", **({} if token is None else {"token": token}))
        reply = error(await client.reply(id_), "unauthorized")
        assert not token or token not in str(reply)
        ended = await client.end()
    assert (ended.code, ended.reason) == (4401, {"code": "unauthorized"})
    assert not token or token not in world.gateway.output()


async def test_the_token_may_come_in_the_authorization_header(world: World) -> None:
    headers = {"Authorization": f"Bearer {world.stack.token('user-7')}"}
    async with bare(world.gateway.url, headers=headers) as client:
        welcome = await client.ask("hello")
        assert (welcome["op"], welcome["user"]["id"]) == ("welcome", "user-7")
        await is_well(client)


@pytest.mark.parametrize("header", ["Bearer", "Bearer nonsense", "Basic dXNlcjpwYXNz", ""])
async def test_an_authorization_header_that_proves_nothing(world: World, header: str) -> None:
    async with bare(world.gateway.url, headers={"Authorization": header}) as client:
        error(await client.ask("hello"), "unauthorized")
        assert (await client.end()).code == 4401


async def test_a_token_in_the_address_is_not_looked_at(world: World) -> None:
    async with bare(f"{world.gateway.url}", headers={}) as client:
        error(await client.ask("hello"), "unauthorized")
    answer = await get(f"{world.gateway.url}/v1/connect?token={world.stack.token()}")
    assert answer.status == 400


async def test_refreshing_with_a_bad_token_leaves_the_good_one(world: World) -> None:
    async with bare(world.gateway.url, world.stack.token("user-1")) as client:
        error(await client.ask("auth.refresh", token="nonsense"), "unauthorized")
        error(await client.ask("auth.refresh", token=world.stack.token("user-2")), "unauthorized")
        await is_well(client)


async def test_a_refresh_that_takes_away_what_is_subscribed_ends_it(world: World) -> None:
    session = world.session()
    async with bare(world.gateway.url, world.stack.token()) as client:
        assert (await client.ask("subscribe", session=session))["op"] == "ok"
        reply = await client.ask("auth.refresh", token=world.stack.token(sessions={"other": ["read"]}))
        assert reply["op"] == "ok"
        while (frame := await client.frame())["op"] != "session.unsubscribed":
            pass
        assert (frame["session"], frame["code"], frame["right"]) == (session, "not_allowed", "read")
        assert error(await client.ask("unsubscribe", session=session), "not_subscribed")
        await is_well(client)


# --- rights ------------------------------------------------------------------------------------------------------------


async def refused(client: Bare, right: str, op: str, **fields: Any) -> None:
    assert error(await client.ask(op, **fields), "not_allowed")["right"] == right


async def test_a_reader_may_only_read(world: World) -> None:
    session = world.session()
    token = world.stack.token(sessions={session: ["read"]})
    async with bare(world.gateway.url, token) as client:
        await refused(client, "send", "input.send", session=session, inputId="i", content="c")
        await refused(client, "send", "input.cancel", session=session, inputId="i")
        await refused(client, "cancel", "run.cancel", session=session, runId="run_i")
        await refused(client, "read", "subscribe", session=f"{session}x")
        await refused(client, "read", "history", session=f"x{session}")
        assert (await client.ask("history", session=session))["messages"] == []
        assert (await client.ask("subscribe", session=session))["head"] == 0
    assert await world.stack.entries(session) == []


async def test_a_sender_may_not_read_nor_cancel(world: World) -> None:
    session = world.session()
    async with bare(world.gateway.url, world.stack.token(sessions={"s*": ["send"]})) as client:
        await refused(client, "read", "subscribe", session=session)
        await refused(client, "read", "history", session=session)
        await refused(client, "cancel", "run.cancel", session=session, runId="run_i")
        assert (await client.ask("input.send", session=session, inputId="i", content="c"))["op"] == "ok"


async def test_rights_of_all_patterns_add_up(world: World) -> None:
    session = world.session()
    token = world.stack.token(
        sessions={"s*": ["read"], f"*{session}": ["send"], "*-*-*-*-x": ["admin"], "s": ["admin"]}
    )
    async with bare(world.gateway.url, token) as client:
        assert (await client.ask("input.send", session=session, inputId="i", content="c"))["op"] == "ok"
        assert (await client.ask("history", session=session))["op"] == "ok"
        await refused(client, "cancel", "run.cancel", session=session, runId="run_i")


async def test_a_session_named_to_make_patterns_slow(world: World) -> None:
    """A pattern of many stars is checked in no time, whatever name a client comes up with."""
    token = world.stack.token(sessions={"*-*-*-*-*-*-*-*-*-x": ["read"]})
    async with bare(world.gateway.url, token) as client:
        async with asyncio.timeout(5):
            await refused(client, "read", "subscribe", session="-" * 128)


async def test_only_the_sender_or_an_admin_takes_an_input_back(world: World) -> None:
    session = world.session()
    rights = {session: ["send"]}
    async with bare(world.strict.url, world.stack.token("user-1", rights)) as client:
        assert (await client.ask("input.send", session=session, inputId="one", content="c"))["op"] == "ok"
        assert (await client.ask("input.send", session=session, inputId="two", content="c"))["position"] == 2
    async with bare(world.strict.url, world.stack.token("user-2", rights)) as client:
        await refused(client, "admin", "input.cancel", session=session, inputId="one")
    async with bare(world.strict.url, world.stack.token("user-1", rights)) as client:
        assert (await client.ask("input.cancel", session=session, inputId="one"))["status"] == "cancelled"
    async with bare(world.strict.url, world.stack.token("boss", {session: ["admin"]})) as client:
        assert (await client.ask("input.cancel", session=session, inputId="two"))["status"] == "cancelled"


# --- cursors and subscriptions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "after", ["", "x", ":5", "e:", "e:-1", "e:1.5", "e:1e3", "e:٣", "e:99999999999999999", "e:1:2"]
)
async def test_a_malformed_cursor(world: World, after: str) -> None:
    async with bare(world.gateway.url, world.stack.token()) as client:
        error(await client.ask("subscribe", session=world.session(), after=after), "cursor_bad")
        await is_well(client)


async def test_a_cursor_of_another_log_or_from_the_future(world: World) -> None:
    session = world.session()
    async with bare(world.gateway.url, world.stack.token()) as client:
        opened = await client.ask("subscribe", session=session)
        assert (await client.ask("unsubscribe", session=session))["op"] == "ok"
        reply = await client.ask("subscribe", session=session, after="zzz:0")
        assert error(reply, "cursor_epoch")["epoch"] == opened["epoch"]
        reply = await client.ask("subscribe", session=session, after=f"{opened['epoch']}:1")
        assert error(reply, "cursor_future")["head"] == 0
        assert (await client.ask("subscribe", session=session, after=f"{opened['epoch']}:0"))["op"] == "ok"


async def test_subscribing_twice_and_unsubscribing_what_is_not(world: World) -> None:
    session = world.session()
    async with bare(world.gateway.url, world.stack.token()) as client:
        error(await client.ask("unsubscribe", session=session), "not_subscribed")
        assert (await client.ask("subscribe", session=session))["op"] == "ok"
        error(await client.ask("subscribe", session=session), "already_subscribed")
        assert (await client.ask("unsubscribe", session=session))["op"] == "ok"
        error(await client.ask("unsubscribe", session=session), "not_subscribed")
        assert (await client.ask("subscribe", session=session))["op"] == "ok"


async def test_more_subscriptions_than_the_limit_that_welcome_names(world: World) -> None:
    async with bare(world.strict.url) as client:
        welcome = await client.ask("hello", token=world.stack.token())
        limit = welcome["limits"]["subscriptions"]
        sessions = [world.session() for _ in range(limit + 1)]
        for session in sessions[:limit]:
            assert (await client.ask("subscribe", session=session))["op"] == "ok"
        reply = await client.ask("subscribe", session=sessions[limit])
        assert error(reply, "too_many_subscriptions")["limit"] == limit
        assert (await client.ask("unsubscribe", session=sessions[0]))["op"] == "ok"
        assert (await client.ask("subscribe", session=sessions[limit]))["op"] == "ok"


# --- inputs and runs -----------------------------------------------------------------------------------------------------


async def test_content_over_the_limit_that_welcome_names(world: World) -> None:
    session = world.session()
    async with bare(world.gateway.url) as client:
        limit = (await client.ask("hello", token=world.stack.token()))["limits"]["input_bytes"]
        reply = await client.ask("input.send", session=session, inputId="a", content="x" * (limit + 1))
        assert error(reply, "content_too_large")["limit"] == limit
        # The limit is of bytes, not characters.
        reply = await client.ask("input.send", session=session, inputId="a", content="ä" * (limit // 2) + "x")
        error(reply, "content_too_large")
        assert await world.stack.entries(session) == []
        reply = await client.ask("input.send", session=session, inputId="a", content="ä" * (limit // 2))
        assert reply["op"] == "ok"


async def inputs_stored(world: World, session: str) -> list[str]:
    entries = [entry for _, entry in await world.stack.entries(session)]
    return [entry.id for entry in entries if type(entry.events[0]).__name__ == "InputSent"]


async def test_a_full_queue_stores_nothing_more(world: World) -> None:
    session = world.session()
    async with bare(world.strict.url, world.stack.token()) as client:
        for n in range(QUEUE):
            reply = await client.ask("input.send", session=session, inputId=f"i{n}", content="c")
            assert reply["position"] == n + 1
        reply = await client.ask("input.send", session=session, inputId="more", content="c")
        assert error(reply, "queue_full", retryable=True)["limit"] == QUEUE
        assert await inputs_stored(world, session) == [f"i{n}" for n in range(QUEUE)]
        # What is stored already may be sent again, and room that was made is room.
        assert (await client.ask("input.send", session=session, inputId="i3", content="c"))["duplicate"] is True
        assert (await client.ask("input.cancel", session=session, inputId="i0"))["status"] == "cancelled"
        assert (await client.ask("input.send", session=session, inputId="next", content="c"))["position"] == QUEUE


async def test_a_queue_that_many_fill_at_once(world: World) -> None:
    """Sixteen get in, whoever they are; everybody else is told that his did not."""
    session = world.session()
    outcomes: list[str] = []

    async def send(n: int) -> None:
        async with bare(world.strict.url, world.stack.token(f"user-{n}")) as client:
            async with ready:
                waiting.append(n)
                ready.notify_all()
                await ready.wait_for(lambda: len(waiting) == 2 * QUEUE)
            reply = await client.ask("input.send", session=session, inputId=f"i{n}", content="c")
            outcomes.append(reply["status"] if reply["op"] == "ok" else reply["code"])

    waiting: list[int] = []
    ready = asyncio.Condition()
    async with asyncio.TaskGroup() as tasks:
        for n in range(2 * QUEUE):
            tasks.create_task(send(n))
    assert sorted(outcomes) == ["queue_full"] * QUEUE + ["queued"] * QUEUE
    async with bare(world.strict.url, world.stack.token()) as client:
        await client.ask("subscribe", session=session, replay="every")
        while (frame := await client.frame())["op"] != "session.caught_up":
            assert frame["op"] in ("session.snapshot", "entry"), frame
        assert frame["seq"] > 0


async def test_cancelling_runs_that_nobody_works_on(world: World) -> None:
    """Before it starts, twice, and with no worker alive; it never starts then."""
    session = world.session()
    async with bare(world.strict.url, world.stack.token()) as client:
        error(await client.ask("run.cancel", session=session, runId="run_none"), "run_not_found")
        error(await client.ask("input.cancel", session=session, inputId="none"), "input_not_found")
        for input_id in ("a", "b"):
            assert (await client.ask("input.send", session=session, inputId=input_id, content="c"))["op"] == "ok"
        for _ in range(2):
            assert (await client.ask("run.cancel", session=session, runId="run_a"))["status"] == "cancelled"
        for _ in range(2):
            assert (await client.ask("input.cancel", session=session, inputId="b"))["status"] == "cancelled"
        assert (await client.ask("run.cancel", session=session, runId="run_b"))["status"] == "cancelled"
        reply = await client.ask("input.send", session=session, inputId="a", content="c")
        assert (reply["status"], reply["duplicate"]) == ("cancelled", True)
        await client.ask("subscribe", session=session)
        state = (await client.frame())["state"]
        assert (state["runs"], state["inputs"]) == ([], [])


async def test_cancelling_what_has_ended_or_been_applied(world: World) -> None:
    session = world.session()
    place = Place(session)
    async with await Wire.open(world.gateway.url, world.stack.token()) as wire:
        await wire.subscribe(place)
        await wire.input(session, "short", "hi")
        await wire.follow(place, lambda p: "run_short" in p.ended)
        await wire.input(session, "long", "hang")
        await wire.follow(place, lambda p: "long" in p.applied)
        async with bare(world.gateway.url, world.stack.token()) as client:
            error(await client.ask("run.cancel", session=session, runId="run_short"), "run_ended")
            error(await client.ask("input.cancel", session=session, inputId="short"), "input_already_applied")
            error(await client.ask("input.cancel", session=session, inputId="long"), "input_already_applied")
            for _ in range(2):
                # The worker may have stopped it before the reply is made.
                reply = await client.ask("run.cancel", session=session, runId="run_long")
                assert reply["status"] in ("cancelling", "cancelled")
            await wire.follow(place, lambda p: "run_long" in p.ended)
            last = await client.ask("run.cancel", session=session, runId="run_long")
            assert last["status"] == "cancelled"
    assert place.ended == {"run_short": "success", "run_long": "cancelled"}
    assert place.whole


# --- too much, and nothing -------------------------------------------------------------------------------------------------


async def test_a_flood(world: World) -> None:
    """First refused with the time to wait, and who goes on is put out; waiting as told is enough."""
    async with bare(world.strict.url, world.stack.token()) as client:
        ids = [await client.post("ping") for _ in range(60)]
        replies = [await client.reply(id_) for id_ in ids]
        limited = [reply for reply in replies if reply["op"] == "error"]
        assert 0 < len(limited) <= 20
        wait_ms = max(error(reply, "rate_limited", retryable=True)["retry_after_ms"] for reply in limited)
        assert 0 < wait_ms <= 100
        await asyncio.sleep(wait_ms / 1000)  # as told
        await is_well(client)
        for _ in range(200):
            await client.post("ping")
        ended = await client.end()
    assert (ended.code, ended.reason) == (4429, {"code": "flood"})


def sockets(process: Process) -> int:
    """Connections that the process has open, of whatever kind."""
    return sum(c.status == psutil.CONN_ESTABLISHED for c in psutil.Process(process.pid).net_connections("tcp"))


async def connections(process: Process) -> float:
    return metric((await get(f"{process.url}/metrics")).text, "antiphon_gateway_connections")


async def test_half_open_sockets_are_let_go(world: World) -> None:
    """One that answers nothing, and one that does not even take what is sent to it."""
    session = world.session()
    place = Place(session)
    # Sockets of requests that have been answered take a moment to go.
    before, sockets_before = await connections(world.strict), sockets(world.strict)
    async with (
        bare(world.strict.url, world.stack.token()) as alive,
        bare(world.strict.url, world.stack.token(), answers_pings=False) as silent,
        await Wire.open(world.strict.url, world.stack.token()) as full,
    ):
        await silent.ask("subscribe", session=world.session())
        full._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        await full.subscribe(place)
        assert await connections(world.strict) == before + 3
        async with bare(world.gateway.url, world.stack.token()) as asker:
            await asker.ask("input.send", session=session, inputId="large", content="say 9000000 bytes")
        async with asyncio.timeout(2 * HEARTBEAT_S + 2):
            while await connections(world.strict) > before + 1 or sockets(world.strict) > sockets_before + 1:
                await is_well(alive)
                await asyncio.sleep(0.1)
