"""One AG-UI stream as its reader's verifier sees it: what is open in it, and the events that open and close it. Pure.

The verifiers of `@ag-ui/client` end a run at the first event that has no place: a text that is ended twice, a step that
is begun twice, anything open at the end. So every event is made here, where it is known what is open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from broker.events import AGUI_PROTOCOL_VERSION
from broker.state import Call
from broker.transcript import Message
from gateway.agui.content import Json
from gateway.agui.messages import role_of, shown_id, subagent_of

_TEXTS = {"reasoning": "reasoning", "tool_call": "tool_call"}


class Stream:
    """Collects events. `modern`: its reader speaks AG-UI 1.0; else that of `@ag-ui/client` 0.0.59."""

    def __init__(self, thread_id: str, run_id: str, *, modern: bool) -> None:
        self._ids = {"threadId": thread_id, "runId": run_id}
        self._modern = modern
        self._events: list[Json] = []
        self._texts: dict[str, tuple[str, str | None]] = {}
        """Open texts in the order of their start: what kind, of which subagent."""
        self._sent: dict[str, int] = {}
        """How much of each text the reader has, of those that were ever open here."""
        self._steps: dict[str | None, list[str]] = {}
        self._subagents: dict[str, bool] = {}
        """Those that were begun: whether they still are."""
        self._told: set[str] = set()
        """Calls that were begun here: a reader looks at no others when the run ends."""
        self.over = False

    def take(self) -> list[Json]:
        """The events since the last time."""
        events, self._events = self._events, []
        return events

    def say(self, event: Json, subagent: str | None = None) -> None:
        if not self.over:
            self._events.append(event if subagent is None else event | {"subagentRunId": subagent})

    # --- the run -----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        version = {"protocolVersion": AGUI_PROTOCOL_VERSION} if self._modern else {}
        self.say({"type": "RUN_STARTED", **self._ids, **version})

    def finish(self, pending: Sequence[Call] = (), usage: Sequence[Json] = ()) -> None:
        """The run is a success; `pending` are calls that its reader executes.

        Older readers know those by their having no result, and by a run that does not say how it ended.
        """
        for call in pending:
            self._tell(call)
        outcome: Json | None = {"type": "success"}
        if pending:
            outcome = {"type": "success", "pendingToolCallIds": [c.id for c in pending]} if self._modern else None
        self._end(outcome, {"usage": list(usage)} if usage else {})

    def cancel(self, reason: str) -> None:
        """To a reader that knows no cancelled runs it is an error: as a success it would be taken for a whole answer."""
        if self._modern:
            self._end({"type": "cancelled"}, {"metadata": {"antiphon": {"reason": reason}}})
        else:
            self.fail(f"the run was cancelled: {reason}", "cancelled")

    def interrupt(self, interrupts: Sequence[Json]) -> None:
        self.close(_by_subagent(interrupts))
        self._end({"type": "interrupt", "interrupts": list(interrupts)}, {})

    def fail(self, message: str, code: str | None) -> None:
        self.say({"type": "RUN_ERROR", "message": message, **({} if code is None else {"code": code})})
        self.over = True

    def _end(self, outcome: Json | None, more: Json) -> None:
        self.close()
        said = {} if outcome is None else {"outcome": outcome}
        self.say({"type": "RUN_FINISHED", **self._ids, **said, **more})
        self.over = True

    def close(self, interrupted: Mapping[str, Sequence[str]] | None = None) -> None:
        """Closes all that is open. A subagent that is still at work is suspended, for `interrupted` by what it waits for."""
        self.close_texts()
        for tag in [tag for tag, active in self._subagents.items() if active]:
            ids = (interrupted or {}).get(tag)
            outcome: Json = {"type": "suspended"} | ({"interruptIds": list(ids)} if ids else {})
            self._end_subagent(tag, {"type": "SUBAGENT_FINISHED", "outcome": outcome})

    def close_texts(self) -> None:
        """Closes the texts and steps of everybody."""
        for tag in dict.fromkeys([None, *(owner for _, owner in self._texts.values()), *self._steps]):
            self.close_of(tag)

    def close_of(self, tag: str | None) -> None:
        """Closes the texts and steps of a subagent; None: of the main agent."""
        for id_ in [id_ for id_, (_, owner) in self._texts.items() if owner == tag]:
            self.end_text(id_)
        for name in reversed(self._steps.pop(tag, [])):
            self.say({"type": "STEP_FINISHED", "stepName": name}, tag)

    # --- texts -------------------------------------------------------------------------------------------------------

    def start_text(self, message: Message, had: int = 0) -> None:
        """Begins a text, or begins again one of which the reader has the first `had` code points."""
        id_ = shown_id(message)
        if id_ in self._texts:
            return
        tag = subagent_of(message.lane, message.run)
        kind = _TEXTS.get(message.role, "text")
        self._texts[id_] = kind, tag
        self._sent[id_] = had
        match kind:
            case "reasoning":
                self.say({"type": "REASONING_START", "messageId": id_}, tag)
                self.say({"type": "REASONING_MESSAGE_START", "messageId": id_, "role": "reasoning"}, tag)
            case "tool_call":
                self._told.add(id_)
                self.say({"type": "TOOL_CALL_START", "toolCallId": id_, "toolCallName": message.name or ""}, tag)
            case _:
                self.say({"type": "TEXT_MESSAGE_START", "messageId": id_, "role": role_of(message)}, tag)

    def grow(self, message: Message) -> None:
        """Says what the reader does not have of an open text."""
        id_ = shown_id(message)
        if id_ not in self._texts:
            return
        delta, self._sent[id_] = message.text[self._sent[id_] :], message.length
        if delta:
            match self._texts[id_][0]:
                case "reasoning":
                    self.say({"type": "REASONING_MESSAGE_CONTENT", "messageId": id_, "delta": delta})
                case "tool_call":
                    self.say({"type": "TOOL_CALL_ARGS", "toolCallId": id_, "delta": delta})
                case _:
                    self.say({"type": "TEXT_MESSAGE_CONTENT", "messageId": id_, "delta": delta})

    def end_text(self, id_: str) -> None:
        opened = self._texts.pop(id_, None)
        match None if opened is None else opened[0]:
            case None:
                return
            case "reasoning":
                self.say({"type": "REASONING_MESSAGE_END", "messageId": id_})
                self.say({"type": "REASONING_END", "messageId": id_})
            case "tool_call":
                self.say({"type": "TOOL_CALL_END", "toolCallId": id_})
            case _:
                self.say({"type": "TEXT_MESSAGE_END", "messageId": id_})

    def whole_text(self, message: Message) -> None:
        self.start_text(message)
        self.grow(message)
        self.end_text(shown_id(message))

    def result(self, message: Message) -> None:
        tag = subagent_of(message.lane, message.run)
        wire = {"messageId": message.id, "toolCallId": message.tool_call_id, "content": message.text, "role": "tool"}
        self.say({"type": "TOOL_CALL_RESULT", **wire}, tag)

    def _tell(self, call: Call) -> None:
        """The reader has the call from before, with its arguments: this only has it looked at."""
        if call.id not in self._told:
            self._told.add(call.id)
            self.say({"type": "TOOL_CALL_START", "toolCallId": call.id, "toolCallName": call.name})
            self.say({"type": "TOOL_CALL_END", "toolCallId": call.id})

    # --- steps and subagents -------------------------------------------------------------------------------------------

    def start_step(self, tag: str | None, name: str) -> None:
        """Begins a step; one of that name which is open has been left by a worker that is gone."""
        self.finish_step(tag, name)
        self._steps.setdefault(tag, []).append(name)
        self.say({"type": "STEP_STARTED", "stepName": name}, tag)

    def finish_step(self, tag: str | None, name: str) -> None:
        if name in self._steps.get(tag, ()):
            self._steps[tag].remove(name)
            self.say({"type": "STEP_FINISHED", "stepName": name}, tag)

    def start_subagent(self, tag: str, name: str, about: str, parent: str | None) -> None:
        """Once for each stream: what comes of it after its end is still marked as its own."""
        if tag in self._subagents:
            return
        self._subagents[tag] = True
        event: Json = {"type": "SUBAGENT_STARTED", "subagentRunId": tag, "name": name}
        if about:
            event["description"] = about
        if parent in self._subagents:
            event["parentSubagentRunId"] = parent
        self.say(event)

    def finish_subagent(self, tag: str, failure: tuple[str, str | None] | None) -> None:
        if not self._subagents.get(tag):
            return
        self.close_of(tag)
        if failure is None:
            self._end_subagent(tag, {"type": "SUBAGENT_FINISHED", "outcome": {"type": "success"}})
            return
        message, code = failure
        error: Json = {"type": "SUBAGENT_ERROR", "message": message}
        self._end_subagent(tag, error if code is None else error | {"code": code})

    def _end_subagent(self, tag: str, event: Json) -> None:
        self._subagents[tag] = False
        self.say(event | {"subagentRunId": tag})


def _by_subagent(interrupts: Sequence[Json]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for interrupt in interrupts:
        if "subagentRunId" in interrupt:
            found.setdefault(interrupt["subagentRunId"], []).append(interrupt["id"])
    return found


def usage_of(value: Any) -> list[Json]:
    """Token usage as AG-UI has it, as far as it is such."""
    entries = value if isinstance(value, list) else []
    return [kept for entry in entries if isinstance(entry, dict) and (kept := _usage_entry(entry))]


_LABELS = ("provider", "model")
_COUNTS = ("inputTokens", "outputTokens", "totalTokens", "reasoningTokens", "cachedInputTokens")


def _usage_entry(entry: Json) -> Json:
    return {
        name: value
        for name, value in entry.items()
        if (name in _LABELS and isinstance(value, str))
        or (name in _COUNTS and isinstance(value, int) and not isinstance(value, bool) and value >= 0)
    }
