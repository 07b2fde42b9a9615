"""B29: a token that expires in mid-run is refreshed in band; what is revoked or narrowed bites at once, on every wire."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from antiphon_client import Client, Settings
from tests.behaviours.conftest import Figure
from tests.support.http import Http
from tests.support.place import Place
from tests.support.plane import refused
from tests.support.rawclient import WAIT_S, Refusal, Wire, WireClosed, http_get
from tests.support.stack import Process, Stack, metric

BITES_S = 1.0
ROUNDS = 5
TTL_S = 4.0
STREAM = "stream 1000000 tokens at 100/s"

pytestmark = pytest.mark.timeout(180)


# --- expiry --------------------------------------------------------------------------------------------------------------


async def test_a_token_that_expires_in_mid_run(stack: Stack, figure: Figure) -> None:
    """One run, longer than three tokens: a client that renews in place sees every token of it on one connection."""
    (gateway,) = await stack.start(1, jwt_leeway_s="0")
    asked = 0

    async def renew() -> str:
        nonlocal asked
        asked += 1
        return stack.token(ttl_s=TTL_S)

    words = f"stream {int(TTL_S * 3.5 * 100)} tokens at 100/s"
    place = Place("long")
    async with (
        await Wire.open(gateway.url, stack.token("watcher")) as watching,
        Client(gateway.url, renew, settings=Settings(refresh_before_s=TTL_S / 2)) as client,
    ):
        await watching.subscribe(place)
        session = client.session("long")
        receipt = await session.send(words)
        outcome = await receipt.finished()
        run = f"run_{receipt.input_id}"
        await watching.follow(place, lambda p: run in p.ended)
        assert outcome.ok
        assert session.messages[-1].text == place.answer(run)
        metrics = (await http_get(f"{gateway.url}/metrics"))[1]
        opened = metric(metrics, "antiphon_gateway_upgrades_total", outcome="accepted")
        assert opened == 2, "one connection of the client, one of the watcher"
    assert asked >= 4
    figure(f"{asked} tokens of {TTL_S:g} s in one run on one connection, its text whole")


# --- revoked -------------------------------------------------------------------------------------------------------------

Ended = Callable[[], Awaitable[Any]]
"""Returns, when what was opened has ended, the code that it ended with."""


@asynccontextmanager
async def _websocket(gateway: Process, token: str, session: str) -> AsyncIterator[Ended]:
    async with await Wire.open(gateway.url, token) as wire:
        await wire.subscribe(Place(session))

        async def ended() -> Any:
            try:
                while True:
                    await wire.receive()
            except WireClosed as closed:
                return closed.code

        yield ended


@asynccontextmanager
async def _stream(gateway: Process, token: str, session: str) -> AsyncIterator[Ended]:
    async with Http(gateway.url, token) as http, http.stream(f"/v1/sessions/{session}/events") as stream:
        await stream.until("session.caught_up")

        async def ended() -> Any:
            return (await stream.until("closing", WAIT_S))[-1].json()["code"]

        yield ended


@asynccontextmanager
async def _run_stream(gateway: Process, token: str, session: str) -> AsyncIterator[Ended]:
    body = {"content": STREAM, "session": f"{session}-run", "inputId": "r", "stream": "text"}
    async with Http(gateway.url, token) as http, http.stream("/v1/runs", body) as stream:
        await stream.until("text")

        async def ended() -> Any:
            return (await stream.until("closing", WAIT_S))[-1].json()["code"]

        yield ended


@asynccontextmanager
async def _waiting(gateway: Process, token: str, session: str) -> AsyncIterator[Ended]:
    body = {"content": STREAM, "session": f"{session}-wait", "inputId": "w", "wait": 60}
    async with Http(gateway.url, token) as http, asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(http.ask("POST", "/v1/runs", body))
        place = Place(f"{session}-wait")
        async with await Wire.open(gateway.url, token) as wire:
            await wire.subscribe(place)
            await wire.follow(place, lambda p: bool(p.started))

        async def ended() -> Any:
            return (await asking).code

        yield ended


WIRES = {"WebSocket": _websocket, "event stream": _stream, "run stream": _run_stream, "waiting request": _waiting}


async def _bite_s(opened: dict[str, Ended], revoke: Callable[[], Awaitable[Any]]) -> tuple[dict[str, Any], float]:
    """Revokes; the code that each ended with, and the seconds until the last of them had ended."""
    codes: dict[str, Any] = {}

    async def end(name: str, ended: Ended) -> None:
        codes[name] = await ended()

    async with asyncio.TaskGroup() as tasks:
        for name, ended in opened.items():
            tasks.create_task(end(name, ended))
        begin = time.monotonic()
        await revoke()
    return codes, time.monotonic() - begin


async def test_what_is_revoked_ends_at_once(stack: Stack, figure: Figure) -> None:
    """All that a user has open at two gateways, while runs go on; somebody else's goes on, and so do the runs."""
    gateways = await stack.start(2, workers=1)
    admin = stack.token("admin")
    took_s: list[float] = []
    other = Place("revoked-0")
    async with await Wire.open(gateways[1].url, stack.token("other")) as bystander:
        await bystander.subscribe(other)
        await bystander.input("revoked-0", "b", STREAM)
        for n in range(ROUNDS):
            user, gateway, session = f"user-{n}", gateways[n % 2], f"revoked-{n}"
            token = stack.token(user, jti=f"t-{n}")
            async with AsyncExitStack() as opened:
                all_of_it = {
                    name: await opened.enter_async_context(wire(gateway, token, session))
                    for name, wire in WIRES.items()
                }
                body = {"kind": "token", "whose": f"t-{n}"} if n % 2 else {"kind": "user", "whose": user}
                # Whoever revokes is at the other gateway.
                async with Http(gateways[(n + 1) % 2].url, admin) as http:
                    codes, bite_s = await _bite_s(
                        all_of_it, lambda http=http, body=body: http.ok("POST", "/v1/revocations", body)
                    )
                took_s.append(bite_s)
            assert codes == {
                "WebSocket": 4301,
                "event stream": "token_revoked",
                "run stream": "token_revoked",
                "waiting request": "unauthorized",
            }
            for at in gateways:
                with pytest.raises(Refusal, match="revoked"):
                    await Wire.open(at.url, token)
            async with await Wire.open(gateway.url, admin) as wire:
                for place in (f"{session}-run", f"{session}-wait"):
                    run = "run_r" if place.endswith("run") else "run_w"
                    assert (await wire.command("run.cancel", session=place, runId=run))["status"] == "cancelling"
        length = len(other.answer("run_b"))
        await bystander.follow(other, lambda p: len(p.answer("run_b")) > length + 50)
    assert max(took_s) < BITES_S
    figure(
        f"{ROUNDS} times {len(WIRES)} wires, revoked at the other gateway: the last had ended after "
        f"{statistics.median(took_s) * 1000:.0f} ms, at worst {max(took_s) * 1000:.0f}"
    )


# --- narrowed ------------------------------------------------------------------------------------------------------------


async def test_what_is_narrowed_is_narrowed_at_once(stack: Stack, figure: Figure) -> None:
    """By a token with less, in place; and by taking back what the tokens of all allow in a session."""
    one, two = await stack.start(2, workers=1)
    everything = {"*": ["read", "send", "cancel", "tools"]}
    token = stack.token("user-1", everything)
    async with (
        await Wire.open(one.url, token) as wire,
        await Wire.open(two.url, stack.token("user-2", everything)) as other,
    ):
        place = Place("a")
        place.subscribed(await wire.command("subscribe", session="a", tools=[{"name": "pick"}]))
        for session in ("b", "c"):
            await wire.command("subscribe", session=session, tools=[{"name": "pick"}])
        await wire.input("a", "i", STREAM)
        begin = time.monotonic()
        await wire.command("auth.refresh", token=stack.token("user-1", {"a": ["read"], "b": ["read", "tools"]}))
        ended = await _unsubscribed(wire, place)
        narrowed_s = time.monotonic() - begin
        assert (ended["session"], ended["code"], ended["right"]) == ("c", "not_allowed", "read")
        # What is left is what the new token says: it reads on, and may do nothing else.
        await refused(wire, "not_allowed", "run.cancel", session="a", runId="run_i", mode="immediate")
        await refused(wire, "not_allowed", "input.send", session="a", inputId="j", content="x")
        await refused(wire, "not_allowed", "subscribe", session="c")
        await wire.follow(place, lambda p: len(p.entries) > 20)

        # Everybody's, of all the tokens there are; a new one is good again.
        theirs = Place("b")
        await other.subscribe(theirs)
        async with Http(one.url, stack.token("admin")) as http:
            begin = time.monotonic()
            await http.ok("POST", "/v1/revocations", {"kind": "session", "whose": "b"})
            for reading, reads in ((wire, place), (other, theirs)):
                assert (await _unsubscribed(reading, reads))["session"] == "b"
            revoked_s = time.monotonic() - begin
        await refused(other, "not_allowed", "input.send", session="b", inputId="k", content="x")
        await wire.follow(place, lambda p: len(p.entries) > 60)
        await asyncio.sleep(1.1 - time.time() % 1)  # tokens say in which second they were issued
        await other.command("auth.refresh", token=stack.token("user-2", everything))
        await other.command("subscribe", session="b")
    assert revoked_s < BITES_S
    assert narrowed_s < BITES_S
    figure(
        f"subscriptions ended {narrowed_s * 1000:.0f} ms after a narrower token, {revoked_s * 1000:.0f} ms after grants"
    )


async def _unsubscribed(wire: Wire, place: Place) -> dict[str, Any]:
    """That frame, when it comes; what comes before it is taken to `place`."""
    async with asyncio.timeout(WAIT_S):
        while (frame := await wire.receive())["op"] != "session.unsubscribed":
            place.take(frame)
    return frame
