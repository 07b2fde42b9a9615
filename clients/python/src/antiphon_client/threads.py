"""Plain functions of the program, each executed in a thread of its own."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """At most `limit` threads at once, those included that nobody waits for any more.

    A thread cannot be stopped from outside: when the wait for it is cancelled it goes on, and keeps
    its place until it ends. The threads are daemons, so that none of them holds up the program's end.
    """

    def __init__(self, limit: int) -> None:
        self._places = asyncio.Semaphore(limit)

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns, or raises. Cancelling the wait is safe, and leaves the thread alone."""
        await self._places.acquire()
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()
        context = contextvars.copy_context()

        def end(result: Callable[[], None]) -> None:
            self._places.release()
            if not outcome.done():
                result()

        def body() -> None:
            try:
                value = context.run(work)
            except Exception as error:  # noqa: BLE001 - it is raised where the result is awaited
                _tell(loop, end, functools.partial(outcome.set_exception, _passable(error)))
            else:
                _tell(loop, end, functools.partial(outcome.set_result, value))

        threading.Thread(target=body, name="antiphon-client-function", daemon=True).start()
        return await outcome


def _tell(loop: asyncio.AbstractEventLoop, end: Callable[[Callable[[], None]], None], how: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(end, how)
    except RuntimeError:
        pass  # the loop is closed: nobody wants to know


def _passable(error: Exception) -> Exception:
    """A future takes no StopIteration."""
    if not isinstance(error, StopIteration):
        return error
    passable = RuntimeError("the function raised StopIteration")
    passable.__cause__ = error
    return passable


async def called(threads: Threads, function: Callable[..., Awaitable[T] | T], *args: object) -> T:
    """What a function of the program comes to: a coroutine function here, any other in a thread."""
    if is_async(function):
        found: Any = function(*args)
    else:
        found = await threads.run(functools.partial(function, *args))
    result: T = await found if inspect.isawaitable(found) else found
    return result


def is_async(function: Callable[..., object]) -> bool:
    """Whether calling it makes a coroutine. Of an object, its `__call__` is judged."""
    call: object = vars(type(function)).get("__call__")
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)
