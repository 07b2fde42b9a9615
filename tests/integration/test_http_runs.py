"""One-shot runs over HTTP: an input in, an answer out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio

from gateway.http.operations import BATCH_MAX
from tests.support.http import EventReader, Http
from tests.support.http_world import HttpWorld, http_world

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENV = {"requests_per_second": "10000", "requests_burst": "10000"}
AGENT = "tests.support.agents:answers"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HttpWorld]:
    async with http_world(tmp_path_factory.mktemp("http"), {"default": AGENT}, unserved=["nobody"], **ENV) as made:
        yield made


async def test_an_answer(world: HttpWorld) -> None:
    async with world.http() as http:
        answer = await http.ask("POST", "/v1/runs", {"content": "hello there", "inputId": world.name()})
        run = answer.json()
        assert (answer.status, run["status"], run["text"]) == (200, "success", "hello there done")
        assert [m["role"] for m in run["messages"]] == ["reasoning", "assistant", "tool_call", "tool", "assistant"]
        assert run["session"] == f"run-{run['inputId']}"
        again = await http.ask("POST", "/v1/runs", {"content": "hello there", "inputId": run["inputId"]})
        assert (again.status, again.json()) == (200, run)
        history = await http.ok("GET", f"/v1/sessions/{run['session']}/messages")
        assert sum(message["role"] == "user" for message in history["messages"]) == 1
        assert await http.ok("DELETE", f"/v1/sessions/{run['session']}")


async def test_an_answer_in_a_session_that_is_there(world: HttpWorld) -> None:
    session = world.name()
    async with world.http() as http, world.http(gateway=1) as elsewhere:
        for n, reader in enumerate((http, elsewhere, http)):
            body = {"content": f"number {n}", "session": session}
            run = await reader.ok("POST", "/v1/runs", body, headers={"Idempotency-Key": f"{session}-{n}"})
            assert run["text"] == f"number {n} done"
        messages = await http.ok("GET", f"/v1/sessions/{session}/messages")
        assert [m["text"] for m in messages["messages"] if m["role"] == "user"] == ["number 0", "number 1", "number 2"]


async def test_an_answer_that_takes_longer_is_told_later(world: HttpWorld) -> None:
    async with world.http() as http:
        body = {"content": "ask", "inputId": world.name(), "wait": 0}
        first = await http.ask("POST", "/v1/runs", body)
        assert (first.status, first.json()["text"], first.headers["Retry-After"]) == (202, None, "1")
        place = first.headers["Location"]
        async with asyncio.timeout(15):
            while (run := await http.ok("GET", place))["status"] != "requires_action":
                await asyncio.sleep(0.02)
        second = await http.ask("POST", "/v1/runs", body | {"wait": 1})
        assert (second.status, second.headers["Location"]) == (202, place)
        state = (await http.ok("GET", f"/v1/sessions/{run['session']}"))["state"]
        waiting = asyncio.create_task(http.ask("POST", "/v1/runs", body | {"wait": 20}))  # noqa: TID251
        approval = f"/v1/sessions/{run['session']}/approvals/{state['approvals'][0]['approvalId']}/respond"
        await http.ok("POST", approval, {"option": "allow_once"})
        assert ((await waiting).status, (await waiting).json()["text"]) == (200, "ask done")


async def test_how_runs_end(world: HttpWorld) -> None:
    async with world.http() as http:
        failed = await http.ok("POST", "/v1/runs", {"content": "fail"})
        assert (failed["status"], failed["error"]["code"], failed["text"]) == ("error", "agent_error", "")
        session = world.name()
        path = f"/v1/sessions/{session}"
        idle = {"content": "x", "session": session, "config": {"pool": "nobody"}, "wait": 0}
        waiting = await http.ask("POST", "/v1/runs", idle | {"inputId": "a"})
        assert (waiting.status, waiting.json()["status"]) == (202, "queued")
        later = asyncio.create_task(http.ask("POST", "/v1/runs", idle | {"inputId": "a", "wait": 20}))  # noqa: TID251
        await http.ok("POST", f"{path}/runs/run_a/cancel")
        assert ((await later).status, (await later).json()["status"]) == (200, "cancelled")
        await http.refused(404, "run_not_found", "GET", f"{path}/runs/run_b")
        stopped = await http.ok("POST", "/v1/runs", {"content": "ask", "wait": 0})
        place = f"/v1/sessions/{stopped['session']}/runs/{stopped['runId']}"
        async with asyncio.timeout(15):
            while (await http.ok("GET", place))["status"] != "requires_action":
                await asyncio.sleep(0.02)
        await http.ok("POST", f"{place}/cancel")
        async with asyncio.timeout(15):
            while (run := await http.ok("GET", place))["status"] == "requires_action":
                await asyncio.sleep(0.02)
        assert (run["status"], run["reason"]) == ("cancelled", "requested")


async def test_a_human_who_has_the_session_answers(world: HttpWorld) -> None:
    session = world.name()
    async with world.http() as http, world.http(user="user-2") as other:
        await http.ok("POST", f"/v1/sessions/{session}/lanes/main/claim")
        answer = await other.ask("POST", "/v1/runs", {"content": "hello", "session": session})
        assert (answer.status, answer.json()["status"], answer.json()["runId"]) == (202, "applied", None)
        messages = await other.ok("GET", answer.headers["Location"])
        assert [m["text"] for m in messages["messages"]] == ["hello"]


async def test_what_a_run_is_refused_with(world: HttpWorld) -> None:
    session = world.name()
    async with world.http() as http, world.http(user="user-2", sessions={"*": ["send", "read"]}) as other:
        one = {"content": "x", "session": session, "wait": 0}
        problem = await http.refused(422, "config_invalid", "POST", "/v1/runs", one | {"config": {"maxQueue": 0}})
        assert problem["data"]["field"] == "config/maxQueue"
        await http.ask("POST", "/v1/runs", one | {"config": {"pool": "nobody", "maxQueue": 1}, "title": "T"})
        await other.refused(409, "session_exists", "POST", "/v1/runs", one | {"title": "Mine"})
        await http.refused(429, "queue_full", "POST", "/v1/runs", one)
        other_one = one | {"session": world.name(), "config": {"pool": "nobody"}}
        await http.ask("POST", "/v1/runs", other_one)
        await http.refused(409, "busy", "POST", "/v1/runs", other_one | {"mode": "reject"})
        await http.ok("PATCH", f"/v1/sessions/{session}", {"config": {"roles": {"*": {"modes": ["auto"]}}}})
        await other.refused(403, "mode_not_allowed", "POST", "/v1/runs", one | {"mode": "enqueue"})
        await http.ok("POST", f"/v1/sessions/{session}/close")
        await http.refused(409, "session_closed", "POST", "/v1/runs", one)
        await http.refused(413, "content_too_large", "POST", "/v1/runs", one | {"content": "x" * 65_537})
        busy = {"content": "ask", "session": world.name(), "wait": 1}
        await http.ok("POST", "/v1/runs", busy)
        await http.refused(409, "cannot_inject", "POST", "/v1/runs", busy | {"mode": "inject"})


# --- caching -----------------------------------------------------------------------------------------------------------------


async def test_an_answer_may_be_kept_as_long_as_its_agent_says(world: HttpWorld) -> None:
    async with world.http() as http:
        answer = await http.ask("POST", "/v1/runs", {"content": "hello"})
        run = answer.json()
        place = f"/v1/sessions/{run['session']}/runs/{run['runId']}"
        private, _, age = answer.headers["Cache-Control"].partition(", max-age=")
        assert private == "private"
        assert 580 < int(age) <= 600
        again = await http.ask("GET", place)
        assert (again.status, again.json(), again.headers["ETag"]) == (200, run, answer.headers["ETag"])
        for tag in (answer.headers["ETag"], f'"other", W/{answer.headers["ETag"]}', "*"):
            same = await http.ask("GET", place, headers={"If-None-Match": tag})
            assert (same.status, same.body, same.headers["ETag"]) == (304, b"", answer.headers["ETag"])
        assert (await http.ask("GET", place, headers={"If-None-Match": '"other"'})).status == 200
        other = await http.ask("POST", "/v1/runs", {"content": "not to be kept"})
        assert other.headers["Cache-Control"] == "private, no-cache"
        assert other.headers["ETag"] != answer.headers["ETag"]
        waiting = await http.ask("POST", "/v1/runs", {"content": "ask", "wait": 0})
        assert waiting.headers["Cache-Control"] == "no-store"
        await http.ok("DELETE", f"/v1/sessions/{run['session']}")
        await http.refused(404, "run_not_found", "GET", place, headers={"If-None-Match": answer.headers["ETag"]})


# --- streams -----------------------------------------------------------------------------------------------------------------


async def test_an_answer_as_a_stream_of_text(world: HttpWorld) -> None:
    words = " ".join(f"w{n}" for n in range(300))
    async with world.http() as http:
        async with http.stream("/v1/runs", {"content": words, "stream": "text"}) as stream:
            pieces, run = await to_the_end(stream)
        assert "".join(piece["delta"] for piece in pieces) == run["text"] == f"{words} done"
        assert [p["messageId"] for p in pieces if p["delta"] == "done"] == [run["messages"][-1]["id"]]
        # Who sends it again is told the same, from the log.
        body = {"content": words, "stream": "text", "inputId": run["inputId"]}
        async with http.stream("/v1/runs", body) as stream:
            pieces, same = await to_the_end(stream)
        assert ("".join(piece["delta"] for piece in pieces), same) == (run["text"], run)


async def to_the_end(stream: EventReader) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    events = await stream.until("run")
    assert await stream.event() is None
    assert {event.name for event in events[:-1]} <= {"text"}
    return [event.json() for event in events[:-1]], events[-1].json()


async def test_an_answer_as_a_stream_of_entries(world: HttpWorld) -> None:
    async with world.http() as http, http.stream("/v1/runs", {"content": "hello there"}) as stream:
        events = await stream.until("run")
        assert await stream.event() is None
        run = events[-1].json()
        entries = [event.json() for event in events[:-1]]
        assert [entry["prev"] for entry in entries[1:]] == [entry["seq"] for entry in entries[:-1]]
        types = [event["type"] for entry in entries for event in entry["events"]]
        assert (types[0], types.count("RUN_FINISHED"), types.count("run.cacheable")) == ("input.sent", 1, 1)
        path = f"/v1/sessions/{run['session']}/events"
        async with http.stream(path, headers={"Last-Event-ID": events[-1].last_id}) as rest:
            assert all(
                event.name != "entry" or is_ownership(event.json()) for event in await rest.until("session.caught_up")
            )


def is_ownership(entry: dict[str, Any]) -> bool:
    return [event["type"] for event in entry["events"]] == ["session.owner"]


async def test_a_stream_is_for_who_may_read_and_else_nothing_is_sent(world: HttpWorld) -> None:
    session = world.name()
    async with world.http(sessions={session: ["send"]}) as http:
        body = {"content": "hello", "session": session, "stream": "text"}
        await http.refused(403, "not_allowed", "POST", "/v1/runs", body)
    async with world.http() as http:
        await http.refused(404, "not_found", "GET", f"/v1/sessions/{session}")


async def test_a_stream_of_a_run_that_never_starts(world: HttpWorld) -> None:
    session = world.name()
    body = {"content": "x", "session": session, "inputId": "a", "config": {"pool": "nobody"}, "stream": "text"}
    async with world.http() as http, http.stream("/v1/runs", body) as stream:
        await http.ok("POST", f"/v1/sessions/{session}/runs/run_a/cancel")
        assert (await stream.until("run"))[-1].json()["status"] == "cancelled"


async def test_a_client_that_goes_stops_nothing(world: HttpWorld) -> None:
    body = {"content": "ask", "inputId": world.name(), "stream": "text"}
    async with world.http() as http:
        async with http.stream("/v1/runs", body):
            pass
        run = await http.ok("POST", "/v1/runs", {"content": "ask", "inputId": body["inputId"], "wait": 1})
        assert run["status"] in ("queued", "running", "requires_action")


async def test_a_gateway_that_leaves_keeps_nobody_waiting(world: HttpWorld) -> None:
    gateway = await world.stack.gateway(**ENV, drain_s="4")
    token = world.stack.token()
    body = {"content": "ask", "wait": 50}
    async with Http(gateway.url, token) as http, world.http() as elsewhere:
        waiting = asyncio.create_task(http.ask("POST", "/v1/runs", body | {"inputId": world.name()}))  # noqa: TID251
        async with http.stream("/v1/runs", body | {"stream": "text"}) as stream:
            await until_waiting(http)
            gateway.terminate_soon()
            closing = (await stream.until("closing"))[-1].json()
            answer = await waiting
        assert (answer.status, closing["code"]) == (202, "draining")
        for place in (answer.headers["Location"], closing["location"]):
            assert (await elsewhere.ok("GET", place))["status"] == "requires_action"
    await gateway.process.wait()


async def until_waiting(http: Http) -> None:
    """Returns when two requests are held."""
    async with asyncio.timeout(15):
        while b"antiphon_gateway_connections 2.0" not in (await http.ask("GET", "/metrics")).body:
            await asyncio.sleep(0.02)


# --- batches -----------------------------------------------------------------------------------------------------------------


async def test_a_batch_has_an_outcome_for_each(world: HttpWorld) -> None:
    session = world.name()
    async with world.http(sessions={"run-*": ["admin"], session: ["read"]}) as http:
        requests = [
            {"content": "one", "inputId": world.name()},
            {"content": "fail"},
            {"content": "two", "session": session},
            {"content": "three", "config": {"pool": "nobody"}},
            {"content": "x" * 65_537},
        ]
        reply = await http.ok("POST", "/v1/runs/batch", {"requests": requests, "wait": 5})
        outcomes = reply["outcomes"]
        assert [outcome["status"] for outcome in outcomes] == [200, 200, 403, 202, 413]
        assert outcomes[0]["run"]["text"] == "one done"
        assert outcomes[1]["run"]["error"]["code"] == "agent_error"
        assert outcomes[2]["problem"]["code"] == "not_allowed"
        assert outcomes[3]["run"]["status"] == "queued"
        again = await http.ok("POST", "/v1/runs/batch", {"requests": requests[:1]})
        assert again["outcomes"] == outcomes[:1]


async def test_batches_are_bounded(world: HttpWorld) -> None:
    async with world.http() as http:
        for requests in ([], [{"content": "x"}] * (BATCH_MAX + 1), [{}], [5]):
            await http.refused(400, "bad_command", "POST", "/v1/runs/batch", {"requests": requests})
        full = [{"content": f"n{n}"} for n in range(BATCH_MAX)]
        reply = await http.ok("POST", "/v1/runs/batch", {"requests": full})
        assert [o["run"]["text"] for o in reply["outcomes"]] == [f"n{n} done" for n in range(BATCH_MAX)]
    gateway = await world.stack.gateway(requests_per_second="0.1", requests_burst="2")
    async with Http(gateway.url, world.stack.token()) as http:
        three = [{"content": f"n{n}"} for n in range(3)]
        reply = await http.ok("POST", "/v1/runs/batch", {"requests": three})
        assert sorted(outcome["status"] for outcome in reply["outcomes"]) == [200, 200, 429]
    await gateway.kill()


async def test_bodies_are_json(world: HttpWorld) -> None:
    async with world.http() as http:
        assert orjson.loads((await http.ask("POST", "/v1/runs", b'{"content":"x","wait":0}')).body)["inputId"]
