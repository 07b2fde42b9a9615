"""Workers say who they are when somebody asks, over core NATS: nothing is stored, and nothing is said unasked.

A question on ``workers.pool-<pool>.ask`` is answered by each worker of the pool on ``….here``, to all who listen there.
Not to the asker's inbox: a worker may publish to no inbox but answers of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final

import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from broker.errors import CodecError, LogError
from broker.jetstream.connection import Connection
from broker.subjects import workers_ask, workers_here
from broker.workers import WorkerNotice

ANSWER_S: Final = 1.0
"""How long is listened for answers, unless it is told otherwise."""
_RETRY_S: Final = 0.25
_ANSWERS_MAX: Final = 10_000
"""Workers that are told of; what others say is left out."""

_log = structlog.get_logger("antiphon.workers")


async def answer_questions(
    connection: Connection, pools: Iterable[str], notices: Callable[[], Iterable[WorkerNotice]]
) -> None:
    """Answers for all workers of this process. Does not return; through outages of NATS. Safe to cancel."""

    async def asked(msg: Msg) -> None:
        for notice in notices():
            if msg.subject == workers_ask(notice.pool):
                # Whoever asks, asks again.
                with suppress(LogError):
                    await connection.send(workers_here(notice.pool), notice.encode())

    for pool in pools:
        while True:
            await connection.wait_connected()
            try:
                await connection.subscribe(workers_ask(pool), asked, max_messages=64)
                break
            except LogError:
                await asyncio.sleep(_RETRY_S)
    await asyncio.Event().wait()


async def ask_workers(connection: Connection, pools: Sequence[str], wait_s: float = ANSWER_S) -> list[WorkerNotice]:
    """What the workers of these pools say of themselves within `wait_s`, in order of pool, version and process.

    Raises NotPermitted, Unavailable. A worker that stands still does not answer, nor one of a version that knows no labels.
    """
    found: dict[tuple[str, str], WorkerNotice] = {}

    async def heard(msg: Msg) -> None:
        try:
            notice = WorkerNotice.decode(msg.data)
        except CodecError as error:
            _log.warning("an answer that is none was ignored", reason=str(error))
            return
        if msg.subject == workers_here(notice.pool) and len(found) < _ANSWERS_MAX:
            found[notice.pool, notice.worker] = notice

    subscriptions: list[Subscription] = []
    try:
        for pool in pools:
            subscription = await connection.subscribe(workers_here(pool), heard)
            subscriptions.append(subscription)
            await connection.confirm(subscription)
        for pool in pools:
            await connection.send(workers_ask(pool), b"")
        await asyncio.sleep(wait_s)
    finally:
        for subscription in subscriptions:
            await connection.unsubscribe(subscription)
    return sorted(found.values(), key=lambda notice: (notice.pool, notice.version, notice.host, notice.worker))
