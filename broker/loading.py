"""Reading a session's state and messages from its log, from the newest place that serves."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from broker.checkpoint import START, Checkpoint, Page, checkpoint_of, page_at, state_at
from broker.codec import VOID, decode_at
from broker.errors import Unavailable
from broker.events import Entry
from broker.interfaces import Of, SessionLog
from broker.session import fold
from broker.state import SessionState
from broker.subjects import SessionSubjects, place_of
from broker.tail import StoredEntry
from broker.transcript import Message, Transcript

_STALE_WAIT_S = 0.02
_STALE_TRIES = 250


@dataclass(slots=True)
class Loaded:
    """A session as of the end of its log: its transcript since `checkpoint`, and the quiet states on the way.

    Quiet is where a run has ended and nothing else runs or waits: whoever wrote the end has folded all cancels before it,
    so nothing after such a place refers to what was queued before.
    """

    checkpoint: Checkpoint
    transcript: Transcript
    quiet: list[SessionState]

    @property
    def state(self) -> SessionState:
        return self.transcript.state

    def apply(self, stored: StoredEntry) -> None:
        """Folds the next record."""
        entry = entry_of(stored)
        if entry is None:
            return
        before = self.state
        self.transcript.apply(stored.seq, entry)
        if self.state.idle and before.runs:
            self.quiet.append(self.state)


def entry_of(stored: StoredEntry) -> Entry | None:
    """What a stored entry says, as far as its writer had the right to; None for a place that this version does not know."""
    place = place_of(stored.subject)
    return None if place is None else decode_at(place, stored.body)[0]


async def load_state(log: SessionLog, subjects: SessionSubjects) -> SessionState:
    """The state alone, without the messages. Raises Unavailable."""
    state = checkpoint_of(await log.read_checkpoint(subjects)).state
    position, end = state.as_of, False
    while not end:
        entries, end = await log.read(subjects, position, Of.RECORDS)
        for stored in entries:
            entry = entry_of(stored)
            if entry is not None:
                state = fold(state, stored.seq, entry)
            position = stored.seq
    return state


async def load(log: SessionLog, subjects: SessionSubjects) -> Loaded:
    """The session from its newest checkpoint and the records after it. Raises Unavailable."""
    checkpoint = checkpoint_of(await log.read_checkpoint(subjects))
    loaded = Loaded(checkpoint, Transcript(checkpoint.state), [])
    position, end = checkpoint.state.as_of, False
    while not end:
        entries, end = await log.read(subjects, position, Of.RECORDS)
        for stored in entries:
            loaded.apply(stored)
            position = stored.seq
    return loaded


async def read_entry(log: SessionLog, subjects: SessionSubjects, seq: int) -> Entry:
    """The record at a place that has been folded; waits for a replica that lags behind it. Raises Unavailable."""
    for _ in range(_STALE_TRIES):
        page, _ = await log.read(subjects, seq - 1, Of.RECORDS)
        if page:
            return (entry_of(page[0]) if page[0].seq == seq else None) or VOID
        await asyncio.sleep(_STALE_WAIT_S)
    raise Unavailable("a replica of the log stays behind")


async def read_messages(log: SessionLog, subjects: SessionSubjects, before: int, want: int) -> list[Message]:
    """The last messages that were added before entry `before`, oldest first: `want` of them or more, if there are.

    Text is as far as records have it. Raises Unavailable.
    """
    checkpoint = checkpoint_of(await log.read_checkpoint(subjects))
    places = (page_at(START.state), *checkpoint.pages, page_at(checkpoint.state))
    found: list[Message] = []
    end = before
    for page in reversed(places):
        if page.seq + 1 >= end:
            continue
        found = await _messages_between(log, subjects, page, end) + found
        end = page.seq + 1
        if len(found) >= want:
            break
    return found


async def _messages_between(log: SessionLog, subjects: SessionSubjects, page: Page, before: int) -> list[Message]:
    transcript = Transcript(state_at(page))
    position, end = page.seq, False
    while not end and (position < before or _streaming(transcript, before)):
        entries, end = await log.read(subjects, position, Of.RECORDS)
        for stored in entries:
            position = stored.seq
            entry = entry_of(stored)
            if entry is not None:
                transcript.apply(stored.seq, entry)
    return [message for message in transcript.messages if message.seq < before]


def _streaming(transcript: Transcript, before: int) -> bool:
    """A message from before the place goes on after it."""
    return any(message.seq < before and message.status == "streaming" for message in transcript.messages)
