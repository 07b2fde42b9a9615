"""What long-running processes share."""

from __future__ import annotations

import asyncio
import gc
import resource
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Self

import pytest

from antiphon import processes
from broker.errors import ConfigError, LogError, Unavailable


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_PREPARE_WAIT_S", 0.0)


def failing(times: int, error: Exception) -> Callable[[], Coroutine[Any, Any, int]]:
    """Fails so many times, then returns how often it had failed."""
    tries = 0

    async def act() -> int:
        nonlocal tries
        tries += 1
        if tries <= times:
            raise error
        return tries - 1

    return act


async def test_what_is_not_ready_is_tried_again() -> None:
    assert await processes.patiently(failing(3, Unavailable("not yet")), wait_s=30) == 3


async def test_without_patience_the_first_error_is_the_last() -> None:
    with pytest.raises(LogError, match="not yet"):
        await processes.patiently(failing(1, Unavailable("not yet")), wait_s=0)


async def test_what_waiting_does_not_mend_is_told_at_once() -> None:
    with pytest.raises(ConfigError):
        await processes.patiently(failing(1, ConfigError("wrong")), wait_s=30)


class Circle:
    """Held by nobody but itself, as a connection is whose end has left a trace."""

    def __init__(self) -> None:
        self.itself: Self = self


async def test_rubbish_in_circles_goes_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A soak found it: with few allocations Python keeps such things for days, and 15 MB an hour of them."""
    monkeypatch.setattr(processes, "_COLLECT_EVERY_S", 0.01)
    gc.disable()
    try:
        kept = weakref.ref(Circle())
        assert kept() is not None
        async with processes.collecting_rubbish(), asyncio.timeout(20):
            while kept() is not None:
                await asyncio.sleep(0.01)
    finally:
        gc.enable()


def test_as_many_files_as_are_asked_for_or_the_system_lets() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = min(1000, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
        assert processes.may_open(few - 10) == few - 10
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == few
        assert processes.may_open(few + 10) == min(few + 10, hard)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(few + 10, hard)
        assert processes.may_open(hard + 1) == hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
