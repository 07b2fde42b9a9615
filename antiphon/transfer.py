"""`antiphon export` and `antiphon import`: a session to a file, and back. They speak to NATS, not to a gateway."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Self

from antiphon.processes import BrokerSettings, reached
from broker.checkpoint import MAX_BYTES, advance, encode_checkpoint
from broker.clock import now_ms
from broker.errors import ConfigError, WrongSequence
from broker.interfaces import Alarms, AttachmentStore, Directory, JobQueue
from broker.jetstream.alarms import JetStreamAlarms
from broker.jetstream.attachments import JetStreamAttachments
from broker.jetstream.connection import Connection
from broker.jetstream.directory import JetStreamDirectory
from broker.jetstream.dispatch import JetStreamJobQueue
from broker.jetstream.log import JetStreamLog
from broker.lease import lanes_with_work, queue_of
from broker.loading import Loaded, load
from broker.subjects import MAIN_LANE, AlarmPlace, SessionSubjects
from broker.transfer import Restored, exported, restore


@dataclass(frozen=True, slots=True)
class Site:
    """A log, and what belongs to it."""

    connection: Connection
    log: JetStreamLog
    jobs: JobQueue
    attachments: AttachmentStore
    directory: Directory
    alarms: Alarms

    @classmethod
    @asynccontextmanager
    async def of(cls, broker: BrokerSettings) -> AsyncIterator[Self]:
        """Raises Unavailable if NATS does not come within half a minute, TopologyError."""
        async with Connection(broker.nats, name="antiphon-transfer") as connection:
            await reached(connection)
            async with JetStreamLog(connection, broker.log) as log:
                await log.prepare()
                jobs = JetStreamJobQueue(connection, broker.log.pool_names[0])
                attachments = JetStreamAttachments(connection, broker.attachments)
                directory, alarms = JetStreamDirectory(connection), JetStreamAlarms(connection)
                yield cls(connection, log, jobs, attachments, directory, alarms)


async def settle(site: Site, subjects: SessionSubjects) -> list[tuple[str, str, int]]:
    """Makes a session that was restored one like any other: a checkpoint, jobs for what is going on in it, and alarms for
    what is scheduled.

    Returns the notes for the directory that it needs beside those of its users. Raises Unavailable.
    """
    loaded = await load(site.log, subjects)
    await _write_checkpoint(site.log, subjects, loaded)
    for lane in lanes_with_work(loaded.state):
        await site.jobs.offer(subjects, lane, *queue_of(loaded.state, lane))
    for planned in loaded.state.scheduled:
        await site.alarms.set(AlarmPlace(subjects.key, loaded.state.deleted_seq, planned.input_id), planned.at)
    waiting = {handoff.to for handoff in loaded.state.handoffs.values() if handoff.status == "waiting"}
    return [("handoff", role, now_ms()) for role in sorted(waiting)]


async def _write_checkpoint(log: JetStreamLog, subjects: SessionSubjects, loaded: Loaded) -> None:
    """As the worker of the last run has done in the old log, so that who joins need not read the session from its start."""
    lane = loaded.state.lanes.get(MAIN_LANE)
    checkpoint = advance(loaded.checkpoint, loaded.quiet, loaded.state)
    if checkpoint is None or lane is None or len(body := encode_checkpoint(checkpoint)) > MAX_BYTES:
        return
    try:
        await log.write_checkpoint(subjects, MAIN_LANE, lane.fence, body)
    except WrongSequence:
        return  # a worker is at it already


def users_of(restored: Restored) -> list[tuple[str, str, int]]:
    """The notes that put a session into its users' listings."""
    return [("user", user, ts) for user, ts in restored.active.items()]


async def _lines(lines: Iterable[bytes]) -> AsyncIterator[bytes]:
    for line in lines:
        yield line


def _opened(path: str, mode: Literal["rb", "wb"]) -> BinaryIO:
    try:
        return Path(path).open(mode)
    except OSError as error:
        raise ConfigError(f"cannot open {path}: {error.strerror}") from None


async def export_session(broker: BrokerSettings, session: str, path: str | None) -> int:
    """Returns the exit code: 1 if there is no such session. Raises ConfigError, Deleted, InvalidName, Unavailable."""
    async with Site.of(broker) as site:
        subjects = site.log.subjects(session)
        if await site.log.head(subjects) is None:
            print(f"antiphon: the session {session!r} is empty", file=sys.stderr)
            return 1
        with ExitStack() as stack:
            output = sys.stdout.buffer if path is None else stack.enter_context(_opened(path, "wb"))
            async for line in exported(site.log, subjects, site.attachments):
                output.write(line)
            output.flush()
    return 0


async def import_session(broker: BrokerSettings, session: str, path: str) -> int:
    """Restores, and calls workers to what was going on. Raises ConfigError, TransferError, InvalidName, Unavailable."""
    async with Site.of(broker) as site:
        subjects = site.log.subjects(session)
        with ExitStack() as stack:
            lines = sys.stdin.buffer if path == "-" else stack.enter_context(_opened(path, "rb"))
            restored = await restore(site.log, subjects, _lines(lines), attachments=site.attachments)
        for kind, whose, ts in [*users_of(restored), *await settle(site, subjects)]:
            await site.directory.note(kind, whose, session, ts)
    print(f"{restored.written} entries restored into {session}")
    return 0
