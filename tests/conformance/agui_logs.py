"""Logs with all that a stream of AG-UI is made of, for test_agui.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from broker.events import (
    ApprovalRequested,
    ApprovalResponded,
    Entry,
    Event,
    InputApplied,
    MessageAttached,
    MessageSegment,
    OtherEvent,
    Participant,
    RunFinished,
    RunRequested,
    RunStarted,
    SessionOwner,
    StepFinished,
    StepStarted,
    TextMessageContent,
    TextMessageEnd,
    TextMessageStart,
    ToolCallEnd,
    ToolCallResult,
    ToolCallStart,
    ToolClaimed,
    ToolRequested,
    ToolResolved,
)
from broker.lease import WriteId
from tests.unit.strategies import SESSION, USER, SessionModel, kinds, texts

_CHILD = Participant("agent", "helper")
_OTHERS: list[dict[str, Any]] = [
    {"type": "CUSTOM", "name": "note", "value": {"a": [1, None]}},
    {"type": "CUSTOM", "value": 1},
    {"type": "RAW", "event": {"a": 1}, "source": 5},
    {"type": "STATE_SNAPSHOT", "snapshot": {"count": 1}},
    {"type": "STATE_DELTA", "delta": [{"op": "replace", "path": "/count", "value": 2}]},
    {"type": "STATE_DELTA", "delta": [{"op": "leap", "path": "/count"}]},
    {"type": "ACTIVITY_SNAPSHOT", "messageId": "act", "activityType": "plan", "content": {"a": 1}, "timestamp": "no"},
    {"type": "ACTIVITY_DELTA", "messageId": "act", "activityType": "plan", "patch": [{"op": "remove", "path": "/a"}]},
    {"type": "REASONING_START", "messageId": "x"},
    {"type": "TEXT_MESSAGE_CHUNK", "delta": "x"},
    {"type": "THINKING_START"},
    {"type": "tool.progress", "value": 1},
    {"type": "step.recorded", "stepId": "step_1", "name": "fetch", "asked": "ab"},
]


@dataclass
class AguiModel(SessionModel):
    """A session in which the agent also steps, asks, calls, and shares what it likes."""

    children: int = 0
    child: tuple[str, str, int, int] | None = None
    """Lane, run, fence and number of writes of the run that is asked for."""
    asked: list[str] = field(default_factory=list)
    calls: int = 0

    def go(self) -> None:
        """A run is under way."""
        if self.run is None:
            if not self.queue:
                self.send(len(self.fates))
            if not self.fence:
                self.claim(1)
            self.start()

    def step(self, name: str) -> None:
        if self.run is not None:
            self._write(StepStarted(name))

    def end_step(self, name: str) -> None:
        if self.run is not None:
            self._write(StepFinished(name))

    def other(self, which: int) -> None:
        if self.run is not None:
            body = _OTHERS[which]
            self._write(OtherEvent(body["type"], body))

    def stream(self, text: str, pieces: int) -> None:
        """A text as deltas, and (perhaps) what settles it."""
        if self.run is None or not text:
            return
        id_ = f"m{len(self.messages)}"
        self.messages.append((id_, text))
        self._write(TextMessageStart(id_))
        self.open[id_] = "text", 0
        size = max(1, len(text) // pieces)
        for off in range(0, len(text), size):
            self.n += 1
            delta = TextMessageContent(id_, text[off : off + size])
            self._store(Entry(str(WriteId(self.fence, self.n)), 1, (delta,), "main", off=off))

    def attach(self, which: int, media_type: str) -> None:
        """A file of the agent's own, or an attachment that it gives to what somebody has said."""
        if self.run is not None and self.messages:
            id_, _ = self.messages[which % len(self.messages)]
            reference = {"id": f"f{len(self.log)}", "name": "a file", "mediaType": media_type, "size": 1}
            self._write(MessageAttached(id_, [reference]))

    def use_tool(self, text: str) -> None:
        """A result of a call that was never shown; of each call there is one."""
        if self.run is not None:
            id_ = f"m{len(self.messages)}"
            self.messages.append((id_, text))
            self._write(ToolCallResult(id_, f"call-{id_}", text))

    def call(self, result: str) -> None:
        """A tool of the agent's own."""
        if self.run is None:
            return
        id_ = self._begin_call("look_up", "agent")
        message = f"m{len(self.messages)}"
        self.messages.append((message, result))
        self._write(ToolCallResult(message, id_, result))

    def call_page(self, answered: bool) -> None:
        if self.run is None:
            return
        id_ = self._begin_call("pick", "client")
        if answered:
            self._store(Entry(f"claim:{id_}", 1, (ToolClaimed(id_, "c", 100),), by=USER))
            self._store(Entry(f"result:{id_}", 2, (ToolResolved(id_, "c", 1),), by=USER))
            message = f"m{len(self.messages)}"
            self.messages.append((message, "1"))
            self._write(ToolCallResult(message, id_, "1"))

    def _begin_call(self, name: str, executor: str) -> str:
        self.calls += 1
        id_ = f"call{self.calls}"
        self.messages.append((id_, "{}"))
        end = MessageSegment(id_, 0, 2, "{}", True, "complete")
        self._write(ToolCallStart(id_, name), end, ToolCallEnd(id_))
        self._write(ToolRequested(id_, name, {}, executor))
        return id_

    def ask(self, decided: bool) -> None:
        if self.run is None:
            return
        id_ = f"apr{len(self.asked)}"
        self.asked.append(id_)
        self._write(ApprovalRequested(id_, "approval", "Go on?", ("allow_once", "reject_once"), "reject_once"))
        if decided:
            self._store(Entry(f"respond:{id_}", 1, (ApprovalResponded(id_, "allow_once"),), by=USER))

    # --- an agent that is asked --------------------------------------------------------------------------------------

    def ask_agent(self) -> None:
        if self.run is None or self.child is not None:
            return
        self.children += 1
        input_id, lane = f"ask{self.children}", f"helper-{self.children}"
        self._write(RunRequested(input_id, self.run, lane, "helper", "helper", "what is it?"))
        owner = SessionOwner(lane, "agent", "h")
        fence = self._store(Entry(f"own-{len(self.log)}", 1, (owner,), lane, by=_CHILD))
        self.child = lane, f"run_{input_id}", fence, 0
        message = f"msg_{input_id}"
        self.messages.append((message, "what is it?"))
        self._write_child(RunStarted("s", f"run_{input_id}"), InputApplied(input_id, f"run_{input_id}", message))

    def child_says(self, text: str, ends: bool) -> None:
        if self.child is None:
            return
        id_ = f"c{len(self.messages)}"
        self.messages.append((id_, text))
        end: list[Event] = [TextMessageEnd(id_)] if ends else []
        self._write_child(StepStarted("think"), TextMessageStart(id_), MessageSegment(id_, 0, len(text), text), *end)

    def child_ends(self, how: str) -> None:
        if self.child is not None:
            self._write_child(RunFinished("s", self.child[1], {"type": how}))
            self.child = None

    def _write_child(self, *events: Event) -> None:
        assert self.child is not None
        lane, run, fence, n = self.child
        self.child = lane, run, fence, n + 1
        self._store(Entry(str(WriteId(fence, n + 1)), 1, events, lane, run, _CHILD))


_names = st.sampled_from(["look", "say"])
_AGENTS = st.one_of(
    st.just(("go",)),
    st.tuples(st.just("step"), _names),
    st.tuples(st.just("end_step"), _names),
    st.tuples(st.just("other"), st.integers(0, len(_OTHERS) - 1)),
    st.tuples(st.just("stream"), texts, st.integers(1, 4)),
    st.tuples(st.just("say"), kinds, texts, st.booleans(), st.just(False)),
    st.tuples(st.just("attach"), st.integers(0, 20), st.sampled_from(["image/png", "text/plain"])),
    st.tuples(st.just("call"), texts),
    st.tuples(st.just("call_page"), st.booleans()),
    st.tuples(st.just("ask"), st.booleans()),
    st.just(("ask_agent",)),
    st.tuples(st.just("child_says"), texts, st.booleans()),
    st.tuples(st.just("child_ends"), st.sampled_from(["success", "cancelled"])),
)
_AGUI = st.integers(0, 4).flatmap(lambda n: _AGENTS if n else SESSION)
"""Mostly of what agents do: a session in which nothing runs has nothing to tell."""


@st.composite
def agui_sessions(draw: st.DrawFn, max_size: int = 50) -> AguiModel:
    model = AguiModel()
    model.go()
    for op, *args in draw(st.lists(_AGUI, min_size=5, max_size=max_size)):
        getattr(model, op)(*args)
    return model
