"""How runs and inputs end, and what entries are about: what the projection asks of the log's events. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from broker.events import (
    Entry,
    Event,
    InputApplied,
    MessageSegment,
    ReasoningMessageEnd,
    ReasoningMessageStart,
    RunFinished,
    TextMessageEnd,
    TextMessageStart,
    ToolCallEnd,
    ToolCallResult,
    ToolCallStart,
)
from broker.session import counts
from broker.state import SessionState
from gateway.agui.content import Json
from gateway.agui.stream import usage_of

_CANCELLED = ("cancelled", "superseded", "parent_cancelled", "deleted")
"""Codes of inputs that somebody took back; the others are failures."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended. `kind` is success, cancelled (for `reason`) or error (with `code` and `message`)."""

    kind: str
    reason: str = "requested"
    code: str | None = None
    message: str = ""
    usage: tuple[Json, ...] = ()


def fates(before: SessionState, after: SessionState) -> Iterator[tuple[str, str | None, str | None]]:
    """What became of inputs that wait no longer: the run into which each went (None: it was for a human), or the code."""
    for queued in before.inputs:
        fate = None if after.queued(queued.input_id) is not None else after.fate(queued.input_id)
        if fate is not None:
            yield queued.input_id, fate.run, None if fate.status == "applied" else fate.code or fate.status


def counted(before: SessionState, after: SessionState, entry: Entry) -> bool:
    """Whether a record counts: it has its place, its fence, and is no repeated write."""
    if after is before or not counts(before, entry):
        return False
    return entry.lane is None or before.lanes.get(entry.lane) is not after.lanes.get(entry.lane)


def message_of(event: Event) -> str | None:
    match event:
        case TextMessageStart() | ReasoningMessageStart() | TextMessageEnd() | ReasoningMessageEnd():
            return event.message_id
        case ToolCallStart() | ToolCallEnd():
            return event.tool_call_id
        case MessageSegment() | ToolCallResult() | InputApplied():
            return event.message_id
        case _:
            return None


def ending_of(event: RunFinished) -> Ending:
    outcome: Any = event.outcome or {}
    if outcome.get("type") != "cancelled":
        return Ending("success", usage=tuple(usage_of(event.usage)))
    reason = outcome.get("reason")
    return Ending("cancelled", reason if isinstance(reason, str) else "requested")


def dropped(code: str) -> Ending:
    if code in _CANCELLED:
        return Ending("cancelled", code)
    return Ending("error", code=code, message=f"the input was not taken: {code}")


def failure(ending: Ending) -> tuple[str, str | None] | None:
    match ending.kind:
        case "success":
            return None
        case "cancelled":
            return f"the run was cancelled: {ending.reason}", "cancelled"
        case _:
            return ending.message, ending.code
