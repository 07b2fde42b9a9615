"""What looks after the event loop changes nothing of the process but what it needs, and nothing for good."""

from __future__ import annotations

import asyncio
import signal
import threading

import pytest

from agent_worker.config import WorkerSettings
from agent_worker.metrics import WorkerMetrics
from agent_worker.watchdog import SIGNAL, Watchdog


def watchdog(**settings: float) -> Watchdog:
    return Watchdog(WorkerSettings(**settings), WorkerMetrics())  # type: ignore[arg-type]


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "antiphon-watchdog"]


async def test_the_signal_is_given_back() -> None:
    before = signal.getsignal(SIGNAL)
    async with watchdog().watch():
        assert signal.getsignal(SIGNAL) is not before
        assert threads()
    assert signal.getsignal(SIGNAL) is before


async def test_without_a_limit_no_signal_is_taken() -> None:
    before = signal.getsignal(SIGNAL)
    async with watchdog(blocked_limit_s=0).watch():
        assert signal.getsignal(SIGNAL) is before
        assert threads()


def test_beside_the_main_thread_no_signal_is_taken() -> None:
    before, seen = signal.getsignal(SIGNAL), list[object]()

    async def main() -> None:
        async with watchdog().watch():
            seen.append(signal.getsignal(SIGNAL))

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join()
    assert seen == [before]


async def test_a_signal_that_comes_too_late_interrupts_nobody() -> None:
    async with watchdog().watch():
        signal.raise_signal(SIGNAL)


async def test_what_an_error_in_the_block_is_stays_it() -> None:
    before = signal.getsignal(SIGNAL)
    with pytest.raises(BaseExceptionGroup):
        async with watchdog().watch():
            raise LookupError
    assert signal.getsignal(SIGNAL) is before
