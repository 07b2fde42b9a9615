"""Several processes of one kind that a parent keeps, which itself serves nothing (`--processes`, `--worker-processes`).

The parent starts them, starts one again that has ended, and passes SIGTERM on, so that all drain at once. When it is
killed itself, the pipes to their standard input end, and they drain as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from antiphon.processes import stop_signals
from broker.errors import ConfigError

_log = structlog.get_logger("antiphon.children")

_RESTARTS_S = (0.2, 1.0, 5.0, 15.0)
"""Waits before a process that has ended is started again; the last one repeats."""
_STEADY_S = 30.0
"""Who has run so long has not failed at its start."""
_LATE_S = 5.0
"""Beyond the time that draining may take, until a process is killed."""


async def keep(children: Sequence[Child], ready: str) -> None:
    """Runs them until SIGTERM or SIGINT; a second one ends all at once. Says `ready …` when all have been.

    Raises ConfigError if one ends before it has been ready once.
    """
    stop, hurry = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        keeping = [tasks.create_task(child.keep(stop, hurry)) for child in children]
        waiting = tasks.create_task(_say_ready(children, ready))
        with stop_signals() as told:
            await told.wait()
        waiting.cancel()
        _log.info("draining", processes=len(keeping))
        stop.set()
        with stop_signals() as told:
            hurrying = tasks.create_task(_pass_on(told, hurry))
            await asyncio.wait(keeping)
            hurrying.cancel()


async def _pass_on(told: asyncio.Event, hurry: asyncio.Event) -> None:
    await told.wait()
    hurry.set()


async def _say_ready(children: Sequence[Child], ready: str) -> None:
    for child in children:
        await child.ready.wait()
    print(f"ready {ready}", flush=True)


def command(argv: Sequence[str], number: int) -> Sequence[str]:
    """How the process of that number is started, which is told `argv`, and so which one it is."""
    return (sys.executable, "-m", "antiphon", *argv, "--process", str(number))


@dataclass(slots=True)
class Child:
    """One of the processes. It says `ready …` on its standard output, and ends within `drain_s` of a SIGTERM."""

    kind: str
    number: int
    command: Sequence[str]
    drain_s: float
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once it has been ready for the first time."""

    async def keep(self, stop: asyncio.Event, hurry: asyncio.Event) -> None:
        """Runs it, again and again, until `stop` is set; then lets it drain, until `hurry` is set.

        Raises ConfigError if it cannot even start.
        """
        loop, failures = asyncio.get_running_loop(), 0
        while not stop.is_set():
            started = loop.time()
            code = await self._run_once(stop, hurry)
            if stop.is_set():
                return
            if not self.ready.is_set():
                raise ConfigError(f"a {self.kind} process has ended before it was ready; what it said is above")
            failures = 0 if loop.time() - started > _STEADY_S else failures + 1
            wait_s = _RESTARTS_S[min(failures, len(_RESTARTS_S) - 1)]
            _log.error("a process has ended", kind=self.kind, number=self.number, code=code, again_in_s=wait_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await stop.wait()

    async def _run_once(self, stop: asyncio.Event, hurry: asyncio.Event) -> int:
        """Its exit code. Our own end of its input stays open for as long as we live."""
        process = await asyncio.create_subprocess_exec(
            *self.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then ends all in order
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read(process))
                stopping = tasks.create_task(self._end_at(stop, hurry, process))
                code = await process.wait()
                stopping.cancel()
                await reading
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return code

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """What else it prints, as an agent may, is printed here."""
        assert process.stdout is not None
        while line := await _line(process.stdout):
            if line.startswith(b"ready "):
                self.ready.set()
                continue
            with contextlib.suppress(BrokenPipeError):  # nobody reads it any more
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()

    async def _end_at(self, stop: asyncio.Event, hurry: asyncio.Event, process: asyncio.subprocess.Process) -> None:
        await stop.wait()
        _signal(process.terminate)
        try:
            async with asyncio.timeout(self.drain_s + _LATE_S):
                await hurry.wait()
        except TimeoutError:
            _log.error("a process did not end in time", kind=self.kind, number=self.number)
        _signal(process.kill)


async def _line(stream: asyncio.StreamReader) -> bytes:
    """The next line, or a piece of one that is longer than the stream holds; nothing at the end."""
    try:
        return await stream.readuntil()
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await stream.read(error.consumed)


def _signal(send: Callable[[], None]) -> None:
    with contextlib.suppress(ProcessLookupError):
        send()
