"""What the log says of one input's answer, as chunks of the AI SDK's UI message stream. Pure.

An answer is what the agent says from the entry that applies an input until the next input is applied to the same run,
or the run ends; it is one assistant message, `run_` + the input's id. The same mapping is in the TypeScript client
(`src/ai-sdk/answer.ts`); both pass `tests/conformance/cases/ui-messages`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from broker.subjects import MAIN_LANE, run_id_of
from gateway.http.ui_messages.ballots import Ballot
from gateway.http.ui_messages.files import file_chunks
from gateway.http.ui_messages.tool_parts import ToolParts

Chunk = dict[str, Any]
Event = Mapping[str, Any]
Entry = Mapping[str, Any]

_LANE_ID = re.compile(r"(\d{1,19})-(\d{1,19})")
_Rules = Mapping[str, Callable[["Answer", Entry, Event], list[Chunk]]]
_KINDS = {"TEXT_MESSAGE": "text", "REASONING_MESSAGE": "reasoning"}


class Answer:
    """Takes the session's entries, in order, from the input's own on (or from any before it).

    `viewer` is the id of the user who looks at it: only calls that are for them are theirs to execute. `approvals`: the
    SDK knows tool approvals (version 6 and later). `epoch` is that of the log.
    """

    def __init__(self, input_id: str, viewer: str, epoch: str, *, approvals: bool = True) -> None:
        self.input_id = input_id
        self._epoch = epoch
        self.over = False
        """Nothing more comes."""
        self._approvals = approvals
        self._run: str | None = None
        self._started = False
        self._fence: int | None = None
        self._written = -1
        self._texts: dict[str, str] = {}
        """Texts that are open, and whether they are `text` or `reasoning`."""
        self._lengths: dict[str, int] = {}
        self._tools = ToolParts(viewer)
        self._ballots: dict[str, Ballot] = {}
        self._in_step = False
        self._step_due = True

    @property
    def waits_for(self) -> tuple[str, ...]:
        """The calls and approvals that the viewer is waited for with, once nothing is being said any more."""
        return () if self._texts or self._tools.streaming else self.awaited

    @property
    def awaited(self) -> tuple[str, ...]:
        """The calls and approvals whose output is up to the viewer."""
        return (*self._tools.waiting, *self._ballots)

    def replayed(self, chunks: Iterable[Chunk]) -> list[Chunk]:
        """What was told until now, for who begins to read: with calls that nobody has to execute any more as such."""
        told = {"providerExecuted": True}
        return [
            chunk | told
            if chunk["type"] == "tool-input-available" and chunk["toolCallId"] not in self.awaited
            else chunk
            for chunk in chunks
        ]

    def metadata(self, seq: int) -> Chunk:
        """Of the message as it is after the entry `seq`."""
        cursor = f"{self._epoch}:{seq}"
        return {"messageMetadata": {"runId": self._run, "cursor": cursor}} if self._started else {}

    def pause(self, seq: int) -> list[Chunk]:
        """Ends the stream while the viewer is waited for; it goes on after the entry `seq`."""
        return [{"type": "finish", "finishReason": "tool-calls", **self.metadata(seq)}]

    def fail(self, text: str) -> list[Chunk]:
        """Ends the answer with an error that is not in the log's entries."""
        self.over = True
        return [*self._close_texts(), {"type": "error", "errorText": text}]

    def withdraw(self, reason: str) -> list[Chunk]:
        """Ends an answer that never began: its input was taken back."""
        self.over = True
        return [{"type": "abort", "reason": reason}, {"type": "finish", "finishReason": "other"}]

    def take(self, entry: Entry) -> list[Chunk]:
        """What the entry adds."""
        if self.over:
            return []
        if not self._admits(entry):
            return self._elsewhere(entry)
        found: list[Chunk] = []
        for event in entry["events"]:
            if not self.over:
                found += self._take(entry, event)
        return found

    def _admits(self, entry: Entry) -> bool:
        """PROTOCOL, rule 1, for the main lane as far as it has been seen."""
        lane = entry.get("lane")
        if lane is None:
            return True
        if lane != MAIN_LANE:
            return False
        if [event["type"] for event in entry["events"]] == ["session.owner"]:
            self._fence, self._written = entry["seq"], -1
            return True
        match = _LANE_ID.fullmatch(entry["id"])
        if match is None:
            return False
        fence, number = int(match[1]), int(match[2])
        if self._fence is None:
            self._fence = fence
        if fence != self._fence:
            return False
        if "off" in entry:
            return True
        fresh = number > self._written
        self._written = max(number, self._written)
        return fresh

    def _elsewhere(self, entry: Entry) -> list[Chunk]:
        """The input of an agent that was asked has its answer in another lane, which is no part of the chat."""
        applied = [event.get("inputId") for event in entry["events"] if event["type"] == "input.applied"]
        if entry["lane"] == MAIN_LANE or self.input_id not in applied:
            return []
        self.over = True
        return [{"type": "finish", "finishReason": "stop"}]

    def _take(self, entry: Entry, event: Event) -> list[Chunk]:
        type_ = event["type"]
        if "lane" not in entry:
            participants = self._OF_PARTICIPANTS.get(type_)
            return [] if participants is None else participants(self, entry, event)
        if type_ == "input.applied":
            return self._applied(entry, event)
        if self._run is None or entry.get("run") not in (None, self._run):
            return []
        owners = self._OF_OWNERS.get(type_)
        return [] if owners is None else owners(self, entry, event)

    # --- the answer's beginning and end ------------------------------------------------------------------------------

    def _sent(self, _: Entry, event: Event) -> list[Chunk]:
        return [self._run_data("queued")] if event["inputId"] == self.input_id and self._run is None else []

    def _applied(self, entry: Entry, event: Event) -> list[Chunk]:
        if event["inputId"] == self.input_id and self._run is None:
            self._run = event["runId"]
            return [self._run_data("running")]
        if self._run is None or event.get("runId") != self._run:
            return []
        # What the agent says from here on answers another input.
        return [*self._end(), {"type": "finish", "finishReason": "other", **self.metadata(entry["seq"])}]

    def _finished(self, entry: Entry, event: Event) -> list[Chunk]:
        if event["runId"] != self._run:
            return []
        outcome = event.get("outcome") or {}
        cancelled = outcome.get("type") == "cancelled"
        aborted = [{"type": "abort", "reason": outcome.get("reason") or "cancelled"}] if cancelled else []
        reason = "other" if cancelled else "stop"
        return [*self._end(), *aborted, {"type": "finish", "finishReason": reason, **self.metadata(entry["seq"])}]

    def _failed(self, _: Entry, event: Event) -> list[Chunk]:
        code, message = event.get("code") or "agent_error", event.get("message") or ""
        return [*self._end(), {"type": "error", "errorText": f"{code}: {message}"}]

    def _deleted(self, entry: Entry, _: Event) -> list[Chunk]:
        reason = {"type": "abort", "reason": "deleted"}
        return [*self._end(), reason, {"type": "finish", "finishReason": "other", **self.metadata(entry["seq"])}]

    def _end(self) -> list[Chunk]:
        """Closes what is open. The last step has no tools in it: the SDK takes one that has for a reason to send again."""
        self.over = True
        chunks = self._close_texts()
        for id_ in (*self._tools.open, *self._ballots):
            chunks += self._ended(id_, {"type": "tool-output-error", "toolCallId": id_, "errorText": "not_run"})
        self._ballots.clear()
        if self._in_step and self._step_due:
            chunks += self._step()
        return chunks + ([{"type": "finish-step"}] if self._in_step else [])

    def _run_data(self, status: str, **more: Any) -> Chunk:
        data = {"inputId": self.input_id, "runId": self._run, "status": status, **more}
        return {"type": "data-run", "data": data, "transient": True}

    # --- texts -------------------------------------------------------------------------------------------------------

    def _content(self) -> list[Chunk]:
        """What must stand before anything that is said."""
        start: list[Chunk] = []
        if not self._started:
            self._started = True
            message_id = run_id_of(self.input_id)
            start = [{"type": "start", "messageId": message_id, "messageMetadata": {"runId": self._run}}]
        return start + (self._step() if self._step_due else [])

    def _step(self) -> list[Chunk]:
        ended = [{"type": "finish-step"}] if self._in_step else []
        self._in_step, self._step_due = True, False
        return [*ended, {"type": "start-step"}]

    def _opened(self, _: Entry, event: Event) -> list[Chunk]:
        kind = _KINDS[event["type"].removesuffix("_START")]
        id_ = event["messageId"]
        if id_ in self._lengths or (kind == "text" and event.get("role", "assistant") != "assistant"):
            return []
        self._texts[id_], self._lengths[id_] = kind, 0
        return [*self._content(), {"type": f"{kind}-start", "id": id_}]

    def _delta(self, entry: Entry, event: Event) -> list[Chunk]:
        return self._put(event.get("messageId", event.get("toolCallId")), entry.get("off", 0), event["delta"])

    def _segment(self, _: Entry, event: Event) -> list[Chunk]:
        return self._put(event["messageId"], event["offset"], event.get("text") or "")

    def _put(self, id_: str | None, offset: int, text: str) -> list[Chunk]:
        """As the fold puts texts together: what is known already adds nothing, what lies beyond the end waits."""
        if id_ is None or id_ not in self._lengths:
            return []
        length = self._lengths[id_]
        delta = text[length - offset :] if offset <= length else ""
        self._lengths[id_] = length + len(delta)
        if not delta:
            return []
        kind = self._texts.get(id_)
        return (
            self._tools.add_input(id_, delta)
            if kind is None
            else [{"type": f"{kind}-delta", "id": id_, "delta": delta}]
        )

    def _closed(self, _: Entry, event: Event) -> list[Chunk]:
        kind = self._texts.pop(event["messageId"], None)
        return [] if kind is None else [{"type": f"{kind}-end", "id": event["messageId"]}]

    def _attached(self, entry: Entry, event: Event) -> list[Chunk]:
        """Files of a text of this answer, also of one that is whole: they stand where they come."""
        chunks = file_chunks(event.get("attachments"), entry["session"]) if event["messageId"] in self._lengths else []
        return [*self._content(), *chunks] if chunks else []

    def _close_texts(self) -> list[Chunk]:
        chunks = [{"type": f"{kind}-end", "id": id_} for id_, kind in self._texts.items()]
        self._texts.clear()
        return chunks

    # --- tools -------------------------------------------------------------------------------------------------------

    def _call_opened(self, _: Entry, event: Event) -> list[Chunk]:
        id_ = event["toolCallId"]
        if id_ in self._lengths:
            return []
        self._lengths[id_] = 0
        return [*self._content(), *self._tools.begin(id_, event["toolCallName"])]

    def _call_closed(self, _: Entry, event: Event) -> list[Chunk]:
        return self._tools.end_input(event["toolCallId"])

    def _requested(self, _: Entry, event: Event) -> list[Chunk]:
        before = [] if self._tools.knows(event["toolCallId"]) else self._content()
        return [*before, *self._tools.request(event)]

    def _progressed(self, _: Entry, event: Event) -> list[Chunk]:
        data = {"toolCallId": event["toolCallId"], "value": event.get("value")}
        known = self._tools.knows(event["toolCallId"])
        return [{"type": "data-progress", "data": data, "transient": True}] if known else []

    def _resolved(self, _: Entry, event: Event) -> list[Chunk]:
        self._tools.resolve(event)
        return []

    def _call_failed(self, _: Entry, event: Event) -> list[Chunk]:
        self._tools.fail(event["toolCallId"], event["code"])
        return []

    def _result(self, _: Entry, event: Event) -> list[Chunk]:
        output = self._tools.output(event)
        return output if not output else self._ended(event["toolCallId"], *output)

    def _ended(self, id_: str, *chunks: Chunk) -> list[Chunk]:
        """A part has its output: what is said next is another step."""
        self._tools.forget(id_)
        self._step_due = True
        return list(chunks)

    # --- approvals, each a part of its own -----------------------------------------------------------------------------

    def _asked(self, _: Entry, event: Event) -> list[Chunk]:
        id_, kind = event["approvalId"], event.get("kind") or "approval"
        names = ("message", "options", "toolCallId", "details", "responseSchema", "expiresAt")
        shown = {name: event[name] for name in names if event.get(name) is not None}
        call = {"toolCallId": id_, "toolName": kind}
        self._ballots[id_] = Ballot(event)
        chunks = [*self._content(), {"type": "tool-input-available", **call, "input": shown}]
        if self._approvals and kind == "approval":
            chunks.append({"type": "tool-approval-request", "approvalId": id_, "toolCallId": id_})
        return chunks

    def _responded(self, entry: Entry, event: Event) -> list[Chunk]:
        ballot = self._ballots.get(event["approvalId"])
        option = None if ballot is None else ballot.vote(entry, event.get("option"))
        if option is None:
            return []
        answered = {"payload": event["payload"]} if event.get("payload") is not None else {}
        return self._decided(event["approvalId"], {"option": option, "by": entry["by"]["id"], **answered})

    def _undecided(self, _: Entry, event: Event) -> list[Chunk]:
        ballot = self._ballots.get(event["approvalId"])
        if ballot is None:
            return []
        default = ballot.event.get("default") if event["status"] == "expired" else None
        return self._decided(event["approvalId"], {"option": default, "by": None, "status": event["status"]})

    def _decided(self, id_: str, output: Chunk) -> list[Chunk]:
        del self._ballots[id_]
        return self._ended(id_, {"type": "tool-output-available", "toolCallId": id_, "output": output})

    # --- the rest ------------------------------------------------------------------------------------------------------

    def _next_step(self, _: Entry, __: Event) -> list[Chunk]:
        self._step_due = True
        return []

    def _held(self, _: Entry, event: Event) -> list[Chunk]:
        status = event.get("state")
        if status not in ("paused", "running"):
            return []
        return [self._run_data(status, **({"reason": event["reason"]} if event.get("reason") else {}))]

    def _state(self, _: Entry, event: Event) -> list[Chunk]:
        name, field = ("state", "snapshot") if event["type"] == "STATE_SNAPSHOT" else ("state-delta", "delta")
        return [{"type": f"data-{name}", "data": event.get(field), "transient": True}]

    def _custom(self, _: Entry, event: Event) -> list[Chunk]:
        data = {"name": event.get("name"), "value": event.get("value")}
        return [{"type": "data-custom", "data": data, "transient": True}]

    # --- which event is which ----------------------------------------------------------------------------------------

    _OF_PARTICIPANTS: ClassVar[_Rules] = {
        "input.sent": _sent,
        "session.deleted": _deleted,
        "tool.progress": _progressed,
        "tool.resolved": _resolved,
        "approval.responded": _responded,
    }
    _OF_OWNERS: ClassVar[_Rules] = {
        "RUN_FINISHED": _finished,
        "RUN_ERROR": _failed,
        "STEP_STARTED": _next_step,
        "TEXT_MESSAGE_START": _opened,
        "TEXT_MESSAGE_CONTENT": _delta,
        "TEXT_MESSAGE_END": _closed,
        "REASONING_MESSAGE_START": _opened,
        "REASONING_MESSAGE_CONTENT": _delta,
        "REASONING_MESSAGE_END": _closed,
        "message.segment": _segment,
        "message.attached": _attached,
        "TOOL_CALL_START": _call_opened,
        "TOOL_CALL_ARGS": _delta,
        "TOOL_CALL_END": _call_closed,
        "TOOL_CALL_RESULT": _result,
        "tool.requested": _requested,
        "tool.failed": _call_failed,
        "approval.requested": _asked,
        "approval.resolved": _undecided,
        "session.state": _held,
        "STATE_SNAPSHOT": _state,
        "STATE_DELTA": _state,
        "CUSTOM": _custom,
    }
