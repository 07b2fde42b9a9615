"""The trace of a command: the caller's own, that of its OpenTelemetry span, or none."""

from __future__ import annotations

import pytest
from opentelemetry import trace as otel

from antiphon_client import Entry, Fold, State
from clients.python.tests.scripted_gateway import Peer, ScriptedGateway, client, entry, started, take

HEADERS = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "tracestate": "vendor=abc"}
SPAN = otel.NonRecordingSpan(
    otel.SpanContext(int("3" * 32, 16), int("4" * 16, 16), False, otel.TraceFlags(1), otel.TraceState([("a", "1")]))
)
AMBIENT = {"traceparent": f"00-{'3' * 32}-{'4' * 16}-01", "tracestate": "a=1"}


@pytest.mark.parametrize(
    ("given", "within", "sent"),
    [
        (None, False, {}),
        (HEADERS, False, HEADERS),
        (None, True, AMBIENT),
        (HEADERS, True, HEADERS),
        ({}, True, {}),
    ],
)
async def test_an_input_says_what_it_is_a_part_of(
    given: dict[str, str] | None, within: bool, sent: dict[str, str]
) -> None:
    seen = {}

    async def script(peer: Peer) -> None:
        await peer.opened()
        seen.update(await peer.take_input(1, traceparent=HEADERS["traceparent"]))

    async with ScriptedGateway(script) as gateway, client(gateway) as opened:
        with otel.use_span(SPAN if within else otel.INVALID_SPAN):
            receipt = await opened.session("demo").send("Hello", "i", trace=given)
    assert {name: seen[name] for name in ("traceparent", "tracestate") if name in seen} == sent
    assert receipt.trace == {"traceparent": HEADERS["traceparent"]}


async def test_other_commands_do_so_too() -> None:
    seen = {}

    async def script(peer: Peer) -> None:
        await peer.welcome()
        command = await peer.expect("run.cancel")
        seen.update(command)
        await peer.ok(command, runId="run_i", status="cancelling")

    async with ScriptedGateway(script) as gateway, client(gateway) as opened:
        with otel.use_span(SPAN):
            await opened.session("demo").cancel_run("run_i")
    assert seen["traceparent"] == AMBIENT["traceparent"]


async def test_entries_have_it() -> None:
    async def script(peer: Peer) -> None:
        await peer.opened()
        await peer.send(entry(1, 0, {"type": "CUSTOM"}, via="gw-1", **HEADERS), entry(2, 1, {"type": "CUSTOM"}))

    async with ScriptedGateway(script) as gateway, client(gateway) as opened:
        _, first, second = await take(opened.session("demo"), 3)
    assert isinstance(first, Entry)
    assert isinstance(second, Entry)
    assert (first.trace, first.via) == (HEADERS, "gw-1")
    assert (second.trace, second.via) == ({}, None)


def test_a_call_has_that_of_its_entry() -> None:
    fold = Fold(State())
    requested = {"type": "tool.requested", "toolCallId": "c", "name": "t", "args": {}, "executor": "client"}
    owner = entry(1, 0, {"type": "session.owner", "lane": "main", "kind": "agent", "id": "w"}, lane="main", id="o")
    frames = [owner, started(2, 1), entry(3, 2, requested, lane="main", id="1-9", run="run_i", **HEADERS)]
    for frame in frames:
        found = Entry.parse(frame)
        assert found is not None
        fold.apply(found)
    (call,) = fold.state.calls
    assert call.trace == HEADERS
    assert "trace" not in call.as_dict(), "it is no part of the state"
