"""A session's log as one AG-UI stream: entries in, the events of one run out. Pure.

The log holds AG-UI events, but not as one reader of one run must get them: lanes run side by side, deltas come merged or
not at all, workers die in mid-step, others speak in between, and a reader may come when half of it is over. What counts
is decided by the fold (`broker.transcript`); a stream is what changes in its messages and its state, told in AG-UI's
words. The TypeScript client has the same projection; both are held to `tests/conformance/agui`.

One stream is a window on the session's main lane: from where its reader begins to the end of the run that it waits for.
Runs of agents that were asked are its subagents.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import get_args

from broker.events import (
    Delta,
    Entry,
    Event,
    InputApplied,
    MessageAttached,
    MessageSegment,
    MessagesImported,
    OtherEvent,
    ReasoningMessageEnd,
    ReasoningMessageStart,
    RunError,
    RunFinished,
    RunStarted,
    RunTakenOver,
    SessionDeleted,
    StepFinished,
    StepStarted,
    TextMessageEnd,
    TextMessageStart,
    ToolCallEnd,
    ToolCallResult,
    ToolCallStart,
    stream_id,
)
from broker.session import counts
from broker.state import Call, SessionState
from broker.subjects import MAIN_LANE, input_id_of
from broker.transcript import Message, Transcript
from gateway.agui.content import Json
from gateway.agui.endings import Ending, counted, dropped, ending_of, failure, fates, message_of
from gateway.agui.events import SHARED_STATE, passed_on
from gateway.agui.interrupts import Page, Waiting, interrupt, waiting_for
from gateway.agui.messages import (
    Reader,
    conversation,
    is_question,
    shown_id,
    subagent_of,
)
from gateway.agui.stream import Stream
from gateway.agui.told import Told


class Projection:
    """Folds a session from `load` on; tells of it from `begin` on, until it is `over`."""

    def __init__(self, thread_id: str, run_id: str, page: Page, *, modern: bool) -> None:
        self._page = page
        self._stream = Stream(thread_id, run_id, modern=modern)
        self._told = Told(Reader(thread_id, modern), self._stream)
        self._transcript = Transcript()
        self._older: tuple[Message, ...] = ()
        self._live = False
        self._left: list[Json] = []
        """What closes the texts that were open when the log had to be folded anew."""
        self._seq = 0
        self._target: str | None = None
        self._target_seq = 0
        self._told_ending: Ending | None = None
        self._forget()

    def _forget(self) -> None:
        self._runs: dict[str, str] = {}
        """The run of each lane."""
        self._endings: dict[str, Ending] = {}
        self._applied: dict[str, str | None] = {}
        """The run into which each input went; None: it was for a human."""
        self._dropped: dict[str, str] = {}
        self._steps: dict[str, list[str]] = {}
        """Open steps of each lane."""
        self._shared: list[Json] = []
        """The agent's shared state: its last snapshot, and the changes since."""

    @property
    def over(self) -> bool:
        """The stream has had its last event."""
        return self._stream.over

    @property
    def state(self) -> SessionState:
        return self._transcript.state

    # --- folding -------------------------------------------------------------------------------------------------------

    def load(self, state: SessionState) -> None:
        """Begins to fold from a state on. Whatever was folded is void."""
        if self._live:
            self._stream.close_texts()
            self._left = self._stream.take()
            self._live = False
        self._forget()
        self._transcript = Transcript(state)
        self._older = ()
        self._seq = state.as_of
        self._runs = {run.lane: run.run_id for run in state.runs.values()}

    def take(self, seq: int, entry: Entry) -> list[Json]:
        """The events that an entry is; none before `begin`."""
        before, had = self._transcript.state, len(self._transcript.messages)
        self._transcript.apply(seq, entry)
        self._seq = max(self._seq, seq)
        if entry.off is not None:
            if counts(before, entry):
                self._grow_all(entry)
        elif counted(before, self.state, entry):
            self._note_inputs(before)
            for event in entry.events:
                self._tell(seq, entry, event, before)
            for message in self._transcript.messages[had:]:
                self._spoken(message)
            self._told.tell_files(self.shown)
            self._settle()
        return self._stream.take()

    def _grow_all(self, entry: Entry) -> None:
        for event in entry.events:
            message = self._transcript.message(stream_id(event)) if isinstance(event, get_args(Delta)) else None
            if message is not None:
                self._stream.grow(message)

    # --- the stream's beginning ------------------------------------------------------------------------------------------

    def shown(self) -> list[Json]:
        """The session's messages as AG-UI has them."""
        return conversation((*self._older, *self._transcript.messages), self._told.reader)

    def lacks(self, client: Sequence[Json]) -> bool:
        """Whether a client with these messages lacks something of the log, as far as that is known here."""
        return self._told.lacks(client, self.shown())

    def remember(self, older: Iterable[Message]) -> None:
        """What was before `load`, as far as it is to be shown."""
        self._older = tuple(older)

    def begin(self, client: Sequence[Json], fresh: Sequence[Json] = ()) -> list[Json]:
        """The stream's first events, for a client that has these messages and is about to send the `fresh` ones.

        A client that lacks something of the log, or has it otherwise, gets a snapshot; texts that are open are begun
        again, with what there is of them in the snapshot.
        """
        self._live = True
        self._told.expect(client, fresh)
        self._stream.begin()
        shown = self.shown()
        self._told.begin(shown)
        self._open_all()
        self._told.note_all(shown)
        for event in self._shared:
            self._stream.say(event)
        return self._stream.take()

    def again(self) -> list[Json]:
        """Goes on after the log was folded anew (`load`), because entries had been missed."""
        self._live = True
        self._told.show(self.shown())
        self._open_all()
        self._settle()
        left, self._left = self._left, []
        return left + self._stream.take()

    def _open_all(self) -> None:
        for lane, run_id in self._runs.items():
            self._start_subagent(lane, run_id)
        for lane, names in self._steps.items():
            for name in names:
                self._stream.start_step(self._tag(lane), name)
        for message in self._transcript.messages:
            if message.status == "streaming" and not message.rolled_back:
                self._stream.start_text(message, message.length if self._told.has(message) else 0)
                self._stream.grow(message)

    # --- what the stream waits for -----------------------------------------------------------------------------------------

    def aim(self, run_id: str | None, seq: int = 0, ending: Ending | None = None) -> list[Json]:
        """Says with which run the stream ends; None: with the main lane's, or the one that is next.

        The run's input is in the log by entry `seq`; `ending` is how the run ended, if that lies before what is folded.
        """
        if run_id is None:
            waiting = next((i for i in self.state.inputs if i.lane == MAIN_LANE), None)
            run_id = self._runs.get(MAIN_LANE) or (None if waiting is None else f"run_{waiting.input_id}")
        if run_id is None:
            self._finish(ending or Ending("success"))
        else:
            self._target, self._target_seq, self._told_ending = run_id, seq, ending
            self._settle()
        return self._stream.take()

    def waiting(self, now: int) -> Waiting:
        """What the page can give. `now` is in ms since 1970."""
        return waiting_for(self.state, self._page, now)

    def interrupt(self, waiting: Waiting) -> list[Json]:
        """Ends the stream, because the user has to decide. The log's run goes on waiting."""
        self._stream.interrupt([interrupt(approval) for approval in waiting.approvals])
        return self._stream.take()

    def hand_over(self, calls: Sequence[Call]) -> list[Json]:
        """Ends the stream, because the page has to execute these calls, which it has claimed."""
        self._stream.finish(calls)
        return self._stream.take()

    def fail(self, message: str, code: str) -> list[Json]:
        """Ends the stream, because it cannot go on: without an error its client would take it for a whole answer."""
        self._stream.fail(message, code)
        return self._stream.take()

    def succeed(self) -> list[Json]:
        """Ends the stream, because there is nothing to wait for."""
        self._finish(Ending("success"))
        return self._stream.take()

    def _settle(self) -> None:
        """Ends the stream if nothing more comes of the run that it waits for."""
        run_id = self._target
        if not self._live or run_id is None or self.over or run_id in self._runs.values():
            return
        input_id = input_id_of(run_id)
        if run_id in self._endings:
            self._finish(self._endings[run_id])
        elif self.state.queued(input_id) is not None:
            return
        elif input_id in self._dropped:
            self._finish(dropped(self._dropped[input_id]))
        elif self._applied.get(input_id, run_id) != run_id:
            self._move(self._applied[input_id])
        elif self._seq >= self._target_seq:
            self._finish(self._told_ending or Ending("success"))

    def _move(self, run_id: str | None) -> None:
        """The input went into another run, or to a human, who answers in messages of no run."""
        if run_id is None:
            self._finish(Ending("success"))
        else:
            self._target = run_id
            self._settle()

    def _finish(self, ending: Ending) -> None:
        self._told.tell_files(self.shown)
        match ending.kind:
            case "cancelled":
                self._stream.cancel(ending.reason)
            case "error":
                self._stream.fail(ending.message, ending.code)
            case _:
                self._stream.finish(usage=ending.usage)

    # --- records -------------------------------------------------------------------------------------------------------------

    def _note_inputs(self, before: SessionState) -> None:
        for input_id, run_id, code in fates(before, self.state):
            if code is None:
                self._applied[input_id] = run_id
            else:
                self._dropped[input_id] = code

    def _tell(self, seq: int, entry: Entry, event: Event, before: SessionState) -> None:
        if isinstance(event, SessionDeleted) and entry.lane is None:
            self._deleted()
        elif isinstance(event, MessagesImported):
            if self._live and before.untouched:
                self._told.show(self.shown())
        elif entry.lane is not None:
            self._tell_of_lane(seq, entry.lane, event, before)

    def _tell_of_lane(self, seq: int, lane: str, event: Event, before: SessionState) -> None:
        match event:
            case RunStarted():
                self._started(lane, event.run_id, before)
            case RunTakenOver():
                self._steps.pop(lane, None)
                self._stream.close_of(self._tag(lane))
            case RunFinished() if self._runs.get(lane) == event.run_id:
                self._ended(lane, ending_of(event))
            case RunError() if lane in self._runs:
                self._ended(lane, Ending("error", code=event.code, message=event.message))
            case StepStarted():
                self._steps.setdefault(lane, []).append(event.step_name)
                if self._live:
                    self._stream.start_step(self._tag(lane), event.step_name)
            case StepFinished():
                if event.step_name in self._steps.get(lane, ()):
                    self._steps[lane].remove(event.step_name)
                self._stream.finish_step(self._tag(lane), event.step_name)
            case MessageAttached():
                message = self._transcript.message(event.message_id)
                if self._live and message is not None and message.lane == lane:
                    self._told.note_files(message)
            case OtherEvent():
                self._pass_on(event)
            case _:
                self._tell_of_text(seq, event)

    def _tell_of_text(self, seq: int, event: Event) -> None:
        message = self._transcript.message(message_of(event) or "")
        if message is None or not self._live:
            return
        match event:
            case TextMessageStart() | ReasoningMessageStart() | ToolCallStart():
                if message.seq == seq:
                    self._stream.start_text(message)
                    self._stream.grow(message)
            case MessageSegment():
                self._stream.grow(message)
            case TextMessageEnd() | ReasoningMessageEnd() | ToolCallEnd():
                self._stream.grow(message)
                self._stream.end_text(shown_id(message))
            case ToolCallResult() if message.seq == seq and event.tool_call_id not in self._told.reader.results:
                self._stream.result(message)
            case InputApplied() if message.seq == seq:
                self._appear(message)

    def _appear(self, message: Message) -> None:
        """A message that comes whole; the client has its own already."""
        if not self._told.has(message) and not is_question(message):
            self._told.note(message)
            self._stream.whole_text(message)
            self._told.note_files(message)

    def _spoken(self, message: Message) -> None:
        """What people say to a human who has the lane, and what that one says."""
        if self._live and message.run is None and message.status == "done" and message.role in ("user", "assistant"):
            self._appear(message)

    def _pass_on(self, event: OtherEvent) -> None:
        told = passed_on(event.body)
        if told is None:
            return
        if told["type"] in SHARED_STATE:
            self._shared = [told] if told["type"] == "STATE_SNAPSHOT" else [*self._shared, told]
        if self._live:
            self._stream.say(told)

    # --- runs ------------------------------------------------------------------------------------------------------------------

    def _tag(self, lane: str) -> str | None:
        return subagent_of(lane, self._runs.get(lane))

    def _started(self, lane: str, run_id: str, before: SessionState) -> None:
        if lane in self._runs or run_id in self._runs.values():
            return
        self._runs[lane] = run_id
        self._steps.pop(lane, None)
        if self._live:
            self._start_subagent(lane, run_id, before)

    def _start_subagent(self, lane: str, run_id: str, before: SessionState | None = None) -> None:
        if lane == MAIN_LANE:
            return
        run = self.state.runs.get(run_id)
        asked = None if before is None else before.queued(input_id_of(run_id))
        name = (run.agent if run is not None else None) or lane
        question = next((m for m in self._transcript.messages if m.run == run_id and is_question(m)), None)
        about = asked.content if asked is not None else "" if question is None else question.text
        parent = run.parent if run is not None else None
        self._stream.start_subagent(run_id, name, about, parent)

    def _ended(self, lane: str, ending: Ending) -> None:
        tag = self._tag(lane)
        run_id = self._runs.pop(lane)
        self._endings[run_id] = ending
        self._steps.pop(lane, None)
        if not self._live:
            return
        self._stream.close_of(tag)
        if tag is not None:
            self._stream.finish_subagent(tag, failure(ending))
        if any(m.rolled_back and m.run == run_id for m in self._transcript.messages):
            self._told.show(self.shown())
        if run_id == self._target:
            self._finish(ending)

    def _deleted(self) -> None:
        self._forget()
        self._older = ()
        if self._live:
            self._stream.fail("the session was deleted", "session_deleted")
