"""What a process takes of memory, as the kernel says it (Linux)."""

from __future__ import annotations

from pathlib import Path


def own_memory(pid: int) -> int:
    """Bytes that a process has written and nobody else has: its anonymous memory, and what of that is swapped out.

    Not its part of what it shares (PSS), which changes by megabytes whenever any other process on the machine begins or
    ends to use the same files, Python's own and its libraries. What a process maps of files is bounded by the files.
    """
    kept = {"Anonymous:": 0, "Swap:": 0}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(" ")
        if name in kept:
            kept[name] = int(value.split()[0]) * 1024
    if not kept["Anonymous:"]:
        raise OSError(f"no memory of {pid}")
    return sum(kept.values())
