"""An event loop in a thread of its own, and the ways into it from any other thread."""

from __future__ import annotations

import asyncio
import atexit
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeVar

from antiphon_client.errors import ClientClosed

logger = logging.getLogger("antiphon_client")

T = TypeVar("T")

SLICE_S: Final = 0.1 if sys.platform == "win32" else math.inf
"""How long to wait in one piece: on Windows, Ctrl-C does not interrupt a wait for a lock."""


class Portal:
    """Keeps one asynchronous context open in its thread, from `open` to `close`.

    1. `open` starts the thread, which enters the context; 2. coroutines are handed in and waited for;
    3. `close` (also at the interpreter's exit) has the thread leave the context, cancel what is still
    going on, and end; 4. whoever still waits gets `ClientClosed`. The thread is a daemon: if it does
    not end within `close_timeout_s` it is left behind.
    """

    def __init__(self, timeout_s: float | None, close_timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._close_timeout_s = close_timeout_s
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None
        self._begun = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.RLock()  # a finalizer may run while it is held
        self._inside: dict[Future[Any], Coroutine[Any, Any, Any]] = {}
        self._closed = False
        # set by the thread, before `_begun`
        self._loop: asyncio.AbstractEventLoop
        self._stop: Callable[[], object]

    # ---- lifetime

    def open(self, context: AbstractAsyncContextManager[object], timeout_s: float | None) -> None:
        """Enter `context`; raises what that raises, and TimeoutError."""
        if self._thread is not None:
            raise RuntimeError("a client is opened once; make another one")
        opened: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(context, opened), name="antiphon-client", daemon=True)
        self._thread.start()
        atexit.register(self.close)
        try:
            waited(opened, self._timeout_s if timeout_s is None else timeout_s)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave the context and end the thread; safe to repeat, from any thread but its own."""
        atexit.unregister(self.close)
        if self._thread is None or self._forked:
            return
        self.signal()
        if not self._ended.wait(self._close_timeout_s):
            logger.warning("the client did not close within %s s; its thread is left behind", self._close_timeout_s)

    def signal(self) -> None:
        """Begin to close; returns at once, from any thread. Not in the child of a fork, whose loop is the parent's."""
        if self._thread is None or self._forked:
            return
        self._begun.wait()
        try:
            self._loop.call_soon_threadsafe(self._stop)
        except RuntimeError:
            pass  # it has ended

    def _run(self, context: AbstractAsyncContextManager[object], opened: Future[None]) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._live(context, opened))
        except BaseException as error:
            if not opened.done():
                opened.set_exception(error)
            elif not isinstance(error, asyncio.CancelledError):
                logger.exception("the client did not close as it should")
        finally:
            atexit.unregister(self.close)
            self._abandon()
            self._ended.set()

    async def _live(self, context: AbstractAsyncContextManager[object], opened: Future[None]) -> None:
        stopped = asyncio.Event()
        task = asyncio.current_task()
        assert task is not None, "it is run as a task"
        self._loop = asyncio.get_running_loop()
        self._stop = lambda: stopped.set() if opened.done() else task.cancel()
        self._begun.set()
        async with context:
            opened.set_result(None)
            await stopped.wait()

    def _abandon(self) -> None:
        """What was handed in and never begun, because the loop was about to stop, is over, too."""
        with self._lock:
            self._closed = True
            left, self._inside = self._inside, {}
        for future, work in left.items():
            if future.cancel():
                work.close()

    # ---- from other threads

    @property
    def running(self) -> bool:
        """Whether there is a thread to hand anything to."""
        return self._thread is not None and not self._closed

    @property
    def _forked(self) -> bool:
        return os.getpid() != self._pid

    def hand_in(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Have a coroutine executed. Raises RuntimeError where that cannot be, and `ClientClosed`."""
        future: Future[T] = Future()
        handed = False
        try:
            self._check()
            with self._lock:
                if self._closed:
                    raise ClientClosed("closed", "the client was closed")
                self._inside[future] = work
                handed = True
                self._loop.call_soon_threadsafe(self._begin, work, future)
        except BaseException:
            # Ctrl-C may land anywhere in here. What the loop may have already is its own to end, or else `_abandon`'s.
            if handed:
                future.cancel()
            else:
                work.close()
            raise
        future.add_done_callback(self._over)
        return future

    def _begin(self, work: Coroutine[Any, Any, T], future: Future[T]) -> None:
        """In the loop's thread: execute what was handed in, unless it has been given up."""
        if future.cancelled():
            work.close()
            return
        task = self._loop.create_task(work)
        task.add_done_callback(lambda _: _settle(task, future))
        future.add_done_callback(lambda _: self._give_up(task) if future.cancelled() else None)

    def _give_up(self, task: asyncio.Task[Any]) -> None:
        try:
            self._loop.call_soon_threadsafe(task.cancel)
        except RuntimeError:
            pass  # the loop has ended, and the task with it

    def wait(self, work: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """What a coroutine returns, or raises. On TimeoutError, and on Ctrl-C, it is cancelled.

        Without a `timeout_s` it is that of the client; `math.inf` is none.
        """
        future = self.hand_in(work)
        try:
            return waited(future, self._timeout_s if timeout_s is None else timeout_s)
        except BaseException:
            future.cancel()
            raise

    def read(self, look: Callable[[], T]) -> T:
        """What a function returns that looks at what belongs to the loop's thread."""
        if not self.running:
            self._check_process()
            return look()
        return self.wait(_called(look))

    def post(self, act: Callable[[], object]) -> None:
        """Have something done in the loop's thread, without waiting for it; a finalizer may call this."""
        if self._forked:
            return
        if self.running and self._begun.is_set():
            try:
                self._loop.call_soon_threadsafe(act)
                return
            except RuntimeError:
                pass  # it has just ended
        act()

    def _over(self, future: Future[Any]) -> None:
        with self._lock:
            self._inside.pop(future, None)

    def _check(self) -> None:
        self._check_process()
        if self._thread is None:
            raise RuntimeError("the client is not open: use `with Client(…)`, or `open()`")
        if threading.current_thread() is self._thread:
            raise RuntimeError("waiting in the event loop's thread would never end; use the asyncio client there")

    def _check_process(self) -> None:
        if self._forked:
            raise RuntimeError("a client does not survive a fork: make one in the new process")


def waited(future: Future[T], timeout_s: float | None) -> T:
    """The result of a future, within `timeout_s` (None: however long it takes); TimeoutError leaves it going on."""
    until = time.monotonic() + (math.inf if timeout_s is None else timeout_s)
    while True:
        left_s = min(until - time.monotonic(), SLICE_S)
        try:
            return future.result(None if left_s == math.inf else max(left_s, 0.0))
        except CancelledError:
            raise ClientClosed("closed", "the client was closed") from None
        except TimeoutError:
            if future.done():
                return future.result()  # just now; or the work itself has raised TimeoutError
            if time.monotonic() >= until:
                raise TimeoutError(f"not within {timeout_s} s") from None


def _settle(task: asyncio.Task[T], future: Future[T]) -> None:
    """What came of a task, for who waits in another thread."""
    if task.cancelled():
        future.cancel()
        return
    error = task.exception()
    if not future.set_running_or_notify_cancel():
        return  # nobody waits any more
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(task.result())


async def _called(look: Callable[[], T]) -> T:
    return look()
