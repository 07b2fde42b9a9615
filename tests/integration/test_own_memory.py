"""What a soak calls a process's memory: all that it has of its own, and nothing that depends on its neighbours."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from tests.support.memory import own_memory

MB = 1_000_000
WAIT_S = 60.0
USES = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
touched = sum(mapped[::4096])
own = b"x" * int(sys.argv[2])
print("ready", flush=True)
sys.stdin.read()
"""


@contextlib.asynccontextmanager
async def using(file: Path, own_bytes: int = 1) -> AsyncIterator[int]:
    """The pid of a process that has mapped a file, as all do with Python and its libraries, and some bytes of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", USES, str(file), str(own_bytes)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(WAIT_S):
            assert await process.stdout.readline() == b"ready\n"
        yield process.pid
    finally:
        process.stdin.close()
        await process.wait()


def mapped(directory: Path) -> Path:
    file = directory / "library"
    file.write_bytes(bytes(16 * MB))
    return file


def proportional(pid: int) -> int:
    """Bytes of its own, and its part of what it shares (PSS)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


async def test_what_others_begin_to_share_is_no_change(tmp_path: Path) -> None:
    """A soak of an hour took it for a leak of 6 MB an hour when neighbours ended, one after the other."""
    file = mapped(tmp_path)
    async with using(file) as pid, contextlib.AsyncExitStack() as neighbours:
        own, with_its_part = own_memory(pid), proportional(pid)
        for _ in range(3):
            await neighbours.enter_async_context(using(file))
        assert proportional(pid) < with_its_part - 8 * MB, "its part of the file is a quarter of what it was"
        assert abs(own_memory(pid) - own) < MB // 4


async def test_what_it_has_written_itself_counts(tmp_path: Path) -> None:
    file = mapped(tmp_path)
    async with using(file) as little, using(file, 20 * MB) as much:
        assert abs(own_memory(much) - own_memory(little) - 20 * MB) < MB // 4
