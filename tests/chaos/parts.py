"""The parts of a world as processes that are killed, stopped and started again at the same place."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

START_WAIT_S = 60.0
STOP_WAIT_S = 30.0
_POLL_S = 0.05
_CLOCK = struct.Struct("<d")
CLOCK_HOOK = Path(__file__).parent / "clock"


@dataclass(slots=True)
class Part:
    """One of a world's processes: `start` it, hurt it, `start` it again. Each life has a log of its own."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    directory: Path
    ready: Callable[[Part], Awaitable[bool]]
    lives: int = 0
    process: asyncio.subprocess.Process | None = None
    _paused: bool = field(default=False)

    @property
    def log(self) -> Path:
        return self.directory / f"{self.name}-{self.lives}.log"

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    async def start(self) -> None:
        """Returns when it is ready. Raises AssertionError if it ends instead, TimeoutError."""
        await self.begin()
        async with asyncio.timeout(START_WAIT_S):
            while not await self.ready(self):
                assert self.running, f"{self.name} ended: {self.log.read_text()[-2000:]}"
                await asyncio.sleep(_POLL_S)

    async def begin(self) -> None:
        """Starts it and does not wait."""
        assert not self.running
        self.lives += 1
        with self.log.open("wb") as file:
            self.process = await asyncio.create_subprocess_exec(
                *self.command,
                env=dict(os.environ) | dict(self.env),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=asyncio.subprocess.STDOUT,
            )

    async def kill(self) -> None:
        """Kill -9; returns when it is gone."""
        self._signal(signal.SIGKILL)
        if self.process is not None:
            await self.process.wait()
        self._paused = False

    async def terminate(self) -> None:
        """SIGTERM; returns when it is gone. Raises TimeoutError if it does not go."""
        self.resume()
        self._signal(signal.SIGTERM)
        assert self.process is not None
        async with asyncio.timeout(STOP_WAIT_S):
            await self.process.wait()

    def pause(self) -> None:
        self._paused = True
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self._paused:
            self._signal(signal.SIGCONT)
        self._paused = False

    def _signal(self, number: signal.Signals) -> None:
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                assert self.process is not None
                self.process.send_signal(number)


class Clock:
    """By how many seconds a part's wall clock is ahead (see `clock/sitecustomize.py`)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.set(0.0)

    @property
    def env(self) -> dict[str, str]:
        """What a part is started with that has this clock."""
        path = os.pathsep.join(filter(None, (str(CLOCK_HOOK), os.environ.get("PYTHONPATH"))))
        return {"CHAOS_CLOCK": str(self._path), "PYTHONPATH": path}

    def set(self, seconds: float) -> None:
        # In place: the parts have it in their memory.
        with self._path.open("r+b" if self._path.exists() else "wb") as file:
            file.write(_CLOCK.pack(seconds))


async def says_ready(part: Part) -> bool:
    """An Antiphon process has printed its line `ready …`."""
    return any(line.startswith(b"ready ") for line in part.log.read_bytes().splitlines())


async def http_status(host: str, port: int, path: str) -> int:
    """The status of an answer; 0 if there is none within a second."""
    with contextlib.suppress(OSError, TimeoutError, ValueError, IndexError):
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
                return int((await reader.readline()).split()[1])
            finally:
                writer.transport.abort()
    return 0
