"""What a recorded session has of a conversation: what people and others did, so that it can be done to another agent. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from antiphon.testing.turns import Turn, turns_of
from broker.events import (
    ApprovalResponded,
    Entry,
    InputApplied,
    Participant,
    RunRequested,
    RunStarted,
    SessionCreated,
    SessionUpdated,
    ToolResolved,
)
from broker.session import fold
from broker.state import QueuedInput, SessionState
from broker.subjects import MAIN_LANE, run_id_of


@dataclass(frozen=True, slots=True)
class Scene:
    """What people said for one run: `inputs` before it, `steering` in the middle of it; and what the agent did, `turn`."""

    turn: Turn
    inputs: tuple[str, ...]
    steering: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answered:
    """What a client gave back for a call of a tool: a result, or an `error`."""

    tool: str
    args: Any
    result: Any = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Vote:
    """What somebody chose."""

    by: Participant
    option: str
    payload: Any = None


@dataclass(frozen=True, slots=True)
class Decided:
    """How an approval or a question was answered."""

    message: str
    votes: tuple[Vote, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """What another agent said when it was asked."""

    agent: str
    content: str
    text: str


@dataclass(slots=True)
class Recording:
    """A session, as far as it can be replayed."""

    scenes: list[Scene] = field(default_factory=list)
    answered: list[Answered] = field(default_factory=list)
    decided: list[Decided] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def tools(self) -> list[str]:
        """Names of the tools that clients have executed."""
        return list(dict.fromkeys(answer.tool for answer in self.answered))

    @property
    def agents(self) -> list[str]:
        """Names of the other agents that were asked."""
        return list(dict.fromkeys(asked.agent for asked in self.asked))


def recorded(entries: Sequence[tuple[int, Entry]]) -> Recording:
    """Reads a whole log."""
    reading, state = _Reading(), SessionState()
    for seq, entry in entries:
        before, state = state, fold(state, seq, entry)
        if entry.off is None:
            reading.take(before, state, entry)
    turns = turns_of(entries, None)
    reading.recording.scenes = reading.scenes([turn for turn in turns if turn.lane == MAIN_LANE])
    texts = {turn.run_id: turn.text for turn in turns}
    reading.recording.asked = [
        Asked(agent, content, texts.get(run_id, "")) for run_id, (agent, content) in reading.requested.items()
    ]
    return reading.recording


class _Reading:
    def __init__(self) -> None:
        self.recording = Recording()
        self.requested: dict[str, tuple[str, str]] = {}
        """By the run that it became: whom an agent asked what."""
        self._begun: dict[str, list[str]] = {}
        self._steered: dict[str, list[str]] = {}
        self._payloads: dict[str, dict[str, Any]] = {}
        """Of approvals that wait, by who voted."""

    def take(self, before: SessionState, state: SessionState, entry: Entry) -> None:
        starts = any(isinstance(event, RunStarted) for event in entry.events)
        for event in entry.events:
            match event:
                case SessionCreated() | SessionUpdated():
                    self.recording.config.update(event.config or {})
                case InputApplied():
                    self._applied(before, event, begins=starts)
                case RunRequested():
                    self.requested[run_id_of(event.input_id)] = event.agent, event.content
                case ToolResolved():
                    self._resolved(before, state, event)
                case ApprovalResponded():
                    self._responded(state, entry, event)
                case _:
                    pass

    def _applied(self, before: SessionState, event: InputApplied, *, begins: bool) -> None:
        queued: QueuedInput | None = before.queued(event.input_id)
        if queued is not None and queued.lane == MAIN_LANE:
            (self._begun if begins else self._steered).setdefault(event.run_id, []).append(queued.content)

    def _resolved(self, before: SessionState, state: SessionState, event: ToolResolved) -> None:
        was, call = before.calls.get(event.tool_call_id), state.calls.get(event.tool_call_id)
        if was is not None and call is not None and (was.status, call.status) == ("open", "resolved"):
            self.recording.answered.append(Answered(was.name, was.args, event.result, event.error))

    def _responded(self, state: SessionState, entry: Entry, event: ApprovalResponded) -> None:
        approval = state.approvals.get(event.approval_id)
        if approval is None or entry.by is None:
            return
        payloads = self._payloads.setdefault(approval.id, {})
        payloads.setdefault(entry.by.id, event.payload)
        if approval.status == "resolved" and self._payloads.pop(approval.id, None) is not None:
            votes = tuple(Vote(vote.by, vote.option, payloads.get(vote.by.id)) for vote in approval.votes)
            self.recording.decided.append(Decided(approval.message, votes))

    def scenes(self, turns: Sequence[Turn]) -> list[Scene]:
        return [
            Scene(turn, tuple(self._begun.get(turn.run_id, ())), tuple(self._steered.get(turn.run_id, ())))
            for turn in turns
            if turn.run_id in self._begun
        ]


def lines_of(turn: Turn, what: Mapping[str, bool]) -> list[str]:
    """A turn for people, and for comparing: of `steps`, `calls`, `text` and `end`, those that are wanted."""
    lines = [f"> {text}" for text in turn.inputs]
    if what["steps"]:
        lines += [f"step {name}" for name in turn.steps]
    if what["calls"]:
        lines += [f"call {use.name} {json.dumps(use.args, sort_keys=True, ensure_ascii=False)}" for use in turn.calls]
    if what["text"]:
        lines += turn.text.splitlines()
    if what["end"]:
        lines.append(f"ended: {turn.kind}" + (f" ({turn.code})" if turn.code else ""))
    return lines
