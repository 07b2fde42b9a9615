"""What an agent says: texts, reasoning, steps, and tools that it only shows."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import orjson

from agent_worker.control import RunControl
from agent_worker.sizes import check_size
from agent_worker.tracing import RunTrace
from agent_worker.writer import LaneWriter
from broker.events import (
    Event,
    MessageAttached,
    OtherEvent,
    ReasoningMessageStart,
    RunCacheable,
    TextMessageStart,
    ToolCallResult,
    ToolCallStart,
    ToolRequested,
)

CACHEABLE_S_MAX = 31_536_000
"""A year: what HTTP takes as for ever (RFC 9111)."""
PASSED_ON = ("CUSTOM", "RAW", "STATE_SNAPSHOT", "STATE_DELTA", "ACTIVITY_SNAPSHOT", "ACTIVITY_DELTA")
"""Types of events that applications make of what they like."""


class Speaking:
    """The part of a SessionContext that speaks.

    Text is stored before anyone sees it. `text()` and its like return as soon as the text is queued, and wait only
    when too much is queued or the run is held; `flush()` returns when all of it is stored. All raise RunEnded after the
    run has ended, and LogError when the lane is lost; an agent need not handle either. Events of more than 256 KiB
    raise ContentTooLarge.
    """

    def __init__(self, writer: LaneWriter, control: RunControl, run_id: str, attempt: int, trace: RunTrace) -> None:
        self._writer = writer
        self._trace = trace
        self._control = control
        self._message: str | None = None
        self._reasoning: str | None = None
        self._ids = 0
        self.run_id = run_id
        self.attempt = attempt
        """1 for the first worker of the run, more after a takeover."""
        self.trace = trace.context
        """The run's span in its trace: send `trace.headers` along with requests to models and services."""

    @property
    def held(self) -> bool:
        """The run is held because nobody watches: what is said waits. May be read from any thread."""
        return self._control.held

    async def released(self) -> None:
        """Returns when the run is not held. For agents that end their model's stream meanwhile, and ask it to go on."""
        await self._control.pass_through()

    async def text(self, delta: str) -> None:
        """Says `delta`, as a part of the message that is open; opens one if there is none."""
        if not delta:
            return
        await self._control.pass_through()
        self._control.said += 1
        self.end_reasoning()
        if self._message is None:
            self._message = self._new_id("msg")
            self._writer.open(TextMessageStart(self._message), self._message, "text")
        await self._writer.text(self._message, delta)

    def end_message(self) -> None:
        """Ends the open message, so that the next `text()` begins another."""
        if self._message is not None:
            self._writer.close(self._message)
            self._message = None

    async def reasoning(self, delta: str) -> None:
        """Shows a part of the agent's reasoning; it ends where text begins."""
        if not delta:
            return
        await self._control.pass_through()
        self._control.said += 1
        if self._reasoning is None:
            self.end_message()
            self._reasoning = self._new_id("rsn")
            self._writer.open(ReasoningMessageStart(self._reasoning), self._reasoning, "reasoning")
        await self._writer.text(self._reasoning, delta)

    def end_reasoning(self) -> None:
        """Ends the open reasoning, if there is any."""
        if self._reasoning is not None:
            self._writer.close(self._reasoning)
            self._reasoning = None

    async def tool_call(self, name: str, args: Mapping[str, Any], *, tool_call_id: str | None = None) -> str:
        """Shows that the agent calls a tool; returns the call's id, for `tool_result`.

        A call without a result gets one that says so when the run is stopped or taken over.
        """
        await self._control.boundary()
        self._end_texts()
        id_ = tool_call_id or self._new_id("call")
        requested = ToolRequested(id_, name, args, "agent")
        check_size(requested)
        self._writer.open(ToolCallStart(id_, name), id_, "tool_call")
        await self._writer.text(id_, orjson.dumps(args).decode())
        self._writer.close(id_)
        self._control.called = True
        self._writer.record(requested)
        return id_

    async def tool_result(self, tool_call_id: str, content: str) -> None:
        """Shows what a tool gave back."""
        await self._record(ToolCallResult(self._new_id("res"), tool_call_id, content))
        await self._control.boundary()

    async def custom(self, name: str, value: Any) -> None:
        """An event of the application's own (AG-UI CUSTOM)."""
        await self._record(OtherEvent("CUSTOM", {"type": "CUSTOM", "name": name, "value": value}))

    async def state_snapshot(self, snapshot: Any) -> None:
        """The agent's shared state, whole (AG-UI STATE_SNAPSHOT)."""
        await self._record(OtherEvent("STATE_SNAPSHOT", {"type": "STATE_SNAPSHOT", "snapshot": snapshot}))

    async def pass_on(self, event: Mapping[str, Any]) -> None:
        """An event of another AG-UI agent that means nothing to the log: one of `PASSED_ON`, as it came."""
        if event.get("type") not in PASSED_ON:
            raise ValueError(f"only {', '.join(PASSED_ON)} are passed on")
        await self._record(OtherEvent(str(event["type"]), dict(event)))

    async def cacheable(self, max_age_s: int) -> None:
        """Says that what this run answers may be given again for `max_age_s` seconds after its end, to who may read it.

        Clients of HTTP are told so (`Cache-Control`). What was said last counts; 0 takes it back.
        """
        if not 0 <= max_age_s <= CACHEABLE_S_MAX:
            raise ValueError(f"max_age_s must be a whole number from 0 to {CACHEABLE_S_MAX}")
        await self._record(RunCacheable(self.run_id, max_age_s))

    def _say_attached(self, reference: Mapping[str, Any]) -> None:
        """An attachment belongs to the message that is open, or is a message of its own."""
        self.end_reasoning()
        if self._message is not None:
            self._writer.record(MessageAttached(self._message, [reference]))
            return
        id_ = self._new_id("msg")
        self._writer.open(TextMessageStart(id_), id_, "text")
        self._writer.record(MessageAttached(id_, [reference]))
        self._writer.close(id_)

    async def flush(self) -> None:
        """Returns when everything said so far is stored."""
        self._control.check()
        await self._writer.flush()

    def _end_texts(self) -> None:
        self.end_reasoning()
        self.end_message()

    async def _record(self, event: Event) -> None:
        self._control.check()
        check_size(event)
        self._writer.record(event)
        await self._writer.room()

    def _new_id(self, kind: str) -> str:
        self._ids += 1
        return f"{kind}_{self.run_id.removeprefix('run_')}_{self.attempt}_{self._ids}_{secrets.token_hex(2)}"
