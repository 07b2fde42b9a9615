"""What property tests draw from: texts, JSON, and logs that gateways and workers could have written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from agent_worker.lane import LaneQueue, StreamKind, Write
from broker.events import (
    Entry,
    Event,
    InputApplied,
    InputCancelRequested,
    InputFailed,
    InputSent,
    MessageAttached,
    MessageSegment,
    Participant,
    ReasoningMessageStart,
    RunCancelRequested,
    RunError,
    RunFinished,
    RunStarted,
    RunTakenOver,
    SessionOwner,
    TextMessageContent,
    TextMessageStart,
    ToolCallResult,
    ToolCallStart,
    stream_end,
)
from broker.lease import WriteId
from broker.session_config import MAX_QUEUE

USER = Participant("user", "user-1", "A user")
WORKER = Participant("agent", "echo", version="1.4.0")
LANE = "main"

Log = list[tuple[int, Entry]]
"""Entries with their sequences."""

texts = st.text(
    st.sampled_from('ab \n"\\\x00\u00e9\u00df\u65e5\u200d\U0001f469\U0001f3fd\U0001f600\U0001d4b3\U0010ffff'),
    max_size=12,
)
"""Texts in which code points, UTF-16 units and bytes differ."""
said = texts.filter(bool)
kinds: st.SearchStrategy[StreamKind] = st.sampled_from(["text", "reasoning", "tool_call"])

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def start_event(kind: StreamKind, id_: str) -> Event:
    match kind:
        case "text":
            return TextMessageStart(id_)
        case "reasoning":
            return ReasoningMessageStart(id_)
        case _:
            return ToolCallStart(id_, "look_up")


# --- one lane that speaks ----------------------------------------------------------------------------------------


@dataclass
class Speech:
    """What an agent said in one run of a lane, and the entries that a writer made of it."""

    entries: Log
    texts: dict[str, str]

    @property
    def records(self) -> Log:
        return [(seq, entry) for seq, entry in self.entries if entry.off is None]


SPEECH = st.one_of(
    st.tuples(st.just("open"), kinds),
    st.tuples(st.just("text"), st.integers(0, 3), said),
    st.tuples(st.just("text"), st.integers(0, 3), said),
    st.tuples(st.just("close"), st.integers(0, 3)),
    st.tuples(st.just("write"), st.integers(1, 4)),
    st.just(("settle",)),
)


@st.composite
def speeches(draw: st.DrawFn) -> Speech:
    """Texts through a `LaneQueue` with small limits, whatever the agent and the log do in between; all end."""
    queue = LaneQueue(
        delta_chars=draw(st.integers(1, 6)),
        segment_chars=draw(st.integers(1, 20)),
        segment_deltas=draw(st.integers(1, 5)),
    )
    speech = Speech([(1, Entry("own", 1, (SessionOwner(LANE, "agent", "w1"),), LANE, by=WORKER))], {})
    numbers = iter(range(1, 10_000))

    def write(count: int) -> None:
        for _, entry in zip(range(count), _entries_of(queue, 1, numbers), strict=False):
            speech.entries.append((speech.entries[-1][0] + 1, entry))

    for op, *args in draw(st.lists(SPEECH, max_size=30)):
        open_now = queue.open_streams()
        match op, args:
            case "open", [kind]:
                id_ = f"m{len(speech.texts)}"
                speech.texts[id_] = ""
                queue.open(start_event(kind, id_), id_, kind)
            case "text", [which, text] if open_now:
                id_ = open_now[which % len(open_now)]
                speech.texts[id_] += text
                queue.text(id_, text)
            case "close", [which] if open_now:
                queue.close(open_now[which % len(open_now)])
            case "write", [count]:
                write(count)
            case "settle", []:
                queue.settle()
    for id_ in queue.open_streams():
        queue.close(id_, "cancelled")
    write(10_000)
    return speech


def _entries_of(queue: LaneQueue, fence: int, numbers: Iterator[int]) -> Iterator[Entry]:
    while (write := queue.next_write()) is not None:
        yield entry_of(write, fence, next(numbers))


def entry_of(write: Write, fence: int, n: int) -> Entry:
    """The entry that a lane's writer makes of a write."""
    delta = write.off is not None
    by = None if delta else WORKER
    return Entry(str(WriteId(fence, n)), 1, write.events, LANE, None if delta else "run_x", by, write.off)


# --- a session -----------------------------------------------------------------------------------------------------


@dataclass
class SessionModel:
    """A session's log as gateways and workers write it, and what it comes to, worked out without the fold.

    `fates` has each input that was ever sent, once: queued, applied, cancelled, failed or refused.
    """

    log: Log = field(default_factory=list)
    queue: list[str] = field(default_factory=list)
    fates: dict[str, str] = field(default_factory=dict)
    fence: int = 0
    n: int = 0
    run: str | None = None
    attempt: int = 1
    open: dict[str, tuple[StreamKind, int]] = field(default_factory=dict)
    messages: list[tuple[str, str]] = field(default_factory=list)
    """Ids and texts, in order."""
    quiet: list[int] = field(default_factory=list)
    """Sequences at which a run ended and after which nothing runs and nothing waits."""
    taken_back: list[str] = field(default_factory=list)
    """Inputs taken back since the owner's last run ended: it may not know yet."""

    # --- participants ------------------------------------------------------------------------------------------------

    def send(self, number: int) -> None:
        input_id = f"i{number}"
        if input_id not in self.fates:
            full = len(self.queue) >= MAX_QUEUE
            self.fates[input_id] = "refused" if full else "queued"
            if not full:
                self.queue.append(input_id)
        attachments = [{"id": f"a{n}"} for n in range(number % 3)] or None
        self._store(Entry(input_id, 1, (InputSent(input_id, f"say {number}", None, attachments),), by=USER))

    def cancel_input(self, number: int) -> None:
        self._unqueue(f"i{number}", "cancelled")
        self._store(Entry(f"cancel-i{number}", 1, (InputCancelRequested(f"i{number}"),), by=USER))

    def cancel_run(self, number: int) -> None:
        if self.run != f"run_i{number}":
            self._unqueue(f"i{number}", "cancelled")
        self._store(Entry(f"cancel-run_i{number}", 1, (RunCancelRequested(f"run_i{number}"),), by=USER))

    # --- owners --------------------------------------------------------------------------------------------------------

    def claim(self, worker: int) -> None:
        """A worker takes the lane from whoever has it, and goes on with the run that it finds."""
        owner = SessionOwner(LANE, "agent", f"w{worker}")
        self.fence, self.n = self._store(Entry(f"own-{len(self.log)}", 1, (owner,), LANE, by=WORKER)), 0
        if self.run is not None:
            self.attempt += 1
            self._write(*self._endings("worker_lost"), RunTakenOver(self.run, self.attempt, "continue"))

    def release(self) -> None:
        if self.fence and self.run is None:
            released = Entry(f"own-{len(self.log)}", 1, (SessionOwner(LANE, "none"),), LANE, by=WORKER)
            self._store(released)
            self.fence = 0

    def start(self) -> None:
        if self.fence and self.run is None and self.queue:
            self._start(self.queue[0])

    def start_too_late(self) -> None:
        """The owner starts an input that was taken back while its record was on the way."""
        if self.fence and self.run is None and self.taken_back:
            self._start(self.taken_back[-1])

    def fail_input(self) -> None:
        if self.fence and self.run is None and self.queue:
            self._write(InputFailed(self.queue[0], "bad_input"))
            self._unqueue(self.queue[0], "failed")

    def say(self, kind: StreamKind, text: str, settle: bool, end: bool) -> None:
        """A text: a delta, then perhaps a segment, then perhaps its end."""
        if self.run is None:
            return
        id_ = f"m{len(self.messages)}"
        self.messages.append((id_, text))
        self._write(start_event(kind, id_))
        if settle:
            self._write(MessageSegment(id_, 0, len(text), text))
        self.open[id_] = kind, len(text) if settle else 0
        if end:
            self._write(*self._endings("complete"))

    def use_tool(self, text: str) -> None:
        if self.run is not None:
            id_ = f"m{len(self.messages)}"
            self.messages.append((id_, text))
            self._write(ToolCallResult(id_, "call", text))

    def end(self, how: str) -> None:
        if self.run is None:
            return
        ending: Event = RunError("it broke", "agent_error")
        if how != "error":
            ending = RunFinished("s", self.run, {"type": how})
        self._write(*self._endings("complete"), ending)
        self.run = None
        self.taken_back.clear()
        self._note_quiet()

    def repeat(self) -> None:
        """The last write once more: its outcome was not known. One is in flight, so nothing of the lane came between."""
        mine = [entry for _, entry in self.log if entry.lane is not None]
        if mine and self.fence and mine[-1].id == str(WriteId(self.fence, self.n)):
            self._store(mine[-1])

    # --- how it is written ---------------------------------------------------------------------------------------------

    def _start(self, input_id: str) -> None:
        run_id = f"run_{input_id}"
        self.run, self.attempt = run_id, 1
        if input_id in self.queue:
            self._unqueue(input_id, "applied")
            self.messages.append((f"msg_{input_id}", f"say {input_id[1:]}"))
        self._write(RunStarted("s", run_id), InputApplied(input_id, run_id, f"msg_{input_id}"))

    def _unqueue(self, input_id: str, fate: str) -> None:
        if input_id in self.queue:
            self.queue.remove(input_id)
            self.fates[input_id] = fate
            if fate == "cancelled":
                self.taken_back.append(input_id)

    def _endings(self, reason: str) -> list[Event]:
        events: list[Event] = []
        for id_, (kind, settled) in self.open.items():
            rest = dict(self.messages)[id_][settled:]
            events += [MessageSegment(id_, settled, len(rest), rest, True, reason), stream_end(kind, id_)]
        self.open.clear()
        return events

    def _write(self, *events: Event) -> None:
        self.n += 1
        self._store(Entry(str(WriteId(self.fence, self.n)), 1, events, LANE, self.run, WORKER))

    def _store(self, entry: Entry) -> int:
        """Every tenth sequence: what somebody else might have written fits between."""
        seq = (self.log[-1][0] if self.log else 0) + 10
        self.log.append((seq, entry))
        return seq

    def _note_quiet(self) -> None:
        if self.run is None and not self.queue and self.log[-1][0] not in self.quiet:
            self.quiet.append(self.log[-1][0])


_number = st.integers(0, 5)
SESSION = st.one_of(
    st.tuples(st.just("send"), st.integers(0, 40)),
    st.tuples(st.just("send"), _number),
    st.tuples(st.just("cancel_input"), _number),
    st.tuples(st.just("cancel_run"), _number),
    st.tuples(st.just("claim"), _number),
    st.just(("release",)),
    st.just(("start",)),
    st.just(("start",)),
    st.just(("start_too_late",)),
    st.just(("fail_input",)),
    st.tuples(st.just("say"), kinds, texts, st.booleans(), st.booleans()),
    st.tuples(st.just("use_tool"), texts),
    st.tuples(st.just("end"), st.sampled_from(["success", "cancelled", "error"])),
    st.just(("repeat",)),
)


@st.composite
def sessions(draw: st.DrawFn, max_size: int = 60) -> SessionModel:
    """A session that gateways and workers could have written."""
    model = SessionModel()
    for op, *args in draw(st.lists(SESSION, max_size=max_size)):
        getattr(model, op)(*args)
    return model


def zombie_events(model: SessionModel) -> st.SearchStrategy[Event]:
    """What a former owner would write: things that would matter if they counted."""
    run = st.sampled_from([model.run or "run_i1", "run_i0", "run_i2"])
    message = st.sampled_from([id_ for id_, _ in model.messages] or ["m0"])
    return st.one_of(
        st.builds(RunStarted, st.just("s"), run),
        st.builds(RunFinished, st.just("s"), run),
        st.builds(RunError, st.just("zombie")),
        st.builds(RunTakenOver, run, st.integers(5, 9), st.just("continue")),
        _number.map(lambda n: InputApplied(f"i{n}", f"run_i{n}", f"msg_zombie_{n}")),
        _number.map(lambda n: InputFailed(f"i{n}", "zombie")),
        st.builds(TextMessageStart, st.just("zombie")),
        st.builds(MessageSegment, message, _number, st.just(6), st.just("zombie"), st.just(True), st.just("error")),
        st.builds(MessageAttached, message, st.just([{"id": "zombie"}])),
        st.builds(ToolCallResult, st.just("zombie"), st.just("call"), st.just("zombie")),
    )


@st.composite
def haunted_sessions(draw: st.DrawFn) -> tuple[SessionModel, Log]:
    """A session, and its log with what others wrote under fences that are not the lane's: old, none, or not yet."""
    model = draw(sessions())
    haunted: Log = []
    fences = [seq for seq, entry in model.log if entry.id.startswith("own-")]
    for seq, entry in model.log:
        haunted.append((seq, entry))
        current = max((fence for fence in fences if fence <= seq), default=None)
        for number in range(draw(st.integers(0, 2))):
            fence = draw(st.sampled_from([fence for fence in (0, 7, *fences) if fence != current]))
            id_ = f"{fence}-{draw(st.integers(1, 99))}"
            zombie = Entry(id_, 1, (draw(zombie_events(model)),), LANE, by=WORKER)
            if draw(st.booleans()):
                text = TextMessageContent(model.messages[-1][0] if model.messages else "m0", "zombie")
                zombie = Entry(id_, 1, (text,), LANE, off=draw(st.integers(0, 3)))
            haunted.append((seq + 1 + number, zombie))
    return model, haunted
