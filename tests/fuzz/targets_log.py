"""Whole logs, from whoever may write to NATS: a hostile worker, a newer one, one that has a fault.

Data is a line for each entry, `<where> <body>`, as in `targets.place_and_body`; the first is entry 10, the next 20.
"""

from __future__ import annotations

from typing import Any

import orjson

from broker.checkpoint import Checkpoint, advance, decode_checkpoint, encode_checkpoint, page_at, state_at
from broker.codec import decode_at, entry_from_wire
from broker.events import Entry
from broker.loading import Loaded
from broker.session import fold
from broker.state import SessionState
from broker.subjects import Kind
from broker.tail import MAX_BUFFERED, LiveEntry, StoredEntry, Tail
from broker.transcript import Transcript
from broker.view import public_view
from gateway import protocol
from gateway.agui.projection import Page, Projection
from gateway.http.ui_messages.answer import Answer
from gateway.reader import _replay_entry
from gateway.replay import frames
from tests.fuzz.targets import place_and_body

ENTRIES_MAX = 400
"""Entries of a log; what is beyond is not looked at."""
WHO = "user-1"


def stored(data: bytes) -> list[StoredEntry]:
    """The log, as NATS has it."""
    lines = [line for line in data.split(b"\n") if place_and_body(line) is not None][:ENTRIES_MAX]
    found = []
    for number, line in enumerate(lines, 1):
        where, _, body = line.partition(b" ")
        found.append(StoredEntry(number * 10, f"s.00.mine.{where.decode('ascii')}", body))
    return found


def sent(log: list[StoredEntry], *, merge: bool) -> list[dict[str, Any]]:
    """The frames that a client gets of a log: replayed entry by entry, or merged."""
    taken = [entry for entry in map(_replay_entry, log) if entry is not None]
    return [orjson.loads(payload) for payload in frames("mine", taken, 0, merge=merge)]


def decoded(log: list[StoredEntry]) -> list[tuple[int, Entry]]:
    found = [(entry.seq, place_and_body(f"{entry.subject.split('.', 3)[3]} ".encode() + entry.body)) for entry in log]
    return [(seq, decode_at(*place)[0]) for seq, place in found if place is not None]


def logs(data: bytes) -> None:
    """A log is folded, shown, put into a checkpoint and read from it: by gateways, workers, AG-UI and the AI SDK."""
    log = stored(data)
    transcript, quiet = Transcript(), []
    state = SessionState()
    for seq, entry in decoded(log):
        state = fold(state, seq, entry)
        before = transcript.state
        transcript.apply(seq, entry)
        assert public_view(transcript.state) == public_view(state)
        if state.idle and before.runs:
            quiet.append(state)
    # A message whose id another one has is counted, and is none.
    assert state.messages >= len(transcript.messages)
    said = protocol.snapshot("mine", state.as_of, state.messages, public_view(state))
    told = orjson.dumps([message.as_dict() for message in transcript.messages])
    assert len(said) + len(told) <= 60 * len(data) + 4_000, "more comes out than went in"
    _checkpoints(state, quiet)
    _told(log)


def _checkpoints(state: SessionState, quiet: list[SessionState]) -> None:
    checkpoint = Checkpoint(state, tuple(map(page_at, quiet)))
    if state.idle:
        again = decode_checkpoint(encode_checkpoint(checkpoint))
        assert public_view(again.state) == public_view(state)
        assert again.pages == checkpoint.pages
    advance(Checkpoint(SessionState()), quiet, state)


def _told(log: list[StoredEntry]) -> None:
    """What pages are told that speak AG-UI, or use the AI SDK."""
    wires = sent(log, merge=True)
    assert [wire["seq"] for wire in wires] == sorted(wire["seq"] for wire in wires)
    inputs = dict.fromkeys(
        str(event.get("inputId")) for wire in wires for event in wire["events"] if event["type"] == "input.sent"
    )
    for input_id in [*inputs, "i1"][:3]:
        answer = Answer(input_id, WHO, "e")
        orjson.dumps([answer.take(wire) for wire in wires])
    for modern in (True, False):
        projection = Projection("mine", "run_i1", Page(WHO), modern=modern)
        projection.load(SessionState())
        half = len(wires) // 2
        for wire in wires[:half]:
            projection.take(wire["seq"], entry_from_wire(wire))
        events = [*projection.begin(())]
        for wire in wires[half:]:
            events += projection.take(wire["seq"], entry_from_wire(wire))
        orjson.dumps(events)


def checkpoints(data: bytes) -> None:
    """A checkpoint: one that cannot be read is none; one that can is a state from which everything goes on."""
    checkpoint = decode_checkpoint(data)
    for state in (checkpoint.state, *map(state_at, checkpoint.pages[:50])):
        loaded = Loaded(checkpoint, Transcript(state), [])
        protocol.snapshot("mine", state.as_of, state.messages, public_view(state))
        for number, line in enumerate(GOING_ON.split(b"\n"), 1):
            where, _, body = line.partition(b" ")
            loaded.apply(StoredEntry(2**40 + number, f"s.00.mine.{where.decode()}", body))
        assert decode_checkpoint(encode_checkpoint(Checkpoint(loaded.state))).state.as_of == loaded.state.as_of
    assert len(encode_checkpoint(checkpoint)) <= 12 * len(data) + 2_000


GOING_ON = b"""r.in {"id":"j1","ts":1,"by":{"kind":"user","id":"user-1"},"events":[{"type":"input.sent","inputId":"j1","content":"Hi"}]}
r.own.main {"id":"own","lane":"main","ts":1,"events":[{"type":"session.owner","lane":"main","kind":"agent","id":"w"}]}
r.ev.main {"id":"1099511627778-1","lane":"main","ts":1,"events":[{"type":"RUN_STARTED","threadId":"mine","runId":"run_j1"},{"type":"input.applied","inputId":"j1","runId":"run_j1","messageId":"msg_j1"}]}"""


def tails(data: bytes) -> None:
    """A reader's place in a log, told anything in any order: each two bytes are something that happens to it."""
    tail = Tail(data[0] if data else 0)
    head = 0
    for op, value in zip(data[1::2], data[2::2], strict=False):
        entry = StoredEntry(value * (1 + op // 64), f"s.00.mine.r.{op % 3}", b"")
        match op % 6:
            case 0:
                out = tail.on_live(LiveEntry(entry, op // 16))
            case 1:
                head = max(head, value)
                out = tail.on_head(StoredEntry(head, "s.00.mine.r.0", b""))
            case 2:
                out = tail.on_head(None)
            case 3:
                later = [StoredEntry(tail.fetch_after + n, f"s.00.mine.r.{n % 3}", b"") for n in range(1, value % 5)]
                out = tail.on_batch(later, end=bool(op & 64))
            case 4:
                out = tail.on_batch([], end=True)
            case _:
                tail.disturbed()
                out = []
        assert len(out) <= MAX_BUFFERED + 300
        assert len(tail._buffer) <= MAX_BUFFERED
        assert not any(kind is Kind.DELTA for kind in out)
