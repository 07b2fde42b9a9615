"""Two people in two tabs and a third on a phone, in one session, each with a network of their own."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from playwright.async_api import Browser

from tests.browser.logged import Shown, conversation
from tests.browser.proxy import Proxy
from tests.browser.room import PHONE, Room, open_room
from tests.browser.venue import Line, Venue


def tokens(count: int) -> str:
    """What the agent says that is told to stream so many tokens, as it is shown."""
    return " ".join(f"t{n}" for n in range(count))


@dataclass(slots=True)
class Person:
    """Somebody at a device."""

    user: str
    room: Room
    line: Line
    link: str

    @property
    def network(self) -> Proxy:
        return self.line.proxy


@dataclass(slots=True)
class Cast:
    """Who is in a session; made by `cast_in`."""

    venue: Venue
    session: str = field(default_factory=lambda: f"page-{uuid.uuid4().hex}")
    people: list[Person] = field(default_factory=list)

    @property
    def rooms(self) -> list[Room]:
        return [person.room for person in self.people]

    async def idle(self, answers: int) -> None:
        """Until everybody sees so many answers, and nothing runs or waits."""
        for room in self.rooms:
            await room.idle(answers)

    async def logged(self) -> list[Shown]:
        """The conversation, as the log has it."""
        return await conversation(self.venue.url, self.venue.token("reader"), self.session)

    async def check(self) -> list[Shown]:
        """What every tab shows is what the log folds to, in its order, and every text has only ever grown."""
        logged = await self.logged()
        assert logged
        first = logged[0].id
        for person in self.people:
            shown = await person.room.conversation(first)
            assert shown == logged, f"{person.user} sees something else than what the log has"
            await person.room.check()
        return logged


@asynccontextmanager
async def cast_in(venue: Venue, browser: Browser, *, tools: bool = False) -> AsyncIterator[Cast]:
    """All three, online. `tools`: the first one's tab executes its tool."""
    cast = Cast(venue)
    async with AsyncExitStack() as stack:
        for user, roles, device in (("user-1", (), {}), ("user-2", ("support",), {}), ("user-3", (), PHONE)):
            line = await stack.enter_async_context(venue.line())
            room = await stack.enter_async_context(open_room(browser, **device))
            more = "&tools=1" if tools and user == "user-1" else ""
            link = f"{line.url}/#session={cast.session}&token={venue.token(user, *roles)}{more}"
            cast.people.append(Person(user, room, line, link))
            await room.join(link)
        yield cast
