"""What the hot paths are made of, each as a call that can be repeated: nothing here waits, or speaks to anybody.

What an entry is on its way: an agent's text, an entry (`say`, `encode`), a message from NATS (`receive`), a frame
(`frame`), bytes for a socket (`join`); what a state is made of (`decode`, `fold`); what a reader gets who comes late
(`replay`, `snapshot`), and what a client asks (`command`).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass

import orjson

from agent_worker.config import WorkerSettings
from agent_worker.lane import LaneQueue
from broker.codec import decode, decode_at, encode, frame
from broker.events import (
    Entry,
    Event,
    MessageSegment,
    Participant,
    RunFinished,
    RunStarted,
    SessionOwner,
    TextMessageContent,
    TextMessageEnd,
    TextMessageStart,
)
from broker.jetstream.client import LiveHandler, LiveParser
from broker.jetstream.tailing import _live_entry
from broker.session import fold
from broker.state import SessionState
from broker.subjects import Kind, Place
from broker.tail import Tail
from broker.view import public_view
from gateway import protocol
from gateway.framing import WEBSOCKET, framed
from gateway.replay import ReplayEntry, frames

SESSION = "budget"
WORD = "consider "
ENTRIES = 64
"""That come together."""
RUNS = 50
_AGENT = Participant("agent", "budget")
_MAIN = "main"
_TS = 1_700_000_000_000


@dataclass(frozen=True, slots=True)
class Part:
    """`act` does `times` of what is counted: it is called again and again."""

    act: Callable[[], object]
    times: int


def parts() -> Mapping[str, Part]:
    """All of them, with what they work on."""
    deltas = [_delta(i) for i in range(ENTRIES)]
    bodies = [encode(entry) for entry in deltas]
    one_frame = [frame(SESSION, i + 2, i + 1, body) for i, body in enumerate(bodies)]
    records = [encode(entry) for entry in _records()]
    state = _folded(records)
    replayed = [ReplayEntry(i + 2, i + 1, body, True) for i, body in enumerate(bodies)]
    return {
        "say": Part(_say, ENTRIES),
        "encode": Part(lambda: [encode(entry) for entry in deltas], ENTRIES),
        "receive": Part(_receiver(bodies), ENTRIES),
        "frame": Part(lambda: [frame(SESSION, i, i - 1, body) for i, body in enumerate(bodies)], ENTRIES),
        "join": Part(lambda: framed(WEBSOCKET, one_frame), ENTRIES),
        "decode": Part(lambda: [decode(body) for body in bodies], ENTRIES),
        "fold": Part(lambda: _folded(records), len(records)),
        "replay": Part(lambda: frames(SESSION, replayed, 1, merge=True), ENTRIES),
        "snapshot": Part(lambda: protocol.snapshot(SESSION, state.as_of, 0, public_view(state)), 1),
        "command": Part(_commander(), 1),
    }


def _delta(number: int) -> Entry:
    event = TextMessageContent("msg_1", WORD)
    return Entry(id=f"1-{number + 3}", ts=_TS, events=(event,), lane=_MAIN, off=number * len(WORD))


def _records() -> list[Entry]:
    """A claim, and runs of one answer each."""

    def at(number: int, run: int, *events: Event) -> Entry:
        return Entry(id=f"1-{number}", ts=_TS, events=events, lane=_MAIN, run=f"run_{run}", by=_AGENT)

    claim = SessionOwner(_MAIN, _AGENT.kind, _AGENT.id)
    entries = [Entry(id="claim-1", ts=_TS, events=(claim,), lane=_MAIN, by=_AGENT)]
    for run in range(RUNS):
        message, text = f"msg_{run}", WORD * 20
        began = RunStarted(SESSION, f"run_{run}"), TextMessageStart(message)
        segment = MessageSegment(message, 0, len(text), text, True, "complete")
        ended = segment, TextMessageEnd(message), RunFinished(SESSION, f"run_{run}")
        entries += [at(run * 2 + 1, run, *began), at(run * 2 + 2, run, *ended)]
    return entries


def _folded(records: list[bytes]) -> SessionState:
    state = SessionState()
    for seq, body in enumerate(records, 1):
        entry, _ = decode_at(Place(Kind.OWNER if seq == 1 else Kind.EVENT, _MAIN), body)
        state = fold(state, seq, entry)
    return state


def _say() -> None:
    """An agent that is slower than the log: each piece of text is an entry of its own."""
    settings = WorkerSettings()
    queue = LaneQueue(
        delta_chars=settings.delta_chars, segment_chars=settings.segment_chars, segment_deltas=settings.segment_deltas
    )
    queue.open(TextMessageStart("msg_1"), "msg_1", "text")
    queue.next_write()
    for _ in range(ENTRIES):
        queue.text("msg_1", WORD)
        queue.next_write()
    queue.close("msg_1")
    queue.next_write()


class _Client:
    """What the parser needs of a connection."""

    def __init__(self, handler: LiveHandler) -> None:
        self.live_handlers = {1: handler}


def _receiver(bodies: list[bytes]) -> Callable[[], object]:
    """From bytes of the socket to entries in their order."""
    data = b"".join(_live_message(i + 2, i + 1, body) for i, body in enumerate(bodies))

    def receive() -> None:
        tail = Tail(1)
        tail.on_head(None)
        delivered = 0

        def take(headers: bytes, body: bytes) -> None:
            nonlocal delivered
            live = _live_entry(headers, body)
            assert live is not None
            delivered += len(tail.on_live(live))

        _now(LiveParser(_Client(take)).parse(data))  # type: ignore[arg-type]
        assert delivered == len(bodies)

    return receive


def _live_message(seq: int, prev: int, body: bytes) -> bytes:
    head = (
        f"NATS/1.0\r\nNats-Stream: S_00\r\nNats-Subject: s.00.{SESSION}.d.{_MAIN}\r\nNats-Sequence: {seq}\r\n"
        f"Nats-Time-Stamp: 2026-01-01T00:00:00.123456789Z\r\nNats-Last-Sequence: {prev}\r\n\r\n"
    ).encode()
    line = f"HMSG live.00.{SESSION}.d.{_MAIN} 1 {len(head)} {len(head) + len(body)}\r\n"
    return line.encode() + head + body + b"\r\n"


def _now(act: Coroutine[None, None, None]) -> None:
    """Runs what has nothing to wait for."""
    try:
        act.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits")


def _commander() -> Callable[[], object]:
    wire = {"op": "input.send", "id": 7, "session": SESSION, "inputId": "i-1", "content": WORD * 10}
    text = orjson.dumps(wire).decode()
    return lambda: protocol.parse(text)
