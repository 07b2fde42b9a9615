"""Who is there (PROTOCOL, section 3, Presence). Presence is not in the log: nothing is replayed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Final

from ._json import JsonObject, as_count, as_objects, as_str, as_strings

STATES: Final = ("typing", "active", "idle", "away")
"""What a device may say of itself, the liveliest first."""


@dataclass(frozen=True, slots=True)
class Device:
    """One device or tab of a participant, and the tools that it executes."""

    device: str
    state: str
    tools: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Participant:
    """One user, however many devices; `state` is that of the liveliest."""

    kind: str
    id: str
    name: str
    state: str
    roles: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ()


@dataclass(frozen=True, slots=True)
class Presence:
    """Who was there when the gateway last said so, and how many `more` devices beyond those listed.

    `stale`: the subscription has been lost since, so that nobody knows; it is brought up to date
    after the next `CaughtUp`.
    """

    session: str
    participants: tuple[Participant, ...]
    stale: bool = False
    more: int = 0

    @classmethod
    def parse(cls, frame: JsonObject) -> Presence | None:
        """Read a `session.presence` frame; None if it names no session. Malformed participants are left out."""
        session = as_str(frame.get("session"))
        if session is None:
            return None
        found = (_participant(raw) for raw in as_objects(frame.get("participants")))
        return cls(session, tuple(each for each in found if each is not None), more=as_count(frame.get("more")) or 0)


def _participant(raw: JsonObject) -> Participant | None:
    kind, user = as_str(raw.get("kind")), as_str(raw.get("id"))
    if kind is None or user is None:
        return None
    devices = (
        Device(name, as_str(device.get("state")) or "active", as_strings(device.get("tools")))
        for device in as_objects(raw.get("devices"))
        if (name := as_str(device.get("device"))) is not None
    )
    name, state = as_str(raw.get("name")) or "", as_str(raw.get("state")) or "active"
    return Participant(kind, user, name, state, as_strings(raw.get("roles")), tuple(devices))


class PresenceBoard:
    """The latest presence of a session, and those who wait for another one."""

    def __init__(self) -> None:
        self.now: Presence | None = None
        self._changed = asyncio.Event()

    def put(self, presence: Presence) -> None:
        """The gateway says who is there."""
        self.now = presence
        self.wake()

    def lost(self) -> None:
        """The subscription is lost: what is known gets stale."""
        if self.now is not None and not self.now.stale:
            self.put(replace(self.now, stale=True))

    def wake(self) -> None:
        """Let all who wait look again."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def changed(self) -> None:
        """Wait for the next `put` or `wake`. Cancelling it is safe."""
        await self._changed.wait()
