"""What a lane's run leaves open when it ends before its time, and the events that close it.

Used by whoever owns the lane: a worker that stops a run, or takes one over; a gateway, once a human has taken the lane.
After these events a transcript holds no text without an end and no call without a result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from broker.codec import event_to_wire
from broker.errors import ToolErrorCode
from broker.events import (
    EndReason,
    Event,
    MessageSegment,
    RunFinished,
    ToolCallResult,
    ToolFailed,
    ToolResolved,
    stream_end,
)
from broker.interfaces import SessionLog
from broker.lease import parse_write_id
from broker.loading import entry_of, read_entry
from broker.state import Call, OpenStream, SessionState
from broker.subjects import SessionSubjects
from broker.tail import StoredEntry
from broker.transcript import Message

RECORD_BYTES = 512 * 1024
"""Bytes of events that one closing record may have. NATS takes 1 MiB, the envelope included."""


async def closing_events(
    log: SessionLog, subjects: SessionSubjects, state: SessionState, lane: str, fence: int, reason: EndReason
) -> list[Event]:
    """Closes all that the lane's run has open: its texts, ended for `reason`, then its calls. Not the run itself.

    `fence` is the new owner's: of deltas, those written before it count. Raises Unavailable.
    """
    return [
        *await text_endings(log, subjects, state, lane, fence, reason),
        *await call_endings(log, subjects, state, lane),
    ]


async def text_endings(
    log: SessionLog, subjects: SessionSubjects, state: SessionState, lane: str, fence: int, reason: EndReason
) -> list[Event]:
    """Ends the texts that the former owner left open, with all that it had stored of them. Raises Unavailable."""
    events: list[Event] = []
    for stream in state.lane(lane).streams.values():
        rest = await _unsettled_text(log, subjects, lane, fence, stream)
        events.append(MessageSegment(stream.id, stream.settled, len(rest), rest, True, reason))
        events.append(stream_end(stream.kind, stream.id))
    return events


async def call_endings(log: SessionLog, subjects: SessionSubjects, state: SessionState, lane: str) -> list[Event]:
    """Gives every call of the lane's run that has no result in the transcript one, and ends those that are open.

    Raises Unavailable.
    """
    run, events = state.lane(lane).run, list[Event]()
    for call in state.calls.values():
        if call.run != run or call.answered:
            continue
        if call.status == "open":
            events += abandoned(call)
        elif call.status == "resolved":
            events.append(call_result(call.id, result_content(await read_resolved(log, subjects, call))))
        else:
            events.append(call_result(call.id, error_content(call.code or ToolErrorCode.ERROR.value)))
    # The agent was still writing the arguments: nobody can have executed that.
    for stream in state.lane(lane).streams.values():
        if stream.kind == "tool_call" and stream.id not in state.calls:
            events.append(call_result(stream.id, error_content(ToolErrorCode.NOT_RUN.value)))
    return events


def abandoned(call: Call) -> list[Event]:
    """Ends an open call whose run, or whose executor, is gone: what nobody has claimed has not been executed."""
    nobody = call.executor == "client" and not call.claims
    return call_failure(call.id, ToolErrorCode.NOT_RUN if nobody else ToolErrorCode.OUTCOME_UNKNOWN)


def call_failure(tool_call_id: str, code: ToolErrorCode, message: str | None = None) -> list[Event]:
    """Ends a call without a result, and says so in the transcript."""
    return [ToolFailed(tool_call_id, code.value), call_result(tool_call_id, error_content(code.value, message))]


def error_content(code: str, message: str | None = None) -> str:
    """The content of a TOOL_CALL_RESULT for a call without a result: a short JSON text that a model can read."""
    content = {"error": code} if message is None else {"error": code, "message": message}
    return orjson.dumps(content).decode()


def result_content(resolved: ToolResolved | None) -> str:
    """The content of a TOOL_CALL_RESULT for what a client sent: text as it is, anything else as JSON."""
    if resolved is None:
        return error_content(ToolErrorCode.OUTCOME_UNKNOWN.value)
    if resolved.error is not None:
        return error_content(ToolErrorCode.ERROR.value, resolved.error)
    return resolved.result if isinstance(resolved.result, str) else orjson.dumps(resolved.result).decode()


async def read_resolved(log: SessionLog, subjects: SessionSubjects, call: Call) -> ToolResolved | None:
    """The result that settled a resolved call; None if the entry that settled it holds none. Raises Unavailable."""
    entry = await read_entry(log, subjects, call.settled_seq)
    return next((e for e in entry.events if isinstance(e, ToolResolved) and e.tool_call_id == call.id), None)


def in_records(events: Sequence[Event]) -> Iterator[tuple[Event, ...]]:
    """Splits events, in order, into as few records as hold them. The same events are split in the same way, always."""
    record: list[Event] = []
    size = 0
    for event in events:
        more = len(orjson.dumps(event_to_wire(event)))
        if record and size + more > RECORD_BYTES:
            yield tuple(record)
            record, size = [], 0
        record.append(event)
        size += more
    if record:
        yield tuple(record)


def call_result(tool_call_id: str, content: str) -> ToolCallResult:
    """The result of a call, in the transcript."""
    # The id is made of the call's, so that two who close the same run write the same.
    return ToolCallResult(f"res_{tool_call_id}", tool_call_id, content)


def run_cancelled(session: str, run_id: str, reason: str) -> RunFinished:
    """Ends a run that was stopped; `reason` is that of its cancel, or unwatched, or handed_over."""
    return RunFinished(session, run_id, {"type": "cancelled", "reason": reason})


async def _unsettled_text(log: SessionLog, subjects: SessionSubjects, lane: str, fence: int, stream: OpenStream) -> str:
    """The text of a stream that is in deltas alone, written before `fence`."""
    text = Message(stream.id, "partial", 0)
    position, end = stream.settled_seq, False
    while not end:
        entries, end = await log.read_deltas(subjects, lane, position)
        for stored in entries:
            position = stored.seq
            _put(text, stored, stream, fence)
    return text.text


def _put(text: Message, stored: StoredEntry, stream: OpenStream, fence: int) -> None:
    entry = entry_of(stored)
    write = None if entry is None else parse_write_id(entry.id)
    if entry is None or write is None or write.fence >= fence or entry.off is None:
        return
    for event in entry.events:
        about: Any = getattr(event, "message_id", None) or getattr(event, "tool_call_id", None)
        if about == stream.id:
            text.put(entry.off - stream.settled, getattr(event, "delta", ""))
