"""`antiphon export` and `antiphon import`: a session to a file, and back. They speak to NATS, not to a gateway."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Literal

from antiphon.processes import BrokerSettings
from broker.errors import ConfigError
from broker.jetstream.connection import Connection
from broker.jetstream.dispatch import JetStreamJobQueue
from broker.jetstream.log import JetStreamLog
from broker.lease import lanes_with_work, pool_of
from broker.loading import load_state
from broker.transfer import exported, restore


@asynccontextmanager
async def _log(broker: BrokerSettings) -> AsyncIterator[tuple[Connection, JetStreamLog]]:
    async with Connection(broker.nats, name="antiphon-transfer") as connection:
        await connection.wait_connected()
        async with JetStreamLog(connection, broker.log) as log:
            await log.prepare()
            yield connection, log


def _opened(path: str, mode: Literal["rb", "wb"]) -> BinaryIO:
    try:
        return Path(path).open(mode)
    except OSError as error:
        raise ConfigError(f"cannot open {path}: {error.strerror}") from None


async def export_session(broker: BrokerSettings, session: str, path: str | None) -> int:
    """Returns the exit code: 1 if there is no such session. Raises ConfigError, InvalidName, Unavailable."""
    async with _log(broker) as (_, log):
        subjects = log.subjects(session)
        if await log.head(subjects) is None:
            print(f"antiphon: the session {session!r} is empty", file=sys.stderr)
            return 1
        with ExitStack() as stack:
            output = sys.stdout.buffer if path is None else stack.enter_context(_opened(path, "wb"))
            async for line in exported(log, subjects):
                output.write(line)
            output.flush()
    return 0


async def import_session(broker: BrokerSettings, session: str, path: str) -> int:
    """Restores, and calls workers to what was going on. Raises ConfigError, TransferError, InvalidName, Unavailable."""
    async with _log(broker) as (connection, log):
        subjects = log.subjects(session)
        with ExitStack() as stack:
            lines = sys.stdin.buffer if path == "-" else stack.enter_context(_opened(path, "rb"))
            count = await restore(log, subjects, lines)
        state = await load_state(log, subjects)
        jobs = JetStreamJobQueue(connection, broker.log.pool_names[0])
        for lane in lanes_with_work(state):
            await jobs.offer(subjects, lane, pool_of(state, lane))
    print(f"{count} entries restored into {session}")
    return 0
