"""An agent under test: a worker of its own that may be killed at any write, and somebody who talks to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, get_args

from agent_worker.config import WorkerSettings
from agent_worker.context import Agent, AgentFunction, SessionContext
from agent_worker.runtime import Worker
from antiphon.testing.backend import Backend
from antiphon.testing.conversation import Conversation
from antiphon.testing.errors import NothingCame
from antiphon.testing.mortal import Mortality, When
from antiphon.worker_process import running_worker
from antiphon_client import Tool

SETTLE_WAIT_S = 30.0
_LOOK_S = 0.005
_GRACE_S = 1.0
_MAIN = "default"
"""The pool of the agent under test."""
CRASHES_MAX = 500
"""Writes of a script that `crash_everywhere` tries at most: each is a conversation of its own."""


@dataclass(frozen=True, slots=True)
class Crash:
    """Where a worker died: at its `write`-th write (from 1), of `what`, `before` or `after` that was stored."""

    write: int
    when: When
    what: str

    def __str__(self) -> str:
        return f"the worker died at its write {self.write}, {self.when} {self.what} was stored"


class Harness:
    """`async with Harness(agent) as session`: an agent at work, and a user who talks to it.

    `agent` is an Agent, or an async function as `antiphon worker` takes it; `also` are the agents that it may ask, by their
    names. `session` and `user` name who talks to it where, with `roles` and `tools` (functions with
    `antiphon_client.tool`); `config` is the session's. `crash_at` kills the first worker at that write of its, `when`
    says on which side of it; another one goes on. `backend` is one that others use, too: without it, the harness has its
    own. `timeout_s` is the longest that anything may take. Further arguments are settings of the worker
    (`run_timeout_s=2`). For one use.
    """

    def __init__(
        self,
        agent: Agent | AgentFunction,
        *,
        also: Mapping[str, Agent | AgentFunction] | None = None,
        backend: Backend | None = None,
        session: str = "test",
        user: str = "user-1",
        roles: Sequence[str] = (),
        tools: Iterable[Tool] = (),
        config: Mapping[str, Any] | None = None,
        crash_at: int = 0,
        when: When = "before",
        timeout_s: float = 30.0,
        **worker: Any,
    ) -> None:
        self._agents = {_MAIN: _as_agent(agent), **{name: _as_agent(a) for name, a in (also or {}).items()}}
        self._own_backend = None if backend is not None else Backend(tuple(also or ()))
        self._backend = backend
        self._session = session
        self._config = config
        self._timeout_s = timeout_s
        self._settings = replace(WorkerSettings(concurrency=16, pull_wait_s=0.5, cancel_grace_s=_GRACE_S), **worker)
        self._mortal = {pool: Mortality() for pool in self._agents} | {_MAIN: Mortality(crash_at, when)}
        self._when = when
        self._leaving = False
        self._replaced = asyncio.Event()
        self._raised: dict[str, BaseException] = {}
        self._workers: dict[str, Worker] = {}
        self._stack = AsyncExitStack()
        self._user = user
        self._roles = tuple(roles)
        self._tools = tuple(tools)
        self.crashes: list[Crash] = []
        """Where workers have died by `crash_at`."""

    @property
    def backend(self) -> Backend:
        assert self._backend is not None, "the harness has not been entered"
        return self._backend

    async def __aenter__(self) -> Conversation:
        async with AsyncExitStack() as stack:
            if self._own_backend is not None:
                self._backend = await stack.enter_async_context(self._own_backend)
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            ready = [asyncio.Event() for _ in self._agents]
            for (pool, agent), event in zip(self._agents.items(), ready, strict=True):
                tasks.create_task(self._keep(pool, agent, event))
            stack.callback(self._leave)
            for event in ready:
                await event.wait()
            conversation = await stack.enter_async_context(self.somebody())
            if self._config is not None:
                await conversation.client.create(config=dict(self._config))
            self._stack = stack.pop_all()
        return conversation

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        # What the test raised is the test's: it must not come out wrapped in what a group of tasks makes of it.
        await self._stack.aclose()

    def somebody(
        self,
        user: str | None = None,
        *,
        roles: Sequence[str] | None = None,
        tools: Iterable[Tool] | None = None,
        watching: bool = True,
    ) -> _Present:
        """`async with harness.somebody("user-2", roles=["manager"]) as boss`: another user in the same session."""
        return _Present(
            Conversation(
                self.backend,
                self._session,
                self._user if user is None else user,
                roles=self._roles if roles is None else roles,
                tools=self._tools if tools is None else tools,
                watching=watching,
                timeout_s=self._timeout_s,
                raised=self._raised.get,
                crash=self.crash,
            )
        )

    async def crash(self) -> None:
        """The worker of the agent dies now, as of kill -9; returns when another has taken its place."""
        self._replaced.clear()
        self._mortal[_MAIN].die()
        await self._replaced.wait()

    async def settled(self) -> None:
        """Returns when nothing runs, nothing waits, and every worker has let go of its lanes. Raises NothingCame."""
        try:
            async with asyncio.timeout(SETTLE_WAIT_S):
                while self._at_work() or await self.backend.jobs():  # noqa: ASYNC110 (what NATS has can only be asked for)
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            raise NothingCame(f"after {SETTLE_WAIT_S:g} s there is still work in the session") from None

    def _at_work(self) -> bool:
        return self._mortal[_MAIN].died.is_set() or any(worker.busy for worker in self._workers.values())

    # --- the worker ----------------------------------------------------------------------------------------------------

    async def _keep(self, pool: str, agent: Agent, ready: asyncio.Event) -> None:
        """A worker of a pool, and another one each time it has died."""
        watched = replace(agent, run=self._watched(agent.run))
        while not self._leaving:
            mortality = self._mortal[pool]
            await self._work(pool, watched, mortality, ready)
            if mortality.last is not None:
                self.crashes.append(Crash(mortality.last.number, self._when, mortality.last.what))
            self._mortal[pool] = Mortality()

    def _leave(self) -> None:
        # Not by a cancel: a client of NATS that is just starting may not heed it.
        self._leaving = True
        for mortality in self._mortal.values():
            mortality.over.set()

    async def _work(self, pool: str, agent: Agent, mortality: Mortality, ready: asyncio.Event) -> None:
        """Returns when the worker has died, and the leases of its jobs have run out; or the harness ends."""
        settings = replace(self._settings, pool=pool)
        async with running_worker(self.backend.broker, settings, agent, mortality.wrap) as worker:
            self._workers[pool] = worker
            async with asyncio.TaskGroup() as tasks:
                working = tasks.create_task(worker.run())
                ready.set()
                if pool == _MAIN:
                    self._replaced.set()
                if not self._leaving:
                    await mortality.over.wait()
                working.cancel()
            await mortality.leases_run_out()

    def _watched(self, run: AgentFunction) -> AgentFunction:
        """The agent's function; what it raises is kept for who waits for the run."""

        async def watched(ctx: SessionContext) -> None:
            try:
                await run(ctx)
            except Exception as error:
                self._raised[ctx.run_id] = error
                raise

        return watched


class _Present:
    """Somebody who is there for as long as the context."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation

    async def __aenter__(self) -> Conversation:
        await self._conversation.connect()
        return self._conversation

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._conversation.disconnect()


Script = Callable[[Conversation], Awaitable[None]]


async def crash_everywhere(
    agent: Agent | AgentFunction, script: Script, *, backend: Backend | None = None, **options: Any
) -> list[Crash]:
    """Runs `script` once for every write that the agent's worker makes in it, with the worker dying there.

    Each time on a session of its own, once just before the write is stored and once just after, before the worker knows.
    The script asserts what must be so whatever happens; what it raises has a note that says where the worker died. Ends
    when a script ends before its worker has died. `options` are those of Harness. Returns where workers have died.
    """
    async with AsyncExitStack() as stack:
        if backend is None:
            backend = await stack.enter_async_context(Backend(tuple(options.get("also") or ())))
        crashes: list[Crash] = []
        for when in get_args(When):
            for write in range(1, CRASHES_MAX + 1):
                where = {"session": f"crash-{when}-{write}", "crash_at": write, "when": when}
                harness = Harness(agent, backend=backend, **{**options, **where})
                try:
                    async with harness as session:
                        await script(session)
                        await harness.settled()
                except BaseException as error:
                    for crash in harness.crashes:
                        error.add_note(str(crash))
                    raise
                if not harness.crashes:
                    break
                crashes += harness.crashes
            else:
                raise NothingCame(f"the script makes more than {CRASHES_MAX} writes: test a shorter one")
        return crashes


def _as_agent(agent: Agent | AgentFunction) -> Agent:
    return agent if isinstance(agent, Agent) else Agent(getattr(agent, "__name__", "agent"), agent)
