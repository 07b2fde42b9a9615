"""What the reader of a stream has of the session's messages, and the snapshots that tell it the rest. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from broker.transcript import Message
from gateway.agui.content import Json
from gateway.agui.messages import Reader, in_place, lacks, older_than, shown_id, snapshot
from gateway.agui.stream import Stream


class Told:
    """Of one stream. Says its snapshots, and knows when one is due."""

    def __init__(self, reader: Reader, stream: Stream) -> None:
        self.reader = reader
        self._stream = stream
        self._known: set[str] = set()
        """Messages that the client has, whole."""
        self._own: tuple[Json, ...] = ()
        """What a snapshot must hold beside the log's messages, before and after."""
        self._fresh: tuple[Json, ...] = ()
        self._before: list[Json] = []
        """What the client has from before what is known here."""
        self._files_due = False
        """Messages have been told whose attachments have not: only a snapshot can tell of those."""

    def has(self, message: Message) -> bool:
        return shown_id(message) in self._known

    def lacks(self, client: Sequence[Json], shown: Sequence[Json]) -> bool:
        return lacks(client, shown, self.reader.session)

    def expect(self, client: Sequence[Json], fresh: Sequence[Json]) -> None:
        """The client has these messages, and is about to send the `fresh` ones."""
        results = {m["toolCallId"]: m["id"] for m in client if m["role"] == "tool" and "toolCallId" in m}
        self.reader = replace(self.reader, results=results)
        self._own, self._fresh = tuple(client), tuple(fresh)
        self._known = {m["id"] for m in client}

    def begin(self, shown: Sequence[Json]) -> None:
        """Snapshots, if the client lacks something of what is shown, or has it otherwise."""
        if self.lacks(self._own, shown):
            self.show(shown, self._own)
        else:
            self._before = older_than(self._own, shown)

    def note(self, message: Message) -> None:
        self._known.add(shown_id(message))

    def note_all(self, shown: Sequence[Json]) -> None:
        self._known |= {m["id"] for m in shown}

    def show(self, shown: Sequence[Json], client: Sequence[Json] = ()) -> None:
        """A snapshot; two, if `client` is what the client has, and one alone would leave it in another order."""
        self.note_all(shown)
        self._files_due = False
        there = {m["id"] for m in shown}
        older = [m for m in self._before if m["id"] not in there]
        whole = snapshot(self._own, [*older, *shown], [m for m in self._fresh if m["id"] not in there])
        if (left := in_place(client, whole)) is not None:
            self._stream.say({"type": "MESSAGES_SNAPSHOT", "messages": left})
        self._stream.say({"type": "MESSAGES_SNAPSHOT", "messages": whole})

    def tell_files(self, shown: Callable[[], Sequence[Json]]) -> None:
        """Tells of attachments that are due, when all else is told: the messages then are as they are shown."""
        if self._files_due:
            self.show(shown())

    def note_files(self, message: Message) -> None:
        """What is attached to a message that the client has just been told of."""
        if message.attachments and (message.role == "user" or self.reader.modern):
            self._files_due = True
