"""What the facade's objects have in common: they stand for objects that live in the loop's thread."""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Generic, NoReturn, Self, TypeAlias, TypeVar

from ._portal import Portal, waited

T = TypeVar("T")

Pull: TypeAlias = Callable[[deque[T]], Coroutine[Any, Any, None]]
"""Adds at least one item, or none at the end."""


class Bound:
    """An object of a connection: it is no data."""

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} belongs to a connection of this process: it is not pickled or copied")


class Wrapped(Bound, Generic[T]):
    """Stands for an object of the asyncio client, which is let go of in the loop's thread."""

    __slots__ = ("__weakref__", "_box", "_portal")

    def __init__(self, portal: Portal, inner: T) -> None:
        self._portal = portal
        self._box = [inner]
        weakref.finalize(self, portal.post, self._box.clear).atexit = False

    @property
    def _inner(self) -> T:
        return self._box[0]


class Iteration(Bound, Generic[T]):
    """An iterator over what an asynchronous one gives.

    When a wait ends by TimeoutError or Ctrl-C, nothing is lost: `next()` goes on waiting. Threads may
    share one iteration; each item goes to one of them.
    """

    __slots__ = ("__weakref__", "_gave", "_lock", "_portal", "_pulling", "_ready", "_timeout_s")

    def __init__(
        self,
        portal: Portal,
        pull: Pull[T],
        timeout_s: float | None,
        *,
        ready: deque[T] | None = None,
        close: Callable[[], object] | None = None,
        gave: Callable[[T], None] | None = None,
    ) -> None:
        """`ready` is where `pull` adds items; `gave` is told of each that is given out.

        `close` is called in the loop's thread when nobody holds the iteration any more.
        """
        self._portal = portal
        self._timeout_s = timeout_s
        self._ready: deque[T] = deque() if ready is None else ready
        self._gave = gave
        self._lock = threading.Lock()
        self._pulling = _Pulling(pull, close)
        weakref.finalize(self, self._pulling.end, portal).atexit = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        """The next item. Raises TimeoutError if there is none within the iteration's `timeout_s`."""
        if not self._lock.acquire(timeout=-1 if self._timeout_s in (None, math.inf) else self._timeout_s):
            raise TimeoutError(f"not within {self._timeout_s} s")
        try:
            if not self._ready:
                self._pulling.wait(self._portal, self._ready, self._timeout_s)
            if not self._ready:
                raise StopIteration
            item = self._ready.popleft()
            if self._gave is not None:
                self._gave(item)
            return item
        finally:
            self._lock.release()


class _Pulling(Generic[T]):
    """Gets more items; what has been begun is gone on with."""

    def __init__(self, pull: Pull[T], close: Callable[[], object] | None) -> None:
        self._pull: list[Pull[T]] = [pull]
        self._close = close
        self._pending: Future[None] | None = None

    def wait(self, portal: Portal, ready: deque[T], timeout_s: float | None) -> None:
        if self._pending is None:
            self._pending = portal.hand_in(self._pull[0](ready))
        try:
            waited(self._pending, timeout_s)
        finally:
            if self._pending.done():
                self._pending = None

    def end(self, portal: Portal) -> None:
        if self._pending is not None:
            self._pending.cancel()
        if self._close is not None:
            portal.post(self._close)
        portal.post(self._pull.clear)


def one_by_one(source: AsyncIterator[T]) -> Pull[T]:
    """One item at a time of an asynchronous iterator; none at its end."""

    async def pull(ready: deque[T]) -> None:
        async for item in source:
            ready.append(item)
            return

    return pull
