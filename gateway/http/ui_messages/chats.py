"""The operations that the AI SDK's default transport uses: a chat is a session, its messages' ids are those of inputs."""

from __future__ import annotations

import math
import time
from typing import Any

import orjson
from aiohttp import hdrs, web

from broker.clock import age_s
from broker.errors import ErrorCode, Refused
from broker.interfaces import Of
from broker.state import SessionState
from broker.subjects import MAIN_LANE, SessionKey, run_id_of
from gateway.auth import Right
from gateway.http.answering import Admit, json_answer
from gateway.http.carrying import carry_out, within
from gateway.http.requests import Call
from gateway.http.run_streams import Leaving
from gateway.http.ui_messages.answer import Answer
from gateway.http.ui_messages.streams import UI_STREAM_HEADERS, Shown, no_answer, stream_answer
from gateway.http.ui_messages.transcript import ui_messages
from gateway.http.ui_messages.turns import Continuation, NewInput, commands_of, turn_of
from gateway.services import Services
from gateway.subscribing import check_join

_WITH_APPROVALS = ("6", "7")
"""Versions of the SDK that know tool approvals; others take an error for a chunk that they do not know."""
_RUN_PREFIX = run_id_of("")
_COMPLETE = ("success", "cancelled")
_RECENT_S = 60.0
"""Seconds of quiet in which the last answer is still resumed: who lost it in its last second has not had its end."""
_TOO_LATE = frozenset(
    {
        ErrorCode.ALREADY_RESOLVED,
        ErrorCode.ALREADY_VOTED,
        ErrorCode.APPROVAL_NOT_FOUND,
        ErrorCode.CALL_NOT_FOUND,
        ErrorCode.DEADLINE_PASSED,
        ErrorCode.NOT_CLAIMED,
    }
)
"""Somebody was first, it was sent before, or it came too late: the stream shows what counts."""


class Chats:
    """The operations on chats. One for a gateway."""

    def __init__(self, services: Services, admit: Admit) -> None:
        self._services = services
        self._admit = admit

    async def send(self, call: Call) -> web.StreamResponse:
        """A message, or the outputs in an answer; answers with the stream of what the agent says to it."""
        call.fields["session"] = call.fields["id"]
        call.who.require(Right.READ, call.session)
        turn = turn_of(call.fields)
        leaving = self._leaving(call)
        with self._admit(leaving), leaving:
            if isinstance(turn, NewInput):
                return await self._send(call, turn, leaving)
            return await self._go_on(call, turn, leaving)

    async def _send(self, call: Call, turn: NewInput, leaving: Leaving) -> web.StreamResponse:
        fields: dict[str, Any] = {"session": call.session, "inputId": turn.input_id, "content": turn.content}
        if turn.attachments:
            fields["attachments"] = [{"id": attachment_id} for attachment_id in turn.attachments]
        if call.fields.get("mode") is not None:
            fields["mode"] = call.fields["mode"]
        receipt = await carry_out(self._services, "input.send", fields, call.who)
        if receipt["runId"] is None or receipt["seq"] is None:
            return no_answer()
        answer = await self._answer(call, turn.input_id)
        return await stream_answer(self._services, leaving, call, answer, receipt["seq"] - 1)

    async def _go_on(self, call: Call, turn: Continuation, leaving: Leaving) -> web.StreamResponse:
        async with within(self._services, "state"):
            state, _ = await self._state(call.key)
            epoch = await self._services.log.epoch(self._services.log.subjects(call.key))
        if turn.epoch != epoch:
            raise Refused(ErrorCode.CURSOR_EPOCH, "the message is of another log; load the chat again", epoch=epoch)
        given = set()
        for id_, op, fields in commands_of(turn, state):
            given.add(id_)
            try:
                await carry_out(self._services, op, {"session": call.session, **fields}, call.who)
            except Refused as refusal:
                if refusal.code not in _TOO_LATE:
                    raise
        answer = await self._answer(call, turn.input_id)
        since = _before(state, turn.input_id)
        if since is None and active_input(state) != turn.input_id:
            return no_answer()
        return await stream_answer(self._services, leaving, call, answer, since, Shown(turn.shown, frozenset(given)))

    async def resume(self, call: Call) -> web.StreamResponse:
        """The stream of the answer that is being given, or was just now, from its start; 204 if there is none."""
        call.who.require(Right.READ, call.session)
        leaving = self._leaving(call)
        with self._admit(leaving), leaving:
            async with within(self._services, "state"):
                check_join(self._services, call.key, call.who)
                state, idle_s = await self._state(call.key)
            input_id = active_input(state) or (last_input(state) if idle_s < _RECENT_S else None)
            if input_id is None:
                return web.Response(status=204, headers={"Cache-Control": "no-store"})
            if call.request.method == hdrs.METH_HEAD:
                return web.Response(headers=UI_STREAM_HEADERS)
            answer = await self._answer(call, input_id)
            return await stream_answer(self._services, leaving, call, answer, _before(state, input_id))

    async def messages(self, call: Call) -> web.Response:
        """A page of the chat, as UI messages."""
        page = await carry_out(self._services, "history", call.fields, call.who)
        found = {"messages": ui_messages(page["messages"], call.session), "before": page["before"]}
        return json_answer(orjson.dumps(found))

    async def _answer(self, call: Call, input_id: str) -> Answer:
        async with within(self._services, "epoch"):
            epoch = await self._services.log.epoch(self._services.log.subjects(call.key))
        return Answer(input_id, call.who.id, epoch, approvals=call.fields["major"] in _WITH_APPROVALS)

    def _leaving(self, call: Call) -> Leaving:
        return Leaving(call.who, call.session, self._services.settings.jwt_leeway_s)

    async def _state(self, key: SessionKey) -> tuple[SessionState, float]:
        """As it is now (what was stored by way of another gateway is known here, too), and since when, in seconds."""
        async with self._services.hub.session(key) as feed:
            await feed.ready()
            head = await self._services.log.head(feed.subjects, Of.RECORDS)
            if head is None:
                return feed.state, math.inf
            await feed.reached(head.seq)
            age = age_s(head.stored, time.time())
            return feed.state, math.inf if age is None else age


def active_input(state: SessionState) -> str | None:
    """The input that the main lane's run answers now, or else is about to."""
    run = state.lane_run(MAIN_LANE)
    if run is not None:
        joined = (fate.input_id for fate in reversed(state.fates) if fate.run == run.run_id)
        return next(joined, run.input_id)
    return next((waiting.input_id for waiting in state.queue(MAIN_LANE)), None)


def last_input(state: SessionState) -> str | None:
    """The input whose answer was given last, and is complete."""
    # Runs of agents that were asked end before the run that asked.
    ended = next((end for end in reversed(state.ended) if end.id.startswith(_RUN_PREFIX)), None)
    if ended is None or ended.status not in _COMPLETE:
        return None
    return next((fate.input_id for fate in reversed(state.fates) if fate.run == ended.id), None)


def _before(state: SessionState, input_id: str) -> int | None:
    """An entry before that of the input, if it is remembered."""
    queued, fate = state.queued(input_id), state.fate(input_id)
    if queued is not None:
        return queued.seq - 1
    return None if fate is None else fate.seq - 1
