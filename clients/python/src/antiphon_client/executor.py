"""Executes the calls of a session that are for tools of this client.

What is open is read from the fold (`look`). A call is claimed when there is room to execute it,
executed only after the gateway has confirmed the claim, at most once by this object, and given up as
soon as the fold says that it is over or somebody else's::

    open, unclaimed ── tool.claim ──► ok ── execute, renewing ──► tool.result
                          │ refused        │ over, or the claim is lost: cancelled, nothing is sent
                          ▼                │ the session is closed: see `_let_go`
                    left, or tried later   ▼
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeAlias

from ._host import Host
from ._json import JsonObject, as_object, check_json
from .errors import AntiphonError, CommandRefused, ContentTooLarge, FrameTooLarge, ValueRefused
from .frames import tool_claim, tool_progress, tool_release, tool_result
from .model import Call
from .threads import Threads
from .tools import Execution, Tool

logger = logging.getLogger("antiphon_client")

KEPT_ENDS: Final = 1024
"""Calls that are remembered as executed: more than the running runs of a session may have had."""
ERROR_CHARS: Final = 4096
"""How much of what a tool raised is told to the agent."""

_LATER: Final = frozenset({"not_declared", "not_subscribed"})
"""Refusals while the subscription is being renewed."""

_UNKNOWN: Final = "the client was closed while it executed the call; what it did is not known"

Key: TypeAlias = tuple[str, str]


class _ClaimLost(Exception):
    """The call is not ours any more."""


@dataclass(slots=True, eq=False)
class _Job:
    """A call on its way. `over`: the call is not ours to answer; `seen`: the fold has our claim."""

    call: Call
    claim_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    task: asyncio.Task[None] | None = None
    asked: bool = False
    begun: bool = False
    refused: bool = False
    seen: bool = False
    others: bool = False
    over: bool = False
    outcome: JsonObject | None = None


class Executor:
    """The calls of one session. `run` lives as long as the session is open."""

    def __init__(self, host: Host, session: str, tools: Mapping[str, Tool]) -> None:
        self._host = host
        self._session = session
        self._tools = tools
        self._settings = host.settings
        self._slots = asyncio.Semaphore(self._settings.tool_executions)
        self._threads = Threads(self._settings.tool_executions)
        self._open: dict[Key, Call] = {}
        self._ts = 0
        self._jobs: dict[Key, _Job] = {}
        self._ended: dict[Key, None] = {}
        self._taken: set[Key] = set()
        self._changed = asyncio.Event()

    def look(self, calls: Iterable[Call], ts: int = 0) -> None:
        """These calls are open, after an entry of the time `ts` (ms since 1970; 0: not known)."""
        self._open = {(call.run_id, call.tool_call_id): call for call in calls if call.name in self._tools}
        self._ts = max(ts, self._ts)
        for key, call in self._open.items():
            if call.claim is None:
                continue
            self._taken.discard(key)
            if (job := self._jobs.get(key)) is not None:
                job.others = call.claim.claim_id != job.claim_id
                job.seen = job.seen or not job.others
        self._taken &= self._open.keys()
        self._changed.set()

    async def run(self) -> None:
        """Serve until cancelled; then let go of what is being executed, within `tool_release_timeout_s`."""
        with self._host.waiting():  # a slow consumer of events must not hold calls up
            async with asyncio.TaskGroup() as group:
                while True:
                    self._changed.clear()
                    self._reconcile(group)
                    await self._changed.wait()

    def _reconcile(self, group: asyncio.TaskGroup) -> None:
        """Begin what is open and free, and stop what is over."""
        for key, job in self._jobs.items():
            if not job.over and job.task is not None and (key not in self._open or (job.seen and job.others)):
                job.over = True
                job.task.cancel()
        for key, call in self._open.items():
            known = any(key in place for place in (self._jobs, self._taken, self._ended))
            if call.executor == "client" and call.claim is None and not known:
                job = self._jobs[key] = _Job(call)
                job.task = group.create_task(self._serve(key, job))

    async def _serve(self, key: Key, job: _Job) -> None:
        try:
            for attempt in range(self._settings.tool_claims):
                async with self._slots:
                    pause_s = await self._attempt(key, job, attempt)
                if pause_s is None:
                    return
                await asyncio.sleep(pause_s)
            job.refused = True
        except asyncio.CancelledError:
            if not job.over:
                await self._let_go(job)
            raise
        except AntiphonError as error:
            logger.debug("call %s: %s", job.call.tool_call_id, error.code)  # the client has stopped
            job.refused = True
        finally:
            del self._jobs[key]
            if job.begun or job.refused:
                self._remember(key)
            self._changed.set()

    def _remember(self, key: Key) -> None:
        self._ended[key] = None
        if len(self._ended) > KEPT_ENDS:
            del self._ended[next(iter(self._ended))]

    # ---- claiming

    async def _attempt(self, key: Key, job: _Job, attempt: int) -> float | None:
        """Claim and execute; returns the seconds after which to try again, None if there is no sense in that."""
        call = self._open.get(key)
        if call is None or call.claim is not None:
            return None
        try:
            job.asked = True
            await self._claim(job)
        except CommandRefused as refused:
            return self._after_refusal(key, job, refused, attempt)
        if key in self._open:
            await self._execute(job)
        return None

    async def _claim(self, job: _Job) -> None:
        lease_ms = self._settings.tool_lease_ms
        frame = partial(tool_claim, call_id=job.call.tool_call_id, claim_id=job.claim_id, lease_ms=lease_ms)
        await self._host.call(partial(frame, session=self._session))

    def _after_refusal(self, key: Key, job: _Job, refused: CommandRefused, attempt: int) -> float | None:
        back_off_s: float = self._settings.backoff_base_s * 2**attempt
        if refused.code == "already_claimed":
            if not job.others:
                self._taken.add(key)  # until the fold, too, has seen it
            return None
        if refused.code == "not_targeted" and job.call.any_after is not None:
            return self._until_s(job.call.any_after) + back_off_s
        if refused.retryable or refused.code in _LATER:
            return back_off_s
        job.refused = True
        if refused.code != "not_targeted":
            logger.warning("call %s of tool %s: %s", job.call.tool_call_id, job.call.name, refused.code)
        return None

    def _until_s(self, ts: int) -> float:
        """Seconds until `ts`, by the clock that says less: this one's, or that of the latest entry."""
        return max(0.0, min(ts / 1000 - time.time(), (ts - self._ts) / 1000))

    # ---- executing

    async def _execute(self, job: _Job) -> None:
        job.begun = True
        try:
            async with asyncio.TaskGroup() as group:
                renewing = group.create_task(self._renew(job))
                job.outcome = await self._outcome(job)
                await self._report(job, job.outcome)
                renewing.cancel()
        except* _ClaimLost:
            job.over = True
            logger.warning("call %s: the claim is lost", job.call.tool_call_id)

    async def _renew(self, job: _Job) -> None:
        """Hold the claim. Raises `_ClaimLost`."""
        while True:
            await asyncio.sleep(self._settings.tool_lease_ms / 3000)
            try:
                await self._claim(job)
            except AntiphonError as error:
                if not error.retryable:
                    raise _ClaimLost from error

    async def _outcome(self, job: _Job) -> JsonObject:
        call = job.call
        progress = partial(self._progress, job)
        execution = Execution(call.tool_call_id, call.run_id, call.deadline, progress, call.trace, self._threads)
        try:
            value = await self._tools[call.name].execute(as_object(call.args) or {}, execution)
            check_json(value, "the result")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what came of the call
            return {"error": (str(error) or type(error).__name__)[:ERROR_CHARS]}
        return {"result": value}

    async def _progress(self, job: _Job, value: object) -> None:
        frame = partial(tool_progress, call_id=job.call.tool_call_id, claim_id=job.claim_id, value=value)
        await self._host.call(partial(frame, session=self._session))

    async def _report(self, job: _Job, outcome: JsonObject) -> None:
        """Send what came of it, for as long as the claim is held."""
        while True:
            try:
                await self._resolve(job, outcome)
            except (ValueRefused, ContentTooLarge, FrameTooLarge) as refused:
                if "error" in outcome:
                    raise _ClaimLost from refused
                logger.warning("call %s: the result is refused: %s", job.call.tool_call_id, refused.code)
                outcome = {"error": f"the tool's result was refused: {refused}"[:ERROR_CHARS]}
            except AntiphonError as error:
                if not error.retryable:
                    raise _ClaimLost from error
                await asyncio.sleep(self._settings.backoff_base_s)
            else:
                return

    async def _resolve(self, job: _Job, outcome: JsonObject) -> None:
        frame = partial(tool_result, call_id=job.call.tool_call_id, claim_id=job.claim_id, outcome=outcome)
        await self._host.call(partial(frame, session=self._session))

    async def _let_go(self, job: _Job) -> None:
        """The session is being closed while the call is ours.

        What was not begun, or may be executed twice, is released: somebody else may execute it. Of
        anything else it is not known what it did, and that is what the agent is told.
        """
        if not job.asked or not self._host.connected:
            return
        try:
            async with asyncio.timeout(self._settings.tool_release_timeout_s):
                if job.outcome is not None or (job.begun and not job.call.idempotent):
                    await self._resolve(job, job.outcome or {"error": _UNKNOWN})
                else:
                    frame = partial(tool_release, call_id=job.call.tool_call_id, claim_id=job.claim_id)
                    await self._host.call(partial(frame, session=self._session))
        except (TimeoutError, AntiphonError):
            logger.debug("call %s was not released; its claim runs out", job.call.tool_call_id)
