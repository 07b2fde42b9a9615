"""Checkpoints: where a reader may start instead of the log's beginning, and the index of older pages.

A checkpoint stands at a quiet place of the log (nothing runs, nothing waits), so it holds little: the session's config,
what is scheduled, fences, decisions for always, which inputIds were ever seen, how the latest inputs and runs ended. It is an aid: without it, or with one that cannot be
read, the log from its beginning gives the same state.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from broker import reading
from broker.codec import by_to_wire, participant_from_wire
from broker.depth import STORED_DEPTH_MAX, is_deeper
from broker.events import Participant
from broker.session_config import SessionConfig, config_to_wire, merged
from broker.state import Ended, InputFate, Lane, Remembered, ScheduledInput, Seen, SessionState
from broker.tail import StoredEntry

VERSION = 4
PAGE_MESSAGES = 50
"""Messages between two pages of the index, at least."""
KEEP_MESSAGES = 30
"""Messages that a joiner gets at least, if there are so many: the checkpoint stays that far behind the end."""
MAX_BYTES = 900_000
"""A larger checkpoint is not written (NATS takes messages up to 1 MiB by default); the one before stays good."""


@dataclass(frozen=True, slots=True)
class Page:
    """A quiet place: after entry `seq` there were `messages` messages, and the lanes had these fences.

    `humans` had lanes there; `config` and `closed` say what becomes of inputs from there on.
    """

    seq: int
    messages: int
    fences: Mapping[str, int]
    humans: Mapping[str, str] = field(default_factory=dict)
    config: SessionConfig = field(default_factory=SessionConfig)
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state at a quiet place, and the pages before it, oldest first."""

    state: SessionState
    pages: tuple[Page, ...] = ()


START = Checkpoint(SessionState())


def page_at(state: SessionState) -> Page:
    """The place of a quiet state."""
    fences = {name: lane.fence for name, lane in state.lanes.items()}
    humans = {name: lane.human.id for name, lane in state.lanes.items() if lane.human is not None}
    return Page(state.as_of, state.messages, fences, humans, state.config, state.closed)


def state_at(page: Page) -> SessionState:
    """Enough of the state at a page to fold the transcript from there on."""
    lanes = {
        name: Lane(fence=fence, owner=Participant("user", page.humans[name]) if name in page.humans else None)
        for name, fence in page.fences.items()
    }
    return SessionState(as_of=page.seq, lanes=lanes, messages=page.messages, config=page.config, closed=page.closed)


def advance(last: Checkpoint, places: list[SessionState], now: SessionState) -> Checkpoint | None:
    """The next checkpoint, or None if it is too early for one.

    `places` are the quiet states since `last`, oldest first; `now` is the newest state.
    """
    ripe = [s for s in places if s.as_of > last.state.as_of and now.messages - s.messages >= KEEP_MESSAGES]
    if not ripe:
        return None
    pages = list(last.pages)
    for state in ripe:
        if state.messages - (pages[-1].messages if pages else 0) >= PAGE_MESSAGES:
            pages.append(page_at(state))
    return Checkpoint(ripe[-1], tuple(pages))


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    state = checkpoint.state
    seen = b"".join(value.to_bytes(8, "big") for value in sorted(state.seen.hashes()))
    return orjson.dumps(
        {
            "version": VERSION,
            "asOf": state.as_of,
            "messages": state.messages,
            "lanes": {name: _lane_to_wire(lane) for name, lane in state.lanes.items()},
            "seen": base64.b64encode(seen).decode(),
            "fates": [_fate_to_wire(fate) for fate in state.fates],
            "ended": [[e.id, e.status, e.code] for e in state.ended],
            "scheduled": [_scheduled_to_wire(planned) for planned in state.scheduled],
            "session": _session_to_wire(state),
            **_pages_to_wire(checkpoint.pages),
        }
    )


def checkpoint_of(stored: StoredEntry | None) -> Checkpoint:
    """As `decode_checkpoint`. One that stands behind its own place in the log is none, either: it would have readers wait
    for entries that nobody has written.
    """
    checkpoint = decode_checkpoint(None if stored is None else stored.body)
    return START if stored is not None and checkpoint.state.as_of >= stored.seq else checkpoint


def decode_checkpoint(body: bytes | None) -> Checkpoint:
    """`START` for no checkpoint, one of another version, or bytes that are none."""
    if body is None:
        return START
    try:
        wire = orjson.loads(body)
        if wire["version"] != VERSION or is_deeper(wire, body, STORED_DEPTH_MAX):
            return START
        return _checkpoint_from_wire(wire)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError, IndexError):
        return START


def _checkpoint_from_wire(wire: dict[str, Any]) -> Checkpoint:
    seen = base64.b64decode(wire["seen"])
    hashes = frozenset(int.from_bytes(seen[i : i + 8], "big") for i in range(0, len(seen), 8))
    state = SessionState(
        as_of=reading.whole(wire["asOf"]),
        messages=reading.whole(wire["messages"]),
        lanes={name: _lane_from_wire(lane) for name, lane in wire["lanes"].items()},
        seen=Seen(hashes),
        fates=tuple(_fate_from_wire(fate) for fate in wire["fates"]),
        ended=tuple(
            Ended(reading.text(id_), reading.text(status), reading.maybe_text(code))
            for id_, status, code in wire["ended"]
        ),
        scheduled=tuple(_scheduled_from_wire(planned) for planned in wire["scheduled"]),
        **_session_from_wire(wire["session"]),
    )
    return Checkpoint(state, _pages_from_wire(wire))


def _pages_to_wire(pages: tuple[Page, ...]) -> dict[str, Any]:
    """There may be thousands of pages, of few configs: each config is written once."""
    configs: list[SessionConfig] = []
    rows = []
    for page in pages:
        if page.config not in configs:
            configs.append(page.config)
        row = [page.seq, page.messages, dict(page.fences), dict(page.humans), configs.index(page.config), page.closed]
        rows.append(row)
    return {"configs": [config_to_wire(config) for config in configs], "pages": rows}


def _pages_from_wire(wire: dict[str, Any]) -> tuple[Page, ...]:
    configs = [merged(SessionConfig(), config) for config in wire["configs"]]
    return tuple(
        Page(
            reading.whole(seq),
            reading.whole(messages),
            {lane: reading.whole(fence) for lane, fence in fences.items()},
            {lane: reading.text(human) for lane, human in humans.items()},
            configs[reading.whole(config)],
            reading.flag(closed),
        )
        for seq, messages, fences, humans, config, closed in wire["pages"]
    )


def _lane_to_wire(lane: Lane) -> dict[str, Any]:
    owner = by_to_wire(lane.owner)
    return {"fence": lane.fence, "owner": owner, "n": lane.last_n, "can": list(lane.can), "pool": lane.pool}


def _lane_from_wire(wire: dict[str, Any]) -> Lane:
    return Lane(
        fence=reading.whole(wire["fence"]),
        owner=participant_from_wire(wire["owner"]),
        last_n=reading.whole(wire["n"]),
        can=reading.texts(wire["can"]),
        pool=reading.maybe_text(wire["pool"]),
    )


def _session_to_wire(state: SessionState) -> dict[str, Any]:
    return {
        "title": state.title,
        "metadata": dict(state.metadata),
        "config": config_to_wire(state.config),
        "createdBy": by_to_wire(state.created_by),
        "createdSeq": state.created_seq,
        "closed": state.closed,
        "deletedSeq": state.deleted_seq,
        "remembered": {key: [r.option, by_to_wire(r.by), r.seq] for key, r in state.remembered.items()},
    }


def _session_from_wire(wire: dict[str, Any]) -> dict[str, Any]:
    """The fields of a SessionState."""
    remembered = {
        key: (reading.text(option), participant_from_wire(by), reading.whole(seq))
        for key, (option, by, seq) in wire["remembered"].items()
    }
    return {
        "title": reading.maybe_text(wire["title"]),
        "metadata": reading.thing(wire["metadata"]),
        "config": merged(SessionConfig(), wire["config"]),
        "created_by": participant_from_wire(wire["createdBy"]),
        "created_seq": reading.whole(wire["createdSeq"]),
        "closed": reading.flag(wire["closed"]),
        "deleted_seq": reading.whole(wire["deletedSeq"]),
        "remembered": {key: Remembered(o, by, seq) for key, (o, by, seq) in remembered.items() if by is not None},
    }


def _scheduled_to_wire(planned: ScheduledInput) -> dict[str, Any]:
    return {
        "inputId": planned.input_id,
        "seq": planned.seq,
        "ts": planned.ts,
        "by": by_to_wire(planned.by),
        "content": planned.content,
        "at": planned.at,
        "mode": planned.mode,
        "attachments": [dict(reference) for reference in planned.attachments],
    }


def _scheduled_from_wire(wire: dict[str, Any]) -> ScheduledInput:
    return ScheduledInput(
        reading.text(wire["inputId"]),
        reading.whole(wire["seq"]),
        reading.whole(wire["ts"]),
        participant_from_wire(wire["by"]),
        reading.text(wire["content"]),
        reading.whole(wire["at"]),
        reading.maybe_text(wire["mode"]),
        tuple(reading.thing(reference) for reference in wire["attachments"]),
    )


def _fate_to_wire(fate: InputFate) -> dict[str, Any]:
    return {
        "inputId": fate.input_id,
        "seq": fate.seq,
        "status": fate.status,
        "code": fate.code,
        "by": by_to_wire(fate.by),
        "run": fate.run,
    }


def _fate_from_wire(wire: dict[str, Any]) -> InputFate:
    return InputFate(
        reading.text(wire["inputId"]),
        reading.whole(wire["seq"]),
        reading.text(wire["status"]),
        reading.maybe_text(wire["code"]),
        participant_from_wire(wire["by"]),
        reading.maybe_text(wire["run"]),
    )
