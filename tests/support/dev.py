"""`antiphon dev` as a child process, and the other commands beside it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

READY_WAIT_S = 30.0
END_WAIT_S = 45.0
COMMAND = (sys.executable, "-m", "antiphon")


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """What a command that failed has said: one line, and nothing else. Asserts that."""
        assert (self.code, self.out) == (1, ""), self
        (line,) = self.err.splitlines()
        assert line.startswith("antiphon: "), self
        return line.removeprefix("antiphon: ")


@dataclass(frozen=True, slots=True)
class Dev:
    """A running `antiphon dev`; made by `dev`."""

    data: Path
    process: asyncio.subprocess.Process
    log: Path

    @property
    def said(self) -> list[str]:
        """What it has printed for people, line by line."""
        return [line for line in self.log.read_text().splitlines() if not line.startswith("{")]

    @property
    def url(self) -> str:
        return next(line for line in self.said if line.startswith("ready ")).removeprefix("ready ")

    def children(self) -> dict[str, psutil.Process]:
        """By what they are: `nats` and `worker`."""
        found: dict[str, psutil.Process] = {}
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # a zombie, too
                found["nats" if "nats.conf" in " ".join(child.cmdline()) else "worker"] = child
        return found

    async def run(self, *args: str, text: str = "") -> Ran:
        """Runs a command beside it."""
        return await run(*args, "--data", str(self.data), text=text)

    async def end(self, number: signal.Signals) -> int:
        """Sends a signal; returns the exit code when it has ended."""
        self.process.send_signal(number)
        async with asyncio.timeout(END_WAIT_S):
            return await self.process.wait()


@asynccontextmanager
async def dev(directory: Path, *args: str, cwd: Path | None = None, **env: str) -> AsyncIterator[Dev]:
    """`antiphon dev` with its data in `directory`, ready. `env` without its prefix; all of it is gone at the end."""
    log = directory.with_suffix(".log")
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *("dev", "--data", str(directory), "--port", "0", *args),
            env=environment(**env),
            cwd=cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=asyncio.subprocess.STDOUT,
        )
    running = Dev(directory, process, log)
    try:
        async with asyncio.timeout(READY_WAIT_S):
            # The last line it says once it is ready, after the links.
            while not any(line.startswith("In another terminal") for line in running.said):
                assert process.returncode is None, log.read_text()
                await asyncio.sleep(0.02)
        yield running
    finally:
        if process.returncode is None:
            children = running.children().values()
            process.kill()
            await process.wait()
            # Its children end by themselves; a test that fails must not leave them behind if they do not.
            await asyncio.to_thread(psutil.wait_procs, list(children), timeout=END_WAIT_S)


async def run(*args: str, text: str = "", cwd: Path | None = None, **env: str) -> Ran:
    """Runs a command to its end, with `text` as its standard input."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *args,
        env=environment(**env),
        cwd=cwd,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(END_WAIT_S):
        out, err = await process.communicate(text.encode())
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


def environment(**env: str) -> dict[str, str]:
    """This process's, with no setting of ours but these."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ANTIPHON_")}
    return clean | {"USER": "tester"} | {f"ANTIPHON_{name.upper()}": value for name, value in env.items()}
