"""What is to be told outside of Antiphon waits in an outbox beside the logs: the seam between its sender and NATS.

One process at a time sends, for a **term**: a lease that it renews. All it writes to the outbox carries the condition that
the lease is still its own, as a lane's writes do, so that a former sender that wakes up changes nothing any more.
`broker.jetstream.outbox` implements it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from broker.tail import StoredEntry


@dataclass(frozen=True, slots=True)
class Kept:
    """A message of the outbox: its sequence, whose it is, and its body. `stored` is as in StoredEntry."""

    place: int
    receiver: str
    session: str
    id: str
    body: bytes
    stored: str = ""


class Term(Protocol):
    """The time in which this process alone writes. Operations raise WrongSequence once it is over, Unavailable."""

    @property
    def valid(self) -> bool:
        """The lease, renewed as it was, has not run out by this process's clock: nobody else sends."""
        ...

    @property
    def started(self) -> tuple[int, bytes | None]:
        """Where the former sender has left its mark, and the mark; (0, None) if there was none."""
        ...

    async def renew(self) -> None:
        """Starts the lease anew. Raises WrongSequence if another has it by now, Unavailable."""
        ...

    async def mark(self, body: bytes) -> None:
        """Replaces the mark: how far the sender has come."""
        ...

    async def put(self, receiver: str, session: str, id_: str, body: bytes) -> int:
        """Lets a message wait for a receiver; returns its place."""
        ...

    async def give_up(self, kept: Kept, body: bytes) -> None:
        """Keeps a message, as `body`, among those that were given up, instead of those that wait."""
        ...

    async def refuse(self, receiver: str, body: bytes) -> None:
        """Notes that a receiver wants nothing any more."""
        ...

    async def settle(self, place: int) -> None:
        """The message was sent: it waits no more. May be said again."""
        ...

    async def forget(self, session: str) -> None:
        """Deletes all that waits or was given up of a session."""
        ...


class Outbox(Protocol):
    """Messages that wait for their receivers, and those that were given up. Bounded by the time that each is kept."""

    def term(self) -> AbstractAsyncContextManager[Term]:
        """Returns when this process is the sender. Waits through outages; lets go of the lease at the end."""
        ...

    async def waiting(self, receiver: str, after: int) -> tuple[Sequence[Kept], bool]:
        """What waits for a receiver (`*`: for any) after a place, in order, up to a batch; and whether that is all.

        May lag. Raises Unavailable.
        """
        ...

    async def given_up(self, receiver: str, after: int) -> tuple[Sequence[Kept], bool]:
        """As `waiting`, of those that were given up."""
        ...

    async def waiting_since(self, place: int) -> Sequence[Kept]:
        """All that waits from a place on, as the leader has it. Raises Unavailable."""
        ...

    async def refused(self) -> dict[str, bytes]:
        """The notes of `Term.refuse`, by receiver. Raises Unavailable."""
        ...


class Partitions(Protocol):
    """All sessions of the log at once, partition by partition. Raises Unavailable."""

    @property
    def count(self) -> int: ...

    async def last(self, partition: int) -> int:
        """The last sequence of the partition."""
        ...

    async def read(self, partition: int, after: int) -> tuple[Sequence[StoredEntry], bool]:
        """Records of all its sessions after a sequence, in order, up to a batch; and whether there were no more.

        May lag the leader.
        """
        ...

    async def written(self, partition: int, wait_s: float) -> None:
        """Returns when the partition may have records that were not read, or after some time. For one who waits."""
        ...
