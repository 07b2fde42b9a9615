"""The workers of `antiphon dev`: a process for each agent, started again when it has ended or its code has changed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from antiphon.options import flags_of
from antiphon.place import Place
from antiphon.processes import BrokerSettings
from broker.errors import AntiphonError
from broker.jetstream.child import ChildProcess, lock_from_orphan, try_lock
from broker.permissions import Role

_log = structlog.get_logger("antiphon.dev")

_RESTARTS_S = (0.2, 1.0, 5.0, 15.0)
"""Waits before a worker that has ended is started again; the last one repeats."""
_STEADY_S = 30.0
_STOP_GRACE_S = 10.0
_FILES_TOLD = 5


@dataclass(frozen=True, slots=True)
class DevWorkers:
    """Which workers run beside each other, on one NATS."""

    place: Place
    broker: BrokerSettings
    nats_url: str
    agents: Mapping[str, str]
    """What each pool is served by, the default pool first."""
    sources: Path | None = None
    """The directory whose Python files are watched; None: code is loaded once."""


@asynccontextmanager
async def dev_workers(workers: DevWorkers) -> AsyncIterator[None]:
    """Runs them until the block ends. Raises AntiphonError if a worker of an earlier run cannot be stopped."""
    path = workers.place.path / "worker.lock"
    lock = try_lock(path)
    if lock is None:
        # The worker of a dev that was killed may still be about to leave.
        lock = await lock_from_orphan(path, _mark(workers.place), _STOP_GRACE_S)
    if lock is None:
        raise AntiphonError(f"a worker of an earlier run still uses {workers.place.path}; stop it first")
    try:
        async with asyncio.TaskGroup() as tasks:
            keepers = [_Keeper(workers, pool, agent, lock) for pool, agent in workers.agents.items()]
            running = [tasks.create_task(keeper.run()) for keeper in keepers]
            authors = [keeper for keeper in keepers if keeper.is_authors]
            if workers.sources is not None and authors:
                running.append(tasks.create_task(_watch(workers.sources, authors)))
            try:
                yield
            finally:
                for task in running:
                    task.cancel()
    finally:
        os.close(lock)


def _mark(place: Place) -> str:
    """An argument that only the workers of this data directory have; to Python an option that says nothing."""
    return f"antiphon-data={place.path.absolute()}"


class _Keeper:
    """Keeps one pool's worker running."""

    def __init__(self, workers: DevWorkers, pool: str, agent: str, lock: int) -> None:
        self._agent = agent
        self._lock = lock
        is_first = pool == next(iter(workers.agents))
        self._output = workers.place.path / ("worker.log" if is_first else f"worker-{pool}.log")
        self._command = _command(workers, pool, agent)
        self.changed = asyncio.Event()
        """Set when the code of the agent is not that of the process any more."""

    @property
    def is_authors(self) -> bool:
        """The agent is of a module, which may change."""
        return ":" in self._agent

    async def run(self) -> None:
        loop, failures = asyncio.get_running_loop(), 0
        while True:
            started = loop.time()
            self.changed.clear()
            child = await ChildProcess.spawn(
                self._command, lock=self._lock, output=self._output, on_exit=lambda _: None
            )
            try:
                await _first(child.exited, self.changed)
            finally:
                # Runs that do not end in time are handed over: the next process goes on with them.
                with contextlib.suppress(ProcessLookupError):
                    await child.stop(_STOP_GRACE_S)
            if self.changed.is_set():
                failures = 0
                continue
            failures = 0 if loop.time() - started > _STEADY_S else failures + 1
            last = _last_line(self._output)
            _log.error("the worker has ended", code=child.returncode, log=str(self._output), last=last)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RESTARTS_S[min(failures, len(_RESTARTS_S) - 1)]):
                    await self.changed.wait()


async def _first(*events: asyncio.Event) -> None:
    """Returns when one of them is set."""
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(event.wait()) for event in events]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()


async def _watch(directory: Path, keepers: Sequence[_Keeper]) -> None:
    """Has the workers started again whenever a Python file below the directory changes."""
    from watchfiles import PythonFilter, awatch

    try:
        async for changes in awatch(directory, watch_filter=PythonFilter()):
            files = sorted(str(Path(path).relative_to(directory)) for _, path in changes)
            _log.info("the code has changed: its workers start again", files=files[:_FILES_TOLD], count=len(files))
            for keeper in keepers:
                keeper.changed.set()
    except (OSError, RuntimeError) as error:
        # Too many directories for the system to watch, or one that may not be read.
        _log.warning("changes of the code are not seen: start again yourself", reason=str(error))


def _command(workers: DevWorkers, pool: str, agent: str) -> tuple[str, ...]:
    who = workers.place.as_nats_user(Role.WORKER)
    broker = workers.broker
    return (
        sys.executable,
        "-X",
        _mark(workers.place),
        "-m",
        "antiphon",
        "worker",
        agent,
        "--pool",
        pool,
        "--nats-url",
        workers.nats_url,
        *(f"--{name.replace('_', '-')}={value}" for name, value in who.items()),
        "--worker-drain-s",
        "3",
        "--cancel-grace-s",
        "2",
        "--delta-ttl-s",
        str(broker.log.delta_ttl_s),
        *flags_of(broker.attachments),
        *flags_of(broker.trace),
    )


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""
