"""A child process that never outlives its parent, and can be found again if it did.

The child inherits the descriptor of a locked file and holds that lock (flock) for its life; the file names its pid. On
Linux the kernel ends the child when the thread that started it ends (PR_SET_PDEATHSIG), so also after a kill -9 of the
parent: start it from a thread that lives longer than the child, as the one of the event loop usually does. Elsewhere
the lock tells the next start of an orphan, which `lock_from_orphan` stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, cast

_EXIT_WAIT_S: Final = 2.0
_KILL_WAIT_S: Final = 5.0
_LOCK_POLL_S: Final = 0.01
_PS_TIMEOUT_S: Final = 5.0

# Run by `python -c` in the child, which then becomes the command under the same pid. A program of its own, after the
# fork, needs no `preexec_fn`, which is unsafe beside threads. 1 is PR_SET_PDEATHSIG; the check of the parent closes the
# window before it took effect.
_LAUNCHER: Final = """
import os, signal, sys
parent, lock, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != parent:
    sys.exit("the parent process has ended")
os.ftruncate(lock, 0)
os.pwrite(lock, b"%d" % os.getpid(), 0)
os.execv(command[0], command)
"""


class ChildProcess(asyncio.SubprocessProtocol):
    """One run of a command, made by `spawn`. `on_exit` is called once, in the event loop, before `exited` is set."""

    def __init__(self, on_exit: Callable[[ChildProcess], None]) -> None:
        self.exited = asyncio.Event()
        self.returncode: int | None = None
        """The exit status, None while it runs; negative: the signal that killed it."""
        self.pid = 0
        self._on_exit = on_exit
        self._transport: asyncio.SubprocessTransport | None = None

    @classmethod
    async def spawn(
        cls, command: Sequence[str], *, lock: int, output: Path, on_exit: Callable[[ChildProcess], None]
    ) -> ChildProcess:
        """Start `command` (the first item a path), writing to the file `output`. Raises OSError.

        Safe to cancel. The child has a session of its own, so that Ctrl-C at the terminal reaches only the parent,
        which then stops the child in order.
        """
        launcher = (sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), str(lock))
        with output.open("wb") as file:
            _, child = await asyncio.get_running_loop().subprocess_exec(
                lambda: cls(on_exit),
                *launcher,
                *command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                pass_fds=(lock,),
                start_new_session=True,
            )
        return child

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)  # uvloop's has the methods, not the class
        self.pid = self._transport.get_pid()

    def process_exited(self) -> None:
        assert self._transport is not None
        self.returncode = self._transport.get_returncode()
        self._on_exit(self)
        self.exited.set()

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, after `grace_s` SIGKILL. Returns when the process is gone. If cancelled, kills at once."""
        try:
            await self._end(signal.SIGTERM, grace_s)
            await self._end(signal.SIGKILL, _KILL_WAIT_S)
        finally:
            self._signal(signal.SIGKILL)
            if self._transport is not None:
                self._transport.close()

    async def _end(self, signum: signal.Signals, wait_s: float) -> None:
        self._signal(signum)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self.exited.wait()

    def _signal(self, signum: signal.Signals) -> None:
        if self._transport is not None and not self.exited.is_set():
            with contextlib.suppress(ProcessLookupError):
                self._transport.send_signal(signum)


def try_lock(path: Path) -> int | None:
    """An open descriptor of `path`, locked for as long as it or an inherited copy is open; None if another has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


async def lock_from_orphan(path: Path, argument: str, grace_s: float) -> int | None:
    """Stop the orphan that holds the lock `path` and return the lock; None if it cannot be had.

    A process is signalled only if it is the one that the file names and was started with `argument`, which must be
    peculiar to it: its recorded pid may belong to something else by now.
    """
    pid = read_pid(path)
    arguments = [] if pid is None else _arguments(pid)
    if pid is None or not arguments:
        # It is ending: its memory goes first, then its descriptors, thread by thread.
        return await _lock_within(path, _EXIT_WAIT_S)
    if argument not in arguments:
        return None
    for signum in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)
        if (descriptor := await _lock_within(path, grace_s)) is not None:
            return descriptor
    return None


async def _lock_within(path: Path, timeout_s: float) -> int | None:
    deadline = asyncio.get_running_loop().time() + timeout_s
    # A lock that another process holds can only be polled, unless a thread is to hang in it.
    while (descriptor := try_lock(path)) is None and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(_LOCK_POLL_S)
    return descriptor


def read_pid(path: Path) -> int | None:
    """The pid that the lock file names, None if there is none."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _arguments(pid: int) -> list[str]:
    """What the process was started with; empty if it has ended or is about to."""
    try:
        if sys.platform == "linux":
            return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
        else:  # noqa: RET505 (mypy calls what follows an `if` on the platform unreachable)
            listing = ("/bin/ps", "-ww", "-o", "command=", "-p", str(pid))
            return subprocess.check_output(listing, text=True, timeout=_PS_TIMEOUT_S).split()
    except (OSError, subprocess.SubprocessError):
        return []
