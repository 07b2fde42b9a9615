"""What all long-running processes share: their settings, their signals, waiting for the log, and the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from broker.config import LogSettings, NatsSettings, TraceSettings
from broker.errors import LogError
from broker.spans import NO_SPANS, Spans

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    # Half of the time that `antiphon --help` would take: for commands that do not speak to NATS.
    from broker.jetstream.connection import Connection
    from broker.jetstream.log import JetStreamLog
    from broker.metrics import ProcessMetrics

_log = structlog.get_logger("antiphon")

_PREPARE_WAIT_S = 0.5
_LOOP_LOOK_S = 1.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """How a process reaches the log, and where it sends spans."""

    nats: NatsSettings
    log: LogSettings
    trace: TraceSettings = field(default_factory=TraceSettings)


@contextlib.contextmanager
def spans_of(
    settings: TraceSettings, service: str, instance: str, registry: CollectorRegistry, *, authors: bool = False
) -> Iterator[Spans]:
    """Where this process's spans go. Nothing of OpenTelemetry is imported unless it is wanted. Raises ConfigError."""
    if not settings.otlp_endpoint:
        yield NO_SPANS
        return
    from antiphon.otlp import spans_to

    with spans_to(settings, service, instance, registry, authors=authors) as spans:
        yield spans


@contextlib.contextmanager
def stop_signals() -> Iterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def settle_memory() -> None:
    """For a process that has just started: what it has made by now stays for its life.

    The collector need not look at it again and again, and what importing took for a moment goes back to the system,
    2 MB with glibc. Elsewhere the allocator knows better, or cannot be asked.
    """
    gc.collect()
    gc.freeze()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.asynccontextmanager
async def watching_the_loop(metrics: ProcessMetrics) -> AsyncIterator[None]:
    """Measures how late the event loop is for a timer, once a second: what blocks it holds up everything."""

    async def watch() -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LOOP_LOOK_S
            await asyncio.sleep(_LOOP_LOOK_S)
            metrics.loop_lag.observe(max(0.0, loop.time() - due))

    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch())
        try:
            yield
        finally:
            watching.cancel()


async def wait_for_log(connection: Connection, log: JetStreamLog) -> None:
    """Returns when NATS is there and the topology has been applied. Safe to cancel."""
    said = ""
    while True:
        await connection.wait_connected()
        try:
            await log.prepare()
        except LogError as error:
            if str(error) != said:
                said = str(error)
                _log.warning("the log cannot be used yet", reason=said)
            await asyncio.sleep(_PREPARE_WAIT_S)
        else:
            return


async def patiently(act: Callable[[], Coroutine[Any, Any, T]], wait_s: float) -> T:
    """What `act` returns, tried again for `wait_s` while NATS is away or not ready. Raises what it raised last.

    A cluster that has just started may have a leader and yet no place for a stream with copies.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + wait_s
    while True:
        try:
            return await act()
        except LogError:
            if loop.time() >= end:
                raise
            await asyncio.sleep(_PREPARE_WAIT_S)


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Runs a coroutine function to its end on uvloop, where there is one."""
    if sys.platform == "win32":
        return asyncio.run(main())
    import uvloop

    return uvloop.run(main())
