"""What a worker says of itself to an operator who asks. Pure. Nothing here is stored."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from broker import reading
from broker.errors import CodecError

NO_LABEL = "-"
"""Stands for the version of workers that name none, where people read or type one."""


class WorkerState(StrEnum):
    """Whether a worker takes jobs, and why not."""

    TAKING = "taking"
    FINISHING = "finishing"
    """Its version is drained: it takes none, and goes on with what it has until that ends."""
    DRAINING = "draining"
    """Its version is drained: it takes none, and hands over what does not end in time."""
    DRAINED = "drained"
    """Its version is drained, and it has nothing any more. It stays, and takes jobs again once that is taken back."""
    LEAVING = "leaving"
    """Its process was told to end."""


@dataclass(frozen=True, slots=True)
class WorkerNotice:
    """A worker of one pool. `worker` is its process, as logs have it; `host` where that is: in Kubernetes, its Pod.

    `version` is that of its agent, "" if it names none. Of `capacity` slots it has `lanes` in work, of which `parked` wait
    for people or other agents, without a slot. `started` is when its process began, `since` when its state began to
    be as it is, in ms since 1970.
    """

    worker: str
    host: str
    pool: str
    agent: str
    version: str
    state: WorkerState
    lanes: int
    parked: int
    capacity: int
    started: int
    since: int

    def encode(self) -> bytes:
        return orjson.dumps(dataclasses.asdict(self))

    @classmethod
    def decode(cls, body: bytes) -> WorkerNotice:
        """Raises CodecError. Fields that are not known are ignored."""
        try:
            wire: dict[str, Any] = orjson.loads(body)
            worker, host, pool, agent, version = (
                reading.text(wire[name]) for name in ("worker", "host", "pool", "agent", "version")
            )
            numbers = (reading.whole(wire[name]) for name in ("lanes", "parked", "capacity", "started", "since"))
            return cls(worker, host, pool, agent, version, WorkerState(wire["state"]), *numbers)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise CodecError(f"this is no word of a worker: {type(error).__name__}") from None


def said_version(version: str) -> str:
    """A version as people read it."""
    return version or NO_LABEL
