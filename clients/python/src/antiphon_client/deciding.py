"""Has a function of the program decide approvals, and answer questions, as they come."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from ._host import Host
from ._json import check_json
from .errors import AntiphonError
from .frames import command
from .model import Approval
from .threads import Threads, called

logger = logging.getLogger("antiphon_client")


@dataclass(frozen=True, slots=True)
class Choice:
    """What somebody says to an approval: one of its options, and the answer, or edited arguments."""

    option: str
    payload: object = None


Decide: TypeAlias = Callable[[Approval], Awaitable[Choice | str | None]] | Callable[[Approval], Choice | str | None]
"""Is asked once for each pending approval or question; returns the `Choice`, or the option alone, or
None to leave it to others. A coroutine function is cancelled when somebody else has decided; any other
function runs in a thread, and what it returns then counts as nothing. What it raises leaves the
approval to others."""


class Decider:
    """The approvals of one session. `run` lives as long as the session is open."""

    def __init__(self, host: Host, session: str, decide: Decide) -> None:
        self._host = host
        self._session = session
        self._decide = decide
        self._threads = Threads(host.settings.decisions)
        self._places = asyncio.Semaphore(host.settings.decisions)
        self._pending: dict[tuple[str, str], Approval] = {}
        self._asked: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    def look(self, approvals: Iterable[Approval]) -> None:
        """These are pending."""
        self._pending = {(each.run_id, each.approval_id): each for each in approvals}
        self._changed.set()

    async def run(self) -> None:
        """Serve until cancelled."""
        with self._host.waiting():  # a slow consumer of events must not hold decisions up
            async with asyncio.TaskGroup() as group:
                while True:
                    self._changed.clear()
                    self._reconcile(group)
                    await self._changed.wait()

    def _reconcile(self, group: asyncio.TaskGroup) -> None:
        for key in self._asked.keys() - self._pending.keys():
            self._asked.pop(key).cancel()
        for key, approval in self._pending.items():
            if key not in self._asked:
                self._asked[key] = group.create_task(self._serve(approval))

    async def _serve(self, approval: Approval) -> None:
        try:
            async with self._places:
                choice = await self._choice(approval)
        except Exception as error:  # noqa: BLE001 - the program's own fault; others may decide
            logger.warning(
                "approval %s: the function that decides raised %s", approval.approval_id, type(error).__name__
            )
            return
        if choice is None:
            return
        respond = partial(command, "approval.respond", session=self._session, approvalId=approval.approval_id)
        try:
            await self._host.call(partial(respond, option=choice.option, payload=choice.payload))
        except AntiphonError as error:
            logger.info("approval %s: the decision does not count: %s", approval.approval_id, error.code)

    async def _choice(self, approval: Approval) -> Choice | None:
        said = await called(self._threads, self._decide, approval)
        choice = Choice(said) if isinstance(said, str) else said
        if choice is not None:
            check_json(choice.payload, "payload")
        return choice
