"""A client that folds what it reads with the broker's own fold: for tests that compare what several come to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from broker.codec import entry_from_wire
from broker.state import InputFate, SessionState
from broker.transcript import Transcript
from broker.view import public_view
from tests.support.place import Frame, Place
from tests.support.rawclient import WAIT_S, Wire


@dataclass(slots=True)
class Reader:
    """A client that reads one session, folds it, and remembers every input's fate. Made by `reading`."""

    wire: Wire
    place: Place
    transcript: Transcript = field(default_factory=Transcript)
    fates: dict[str, InputFate] = field(default_factory=dict)

    @property
    def state(self) -> SessionState:
        return self.transcript.state

    async def until(self, found: Callable[[SessionState], object], wait_s: float = WAIT_S) -> None:
        """Reads on until the folded state is such. Raises TimeoutError, WireClosed."""
        try:
            async with asyncio.timeout(wait_s):
                while not found(self.state):
                    self.take(await self.wire.receive())
        except TimeoutError:
            raise TimeoutError(f"waited {wait_s:g} s: {self.place}, {public_view(self.state)}") from None

    async def reached(self, seq: int) -> None:
        await self.until(lambda _: self.place.last >= seq)

    async def settled(self, input_ids: Iterable[str], wait_s: float = WAIT_S) -> None:
        """Reads on until all these inputs have an end, and nothing runs or waits."""
        wanted = set(input_ids)
        await self.until(lambda state: state.idle and wanted <= self.fates.keys(), wait_s)

    def take(self, frame: Frame) -> None:
        if frame.get("session") != self.place.session:
            return
        self.place.take(frame)
        if frame["op"] == "entry":
            self.transcript.apply(frame["seq"], entry_from_wire(frame))
            for fate in self.state.fates:
                before = self.fates.setdefault(fate.input_id, fate)
                assert before == fate, "an input has one end"

    def messages(self) -> list[dict[str, Any]]:
        return [message.as_dict() for message in self.transcript.messages]

    def user_messages(self) -> list[str]:
        """The inputs in the transcript, in order, as often as they are in it."""
        return [message.id.removeprefix("msg_") for message in self.transcript.messages if message.role == "user"]


@asynccontextmanager
async def reading(url: str, token: str, session: str, *, every: bool = False) -> AsyncIterator[Reader]:
    """A client on a connection of its own, subscribed."""
    async with await Wire.open(url, token) as wire:
        reader = Reader(wire, Place(session, every=every, frames=[]))
        await wire.subscribe(reader.place)
        yield reader


async def agree(readers: Sequence[Reader], url: str, token: str) -> None:
    """All readers, and one that comes afterwards and replays the log, have the same entries, state and messages."""
    first = readers[0]
    last = max(reader.place.last for reader in readers)
    async with reading(url, token, first.place.session, every=True) as late:
        await late.until(lambda _: late.place.caught_up)
        last = max(last, late.place.last)
        for reader in (*readers, late):
            await reader.reached(last)
            assert reader.place.whole, reader.place
        for reader in (*readers[1:], late):
            assert reader.place.entries == first.place.entries
            assert public_view(reader.state) == public_view(first.state)
            assert reader.messages() == first.messages()
            assert reader.fates == first.fates
    assert await history(first.wire, first.place.session) == first.messages()


async def history(wire: Wire, session: str) -> list[dict[str, Any]]:
    """All messages of a session, as the gateway tells them, page by page."""
    messages: list[dict[str, Any]] = []
    before: int | None = None
    while True:
        fields = {} if before is None else {"before": before}
        page = await wire.command("history", session=session, limit=200, **fields)
        messages = page["messages"] + messages
        before = page["before"]
        if before is None:
            return messages
