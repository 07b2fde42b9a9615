"""AG-UI over HTTP: what the endpoint does to a session, and what it refuses. Its streams are told to real clients of AG-UI
in clients/typescript/tests/ag-ui.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.support.http import Event, EventReader, Http
from tests.support.http_world import HttpWorld, http_world
from tests.support.plane import now_ms

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENV = {"requests_per_second": "10000", "requests_burst": "10000", "heartbeat_s": "0.5"}
AGENT = "tests.support.agents_agui:everything"
PICK = {"name": "pick_color", "description": "", "parameters": {"type": "object"}}

Json = dict[str, Any]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HttpWorld]:
    async with http_world(tmp_path_factory.mktemp("agui"), {"default": AGENT}, unserved=["helper"], **ENV) as made:
        yield made


def asking(session: str, *messages: Json, **more: Any) -> Json:
    return {"threadId": session, "runId": "r1", "protocolVersion": "1.0", "messages": list(messages), **more}


def said(content: str | list[Json], id_: str = "i1") -> Json:
    return {"id": id_, "role": "user", "content": content}


async def run(http: Http, body: Json) -> list[Json]:
    """The events of a whole stream."""
    async with http.stream("/v1/ag-ui", body) as stream:
        return [event.json() for event in await rest(stream)]


async def rest(stream: EventReader) -> list[Event]:
    events: list[Event] = []
    while (event := await stream.event()) is not None:
        events.append(event)
    return events


def types(events: list[Json]) -> list[str]:
    return [event["type"] for event in events]


async def test_an_answer_is_in_the_session(world: HttpWorld) -> None:
    session = world.name()
    async with world.http() as http:
        events = await run(http, asking(session, said("hello")))
        assert types(events)[0] == "RUN_STARTED"
        assert events[-1]["outcome"] == {"type": "success"}
        history = await http.ok("GET", f"/v1/sessions/{session}/messages")
        assert [m["text"] for m in history["messages"]] == ["hello", "you said hello"]
        again = await run(http, asking(session, said("hello")))
        assert types(again) == ["RUN_STARTED", "MESSAGES_SNAPSHOT", "RUN_FINISHED"]
        assert [m["id"] for m in again[1]["messages"]] == ["i1", history["messages"][1]["id"]]


async def test_two_at_once_with_one_id_are_one_run(world: HttpWorld) -> None:
    session = world.name()
    async with world.http() as http, world.http(gateway=1) as elsewhere:
        body = asking(session, said("stream 20 at 50/s"))
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(run(one, body)) for one in (http, elsewhere)]
        assert [task.result()[-1]["type"] for task in running] == ["RUN_FINISHED"] * 2
        messages = (await http.ok("GET", f"/v1/sessions/{session}/messages"))["messages"]
        assert len(messages) == 2


async def test_attachments_go_both_ways(world: HttpWorld) -> None:
    session = world.name()
    path = f"/v1/sessions/{session}/attachments"
    async with world.http() as http:
        stored = await http.ok("POST", f"{path}?name=a.txt", b"hello", headers={"Content-Type": "text/plain"})
        source = {"type": "file", "value": stored["id"], "provider": "antiphon", "mimeType": "text/plain"}
        part = {"type": "document", "source": source}
        mine = said([{"type": "text", "text": "look"}, part])
        events = await run(http, asking(session, mine))
        assert "MESSAGES_SNAPSHOT" not in types(events)
        [message, answer] = (await http.ok("GET", f"/v1/sessions/{session}/messages"))["messages"]
        assert (message["text"], [each["id"] for each in message["attachments"]]) == ("look", [stored["id"]])
        other = await run(http, asking(session))
        metadata = {name: stored[name] for name in ("name", "size", "sha256")}
        content = [{"type": "text", "text": "look"}, part | {"metadata": metadata}]
        assert other[1]["messages"][0] == {"id": "i1", "role": "user", "content": content}
        older = asking(session)
        del older["protocolVersion"]
        shown = (await run(http, older))[1]["messages"][0]["content"][1]
        assert shown["source"] == {"type": "url", "value": f"{path}/{stored['id']}", "mimeType": "text/plain"}
        alone = said([{"type": "document", "source": shown["source"]}], "i2")
        events = await run(
            http, asking(session, mine, {"id": answer["id"], "role": "assistant", "content": answer["text"]}, alone)
        )
        assert events[-1]["outcome"] == {"type": "success"}
        assert "MESSAGES_SNAPSHOT" not in types(events)


async def test_what_is_no_attachment_of_the_session_is_refused_and_nothing_is_sent(world: HttpWorld) -> None:
    session = world.name()
    async with world.http() as http:
        sources = {
            ("not_supported", 422): {"type": "data", "value": "AAAA", "mimeType": "image/png"},
            ("attachment_not_found", 404): {"type": "file", "value": "nothing", "provider": "antiphon"},
        }
        for (code, status), source in sources.items():
            body = asking(session, said([{"type": "image", "source": source}]))
            answer = await http.ask("POST", "/v1/ag-ui", body)
            assert (answer.status, answer.json()["code"]) == (status, code)
        answer = await http.ask("GET", f"/v1/sessions/{session}/messages")
        assert answer.status == 404 or answer.json()["messages"] == []


async def test_a_run_that_failed_is_told_so_again(world: HttpWorld) -> None:
    session = world.name()
    async with world.http() as http:
        first = await run(http, asking(session, said("fail")))
        again = await run(http, asking(session, said("fail")))
        assert [events[-1]["code"] for events in (first, again)] == ["agent_error"] * 2


async def test_a_call_is_claimed_for_the_page_that_is_told_of_it(world: HttpWorld) -> None:
    """A second page of the same user waits for the result of the first: nothing is executed twice."""
    session = world.name()
    async with world.http() as http, world.http(gateway=1) as elsewhere:
        first = await run(http, asking(session, said("pick"), tools=[PICK]))
        (call_id,) = first[-1]["outcome"]["pendingToolCallIds"]
        state = (await http.ok("GET", f"/v1/sessions/{session}"))["state"]
        assert state["calls"][0]["claim"]["by"]["id"] == "user-1"
        async with elsewhere.stream("/v1/ag-ui", asking(session, said("pick"), tools=[PICK])) as stream:
            assert (await stream.event()).json()["type"] == "RUN_STARTED"  # type: ignore[union-attr]
            result = {"id": "own", "role": "tool", "toolCallId": call_id, "content": "blue"}
            done = await run(http, asking(session, said("pick"), result, tools=[PICK]))
            seen = [event.json() for event in await rest(stream)]
        for events in (done, seen):
            assert events[-1]["outcome"] == {"type": "success"}
            assert "you picked blue" in [event.get("delta") for event in events]
        assert "TOOL_CALL_RESULT" in types(seen)
        assert "TOOL_CALL_RESULT" not in types(done)


async def test_a_tool_that_failed(world: HttpWorld) -> None:
    session = world.name()
    async with world.http() as http:
        first = await run(http, asking(session, said("pick"), tools=[PICK]))
        (call_id,) = first[-1]["outcome"]["pendingToolCallIds"]
        result = {"id": "own", "role": "tool", "toolCallId": call_id, "content": "", "error": "no colors"}
        done = await run(http, asking(session, said("pick"), result, tools=[PICK]))
        assert "you picked error" in [event.get("delta") for event in done]


async def test_a_page_without_the_tool_waits_for_who_has_it(world: HttpWorld) -> None:
    session = world.name()
    async with world.http() as http, world.http(gateway=1) as page:
        async with http.stream("/v1/ag-ui", asking(session, said("pick"))) as stream:
            while "TOOL_CALL_END" not in (await stream.event()).data:  # type: ignore[union-attr]
                pass
            joined = await run(page, asking(session, tools=[PICK]))
            assert types(joined)[-3:] == ["TOOL_CALL_START", "TOOL_CALL_END", "RUN_FINISHED"]
            (call_id,) = joined[-1]["outcome"]["pendingToolCallIds"]
            result = {"id": "own", "role": "tool", "toolCallId": call_id, "content": '"red"'}
            await run(page, asking(session, result, tools=[PICK]))
            events = [event.json() for event in await rest(stream)]
        assert "you picked red" in [event.get("delta") for event in events]


async def test_a_trace_goes_on(world: HttpWorld) -> None:
    session, trace = world.name(), "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    async with (
        world.http() as http,
        http.stream("/v1/ag-ui", asking(session, said("hello")), headers=headers) as stream,
    ):
        await rest(stream)
    entries = await world.stack.entries(session)
    assert {entry.trace.trace_id for _, entry in entries if entry.run and entry.off is None and entry.trace} == {trace}


async def test_somebody_who_reads_is_there(world: HttpWorld) -> None:
    """A stream is presence, with the tools of its page."""
    session = world.name()
    async with world.http() as http, http.stream("/v1/ag-ui", asking(session, said("pick"), tools=[PICK])) as stream:
        async with http.stream(f"/v1/sessions/{session}/events", format="sse", watching="false") as reader:
            (presence,) = (await reader.until("session.presence"))[-1:]
        (who,) = presence.json()["participants"]
        assert who["devices"][0]["tools"] == ["pick_color"]
        await rest(stream)


async def test_a_stream_ends_when_its_token_does(world: HttpWorld) -> None:
    session = world.name()
    async with world.http() as http, world.http(exp=now_ms() / 1000 - 8) as short:
        events = await run(short, asking(session, said("stream 500 at 50/s")))
        assert (events[-1]["type"], events[-1]["code"]) == ("RUN_ERROR", "token_expired")
        await http.ok("POST", f"/v1/sessions/{session}/runs/run_i1/cancel")


async def test_decisions(world: HttpWorld) -> None:
    session = world.name()
    async with world.http() as http, world.http(sub="user-2", sessions={"*": ["read"]}) as reader:
        events = await run(http, asking(session, said("approve")))
        (asked,) = events[-1]["outcome"]["interrupts"]
        # Who may not decide is not asked, and waits.
        async with reader.stream("/v1/ag-ui", asking(session)) as stream:
            await stream.event()

            def answer(status: str, payload: Any) -> Json:
                return asking(session, resume=[{"interruptId": asked["id"], "status": status, "payload": payload}])

            await http.refused(422, "payload_invalid", "POST", "/v1/ag-ui", answer("resolved", "maybe"))
            await http.refused(
                422, "payload_invalid", "POST", "/v1/ag-ui", answer("resolved", {"approved": True, "editedArgs": 5})
            )
            await http.refused(422, "bad_option", "POST", "/v1/ag-ui", answer("resolved", {"option": "perhaps"}))
            await reader.refused(403, "not_allowed", "POST", "/v1/ag-ui", answer("resolved", True))
            unknown = asking(session, resume=[{"interruptId": "none", "status": "resolved"}])
            await http.refused(404, "approval_not_found", "POST", "/v1/ag-ui", unknown)
            await run(http, answer("cancelled", None))
            told = [event.json() for event in await rest(stream)]
        assert told[-1]["outcome"] == {"type": "success"}
        assert "reject_once null" in [event.get("delta") for event in told]


async def test_what_needs_a_role(world: HttpWorld) -> None:
    session = world.name()
    async with (
        world.http() as http,
        world.http(sub="boss", roles=("boss",)) as boss,
        http.stream("/v1/ag-ui", asking(session, said("approve by boss"))) as stream,
    ):
        await stream.event()
        async with asyncio.timeout(15):
            while not (asked := (await http.ok("GET", f"/v1/sessions/{session}"))["state"]["approvals"]):
                await asyncio.sleep(0.02)
        with contextlib.suppress(TimeoutError):
            await stream.event(wait_s=2)
        assert stream.comments
        resume = [{"interruptId": asked[0]["approvalId"], "status": "resolved", "payload": True}]
        await http.refused(403, "role_required", "POST", "/v1/ag-ui", asking(session, resume=resume))
        await run(boss, asking(session, resume=resume))
        assert [event.json() for event in await rest(stream)][-1]["outcome"] == {"type": "success"}


async def test_what_is_refused(world: HttpWorld) -> None:
    session = world.name()
    async with world.http() as http:
        first = await run(http, asking(session, said("hello")))
        answer = {"id": first[1]["messageId"], "role": "assistant", "content": "you said hello"}
        for messages in (
            [said("other"), answer],
            [said("hello"), said("between", "i2"), answer],
            [said("before", "i0"), said("hello"), answer],
        ):
            problem = await http.refused(409, "history_changed", "POST", "/v1/ag-ui", asking(session, *messages))
            assert problem["data"]["messageId"] in ("i0", "i1", "i2")
        await http.refused(400, "bad_name", "POST", "/v1/ag-ui", asking(session, said("hello", "no id")))
        for content in ("", [], [{"type": "text", "text": ""}]):
            body = asking(session, {"id": "i9", "role": "user", "content": content})
            await http.refused(400, "bad_command", "POST", "/v1/ag-ui", body)
        parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
        events = await run(http, asking(session, said("hello"), answer, {"id": "i3", "role": "user", "content": parts}))
        assert "you said a\nb" in [event.get("delta") for event in events]
        bad = [{"name": "x", "parameters": {"type": "nothing"}}]
        await http.refused(422, "schema_invalid", "POST", "/v1/ag-ui", asking(session, tools=bad))
        await http.refused(400, "bad_command", "POST", "/v1/ag-ui", asking(session, tools=[PICK, PICK]))
        large = "x" * 65_537
        await http.refused(413, "content_too_large", "POST", "/v1/ag-ui", asking(session, said(large, "i8")))
        await http.ok("POST", f"/v1/sessions/{session}/close")
        await http.refused(409, "session_closed", "POST", "/v1/ag-ui", asking(session, said("hi", "i7")))


async def test_a_session_that_takes_no_more(world: HttpWorld) -> None:
    session, idle = world.name(), world.name()
    async with world.http() as http:
        await http.ok("POST", "/v1/sessions", {"session": session, "config": {"pool": "helper", "maxQueue": 1}})
        await http.ok("POST", f"/v1/sessions/{session}/inputs", {"content": "x"})
        await http.refused(429, "queue_full", "POST", "/v1/ag-ui", asking(session, said("hi")))
        await http.ok("POST", "/v1/sessions", {"session": idle, "config": {"pool": "helper", "onBusy": "reject"}})
        await http.ok("POST", f"/v1/sessions/{idle}/inputs", {"content": "x"})
        await http.refused(409, "busy", "POST", "/v1/ag-ui", asking(idle, said("hi")))
        limited = {"roles": {"*": {"modes": ["interrupt"]}}}
        await http.ok("PATCH", f"/v1/sessions/{idle}", {"config": {"onBusy": "auto"} | limited})
        async with world.http(sub="user-2", sessions={"*": ["read", "send"]}) as other:
            await other.refused(403, "mode_not_allowed", "POST", "/v1/ag-ui", asking(idle, said("hi", "i4")))
        busy = world.name()
        await http.ok("POST", "/v1/sessions", {"session": busy, "config": {"onBusy": "inject"}})
        async with http.stream("/v1/ag-ui", asking(busy, said("stream 1000 at 50/s"))) as stream:
            while "TEXT_MESSAGE_CONTENT" not in (await stream.event()).data:  # type: ignore[union-attr]
                pass
            await http.refused(409, "cannot_inject", "POST", "/v1/ag-ui", asking(busy, said("hi", "i5")))
            await http.ok("POST", f"/v1/sessions/{busy}/runs/run_i1/cancel")
            await rest(stream)


async def test_a_gateway_that_leaves(world: HttpWorld) -> None:
    session = world.name()
    leaving = await world.stack.gateway(**ENV, drain_s="5")
    async with Http(leaving.url, world.stack.token()) as http, world.http() as elsewhere:
        async with http.stream("/v1/ag-ui", asking(session, said("stream 100 at 50/s"))) as stream:
            await stream.event()
            leaving.terminate_soon()
            events = [event.json() for event in await rest(stream)]
        assert (events[-1]["type"], events[-1]["code"]) == ("RUN_ERROR", "draining")
        done = await run(elsewhere, asking(session, said("stream 100 at 50/s")))
        assert done[-1]["outcome"] == {"type": "success"}
