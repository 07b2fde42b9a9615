"""Notes of who is active where."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from broker.errors import Unavailable
from broker.interfaces import Noted
from gateway.auth import Identity
from gateway.commands import activity
from gateway.commands.activity import Activity

WHO = Identity("user-1", None, 2_000_000_000, ())


@dataclass(slots=True)
class Clock:
    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now


@dataclass(slots=True)
class Notes:
    """A directory that only remembers what it was told."""

    sessions: list[str] = field(default_factory=list)
    away: bool = False

    async def note(self, kind: str, whose: str, session: str, ts: int) -> None:
        if self.away:
            raise Unavailable("away")
        self.sessions.append(session)

    async def forget(self, kind: str, whose: str, session: str, noted: Noted | None = None) -> None:
        raise NotImplementedError

    async def noted(self, kind: str, whose: str, before: int | None, limit: int, tenant: str = "") -> list[Noted]:
        raise NotImplementedError


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(activity, "time", clock)
    return clock


async def test_not_at_every_input(clock: Clock) -> None:
    notes = Notes()
    active = Activity(notes)
    for _ in range(3):
        await active.note("a", WHO)
    clock.now += 31.0
    await active.note("a", WHO)
    assert notes.sessions == ["a", "a"]


async def test_a_note_that_was_not_made_is_made_at_the_next_input(clock: Clock) -> None:
    notes = Notes(away=True)
    active = Activity(notes)
    await active.note("a", WHO)
    notes.away = False
    await active.note("a", WHO)
    assert notes.sessions == ["a"]


async def test_sessions_that_are_not_active_any_more_are_not_remembered(clock: Clock) -> None:
    """A gateway sees many in its life, each for a while."""
    active = Activity(Notes())
    for number in range(5000):
        await active.note(f"s{number}", WHO)
        clock.now += 1.0
    assert len(active) <= 31


async def test_many_that_were_active_at_once_are_forgotten_a_few_at_a_time(clock: Clock) -> None:
    active = Activity(Notes())
    for number in range(5000):
        await active.note(f"s{number}", WHO)
    assert len(active) == 5000
    clock.now += 31.0
    await active.note("another", WHO)
    assert 4900 < len(active) < 5000
    for number in range(1000):
        await active.note(f"t{number}", WHO)
    assert len(active) == 1001
