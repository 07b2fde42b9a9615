"""Somebody who is in a session and sees who else is: `async with viewer(url, token, "demo", device="d1") as me`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.support.bare import Bare, Frame, bare

WAIT_S = 20.0

People = dict[str, dict[str, Any]]
"""The participants of a `session.presence` by their ids."""


class Viewer:
    """A subscription. `seen` is every presence that was taken, in order."""

    def __init__(self, client: Bare, session: str) -> None:
        self.client = client
        self.session = session
        self.seen: list[People] = []

    @property
    def people(self) -> People:
        return self.seen[-1]

    async def next(self) -> People:
        """The next presence; what comes before it is passed over."""
        while not self._take(await self.client.frame()):
            pass
        return self.people

    async def until(self, holds: Callable[[People], bool], wait_s: float = WAIT_S) -> People:
        """Takes presences until one is as it is wanted; the last one that was taken counts, too."""
        try:
            async with asyncio.timeout(wait_s):
                while not self.seen or not holds(self.people):
                    await self.next()
        except TimeoutError:
            raise TimeoutError(f"waited {wait_s:g} s, saw {self.seen}") from None
        return self.people

    async def say(self, state: str) -> None:
        """`presence.set`."""
        reply = await self.client.ask("presence.set", session=self.session, state=state)
        assert reply["op"] == "ok", reply

    def _take(self, frame: Frame) -> bool:
        if frame["op"] != "session.presence" or frame["session"] != self.session:
            return False
        self.seen.append({participant["id"]: participant for participant in frame["participants"]})
        assert len(self.people) == len(frame["participants"]), frame
        return True


@asynccontextmanager
async def viewer(
    url: str, token: str, session: str, *, device: str | None = None, **subscription: Any
) -> AsyncIterator[Viewer]:
    """Joins; leaving the context is closing the page."""
    async with bare(url) as client:
        hello = {"token": token} if device is None else {"token": token, "device": device}
        assert (await client.ask("hello", **hello))["op"] == "welcome"
        reply = await client.ask("subscribe", session=session, **subscription)
        assert reply["op"] == "ok", reply
        yield Viewer(client, session)


def devices(people: People, user: str) -> dict[str, str]:
    """The states of somebody's devices by name."""
    return {device["device"]: device["state"] for device in people[user]["devices"]}
