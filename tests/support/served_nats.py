"""A nats-server with a configuration file of a test's, or of ours for others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from broker.jetstream.server import find_binary
from tests.support.tcp import listening


@contextlib.asynccontextmanager
async def served(config: Path, port: int) -> AsyncIterator[int]:
    """The server that listens at a port of loopback; gives its pid. Its log is beside the file."""
    process = await asyncio.create_subprocess_exec(find_binary(), "-c", config, "-l", config.with_suffix(".log"))
    try:
        await listening(port)
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
