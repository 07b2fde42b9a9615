"""Settings of a worker."""

from __future__ import annotations

from dataclasses import dataclass

from broker.config import setting
from broker.errors import ConfigError, InvalidName
from broker.subjects import check_version

BUILT_IN = ("echo", "local")
"""Agents that come with Antiphon."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker may be told."""

    pool: str = setting("default", "the pool whose jobs this worker takes; `TENANT~POOL`: one of a tenant's own")
    worker_version: str = setting(
        "", "label of the version of its agents that this worker runs, such as its image's tag; empty: none"
    )
    concurrency: int = setting(16, "sessions that are worked on at once, for each pool of the worker", minimum=1)
    worker_processes: int = setting(
        1,
        "worker processes that one command runs, each with its own `concurrency`; with a concurrency of 1 no agent can "
        "hold up another one",
        minimum=1,
        maximum=256,
    )
    lower_after: int = setting(
        8,
        "jobs that are taken over the heads of those of a lower priority, before one of these is taken",
        minimum=1,
    )
    parked: int = setting(
        1000, "sessions that wait for people or other agents, beyond those that are worked on", minimum=0
    )
    run_timeout_s: float = setting(900.0, "seconds that a run may take before it ends with `run_timeout`", minimum=0.1)
    cancel_grace_s: float = setting(5.0, "seconds that an agent has to return once it is cancelled", minimum=0)
    max_attempts: int = setting(3, "workers that a run may lose before it ends with `worker_lost`", minimum=1)
    worker_drain_s: float = setting(
        30.0, "seconds on SIGTERM in which runs may finish, then they are handed over", minimum=0
    )
    pull_wait_s: float = setting(2.0, "seconds that a request for a job is kept open", minimum=0.1)
    pending_chars: int = setting(262_144, "characters of text that wait to be stored before `text()` waits", minimum=1)
    delta_chars: int = setting(16_384, "characters that one delta may hold", minimum=1)
    segment_chars: int = setting(16_384, "characters after which a text is put into a record", minimum=1)
    segment_deltas: int = setting(256, "deltas after which a text is put into a record", minimum=1)
    settle_idle_s: float = setting(2.0, "seconds of silence after which a text is put into a record", minimum=0.05)
    blocked_warn_s: float = setting(
        1.0, "seconds without a turn of the event loop after which who blocks it is logged", minimum=0.05
    )
    blocked_limit_s: float = setting(
        10.0,
        "seconds after which an agent that blocks the event loop is interrupted; less than the lease, or other workers "
        "take this one's lanes over; 0: never",
        minimum=0,
    )
    worker_port: int = setting(
        0,
        "port for /metrics and /healthz of a worker; of several processes the others have the next ones; 0: none",
        minimum=0,
        maximum=65535,
    )

    def __post_init__(self) -> None:
        if self.worker_version:
            try:
                check_version(self.worker_version)
            except InvalidName as error:
                raise ConfigError(f"ANTIPHON_WORKER_VERSION: {error}") from None
