"""What all long-running processes share: their settings, their signals, waiting for the log, and the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from broker.config import AttachmentSettings, LogSettings, NatsSettings, TraceSettings
from broker.errors import LogError, Unavailable
from broker.spans import NO_SPANS, Spans

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    # Half of the time that `antiphon --help` would take: for commands that do not speak to NATS.
    from broker.jetstream.connection import Connection
    from broker.jetstream.log import JetStreamLog
    from broker.metrics import ProcessMetrics

_log = structlog.get_logger("antiphon")

_PREPARE_WAIT_S = 0.5
_REACH_S = 30.0
_LOOP_LOOK_S = 1.0

_GC_YOUNG, _GC_MIDDLE, _GC_OLD = 20_000, 200, 50
"""Entries come and go by the thousands and are no rubbish in circles: looking for that at Python's own pace (700, 10, 10)
takes 5 % of a busy gateway's time. What outlives a first look are connections and sessions, which stay: at a second one
after 20 times as much, 10,000 of them that came at once cost a fifth more, in pauses of a fifth of a second. So it is
only looked at again when there are four million objects more, or by the clock (`collecting_rubbish`)."""

_COLLECT_EVERY_S = 30.0
_COLLECT_SHARE = 0.001

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """How a process reaches the log, and where it sends spans."""

    nats: NatsSettings
    log: LogSettings
    trace: TraceSettings = field(default_factory=TraceSettings)
    attachments: AttachmentSettings = field(default_factory=AttachmentSettings)


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


async def at_end_of_input(act: Callable[[], None]) -> None:
    """Calls `act` when the standard input, a pipe from the process that started this one, has ended: so it has, too."""

    class Ending(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's)
            act()

    await asyncio.get_running_loop().connect_read_pipe(Ending, sys.stdin)


def settle_memory() -> None:
    """For a process that has just started: what it has made by now stays for its life.

    The collector need not look at it again and again, and what importing took for a moment goes back to the system,
    2 MB with glibc. Elsewhere the allocator knows better, or cannot be asked.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_YOUNG, _GC_MIDDLE, _GC_OLD)
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def may_open(files: int) -> int:
    """How many files this process may have open from now on: `files`, or as many as the system lets it.

    Systems begin with 1,024 and let each process have more, for the sake of programs that use `select`.
    """
    if sys.platform == "win32":
        return files
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < files:
        soft = files if hard == resource.RLIM_INFINITY else min(files, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return files if soft == resource.RLIM_INFINITY else min(files, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


@contextlib.asynccontextmanager
async def meanwhile(*doing: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """While it is entered, these go on; they do not return."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(each) for each in doing]
        try:
            yield
        finally:
            for task in running:
                task.cancel()


@contextlib.asynccontextmanager
async def collecting_rubbish() -> AsyncIterator[None]:
    """Looks through everything for what is only held by itself, once in a while.

    Python does so after so many allocations, of which a process with little to do makes few: rubbish in circles, such as
    connections and sessions that have ended, would be kept for days. By the clock it is kept for minutes, and however
    much there is to look through, that takes no more than `_COLLECT_SHARE` of the time.
    """

    async def collect() -> None:
        wait_s = _COLLECT_EVERY_S
        while True:
            await asyncio.sleep(wait_s)
            # Of this thread: on a busy machine it may have to wait for a core, which is no reason to look more rarely.
            begun = time.thread_time()
            gc.collect()
            wait_s = max(_COLLECT_EVERY_S, (time.thread_time() - begun) / _COLLECT_SHARE)

    async with meanwhile(collect()):
        yield


@contextlib.asynccontextmanager
async def watching_the_loop(metrics: ProcessMetrics) -> AsyncIterator[None]:
    """Measures how late the event loop is for a timer, once a second: what blocks it holds up everything."""

    async def watch() -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LOOP_LOOK_S
            await asyncio.sleep(_LOOP_LOOK_S)
            metrics.loop_lag.observe(max(0.0, loop.time() - due))

    async with meanwhile(watch()):
        yield


async def wait_for_log(connection: Connection, log: JetStreamLog, *, follow: bool = True) -> None:
    """Returns when NATS is there and the topology has been applied. `follow` as for `JetStreamLog.prepare`. Safe to cancel."""
    said = ""
    while True:
        await connection.wait_connected()
        try:
            await log.prepare(follow=follow)
        except LogError as error:
            if str(error) != said:
                said = str(error)
                _log.warning("the log cannot be used yet", reason=said)
            await asyncio.sleep(_PREPARE_WAIT_S)
        else:
            return


async def reached(connection: Connection) -> None:
    """For a command that somebody waits for: returns when NATS is there. Raises Unavailable after half a minute."""
    try:
        async with asyncio.timeout(_REACH_S):
            await connection.wait_connected()
    except TimeoutError:
        raise Unavailable(
            f"NATS was not reached within {_REACH_S:g} s; is --nats-url right, and may this user in?"
        ) from None


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
