"""What an agent is given: the session as it stands, and ways to speak in it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from agent_worker.lane import EVENT_BYTES_MAX
from agent_worker.writer import LaneWriter
from broker.codec import event_to_wire
from broker.errors import AntiphonError
from broker.events import (
    Event,
    OtherEvent,
    ReasoningMessageStart,
    StepFinished,
    StepStarted,
    TextMessageStart,
    ToolCallResult,
    ToolCallStart,
)
from broker.state import Cancel, QueuedInput
from broker.transcript import Message

OnTakeover = Literal["continue", "restart", "fail"]


class RunEnded(AntiphonError):
    """The run has ended; nothing more can be said in it."""


class ContentTooLarge(AntiphonError):
    """An event is larger than the log takes; nothing of it was stored. Unhandled, it ends the run."""


class SessionContext:
    """An agent's place in a session, for one run.

    Text is stored before anyone sees it. `text()` and its like return as soon as the text is queued, and wait only
    when too much is queued; `flush()` returns when all of it is stored. All raise RunEnded after the run has ended,
    and LogError when the lane is lost; an agent need not handle either. Events of more than 256 KiB raise
    ContentTooLarge.
    """

    def __init__(
        self,
        writer: LaneWriter,
        *,
        session: str,
        lane: str,
        run_id: str,
        attempt: int,
        started_by: QueuedInput | None,
        said: str,
        history: Callable[[int], Awaitable[list[Message]]],
    ) -> None:
        self._writer = writer
        self._history = history
        self._message: str | None = None
        self._reasoning: str | None = None
        self._ended = False
        self._ids = 0
        self.session = session
        self.lane = lane
        self.run_id = run_id
        self.attempt = attempt
        """1 for the first worker of the run, more after a takeover."""
        self.input = started_by
        """What started the run."""
        self.said = said
        """What earlier attempts of this run have said to the people, as it stands in the transcript; "" on the first
        attempt, and for agents that restart."""
        self.cancel_reason: Cancel | None = None
        """Who stopped the run, once somebody has; the agent's task is cancelled at the same time."""

    async def history(self, limit: int = 50) -> list[Message]:
        """The last `limit` messages of the session, oldest first, the input of this run included."""
        return (await self._history(limit))[-limit:]

    async def text(self, delta: str) -> None:
        """Says `delta`, as a part of the message that is open; opens one if there is none."""
        if not delta:
            return
        self._check()
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
        self._check()
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

    @asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[None]:
        """A named step of the run, shown to the people."""
        self._check()
        self._writer.record(StepStarted(name))
        await self._writer.room()
        try:
            yield
        finally:
            if not self._ended:
                self._writer.record(StepFinished(name))

    async def tool_call(self, name: str, args: Mapping[str, Any], *, tool_call_id: str | None = None) -> str:
        """Shows that the agent calls a tool; returns the call's id, for `tool_result`."""
        self._check()
        self.end_reasoning()
        self.end_message()
        id_ = tool_call_id or self._new_id("call")
        self._writer.open(ToolCallStart(id_, name), id_, "tool_call")
        await self._writer.text(id_, orjson.dumps(args).decode())
        self._writer.close(id_)
        return id_

    async def tool_result(self, tool_call_id: str, content: str) -> None:
        """Shows what a tool gave back."""
        await self._record(ToolCallResult(self._new_id("res"), tool_call_id, content))

    async def custom(self, name: str, value: Any) -> None:
        """An event of the application's own (AG-UI CUSTOM)."""
        await self._record(OtherEvent("CUSTOM", {"type": "CUSTOM", "name": name, "value": value}))

    async def state_snapshot(self, snapshot: Any) -> None:
        """The agent's shared state, whole (AG-UI STATE_SNAPSHOT)."""
        await self._record(OtherEvent("STATE_SNAPSHOT", {"type": "STATE_SNAPSHOT", "snapshot": snapshot}))

    async def flush(self) -> None:
        """Returns when everything said so far is stored."""
        self._check()
        await self._writer.flush()

    def end(self) -> None:
        """For the runtime: nothing more is taken from the agent."""
        self._ended = True

    async def _record(self, event: Event) -> None:
        self._check()
        size = len(orjson.dumps(event_to_wire(event)))
        if size > EVENT_BYTES_MAX:
            raise ContentTooLarge(
                f"the event has {size} bytes, the limit is {EVENT_BYTES_MAX}: keep the data elsewhere"
            )
        self._writer.record(event)
        await self._writer.room()

    def _check(self) -> None:
        if self._ended:
            raise RunEnded("the run has ended")

    def _new_id(self, kind: str) -> str:
        self._ids += 1
        return f"{kind}_{self.run_id.removeprefix('run_')}_{self.attempt}_{self._ids}_{secrets.token_hex(2)}"


AgentFunction = Callable[[SessionContext], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent: its name, what it runs, and what becomes of a run whose worker has died.

    `continue`: the partial message is closed and the function is called again, with `ctx.said`; `restart`: the same,
    without; `fail`: the run ends with `worker_lost`. `prepare` is awaited once before the first run.
    """

    name: str
    run: AgentFunction
    on_takeover: OnTakeover = "continue"
    prepare: Callable[[], Awaitable[None]] | None = None
