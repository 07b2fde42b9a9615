"""A session's log as turns: what was said to the agent, and what it did about it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from broker.events import (
    Entry,
    InputApplied,
    RunError,
    RunFinished,
    RunTakenOver,
    StepStarted,
    ToolCallResult,
    ToolRequested,
)
from broker.session import counts, fold
from broker.state import SessionState
from broker.subjects import MAIN_LANE
from broker.transcript import Transcript


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A tool that the agent has used, its own or a client's; `result` is the text that the transcript has, None without."""

    name: str
    args: Any
    result: str | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """A run of the agent. `kind` is success, cancelled (`code` is the reason), error (with `code`), or running.

    `inputs` are what it was given, with what came in the middle of it. `text` is all that it said to people, in all its
    messages; `steps` are the names of those it showed, one for each time. `attempts` counts the workers it has had.
    """

    run_id: str
    lane: str
    kind: str = "running"
    code: str | None = None
    inputs: tuple[str, ...] = ()
    text: str = ""
    reasoning: str = ""
    steps: tuple[str, ...] = ()
    calls: tuple[ToolUse, ...] = ()
    attempts: int = 1
    message: str = ""
    """What the event of an error says."""


class _Open:
    """A turn that is being put together."""

    def __init__(self, run_id: str, lane: str) -> None:
        self.run_id, self.lane = run_id, lane
        self.kind = "running"
        self.code: str | None = None
        self.message = ""
        self.attempts = 1
        self.inputs: list[str] = []
        self.steps: list[str] = []
        self.calls: dict[str, ToolUse] = {}

    def take(self, event: object) -> None:
        match event:
            case InputApplied():
                self.inputs.append(event.message_id)
            case StepStarted():
                self.steps.append(event.step_name)
            case ToolRequested():
                self.calls[event.tool_call_id] = ToolUse(event.name, event.args)
            case ToolCallResult():
                self._result(event)
            case RunTakenOver():
                self.attempts = event.attempt
            case RunFinished():
                outcome = event.outcome or {}
                self.kind, self.code = str(outcome.get("type", "success")), outcome.get("reason")
            case RunError():
                self.kind, self.code, self.message = "error", event.code, event.message
            case _:
                pass

    def _result(self, event: ToolCallResult) -> None:
        use = self.calls.get(event.tool_call_id, ToolUse("", None))
        self.calls[event.tool_call_id] = ToolUse(use.name, use.args, str(event.content))

    def closed(self, transcript: Transcript) -> Turn:
        own = [m for m in transcript.messages if m.run == self.run_id]
        texts = {m.id: m.text for m in own}
        return Turn(
            self.run_id,
            self.lane,
            self.kind,
            self.code,
            tuple(texts[id_] for id_ in self.inputs if id_ in texts),
            "".join(m.text for m in own if m.role == "assistant"),
            "".join(m.text for m in own if m.role == "reasoning"),
            tuple(self.steps),
            tuple(self.calls.values()),
            self.attempts,
            self.message,
        )


def turns_of(entries: Iterable[tuple[int, Entry]], lane: str | None = MAIN_LANE) -> list[Turn]:
    """The turns of a lane (None: of all), in the order in which they began. `entries` are the whole log, in order."""
    transcript, runs = Transcript(), dict[str, _Open]()
    for seq, entry in entries:
        before = transcript.state
        transcript.apply(seq, entry)
        if entry.lane is None or entry.run is None or not counts(before, entry):
            continue
        if lane in (None, entry.lane):
            run = runs.setdefault(entry.run, _Open(entry.run, entry.lane))
            for event in entry.events:
                run.take(event)
    return [run.closed(transcript) for run in runs.values()]


def state_of(entries: Iterable[tuple[int, Entry]]) -> SessionState:
    """The state that the log comes to."""
    state = SessionState()
    for seq, entry in entries:
        state = fold(state, seq, entry)
    return state
