"""What long-running processes share."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

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
