"""Chats of the AI SDK's default transport over HTTP: what is sent, streamed, resumed and answered in parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio

from tests.support.http import Http, HttpAnswer
from tests.support.http_world import HttpWorld, http_world

pytestmark = pytest.mark.asyncio(loop_scope="module")

Chunks = list[dict[str, Any]]
Message = dict[str, Any]


AGENTS = {
    "default": "echo",
    "picking": "tests.support.agents_people:picking",
    "approving": "tests.support.agents_people:approving",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HttpWorld]:
    async with http_world(tmp_path_factory.mktemp("chats"), AGENTS, unserved=["nobody"]) as made:
        yield made


async def new_chat(world: HttpWorld, http: Http, pool: str = "default") -> str:
    session = world.name()
    await http.ok("POST", "/v1/sessions", {"session": session, "config": {"pool": pool}})
    return session


def chunks_of(answer: HttpAnswer) -> Chunks:
    """Those of a whole stream, which ends as the protocol says."""
    assert answer.status == 200, answer.body
    assert answer.headers["X-Vercel-AI-UI-Message-Stream"] == "v1"
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert answer.headers["Cache-Control"] == "no-cache"
    *events, done, rest = answer.body.decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [orjson.loads(event.removeprefix("data: ")) for event in events if event != ":"]


def kept(chunks: Chunks) -> Chunks:
    """Without what no message keeps."""
    return [chunk for chunk in chunks if not chunk.get("transient")]


def text_of(chunks: Chunks) -> str:
    return "".join(chunk["delta"] for chunk in chunks if chunk["type"] == "text-delta")


def user(id_: str, *texts: str) -> Message:
    return {"id": id_, "role": "user", "parts": [{"type": "text", "text": text} for text in texts]}


def asking(session: str, *messages: Message, **more: Any) -> dict[str, Any]:
    return {"id": session, "messages": list(messages), "trigger": "submit-message", **more}


async def send(http: Http, session: str, *messages: Message, major: int = 6, **more: Any) -> Chunks:
    return chunks_of(await http.ask("POST", f"/v1/ai-sdk/{major}", asking(session, *messages, **more)))


def answered(chunks: Chunks, **part: Any) -> Message:
    """The answer as the page sends it back, with the part of its last call changed."""
    (call,) = [chunk for chunk in chunks if chunk["type"] == "tool-input-available"]
    start, finish = kept(chunks)[0], kept(chunks)[-1]
    metadata = start["messageMetadata"] | finish["messageMetadata"]
    changed = {"type": f"tool-{call['toolName']}", "toolCallId": call["toolCallId"], "input": call["input"], **part}
    return {"id": start["messageId"], "role": "assistant", "parts": [changed], "metadata": metadata}


async def test_attachments_are_sent_as_files_and_shown_as_such(world: HttpWorld) -> None:
    async with world.http() as http:
        session = world.name()
        path = f"/v1/sessions/{session}/attachments"
        headers = {"Content-Type": "text/plain"}
        stored = await http.ok("POST", f"{path}?name=a.txt", b"hello", headers=headers)
        file = {"type": "file", "mediaType": "text/plain", "filename": "a.txt", "url": f"{path}/{stored['id']}"}
        message = user("i-1", "look")
        message["parts"].append(file)
        assert text_of(await send(http, session, message)) == "look"
        await send(http, session, {"id": "i-2", "role": "user", "parts": [file]})
        shown = (await http.ok("GET", f"/v1/ai-sdk/6/{session}/messages"))["messages"]
        assert shown[0]["parts"] == message["parts"]
        assert next(each["parts"] for each in shown if each["id"] == "i-2") == [file]
        assert (await http.ask("GET", shown[0]["parts"][1]["url"])).body == b"hello"
        missing = {"id": "i-3", "role": "user", "parts": [file | {"url": f"{path}/nothing"}]}
        await http.refused(404, "attachment_not_found", "POST", "/v1/ai-sdk/6", asking(session, missing))


async def test_a_message_and_its_answer(world: HttpWorld) -> None:
    async with world.http() as http:
        session = world.name()
        chunks = await send(http, session, user("i-1", "hello", "there"))
        assert [chunk["type"] for chunk in kept(chunks)] == [
            *("start", "start-step", "text-start"),
            *["text-delta"] * sum(chunk["type"] == "text-delta" for chunk in chunks),
            *("text-end", "finish-step", "finish"),
        ]
        assert kept(chunks)[0] == {
            "type": "start",
            "messageId": "run_i-1",
            "messageMetadata": {"runId": "run_i-1"},
        }
        assert text_of(chunks) == "hello\nthere"
        # Sent again it is the same answer, and nothing runs twice.
        assert kept(await send(http, session, user("i-1", "hello", "there")))[0] == kept(chunks)[0]
        page = await http.ok("GET", f"/v1/ai-sdk/6/{session}/messages")
        assert [(message["id"], message["role"]) for message in page["messages"]] == [
            ("i-1", "user"),
            ("run_i-1", "assistant"),
        ]
        assert page["messages"][1]["parts"][1] == {"type": "text", "text": "hello\nthere", "state": "done"}


async def test_nothing_to_resume(world: HttpWorld) -> None:
    async with world.http() as http:
        session = world.name()
        assert (await http.ask("GET", f"/v1/ai-sdk/5/{session}/stream")).status == 204
        await send(http, session, user("i-1", "raise"))
        assert (await http.ask("GET", f"/v1/ai-sdk/5/{session}/stream")).status == 204


async def test_an_answer_that_was_given_just_now_is_resumed(world: HttpWorld) -> None:
    """Who lost the stream in its last second could not know how it ended."""
    async with world.http() as http:
        session = world.name()
        chunks = await send(http, session, user("i-1", "hello"))
        again = chunks_of(await http.ask("GET", f"/v1/ai-sdk/6/{session}/stream"))
        assert text_of(again) == text_of(chunks) == "hello"
        assert kept(again)[0] == kept(chunks)[0]


async def test_an_answer_is_resumed_from_its_start_at_any_gateway(world: HttpWorld) -> None:
    async with world.http() as http, world.http(gateway=1) as other:
        session = await new_chat(world, http)
        await http.ok(
            "POST", f"/v1/sessions/{session}/inputs", {"content": "stream 300 tokens at 200/s", "inputId": "i-1"}
        )
        async with asyncio.TaskGroup() as tasks:
            resuming = [
                tasks.create_task(http.ask("GET", f"/v1/ai-sdk/6/{session}/stream")),
                tasks.create_task(other.ask("GET", f"/v1/ai-sdk/7/{session}/stream")),
            ]
        for answer in (task.result() for task in resuming):
            chunks = chunks_of(answer)
            assert kept(chunks)[0]["messageId"] == "run_i-1"
            assert text_of(chunks) == "".join(f"t{n} " for n in range(300))
            assert chunks[-1]["finishReason"] == "stop"


async def test_an_input_that_waits_is_resumed_too(world: HttpWorld) -> None:
    async with world.http() as http:
        session = await new_chat(world, http, "nobody")
        await http.ok("POST", f"/v1/sessions/{session}/inputs", {"content": "hello", "inputId": "i-1"})
        async with http.stream(f"/v1/ai-sdk/6/{session}/stream") as stream:
            first = await stream.event()
            assert first is not None
            assert first.json()["data"]["status"] == "queued"
            await http.ok("DELETE", f"/v1/sessions/{session}/inputs/i-1")
            last = [event.data for event in await stream.until("message")]
            assert orjson.loads(last[0]) == {"type": "abort", "reason": "cancelled"}


async def test_a_gateway_that_leaves_says_so(world: HttpWorld) -> None:
    leaving = await world.stack.gateway(drain_s="1")
    async with world.http() as http, Http(leaving.url, world.stack.token()) as there:
        session = await new_chat(world, http)
        async with there.stream("/v1/ai-sdk/6", asking(session, user("i-1", "hang"))) as stream:
            await stream.event()
            await leaving.terminate()
            seen = []
            while (event := await stream.event()) is not None:
                seen.append(event.data)
        assert seen[-1] == "[DONE]"
        assert "draining: the gateway is leaving; resume the stream" in seen[-2]


@pytest.mark.parametrize("major", [5, 6, 7])
async def test_a_tool_that_the_page_executes(world: HttpWorld, major: int) -> None:
    async with world.http() as http:
        session = await new_chat(world, http, "picking")
        question = user("i-1", '{"deadline_s": 20}')
        chunks = await send(http, session, question, major=major)
        assert (chunks[-1]["type"], chunks[-1]["finishReason"]) == ("finish", "tool-calls")
        assert "providerExecuted" not in next(c for c in chunks if c["type"] == "tool-input-available")
        message = answered(chunks, state="output-available", output={"file": "a.pdf"})
        rest = await send(http, session, question, message, messageId=message["id"], major=major)
        assert [chunk["type"] for chunk in kept(rest)][:4] == [
            *("tool-output-available", "finish-step", "start-step", "text-start")
        ]
        assert text_of(rest) == "got a.pdf"
        # Sent again: the call has its result, and the stream is the same.
        assert kept(await send(http, session, question, message, messageId=message["id"], major=major)) == kept(rest)


async def test_an_error_of_a_tool(world: HttpWorld) -> None:
    async with world.http() as http:
        session = await new_chat(world, http, "picking")
        question = user("i-1", '{"deadline_s": 20}')
        chunks = await send(http, session, question)
        message = answered(chunks, state="output-error", errorText="no such file")
        rest = await send(http, session, question, message)
        assert kept(rest)[0]["errorText"] == "no such file"
        assert text_of(rest) == "failed: error"


async def test_a_replay_has_no_call_to_execute_that_is_done(world: HttpWorld) -> None:
    async with world.http() as http:
        session = await new_chat(world, http, "picking")
        question = user("i-1", '{"deadline_s": 20}')
        chunks = await send(http, session, question)
        message = answered(chunks, state="output-available", output={"file": "a.pdf"})
        await send(http, session, question, message)
        again = await send(http, session, question)
        assert next(c for c in again if c["type"] == "tool-input-available")["providerExecuted"] is True


@pytest.mark.parametrize("approved", [True, False])
async def test_an_approval(world: HttpWorld, approved: bool) -> None:
    async with world.http() as http:
        session = await new_chat(world, http, "approving")
        question = user("i-1", '{"default": "reject_once"}')
        chunks = await send(http, session, question)
        (request,) = [chunk for chunk in chunks if chunk["type"] == "tool-approval-request"]
        approval = {"id": request["approvalId"], "approved": approved}
        message = answered(chunks, state="approval-responded", approval=approval)
        option = "allow_once" if approved else "reject_once"
        rest = await send(http, session, question, message)
        assert kept(rest)[0]["output"] == {"option": option, "by": "user-1"}
        assert text_of(rest).startswith(f"{option} resolved by [user-1]")


async def test_who_has_voted_is_not_waited_for_any_more(world: HttpWorld) -> None:
    """A page that was waited for would send its vote again at once, and so on."""
    async with world.http() as http, world.http(user="user-2") as other:
        session = await new_chat(world, http, "approving")
        question = user("i-1", '{"quorum": 2}')
        chunks = await send(http, session, question)
        (request,) = [chunk for chunk in chunks if chunk["type"] == "tool-approval-request"]
        approval = {"id": request["approvalId"], "approved": True}
        message = answered(chunks, state="approval-responded", approval=approval)
        async with http.stream("/v1/ai-sdk/6", asking(session, question, message)) as stream:
            seen = asyncio.Event()

            async def rest() -> list[str]:
                found = []
                while (event := await stream.event()) is not None:
                    found.append(event.data)
                seen.set()
                return found

            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(rest())
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await seen.wait()
                await send(other, session, question, message)
        assert '"allow_once"' in reading.result()[0]
        assert reading.result()[-1] == "[DONE]"


async def test_a_page_of_version_5_decides_by_an_output(world: HttpWorld) -> None:
    async with world.http() as http:
        session = await new_chat(world, http, "approving")
        question = user("i-1", '{"default": "reject_once", "key": "k"}')
        chunks = await send(http, session, question, major=5)
        assert "tool-approval-request" not in {chunk["type"] for chunk in chunks}
        message = answered(chunks, state="output-available", output="allow_always")
        assert text_of(await send(http, session, question, message, major=5)).startswith("allow_always")


async def test_a_question(world: HttpWorld) -> None:
    async with world.http() as http:
        session = await new_chat(world, http, "approving")
        question = user("i-1", '{"schema": {"type": "object", "required": ["size"]}}')
        chunks = await send(http, session, question, major=7)
        message = answered(chunks, state="output-available", output={"colour": "red"})
        await http.refused(422, "payload_invalid", "POST", "/v1/ai-sdk/7", asking(session, question, message))
        message = answered(chunks, state="output-available", output={"size": "L"})
        assert text_of(await send(http, session, question, message, major=7)) == 'answer {"size":"L"}'


async def test_stopping_and_failing(world: HttpWorld) -> None:
    async with world.http() as http:
        session = await new_chat(world, http)
        body = asking(session, user("i-1", "stream 100000 tokens at 100/s"))
        async with http.stream("/v1/ai-sdk/6", body) as stream:
            while (event := await stream.event()) is not None and "text-delta" not in event.data:
                pass
            await http.ok("POST", f"/v1/sessions/{session}/runs/run_i-1/cancel")
            seen = []
            while (event := await stream.event()) is not None:
                seen.append(event.data)
        aborted, finished, done = seen[-3:]
        assert orjson.loads(aborted) == {"type": "abort", "reason": "requested"}
        assert orjson.loads(finished)["finishReason"] == "other"
        assert done == "[DONE]"
        failed = await send(http, session, user("i-2", "raise"))
        assert failed[-1] == {"type": "error", "errorText": "agent_error: the agent raised RuntimeError"}


async def test_a_human_who_has_the_lane(world: HttpWorld) -> None:
    async with world.http() as http:
        session = await new_chat(world, http)
        await http.ok("POST", f"/v1/sessions/{session}/lanes/main/claim")
        assert await send(http, session, user("i-1", "anybody there?")) == [{"type": "finish", "finishReason": "stop"}]


async def test_what_is_refused(world: HttpWorld) -> None:
    async with world.http() as http:
        session = world.name()
        file = {"id": "i-1", "role": "user", "parts": [{"type": "file", "mediaType": "text/plain", "url": "data:,"}]}
        for body in (
            asking(session, user("i-1", "hello"), trigger="regenerate-message"),
            asking(session, user("i-1", "edited"), messageId="i-1"),
            asking(session, file),
            asking(session, file | {"parts": [{**file["parts"][0], "url": "/v1/sessions/other/attachments/a"}]}),
            asking(session, file | {"parts": [{**file["parts"][0], "url": 5}]}),
            asking(session, file | {"parts": [{"type": "source-url", "url": f"/v1/sessions/{session}/attachments/a"}]}),
            asking(session, user("i-1", "")),
            asking(session, user("not an id", "hello")),
            asking(session, {"id": "run_i-1", "role": "assistant", "parts": []}),
            asking(session, {"id": "x", "role": "system", "parts": []}),
        ):
            await http.refused(422, "not_supported", "POST", "/v1/ai-sdk/6", body)
        await http.refused(400, "bad_name", "POST", "/v1/ai-sdk/4", asking(session, user("i-1", "hello")))
        await http.refused(400, "bad_command", "POST", "/v1/ai-sdk/6", {"id": session, "messages": []})
        other_log = {"id": "run_i-1", "role": "assistant", "parts": [], "metadata": {"cursor": "other:3"}}
        await http.refused(410, "cursor_epoch", "POST", "/v1/ai-sdk/6", asking(session, other_log))
        # Nothing of it was stored.
        assert (await http.ask("GET", f"/v1/sessions/{session}")).status == 404


async def test_a_chat_may_be_longer_than_a_command(world: HttpWorld) -> None:
    async with world.http() as http:
        long = [user(f"old-{n}", "x" * 60_000) for n in range(10)]
        assert text_of(await send(http, world.name(), *long, user("i-1", "hello"))) == "hello"


async def test_rights(world: HttpWorld) -> None:
    async with (
        world.http(sessions={"*": ["read"]}) as reader,
        world.http(sessions={"*": ["send"]}) as sender,
        world.http(sessions={"*": ["read", "send"]}) as talker,
        world.http() as http,
    ):
        session = await new_chat(world, http, "picking")
        question = user("i-1", '{"deadline_s": 20}')
        await reader.refused(403, "not_allowed", "POST", "/v1/ai-sdk/6", asking(session, question))
        await sender.refused(403, "not_allowed", "POST", "/v1/ai-sdk/6", asking(session, question))
        await sender.refused(403, "not_allowed", "GET", f"/v1/ai-sdk/6/{session}/stream")
        await sender.refused(403, "not_allowed", "GET", f"/v1/ai-sdk/6/{session}/messages")
        chunks = await send(talker, session, question)
        message = answered(chunks, state="output-available", output={"file": "a.pdf"})
        await talker.refused(403, "not_allowed", "POST", "/v1/ai-sdk/6", asking(session, question, message))


async def test_a_message_that_the_session_does_not_take(world: HttpWorld) -> None:
    async with world.http() as http:
        waiting = await new_chat(world, http, "nobody")
        config = {"maxQueue": 1, "roles": {"*": {"modes": ["enqueue", "reject"]}}}
        await http.ok("PATCH", f"/v1/sessions/{waiting}", {"config": config})
        await http.ok("POST", f"/v1/sessions/{waiting}/inputs", {"content": "first", "mode": "enqueue"})
        path, second = "/v1/ai-sdk/6", asking(waiting, user("i-2", "second"))
        await http.refused(429, "queue_full", "POST", path, second | {"mode": "enqueue"})
        await http.refused(403, "mode_not_allowed", "POST", path, second | {"mode": "interrupt"})
        await http.ok("PATCH", f"/v1/sessions/{waiting}", {"config": {"maxQueue": 2}})
        await http.refused(409, "busy", "POST", path, second | {"mode": "reject"})
        await http.ok("POST", f"/v1/sessions/{waiting}/close")
        await http.refused(409, "session_closed", "POST", path, second)
        running = await new_chat(world, http)
        async with http.stream(path, asking(running, user("i-1", "hang"))) as stream:
            while (event := await stream.event()) is not None and '"running"' not in event.data:
                pass
            injected = asking(running, user("i-2", "now"), mode="inject")
            await http.refused(409, "cannot_inject", "POST", path, injected)


async def test_an_output_that_does_not_count(world: HttpWorld) -> None:
    async with world.http() as http, world.http(user="user-2") as other:
        session = await new_chat(world, http, "picking")
        tools = {"tools": [{"name": "pick_file", "result": {"type": "object", "required": ["file"]}}]}
        question = user("i-1", '{"deadline_s": 30}')
        async with http.stream(f"/v1/sessions/{session}/subscribe", tools) as stream:
            await stream.until("session.caught_up")
            chunks = await send(http, session, question)
        wrong = asking(session, question, answered(chunks, state="output-available", output={"name": "a.pdf"}))
        good = asking(session, question, answered(chunks, state="output-available", output={"file": "a.pdf"}))
        await other.refused(403, "not_targeted", "POST", "/v1/ai-sdk/6", good)
        await http.refused(422, "result_invalid", "POST", "/v1/ai-sdk/6", wrong)
        assert text_of(chunks_of(await http.ask("POST", "/v1/ai-sdk/6", good))) == "got a.pdf"

        session = await new_chat(world, http, "picking")
        chunks = await send(http, session, question)
        (call,) = [chunk["toolCallId"] for chunk in chunks if chunk["type"] == "tool-input-available"]
        await http.ok("POST", f"/v1/sessions/{session}/calls/{call}/claim", {"claimId": "mine"})
        good = asking(session, question, answered(chunks, state="output-available", output={"file": "a.pdf"}))
        await http.refused(409, "already_claimed", "POST", "/v1/ai-sdk/6", good)


async def test_a_decision_that_does_not_count(world: HttpWorld) -> None:
    async with world.http() as http:
        session = await new_chat(world, http, "approving")
        question = user("i-1", '{"roles": ["boss"]}')
        chunks = await send(http, session, question)
        message = answered(chunks, state="output-available", output="perhaps")
        await http.refused(403, "role_required", "POST", "/v1/ai-sdk/6", asking(session, question, message))
        session = await new_chat(world, http, "approving")
        question = user("i-1", "{}")
        chunks = await send(http, session, question)
        message = answered(chunks, state="output-available", output={"option": "perhaps"})
        await http.refused(422, "bad_option", "POST", "/v1/ai-sdk/6", asking(session, question, message))
