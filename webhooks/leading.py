"""What this process does with the time in which it is the one that sends: trying again, and stopping when it is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from broker.errors import LogError, Unavailable, WrongSequence
from broker.outbox import Term
from webhooks.errors import TermOver

T = TypeVar("T")

_WAIT_MIN_S, _WAIT_MAX_S = 0.05, 1.0


async def patiently(term: Term, act: Callable[[], Awaitable[T]]) -> T:
    """What `act` returns, tried again while NATS is away. For what may be done twice. Raises TermOver."""
    wait_s = _WAIT_MIN_S
    while True:
        if not term.valid:
            raise TermOver("the lease has run out")
        try:
            return await act()
        except WrongSequence as error:
            raise TermOver(str(error)) from None
        except Unavailable:
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, _WAIT_MAX_S)


async def once(term: Term, act: Callable[[], Awaitable[T]]) -> T:
    """What `act` returns. For what must not be done twice: the next term finds out what came of it. Raises TermOver."""
    if not term.valid:
        raise TermOver("the lease has run out")
    try:
        return await act()
    except LogError as error:
        raise TermOver(str(error)) from None


async def renewing(term: Term, lease_s: float) -> None:
    """Renews the lease. Raises TermOver."""
    while True:
        await patiently(term, term.renew)
        await asyncio.sleep(lease_s / 4)
