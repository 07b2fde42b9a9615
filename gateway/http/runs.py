"""One-shot runs: an input in, an answer out, for who does not follow sessions."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiohttp import hdrs, web

from broker.clock import now_ms
from broker.errors import Refused
from gateway.auth import Identity, Right
from gateway.commands import Answer
from gateway.commands.answers import is_over
from gateway.http.answering import Admit, input_id_of, json_answer
from gateway.http.carrying import carry_out, within
from gateway.http.declarations import EVENT_STREAM, JSON
from gateway.http.problems import Problem, problem_of
from gateway.http.requests import Call, accepted
from gateway.http.run_streams import Leaving, stream_run
from gateway.outlet import revoked
from gateway.services import Services

_ABOUT = ("title", "metadata", "config")


class _Waiting:
    """Somebody who waits for an answer: a gateway that leaves does not keep them, nor one that may not give it any more."""

    def __init__(self, who: Identity, session: str) -> None:
        self._who = who
        self._session = session
        self._limit: asyncio.Timeout | None = None
        self._left = False

    @asynccontextmanager
    async def at_most(self, wait_s: float) -> AsyncIterator[None]:
        """Within, it is waited for that long, and no longer."""
        try:
            async with asyncio.timeout(0 if self._left else wait_s) as self._limit:
                yield
        except TimeoutError:
            return

    @property
    def unsent_bytes(self) -> int:
        """There is nothing to take before the end."""
        return 0

    @property
    def who(self) -> Identity:
        return self._who

    def recheck(self) -> None:
        if revoked(self._who, self._session) is not None:
            self._leave()

    def drain(self, retry_after_ms: int) -> None:  # noqa: ARG002 (who waits is told at once, and asks again elsewhere)
        self._leave()

    def _leave(self) -> None:
        self._left = True
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time())

    def tell(self, payload: bytes) -> None:
        """There is nothing to say before the end."""


class Runs:
    """The operations on runs. One for a gateway."""

    def __init__(self, services: Services, admit: Admit) -> None:
        self._services = services
        self._admit = admit

    async def create(self, call: Call) -> web.StreamResponse:
        fields = {**call.fields, "inputId": input_id_of(call)}
        stream = _stream_of(call, fields)
        if stream is None:
            return run_answer(await self._answer(fields, call.who, fields.get("wait")), call.request)
        session = fields.get("session") or f"run-{fields['inputId']}"
        # Before anything is sent: what comes is read.
        call.who.require(Right.READ, session)
        leaving = Leaving(call.who, session, self._services.settings.jwt_leeway_s)
        with self._admit(leaving):
            receipt = await self._send(fields, call.who)
            if receipt["runId"] is not None and receipt["seq"] is not None:
                with leaving:
                    return await stream_run(self._services, leaving, call, session, receipt, text=stream == "text")
            # There is no run, or its beginning is long forgotten.
            answer = await self._wait(_Waiting(call.who, session), session, receipt, call.who, 0)
        return run_answer(answer, call.request)

    async def create_many(self, call: Call) -> web.Response:
        requests: list[dict[str, Any]] = call.fields["requests"]
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(self._outcome(dict(request), call, first=n == 0))
                for n, request in enumerate(requests)
            ]
        return json_answer(orjson.dumps({"outcomes": [task.result() for task in running]}))

    async def get(self, call: Call) -> web.Response:
        async with within(self._services, "answer"):
            answer = await self._services.commands.answer(call.session, call.fields["runId"], call.who)
        return run_answer(answer, call.request, always=True)

    async def _outcome(self, fields: dict[str, Any], call: Call, *, first: bool) -> dict[str, Any]:
        """Of one of a batch."""
        try:
            # The request itself was counted as one.
            if not first:
                self._services.admission.requests.require(f"user {call.who.caller}", time.monotonic())
            fields["inputId"] = input_id_of(call, fields)
            answer = await self._answer(fields, call.who, call.fields.get("wait"))
        except Refused as refusal:
            problem = problem_of(refusal)
        except Problem as refused:
            problem = refused
        else:
            return {"status": 200 if _is_final(answer) else 202, "run": answer.wire}
        return {"status": problem.status, "problem": problem.wire()}

    async def _send(self, fields: dict[str, Any], who: Identity) -> dict[str, Any]:
        """The receipt of the input; `session` is among the fields then."""
        about = {name: fields[name] for name in _ABOUT if fields.get(name) is not None}
        if "session" not in fields:
            # The same input is sent to the same session again.
            fields["session"] = f"run-{fields['inputId']}"
            await carry_out(self._services, "session.create", {"session": fields["session"], **about}, who)
        elif about:
            await carry_out(self._services, "session.create", {"session": fields["session"], **about}, who)
        return await carry_out(self._services, "input.send", fields, who)

    async def _answer(self, fields: dict[str, Any], who: Identity, wait: int | None) -> Answer:
        """Sends the input, and waits. Nothing is sent by a gateway that cannot wait. Raises Refused, Problem."""
        waiting = _Waiting(who, fields.get("session") or f"run-{fields['inputId']}")
        with self._admit(waiting):
            receipt = await self._send(fields, who)
            return await self._wait(waiting, fields["session"], receipt, who, wait)

    async def _wait(
        self, waiting: _Waiting, session: str, receipt: Mapping[str, Any], who: Identity, wait: int | None
    ) -> Answer:
        """The answer, or what there is of it when it is time to say so."""
        run_id = receipt["runId"]
        if run_id is None:
            wire = {"session": session, "runId": None, "inputId": receipt["inputId"], "status": "applied"}
            return Answer(wire | {"reason": None, "error": None, "text": None, "messages": []})
        limit_s = self._services.settings.run_wait_s
        wait_s = limit_s if wait is None else min(wait, limit_s)
        # Nobody gets an answer with a token that has expired before there was one.
        wait_s = min(wait_s, who.left_s(time.time(), self._services.settings.jwt_leeway_s))
        async with self._services.hub.session(who.key(session)) as feed, waiting.at_most(wait_s):
            await feed.until(lambda state: is_over(state, run_id))
        async with within(self._services, "answer"):
            return await self._services.commands.answer(session, run_id, who)


def _stream_of(call: Call, fields: Mapping[str, Any]) -> str | None:
    """Entries or text, if the answer is to be a stream."""
    stream: str | None = fields.get("stream")
    if stream is None and accepted(call.request.headers.get(hdrs.ACCEPT), (JSON, EVENT_STREAM)) == EVENT_STREAM:
        return "entries"
    return stream


def _is_final(answer: Answer) -> bool:
    return answer.wire["status"] not in ("queued", "running", "requires_action", "applied")


def run_answer(answer: Answer, request: web.Request, *, always: bool = False) -> web.Response:
    """The answer over HTTP: 202 and a place if it is not there yet, unless `always` is 200."""
    session, run_id = answer.wire["session"], answer.wire["runId"]
    body = orjson.dumps(answer.wire)
    if not _is_final(answer) and not always:
        place = "messages" if run_id is None else f"runs/{run_id}"
        return json_answer(body, 202, {"Location": f"/v1/sessions/{session}/{place}", "Retry-After": "1"})
    if not answer.ended_seq:
        return json_answer(body)
    headers = _caching(answer)
    if always and _matches(request.headers.get(hdrs.IF_NONE_MATCH), headers["ETag"]):
        return web.Response(status=304, headers=headers)
    return json_answer(body, headers=headers)


def _caching(answer: Answer) -> dict[str, str]:
    """An answer that is over never changes; but it is for who may read it, and may be deleted."""
    name = f"{answer.wire['session']}:{answer.wire['runId']}:{answer.ended_seq}"
    left_s = (answer.max_age_s or 0) - max(0, now_ms() - answer.ended_ts) // 1000
    return {
        "ETag": f'"{hashlib.blake2b(name.encode(), digest_size=12).hexdigest()}"',
        "Cache-Control": f"private, max-age={left_s}" if left_s > 0 else "private, no-cache",
        "Vary": "Authorization",
    }


def _matches(header: str | None, etag: str) -> bool:
    return header is not None and (
        header.strip() == "*" or etag in [part.strip().removeprefix("W/") for part in header.split(",")]
    )
