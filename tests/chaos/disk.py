"""A small disk for each NATS server, which the nemesis fills, or makes slow by freezing it again and again.

It is an ext4 file system of its own on a loop device. A frozen one takes no write and no fsync until it is thawed, as a
disk does whose queue is full. Whoever cannot mount it has no such faults.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

DISK_BYTES = 192 << 20
_COMMANDS = ("mount", "umount", "mkfs.ext4", "fsfreeze")
_FILL_BYTES = 1 << 20


def missing_for_disks() -> str:
    """What this machine lacks for disks of our own; empty: nothing."""
    if os.geteuid() != 0:
        return "root"
    if not Path("/dev/loop-control").exists():
        return "loop devices"
    lacking = [command for command in _COMMANDS if shutil.which(command) is None]
    return f"the command {' and '.join(lacking)} (Debian: mount, e2fsprogs, util-linux)" if lacking else ""


class Disk:
    """The place of a server's data. `real`: it is a file system of its own."""

    def __init__(self, directory: Path, *, real: bool) -> None:
        self.directory = directory
        self.real = real
        self._filler = directory / "filler"
        self._frozen = False

    async def open(self, image: Path) -> None:
        """Makes and mounts it."""
        _make_image(image)
        await _run("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
        await _run("mount", "-o", "loop", str(image), str(self.directory))

    async def close(self) -> None:
        """Thaws and unmounts it; its server must have ended."""
        await self.thaw()
        await _run("umount", str(self.directory))

    def fill(self) -> None:
        """Takes all the room that is left."""
        with contextlib.suppress(OSError), self._filler.open("wb") as file:
            while True:
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), _FILL_BYTES)
                file.seek(0, os.SEEK_END)
        with contextlib.suppress(OSError), self._filler.open("ab") as file:
            while True:
                file.write(bytes(4096))
                file.flush()

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)

    async def freeze(self) -> None:
        self._frozen = True
        await _run("fsfreeze", "-f", str(self.directory))

    async def thaw(self) -> None:
        if self._frozen:
            await _run("fsfreeze", "-u", str(self.directory))
            self._frozen = False


async def unmount_left_over(kept: Path) -> None:
    """Disks of runs below a directory that were killed; each run says in its file `pid` who it is."""
    for disk in _left_over(kept):
        await _run("umount", str(disk))


def _left_over(kept: Path) -> list[Path]:
    mounts = [Path(line.split()[1]) for line in Path("/proc/self/mounts").read_text().splitlines()]
    ours = [mount for mount in mounts if kept.resolve() in mount.parents]
    return [mount for mount in ours if not Path(f"/proc/{(mount.parent / 'pid').read_text()}").exists()]


def _make_image(image: Path) -> None:
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)


@contextlib.asynccontextmanager
async def mounted(directory: Path, image: Path) -> AsyncIterator[Disk]:
    """A disk of its own where this machine lets us have one, else the directory (which exists) alone."""
    disk = Disk(directory, real=not missing_for_disks())
    if not disk.real:
        yield disk
        return
    await disk.open(image)
    try:
        yield disk
    finally:
        await disk.close()


async def _run(*argv: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, f"{' '.join(argv)}: {said.decode()}"
