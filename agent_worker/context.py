"""What an agent is given: the session as it stands, ways to speak in it, and ways to ask the people and agents in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from agent_worker import approvals, asking, attaching, handing_over, tools
from agent_worker.approvals import Decision, Permission
from agent_worker.attaching import AttachedFile
from agent_worker.control import RunControl
from agent_worker.errors import AskFailed
from agent_worker.planning import Planning
from agent_worker.scope import LaneScope
from agent_worker.tools import ClientCall, Target, ToolFunction
from agent_worker.tracing import RunTrace, label
from agent_worker.watching import RunPresence
from broker.attachments import Attachment
from broker.clock import in_ms
from broker.events import ApprovalRequested, HandoffRequested, InputApplied
from broker.presence import Present
from broker.state import Cancel, QueuedInput, SessionState
from broker.transcript import Message, message_id_of

OnTakeover = Literal["continue", "restart", "fail"]


class SessionContext(Planning):
    """An agent's place in a session, for one run.

    What it asks of others (tools, approvals, hand-overs, other agents) is in the log before anybody is asked. A new
    attempt of the run (after a crash) that asks the same gets what was asked before, and its answer if there is one:
    calls are recognised by what they ask and how often that was asked before, or by a `key` of the author's.

    Results of steps are found again in the same way. Waits give up the worker's slot. All methods raise RunEnded after the run has ended and LogError when the lane is
    lost; an agent need not handle either.
    """

    def __init__(
        self,
        scope: LaneScope,
        control: RunControl,
        presence: RunPresence,
        *,
        run_id: str,
        attempt: int,
        inputs: Sequence[QueuedInput],
        said: str,
        history: Callable[[int], Awaitable[list[Message]]],
        trace: RunTrace,
    ) -> None:
        super().__init__(scope, control, run_id, attempt, trace)
        self._presence = presence
        self._history = history
        # One after another: each has to see the lanes and the number of those before it.
        self._asking = asyncio.Lock()
        self.session = scope.subjects.session
        self.tenant = scope.subjects.tenant
        self.lane = scope.lane
        self.inputs = tuple(inputs)
        """What started the run: more than one if the session merges inputs that wait."""
        self.said = said
        """What earlier attempts of this run have said to the people, as it stands in the transcript; "" on the first
        attempt, and for agents that restart."""
        self.cancel_reason: Cancel | None = None
        """Who stopped the run and why, once somebody has; the agent's task is cancelled at the same time."""

    @property
    def input(self) -> QueuedInput | None:
        """What started the run; the first, if there are several."""
        return self.inputs[0] if self.inputs else None

    @property
    def state(self) -> SessionState:
        """The session's state: its config, what waits, what is remembered."""
        return self._scope.state

    async def history(self, limit: int = 50) -> list[Message]:
        """The last `limit` messages of the lane, oldest first, the input of this run included.

        Without those of runs that were rolled back; text as far as it is in records.
        """
        want = limit
        while True:
            found = await self._history(want)
            own = [m for m in found if m.lane == self.lane and not m.rolled_back]
            if len(own) >= limit or len(found) < want:
                return own[-limit:]
            want *= 4

    # --- attachments -------------------------------------------------------------------------------------------------

    async def attachment(self, id_: str) -> AttachedFile:
        """An attachment of the session, by the `id` that a message or an input (`ctx.input.attachments`) refers to it by.

        Raises AttachmentNotFound.
        """
        self._control.check()
        return await attaching.find(self._scope, id_)

    async def attach(self, name: str, media_type: str, data: bytes | AsyncIterable[bytes]) -> Attachment:
        """Gives the people a file: with the message that is open, else as a message of its own. Returns when it is stored.

        `data` may come piece by piece. Raises AttachmentRefused, ContentTooLarge.
        """
        await self._control.pass_through()
        stored = await attaching.store(self._scope, name, media_type, data)
        async with attaching.taken_back_unless_said(self._scope, stored):
            self._control.check()
            self._control.said += 1
            self._say_attached(stored.reference())
            await self._scope.stored()
        return stored

    # --- steering ----------------------------------------------------------------------------------------------------

    async def take_steering(self) -> list[QueuedInput]:
        """The inputs that came for this run since it began, in order; from now on they are in its transcript.

        For agents that are declared with `accepts_steering`. Call it between steps and after tool results. What is not
        taken becomes the next run: nothing is dropped.
        """
        await self._control.boundary()
        waiting = [i for i in self.state.queue(self.lane) if i.mode == "inject"]
        if not waiting:
            return []
        self._end_texts()
        for queued in waiting:
            self._writer.record(InputApplied(queued.input_id, self.run_id, message_id_of(queued.input_id)))
        await self._scope.stored()
        # One of them may have been taken back a moment before: the fold of our own record says so.
        fates = {i.input_id: self.state.fate(i.input_id) for i in waiting}
        taken = [i for i in waiting if (fate := fates[i.input_id]) is not None and fate.run == self.run_id]
        self._trace.link(taken)
        return taken

    async def steering(self) -> AsyncIterator[QueuedInput]:
        """Inputs for this run as they come, without end: leave the loop when the work is done."""
        while True:
            for queued in await self.take_steering():
                yield queued
            await self._scope.until(lambda state: any(i.mode == "inject" for i in state.queue(self.lane)) or None)

    # --- tools -------------------------------------------------------------------------------------------------------

    async def client_tool(
        self,
        name: str,
        args: Mapping[str, Any] | None = None,
        *,
        deadline_s: float = 120.0,
        target: Target | None = None,
        idempotent: bool | None = None,
        needs_permission: bool | Permission | None = None,
        key: str | None = None,
    ) -> Any:
        """Has a client execute a tool, and returns its result.

        `target` is, unless it is given, the user whose input started the run, and after 10 s every client that has the
        tool. A call that is not `idempotent` is offered once; with `needs_permission` an approval is asked for first, which
        may edit the arguments. Unless they are given, the clients that are there now say so: all of them that it is
        idempotent, one of them that it needs permission. Raises ToolFailed (`no_executor`, `deadline`,
        `outcome_unknown`, `rejected`, `error`), ArgumentsInvalid, TooManyCalls, ContentTooLarge.
        """
        args = args or {}
        await self._control.boundary()
        id_ = self._call_ids.name("call", ["client", name, args], key)
        if id_ not in self.state.calls:
            declared = await self._presence.tools(name)
            tools.check_arguments(name, args, declared)
            if any(d.needs_permission for d in declared) if needs_permission is None else needs_permission:
                args = await self._permitted(id_, name, args, needs_permission)
                tools.check_arguments(name, args, declared)
            if idempotent is None:
                idempotent = bool(declared) and all(d.idempotent for d in declared)
            call = ClientCall(id_, name, args, target or self._default_target(), deadline_s, idempotent)
            self._begin_call()
            await tools.request(self._scope, call, declared)
        with self._trace.span("tool", "client", tool=label(name), call=id_, executor="client"):
            async with self._waiting("client_tool"):
                result = await tools.outcome(self._scope, id_, name)
        await self._control.boundary()
        return result

    async def tool(
        self,
        name: str,
        args: Mapping[str, Any],
        function: ToolFunction,
        *,
        idempotent: bool = False,
        needs_permission: bool | Permission = False,
        key: str | None = None,
    ) -> Any:
        """Runs a tool of the agent's own, with its trace in the log, and returns its result.

        With `needs_permission` an approval is asked for first, which may edit the arguments. After a crash a call that has a result is not made again: the result comes from the log. One that has none is made
        again if it is `idempotent`, with the same `idempotency_key`; else it ends as `outcome_unknown`. Raises
        ToolFailed, TooManyCalls, and what `function` raises.
        """
        await self._control.boundary()
        id_ = self._call_ids.name("call", ["agent", name, args], key)
        if needs_permission and id_ not in self.state.calls:
            args = await self._permitted(id_, name, args, needs_permission)
        self._begin_call()
        span = self._trace.span("tool", tool=label(name), call=id_, executor="agent")
        with span, self._scope.services.metrics.waiting("agent_tool"):
            result = await tools.run_own(self._scope, id_, name, args, function, idempotent=idempotent)
        await self._control.boundary()
        return result

    def _begin_call(self) -> None:
        self._end_texts()
        self._control.called = True

    def _default_target(self) -> Target:
        by = self.input.by if self.input is not None else None
        return Target(user=by.id) if by is not None and by.kind == "user" else Target()

    async def _permitted(
        self, call_id: str, name: str, args: Mapping[str, Any], needed: bool | Permission | None
    ) -> Mapping[str, Any]:
        """The arguments that people allow. Raises ToolFailed (`rejected`)."""
        asked = needed if isinstance(needed, Permission) else Permission()
        decision = await self.approve(**asked.question(name, args, call_id))
        if not decision.allowed:
            self._begin_call()
            await tools.reject(self._scope, call_id, name, args)
        return args if decision.payload is None else dict(decision.payload)

    # --- approvals and questions ---------------------------------------------------------------------------------------

    async def approve(
        self,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        options: Sequence[str] = ("allow_once", "allow_always", "reject_once", "reject_always"),
        default: str = "reject_once",
        expires_s: float | None = None,
        roles: Sequence[str] = (),
        quorum: int = 1,
        key: str | None = None,
        response_schema: Mapping[str, Any] | None = None,
        tool_call_id: str | None = None,
        call_key: str | None = None,
    ) -> Decision:
        """Asks the people for a decision, and returns it.

        At `expires_s` the `default` counts; without it, it waits for ever. With `roles`, only who has one of them may
        decide; `quorum` of them must allow. `key` names what the "always" options are remembered for in this session:
        what was decided for always is not asked again; without a key they are not offered. `response_schema` says what a
        payload (edited arguments) must be; `tool_call_id` is the call that it is about. `call_key` names this very
        question for a later attempt of the run. Raises TooManyCalls, ContentTooLarge, SchemaInvalid.
        """
        await self._control.boundary()
        offered = tuple(o for o in options if key is not None or not o.endswith("_always"))
        id_ = self._call_ids.name("apr", [message, details, offered, list(roles), quorum], call_key)
        known = approvals.remembered(self._scope, key)
        if known is not None and id_ not in self.state.approvals:
            return known
        approvals.check_schema(response_schema)
        self._end_texts()
        request = ApprovalRequested(
            id_,
            "approval",
            message,
            offered,
            default,
            expires_at=_at(expires_s),
            tool_call_id=tool_call_id,
            key=key,
            roles=tuple(roles) or None,
            quorum=quorum,
            response_schema=response_schema,
            details=details,
        )
        return await self._decide(request)

    async def ask_user(
        self,
        message: str,
        schema: Mapping[str, Any],
        *,
        roles: Sequence[str] = (),
        expires_s: float | None = None,
        key: str | None = None,
    ) -> Any:
        """Asks the people a question, and returns the answer, which is as `schema` (JSON Schema) says.

        Raises NoAnswer (declined, expired, cancelled), TooManyCalls, ContentTooLarge, SchemaInvalid.
        """
        await self._control.boundary()
        approvals.check_schema(schema)
        id_ = self._call_ids.name("apr", [message, schema, list(roles)], key)
        self._end_texts()
        request = approvals.question(id_, message, schema, roles=tuple(roles), expires_at=_at(expires_s))
        return approvals.answer_of(await self._decide(request))

    async def _decide(self, request: ApprovalRequested) -> Decision:
        await approvals.request(self._scope, request)
        with self._trace.span("approval", approval=request.approval_id, kind=request.kind):
            async with self._waiting(request.kind):
                decision = await approvals.decision(self._scope, request.approval_id)
        await self._control.boundary()
        return decision

    # --- people ------------------------------------------------------------------------------------------------------

    async def watchers(self) -> tuple[Present, ...]:
        """Who watches the session now."""
        return await self._presence.watchers()

    async def handoff(
        self, to: str, *, reason: str, summary: str = "", expires_s: float | None = 600.0, key: str | None = None
    ) -> NoReturn:
        """Hands the lane over to a human with the role `to`.

        When somebody takes it, the run ends: this method does not return, and what the human says at the end comes as the
        input of a new run. Raises NobodyCame after `expires_s` seconds; the agent still has the lane then.
        """
        await self._control.boundary()
        id_ = self._call_ids.name("ho", [to, reason, summary], key)
        self._end_texts()
        event = HandoffRequested(id_, to, reason, summary, _at(expires_s))
        await handing_over.request(self._scope, event)
        async with self._waiting("handoff"):
            await handing_over.outcome(self._scope, event)

    # --- other agents --------------------------------------------------------------------------------------------------

    async def ask(self, agent: str, content: str, *, timeout_s: float = 600.0, key: str | None = None) -> str:
        """Asks another agent, and returns what it said. Its run is visible to the people, and cancelled with this one.

        `agent` is the name of an agent and of the pool whose workers run it. Raises AskFailed.
        """
        await self._control.boundary()
        input_id = self._call_ids.name("ask", [agent, content], key)
        self._end_texts()
        async with self._asking:
            await asking.request(self._scope, self.run_id, input_id, agent, content, detached=False)
        try:
            async with self._waiting("agent"):
                text = await asking.answer(self._scope, input_id, agent, in_ms(timeout_s))
        except asyncio.CancelledError:
            # Given up by the author: nobody waits for it any more. But a run that is left to another worker still does,
            # and one that ends takes what it asked for with it.
            if not self._control.stopping:
                asking.give_up(self._scope, input_id)
            raise
        except AskFailed:
            # It may have been cancelled because this run is.
            await self._control.boundary()
            raise
        await self._control.boundary()
        return text

    async def tell(self, agent: str, content: str, *, key: str | None = None) -> None:
        """Gives another agent something to do, and does not wait. Its run goes on when this one ends. Raises AskFailed."""
        await self._control.boundary()
        input_id = self._call_ids.name("tell", [agent, content], key)
        async with self._asking:
            await asking.request(self._scope, self.run_id, input_id, agent, content, detached=True)

    @asynccontextmanager
    async def _waiting(self, kind: str) -> AsyncIterator[None]:
        """A wait for others: the worker's slot is free meanwhile, and no model runs."""
        with self._control.waiting(), self._scope.services.metrics.waiting(kind):
            async with self._scope.slot.parked():
                yield


def _at(after_s: float | None) -> int | None:
    """The time that many seconds from now, if there is an end."""
    return None if after_s is None else in_ms(after_s)


AgentFunction = Callable[[SessionContext], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent: its name, what it runs, and what becomes of a run whose worker has died.

    `continue`: the partial message is closed and the function is called again, with `ctx.said`; `restart`: the same,
    without; `fail`: the run ends with `worker_lost`. `accepts_steering`: inputs that come in the middle of a run are for
    that run, which takes them with `ctx.take_steering()`. `prepare` is awaited once before the first run. Tasks that are
    started in a run are cancelled when it has ended, unless `keeps_tasks` says that they are meant to live on.
    """

    name: str
    run: AgentFunction
    on_takeover: OnTakeover = "continue"
    prepare: Callable[[], Awaitable[None]] | None = None
    accepts_steering: bool = False
    keeps_tasks: bool = False
