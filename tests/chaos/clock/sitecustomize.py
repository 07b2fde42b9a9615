"""A wall clock that can be put forward and back while a process runs: Python loads this at its start by its name.

`CHAOS_CLOCK` names a file of eight bytes, how many seconds (a double) to add to `time.time`. It is what a step of the
system's clock does to code that asks for the time of day; clocks that only run forward are left alone, as they are then.
"""

from __future__ import annotations

import mmap
import os
import struct
import time

_OFFSET = struct.Struct("<d")
_time, _time_ns = time.time, time.time_ns


def _install(path: str) -> None:
    with open(path, "rb") as file:  # noqa: PTH123 (nothing is imported that needs not be)
        shared = mmap.mmap(file.fileno(), _OFFSET.size, access=mmap.ACCESS_READ)

    def now() -> float:
        return _time() + float(_OFFSET.unpack_from(shared)[0])

    def now_ns() -> int:
        return _time_ns() + int(_OFFSET.unpack_from(shared)[0] * 1_000_000_000)

    time.time, time.time_ns = now, now_ns


if "CHAOS_CLOCK" in os.environ:
    _install(os.environ["CHAOS_CLOCK"])
