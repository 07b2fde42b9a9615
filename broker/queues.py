"""The queues of a pool, and which of them a worker looks into next (ADR 42). Pure.

A pool has a queue for each priority, and for each of these one more for every share of the tenants. All are consumers of
one stream, and a job is in one of them: its subject says in which. Within a queue jobs come in the order in which they were
offered; between queues whoever takes them decides, here.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from broker.subjects import NORMAL, queue_key, split_key, split_queue

SHARES_MAX: Final = 16
"""Shares among which tenants are spread, at most: each is a consumer for each priority of each pool."""


class Priority(StrEnum):
    """How urgent a session's work is, the most urgent first."""

    HIGH = "high"
    NORMAL = NORMAL
    LOW = "low"


RANK: Final = {priority: number for number, priority in enumerate(Priority)}


@dataclass(frozen=True, slots=True)
class Queue:
    """One of a pool's. `share` 0: of those who are in no share, as the default tenant and who has a pool of its own."""

    pool: str
    priority: Priority = Priority.NORMAL
    share: int = 0

    @classmethod
    def of(cls, key: str) -> Queue | None:
        """By its key; None for what this version does not know."""
        pool, priority, share = split_queue(key)
        if priority not in RANK or queue_key(pool, priority, share) != key:
            return None
        return cls(pool, Priority(priority), share)

    @property
    def key(self) -> str:
        return queue_key(self.pool, self.priority, self.share)


@dataclass(frozen=True, slots=True)
class Layout:
    """Which queues the pools of a log have: one for each priority, or one for all; and how many shares of tenants."""

    priorities: bool = False
    shares: int = 0

    def with_all_of(self, other: Layout) -> Layout:
        """The least layout with the queues of both."""
        return Layout(self.priorities or other.priorities, max(self.shares, other.shares))

    def queues(self, pool: str) -> tuple[Queue, ...]:
        """Those of a pool, by its key."""
        shares = 0 if split_key(pool)[0] else self.shares
        priorities = tuple(Priority) if self.priorities else (Priority.NORMAL,)
        return tuple(Queue(pool, priority, share) for priority in priorities for share in range(shares + 1))

    def queue(self, pool: str, tenant: str, priority: str) -> Queue:
        """Where a job belongs. What is of an unknown priority is normal."""
        known = self.priorities and priority in RANK
        shared = self.shares and tenant and not split_key(pool)[0]
        share = 1 + zlib.crc32(tenant.encode()) % self.shares if shared else 0
        return Queue(pool, Priority(priority) if known else Priority.NORMAL, share)


EVERY_QUEUE: Final = Layout(priorities=True, shares=SHARES_MAX)


@dataclass(frozen=True, slots=True)
class Turns:
    """What one worker has taken, and whose turn it is by that.

    Higher priorities go first. But of `lower_after` jobs that are taken in a row over the head of a lower priority, the
    next one is of that, if one waits. Within a priority the queue goes first that was served longest ago: those with
    jobs are served one after another, and one that was empty does not wait for the others.
    """

    lower_after: int
    taken: int = 0
    served: Mapping[Queue, int] = field(default_factory=dict)
    """As which job, by number, a queue's last one was taken."""
    passed_over: Mapping[Priority, int] = field(default_factory=dict)
    """Jobs of higher priorities since one of this was taken, or none was found to wait."""

    def order(self, queues: Iterable[Queue]) -> list[Queue]:
        """The queues, in the order in which they are to be looked into."""
        return sorted(queues, key=self._place)

    def _place(self, queue: Queue) -> tuple[bool, int, int, int]:
        return not self.is_owed(queue.priority), RANK[queue.priority], self.served.get(queue, 0), queue.share

    def is_owed(self, priority: Priority) -> bool:
        """Whether jobs of the priority, should there be any, have waited for long enough."""
        return self.passed_over.get(priority, 0) >= self.lower_after

    def took(self, queue: Queue) -> Turns:
        """After a job of the queue."""
        number = self.taken + 1
        lower = {p: self.passed_over.get(p, 0) + 1 for p in Priority if RANK[p] > RANK[queue.priority]}
        passed_over = {**self.passed_over, **lower, queue.priority: 0}
        return replace(self, taken=number, served={**self.served, queue: number}, passed_over=passed_over)

    def found_none(self, priority: Priority) -> Turns:
        """After a look that found no job of the priority."""
        return replace(self, passed_over={**self.passed_over, priority: 0})
