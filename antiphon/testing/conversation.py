"""Somebody in a session with the agent: what a test says and does, and what it sees."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

from antiphon.testing.backend import Backend
from antiphon.testing.errors import AgentFailed, NothingCame
from antiphon.testing.turns import Turn, state_of, turns_of
from antiphon_client import Client, Session, Tool
from antiphon_client.model import Approval
from broker.subjects import run_id_of

T = TypeVar("T")


class Conversation:
    """A user in a session, over a real connection. `client` is the session of the Python client, for all else.

    Waits raise NothingCame after `timeout_s` seconds.
    """

    def __init__(
        self,
        backend: Backend,
        name: str,
        user: str,
        *,
        roles: Sequence[str] = (),
        tools: Iterable[Tool] = (),
        watching: bool = True,
        timeout_s: float = 30.0,
        raised: Callable[[str], BaseException | None] = lambda _run: None,
        crash: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._backend = backend
        self._roles = tuple(roles)
        self._tools = tuple(tools)
        self._watching = watching
        self._timeout_s = timeout_s
        self._raised = raised
        self._crash = crash
        self._stack: AsyncExitStack | None = None
        self._session: Session | None = None
        self._saved: dict[str, object] | None = None
        self._last: str | None = None
        self.name = name
        self.user = user

    # --- being there -------------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Connects, and goes on where the user was."""
        async with AsyncExitStack() as stack:
            token = self._backend.token(self.user, self._roles)
            client = await stack.enter_async_context(Client(self._backend.url, token, device=f"{self.user}-device"))
            self._session = client.session(self.name, tools=self._tools, watching=self._watching, saved=self._saved)
            self._session.follow()
            self._stack = stack.pop_all()

    async def disconnect(self) -> None:
        """The connection is lost. The agent is not told; `reconnect` goes on from here."""
        if self._stack is not None and self._session is not None:
            self._saved = self._session.save()
            stack, self._stack = self._stack, None
            await stack.aclose()

    async def reconnect(self) -> None:
        """Comes back after `disconnect`, and has what has happened meanwhile."""
        await self.connect()

    @asynccontextmanager
    async def away(self) -> Any:
        """`async with session.away():` the connection is lost for as long."""
        await self.disconnect()
        try:
            yield self
        finally:
            await self.reconnect()

    @property
    def client(self) -> Session:
        """The client's session: messages, state, commands."""
        assert self._session is not None, "not connected"
        return self._session

    # --- saying ------------------------------------------------------------------------------------------------------

    async def say(self, content: str, *, mode: str | None = None, check: bool = True) -> Turn:
        """Sends a message, and returns what the agent did about it once its run is over.

        Raises AgentFailed if the run ends with an error, unless `check` is False; its `__cause__` is what the agent raised.
        """
        return await self.finished(await self.send(content, mode=mode), check=check)

    async def send(self, content: str, *, mode: str | None = None) -> str:
        """Sends a message, and returns its inputId once it is stored: the agent has it, or will have it."""
        receipt = await self._in_time(self.client.send(content, mode=mode), f"{content!r} to be stored")
        self._last = receipt.input_id
        return self._last

    async def finished(self, input_id: str | None = None, *, check: bool = True) -> Turn:
        """The turn that a message (the last one) went into, once it is over. Raises AgentFailed, as `say`."""
        turn = await self._in_time(self._over(input_id or self._sent()), "the agent's turn to end")
        if check and turn.kind == "error":
            raise AgentFailed(turn.run_id, turn.code or "", turn.message) from self._raised(turn.run_id)
        return turn

    async def _over(self, input_id: str) -> Turn:
        """By the log, which a user who was away has missed nothing of."""
        async for _ in self.client.changes():
            state = self.client.state
            if state.is_queued(input_id) or state.is_running(run_id_of(input_id)):
                continue
            entries = await self._backend.entries(self.name)
            now = state_of(entries)
            fate = now.fate(input_id)
            if fate is None or fate.run in now.runs:
                continue
            if fate.run is None:
                return Turn(run_id_of(input_id), "main", "cancelled", fate.code or fate.status)
            return next(turn for turn in turns_of(entries, None) if turn.run_id == fate.run)
        raise NothingCame("the session was closed before the agent's turn was over")

    def _sent(self) -> str:
        assert self._last is not None, "nothing has been sent"
        return self._last

    async def turn(self, run_id: str) -> Turn:
        """What a run has done up to now. It must have begun."""
        return next(turn for turn in await self.turns(lane=None) if turn.run_id == run_id)

    async def turns(self, lane: str | None = "main") -> list[Turn]:
        """All turns of the session so far, from its log."""
        return turns_of(await self._backend.entries(self.name), lane)

    async def cancel(self, mode: str = "immediate") -> None:
        """Stops the run of the last message."""
        await self.client.cancel_run(run_id_of(self._sent()), mode)

    async def crash(self) -> None:
        """The worker dies, as of kill -9, and another takes its place."""
        assert self._crash is not None, "this user's harness has no worker"
        await self._crash()

    # --- what the agent asks -----------------------------------------------------------------------------------------

    async def asked(self) -> Approval:
        """The oldest approval or question that waits, once there is one."""
        return await self.until(lambda s: next(iter(s.state.approvals), None), "an approval or a question")

    async def decide(self, option: str = "allow_once", payload: object = None) -> Approval:
        """Decides the oldest approval that waits, once there is one, and returns it."""
        approval = await self.asked()
        await self.client.respond(approval.approval_id, option, payload)
        return approval

    async def answer(self, payload: object) -> Approval:
        """Answers the oldest question that waits, once there is one, and returns it."""
        return await self.decide("answer", payload)

    # --- seeing ------------------------------------------------------------------------------------------------------

    @property
    def text(self) -> str:
        """What the agent has said up to now about the last message, as the user sees it."""
        run_id = None if self._last is None else run_id_of(self._last)
        return "".join(
            m.text for m in self.client.messages if m.role == "assistant" and m.run == run_id and not m.rolled_back
        )

    async def until(self, reached: Callable[[Session], T | None], what: str = "what the test waits for") -> T:
        """Returns what `reached` says of the session, once that is something (neither None nor False)."""

        async def look() -> T:
            async for _ in self.client.changes():
                if (value := reached(self.client)) is not None and value is not False:
                    return value
            raise NothingCame(f"the session was closed before {what}")

        return await self._in_time(look(), what)

    async def said(self, text: str) -> None:
        """Returns when the agent has said this, about the last message."""
        await self.until(lambda _: text in self.text or None, f"{text!r}")

    async def _in_time(self, act: Awaitable[T], what: str) -> T:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await act
        except TimeoutError:
            raise NothingCame(f"waited {self._timeout_s:g} s for {what}; {self._stands()}") from None

    def _stands(self) -> str:
        state = self.client.state
        waits = [f"{a.kind} {a.message!r}" for a in state.approvals] + [f"the tool {c.name}" for c in state.calls]
        waiting = f", waits for {', '.join(waits)}" if waits else ""
        return f"the session is {state.status}{waiting}; the agent has said {self.text!r}"
