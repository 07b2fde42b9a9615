"""What the server does not allow this process's user: who waits for it is told at once, and so is the operator."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import structlog
from nats.aio.subscription import Subscription

from broker.errors import NotPermitted
from broker.metrics import LogMetrics

_log = structlog.get_logger("antiphon.nats")

_VIOLATION: Final = re.compile(r"permissions violation for (publish|subscription) to \"([^\"]+)\"", re.IGNORECASE)
_WORDS: Final = {"publish": "publish", "subscription": "subscribe"}
_SAY_EVERY_S: Final = 60.0
"""The same kind of refusal is logged no more often."""

Told = Callable[[NotPermitted], None]


def fail(future: asyncio.Future[Any], error: Exception) -> None:
    """Gives the error to who waits for the future, unless it is over already."""
    if not future.done():
        future.set_exception(error)


class Refusals:
    """Of one connection. The server names the subject alone, and nats-py tells it in small letters."""

    def __init__(self, metrics: LogMetrics) -> None:
        self._metrics = metrics
        self._waiting: dict[int, tuple[str, Told]] = {}
        self._number = 0
        self._subscriptions: dict[int, NotPermitted] = {}
        self._said: dict[tuple[str, str], float] = {}

    def begin(self, subject: str, told: Told) -> int:
        """From now on `told` is called when the server refuses a message of ours on the subject; a number for `end`."""
        self._number += 1
        self._waiting[self._number] = subject, told
        return self._number

    def end(self, number: int) -> None:
        del self._waiting[number]

    @contextlib.contextmanager
    def of(self, subject: str, told: Told) -> Iterator[None]:
        """As `begin` on entering, `end` on leaving."""
        number = self.begin(subject, told)
        try:
            yield
        finally:
            self.end(number)

    def of_subscription(self, sub: Subscription) -> NotPermitted | None:
        """The refusal of a subscription, if there was one."""
        return self._subscriptions.get(sub._id)  # noqa: SLF001 (nats-py has no public name for it)

    def forget(self, sub: Subscription) -> None:
        self._subscriptions.pop(sub._id, None)  # noqa: SLF001 (as above)

    def clear(self) -> None:
        """Another connection may be allowed more."""
        self._subscriptions.clear()

    def take(self, complaint: str, subscriptions: Iterable[Subscription]) -> NotPermitted | None:
        """Counts, logs and tells a refusal; None if the server complains of something else."""
        found = _VIOLATION.search(complaint)
        if found is None:
            return None
        operation, subject = _WORDS[found[1].lower()], found[2]
        if operation == "publish":
            waiting = [each for each in self._waiting.values() if each[0].lower() == subject.lower()]
            refusal = NotPermitted(operation, waiting[0][0] if waiting else subject)
            for _, told in waiting:
                told(refusal)
        else:
            subs = [sub for sub in subscriptions if sub.subject.lower() == subject.lower()]
            refusal = NotPermitted(operation, subs[0].subject if subs else subject)
            self._subscriptions.update(dict.fromkeys((sub._id for sub in subs), refusal))  # noqa: SLF001 (as above)
        self._metrics.refused.labels(operation).inc()
        self._say(refusal)
        return refusal

    def _say(self, refusal: NotPermitted) -> None:
        # By the first token alone: sessions have subjects of their own, and are many.
        kind, now = (refusal.operation, refusal.subject.split(".", maxsplit=1)[0]), time.monotonic()
        if now - self._said.get(kind, -_SAY_EVERY_S) >= _SAY_EVERY_S:
            self._said[kind] = now
            _log.error("NATS refused", operation=refusal.operation, subject=refusal.subject, mend=str(refusal))
