"""Several worker processes (`antiphon worker --worker-processes N`): agents that are kept from each other.

Runs of one process share its event loop and its memory. Where an agent blocks for longer than it may be waited for, in
native code that nothing can interrupt, or ends its process, it takes those beside it along: with N processes of
`--concurrency 1` there are none beside it. To the rest of the cluster they are N workers.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent_worker.config import WorkerSettings
from antiphon import children
from antiphon.worker_process import leaves_within_s


async def run_workers(argv: Sequence[str], settings: WorkerSettings) -> None:
    """Runs `antiphon *argv` as often as `settings.worker_processes` says (`antiphon.children.keep`).

    Of their ports for metrics the first one's is `settings.worker_port`, and the others have the next ones. Raises
    ConfigError if a process ends before it has been ready once.
    """
    workers = [
        children.Child(
            "worker", number, children.command((*argv, *_port(settings, number)), number), leaves_within_s(settings)
        )
        for number in range(settings.worker_processes)
    ]
    await children.keep(workers, "workers")


def _port(settings: WorkerSettings, number: int) -> Sequence[str]:
    return ("--worker-port", str(settings.worker_port + number)) if settings.worker_port else ()
