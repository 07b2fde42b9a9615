"""No secret and nothing that anybody said is in what processes log or commands print, at the level `debug`, when all goes
wrong that may.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jwt
import orjson
import pytest
from aiohttp import web

from broker.permissions import Role
from tests.support.bare import Ended, bare
from tests.support.http import Http
from tests.support.nats import NatsNode
from tests.support.place import Place
from tests.support.rawclient import Wire
from tests.support.receiver import Received, Receiver, write_file
from tests.support.roles import users_of
from tests.support.stack import Stack

pytestmark = [pytest.mark.nats_roles, pytest.mark.timeout(600)]

WAIT_S = 60.0
DEBUG = {"log_level": "debug", "connect_timeout_s": "1", "reconnect_wait_s": "0.05"}


@dataclass(slots=True)
class Secrets:
    """What must not be found, by what it is."""

    known: dict[str, str] = field(default_factory=dict)

    def new(self, what: str) -> str:
        return self.keep(what, f"{what}-{secrets.token_hex(12)}")

    def keep(self, what: str, value: str) -> str:
        """What is looked for, as it is or as it may be written."""
        self.known[f"{what} {len(self.known)}"] = value
        return value

    def found_in(self, text: str) -> list[str]:
        return [what for what, value in self.known.items() if any(form in text for form in forms(value))]


def forms(secret: str) -> Iterator[str]:
    """As it is, in JSON, in a URL, and in the forms of base64 at each of its three places."""
    yield secret
    yield quote(secret, safe="")
    yield orjson.dumps(secret).decode()[1:-1]
    for skipped in range(3):
        encoded = base64.b64encode(b"x" * skipped + secret.encode()).decode()
        # What stands around it changes the characters at its ends.
        yield encoded[4 : len(encoded) // 4 * 4 - 4]


@pytest.mark.parametrize(
    "hidden",
    [
        "{}",
        '{{"error":"{}"}}',
        "nats://user:{}@127.0.0.1",
        "Authorization: Bearer {}",
    ],
)
def test_the_search_finds_what_is_there(hidden: str) -> None:
    known = Secrets()
    secret = known.new("secret")
    assert known.found_in(hidden.format(secret)) == ["secret 0"]
    for padding in ("", "a", "ab", "abc"):
        credentials = base64.b64encode(f"{padding}{secret}:more".encode()).decode()
        assert known.found_in(f"Basic {credentials}") == ["secret 0"]
    assert known.found_in(hidden.format("harmless")) == []


def passwords(known: Secrets, nats_url: str) -> None:
    users = users_of(nats_url)
    assert users is not None
    for role in Role:
        known.keep(f"password of {role}", (users.directory / role).read_text())
    known.keep("password of the tester", users.password)


def token_of(stack: Stack, known: Secrets, **claims: Any) -> str:
    """Its last part is what makes it one."""
    token = stack.token(**claims)
    known.keep("token", token)
    known.keep("signature", token.rpartition(".")[2])
    return token


async def test_nothing_is_told_whatever_goes_wrong(tmp_path: Path, nats_server: NatsNode) -> None:
    known = Secrets()
    passwords(known, nats_server.url)
    receiver = _receiver(known)
    async with Stack(tmp_path / "stack", nats_server.url, env=DEBUG | {"webhook_retry_min_s": "0.1"}) as stack:
        known.keep("secret of tokens", (stack.directory / "secret").read_text())
        file = write_file(tmp_path / "hooks.json", receiver.table())
        gateway, worker = await stack.gateway(), await stack.worker("tests.support.agents_tracing:leaky")
        sender = await stack.webhooks(file)
        token = token_of(stack, known)
        await _bad_tokens(stack, gateway.url, known)
        await _bad_commands(gateway.url, token, known)
        async with await Wire.open(gateway.url, token) as wire:
            place = Place("s1")
            await wire.subscribe(place)
            await wire.input("s1", "i1", known.new("content"))
            await wire.follow(place, lambda p: "run_i1" in p.ended, WAIT_S)
        await receiver.up()
        await receiver.until(lambda r: r.taken)
        printed = await _commands(
            stack,
            *(["doctor"], ["topology", "check"], ["audit"], ["webhooks", "list"], ["trace", "i1", "--session", "s1"]),
            ["sessions", "--url", gateway.url, "--token", known.new("nonsense")],
        )
        await nats_server.stop()
        nowhere = ["send", "--url", "http://127.0.0.1:9", "--token", token, "s1", known.new("content")]
        printed += await _commands(stack, ["doctor"], ["revoke", "list"], nowhere)
        await _while_nats_is_away(gateway.url, token, known)
        await nats_server.start()
        async with await Wire.open(gateway.url, token) as wire, asyncio.timeout(WAIT_S):
            while (await _sent(wire, known))["op"] != "ok":
                await asyncio.sleep(0.1)
        printed += await _with_wrong_passwords(stack, nats_server, known, tmp_path)
        for process in (gateway, worker, sender):
            await process.terminate()
            output = process.output()
            assert {line["level"] for line in process.logged()} & {"warning", "error"}, process.name
            assert known.found_in(output) == [], process.name
        await receiver.down()
    assert known.found_in(printed) == []
    assert len(known.known) > 40


def _receiver(known: Secrets) -> Receiver:
    """Takes a webhook the third time."""
    receiver = Receiver("one")
    known.keep("secret of webhooks", receiver.secret)
    known.keep("key of webhooks", receiver.secret.removeprefix("whsec_"))

    async def answer(_: Received) -> web.Response:
        if len(receiver.requests) < 3:
            return web.Response(status=500, text=known.new("answer"))
        return web.Response(status=204)

    receiver.answer = answer
    return receiver


async def _sent(wire: Wire, known: Secrets) -> dict[str, Any]:
    try:
        return await wire.input("s1", f"i{secrets.token_hex(4)}", known.new("content"))
    except Exception as error:  # noqa: BLE001 (of whatever kind: it is tried again)
        return {"op": type(error).__name__}


async def _bad_tokens(stack: Stack, url: str, known: Secrets) -> None:
    """On both wires: malformed, expired, of another key, revoked; and in the address, where none belongs."""
    other = jwt.encode({"sub": "user-1", "exp": 2**31}, "another key of at least 32 bytes, as it must be", "HS256")
    revoked = token_of(stack, known, user="gone", jti="gone")
    async with Http(url, token_of(stack, known)) as http:
        await http.ok("POST", "/v1/revocations", {"kind": "token", "whose": "gone"})
    for token in (known.new("nonsense"), token_of(stack, known, ttl_s=-60), known.keep("forged", other), revoked):
        async with Http(url, token) as http:
            await http.refused(401, "unauthorized", "GET", "/v1/sessions")
            await http.ask("GET", "/v1/sessions", token=token)
        async with bare(url) as client:
            assert (await client.ask("hello", token=token))["code"] == "unauthorized"
            await client.end()
        with contextlib.suppress(Ended):
            async with bare(f"{url}", headers={"Authorization": f"Bearer {token}"}) as client:
                await client.ask("hello")


async def _bad_commands(url: str, token: str, known: Secrets) -> None:
    async with bare(url, token) as client:
        for fields in (
            {"session": known.new("name") + " !"},
            {"session": "s1", "inputId": "i", "content": known.new("large") * 2500},
            {"session": "s1", "inputId": "i", "content": "x", "mode": known.new("mode")},
            {"session": "s1", "inputId": "i", "content": "x", "attachments": known.new("attachments")},
        ):
            assert (await client.ask("input.send", **fields))["op"] == "error"
        assert (await client.ask("auth.refresh", token=known.new("refreshed")))["code"] == "unauthorized"
        assert (await client.ask("subscribe", session="s1", after=known.new("cursor")))["op"] == "error"
        tool = {"name": "t", "description": known.new("tool"), "parameters": {"type": known.new("schema")}}
        assert (await client.ask("subscribe", session="s1", tools=[tool]))["op"] in ("ok", "error")
        await client.say(known.new("frame"))
        assert (await client.reply(None))["code"] == "bad_json"
    async with Http(url, token) as http:
        plain = {"Content-Type": "text/plain", "Content-Disposition": f'attachment; filename="{known.new("file")}.txt"'}
        path = "/v1/sessions/s1/attachments"
        await http.ok("POST", path, known.new("attachment").encode(), headers=plain)
        image = {"Content-Type": "image/png"}
        await http.refused(415, "media_type_refused", "POST", path, known.new("no image").encode(), headers=image)
        for body in (known.new("body").encode(), {"content": [known.new("list")]}, {known.new("field"): 1}):
            await http.ask("POST", "/v1/sessions/s1/inputs", body)
        await http.ask("GET", f"/v1/{known.new('path')}")


async def _commands(stack: Stack, *commands: list[str]) -> str:
    """What commands print that are for operators, and those of a user that fail."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(_printed(stack, *args)) for args in commands]
    printed = "".join(task.result() for task in running)
    assert printed
    return printed


async def _printed(stack: Stack, *args: str, wait_s: float = WAIT_S, **env: str) -> str:
    """What a command prints to its end, or until it is ended."""
    process = await stack.begin(*args, connect_timeout_s="0.5", ack_timeout_s="1", **env)
    async with asyncio.TaskGroup() as tasks:
        communicating = tasks.create_task(process.communicate())
        if not (await asyncio.wait({communicating}, timeout=wait_s))[0]:
            process.kill()
    return communicating.result()[0].decode()


async def _while_nats_is_away(url: str, token: str, known: Secrets) -> None:
    async with Http(url, token) as http:
        answer = await http.ask("POST", "/v1/sessions/s1/inputs", {"content": known.new("content")})
        assert answer.status == 503


async def _with_wrong_passwords(stack: Stack, nats: NatsNode, known: Secrets, directory: Path) -> str:
    """Parts that NATS does not let in: their passwords are in a file, in a setting, and in the address."""
    file = directory / "wrong"
    file.write_text(known.new("password"))
    host = nats.url.rpartition("@")[2]
    printed = ""
    for env in (
        {"nats_user": "gateway", "nats_password_file": str(file)},
        {"nats_url": f"nats://gateway:{known.new('password')}@{host}", "nats_user": "", "nats_password_file": ""},
    ):
        printed += await _printed(stack, "doctor", **env)
        gateway = await stack.gateway(jwt_secret="", **env)
        async with bare(gateway.url) as client:
            await client.ask("hello", token=known.keep("token", stack.token()))
            assert (await client.ask("subscribe", session="s1"))["code"] == "unavailable"
        await gateway.terminate()
        printed += gateway.output()
    # Settings that are wrong are told by their names.
    for env in (
        {"jwt_secret": known.new("short")[:20], "jwt_secret_file": ""},
        {"nats_nkey_file": known.new("no file")},
    ):
        known.keep("setting", next(iter(env.values())))
        printed += await _printed(stack, "gateway", "--port", "0", wait_s=5, **env)
    return printed
