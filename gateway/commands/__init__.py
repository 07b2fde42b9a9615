"""What commands do: checks against the folded state, one append, and the answer that the log gives.

The log decides. What a participant sends is stored first, then folded, and the reply says what the fold made of it,
so that every gateway and every client comes to the same verdict. What the fold would make nothing of is refused at once
and not stored.
"""

from __future__ import annotations

from functools import partial
from typing import Any, assert_never

from broker.interfaces import Alarms, Directory, JobQueue, SessionLog
from broker.schema import Schemas
from broker.subjects import AlarmPlace, split_key
from gateway import plane, protocol
from gateway.admission import Admission
from gateway.attachments import Attachments
from gateway.auditing import Auditing, audited
from gateway.auth import Identity
from gateway.commands import approvals, copies, handoffs, inputs, listing, runs, scheduling, sessions, tools
from gateway.commands.activity import Activity
from gateway.commands.answers import Answer, answer
from gateway.commands.context import CommandContext
from gateway.commands.history import history
from gateway.commands.looking import look
from gateway.commands.tools import Executor
from gateway.config import GatewaySettings
from gateway.fields import Writing
from gateway.hub import Hub
from gateway.metrics import GatewayMetrics
from gateway.operations import operation_of
from gateway.tracing import GatewayTracing
from gateway.usage import Usage

__all__ = ["Answer", "Commands", "Executor", "SessionCommand"]

SessionCommand = protocol.InputSend | protocol.InputCancel | protocol.RunCancel | protocol.History | plane.PlaneCommand
"""Commands about one session."""
_ListOrCopy = plane.SessionDelete | plane.SessionFork | plane.SessionList | plane.HandoffList
_Decision = (
    plane.ApprovalRespond
    | plane.ApprovalRevoke
    | plane.HandoffClaim
    | plane.HandoffReturn
    | plane.SessionCreate
    | plane.SessionUpdate
    | plane.SessionClose
    | plane.SessionReopen
    | plane.SessionDelete
    | plane.SessionFork
    | plane.SessionList
    | plane.HandoffList
)


class Commands:
    """Carries out the commands of participants. One for a gateway."""

    def __init__(
        self,
        hub: Hub,
        log: SessionLog,
        jobs: JobQueue,
        directory: Directory,
        settings: GatewaySettings,
        metrics: GatewayMetrics,
        tracing: GatewayTracing,
        *,
        auditing: Auditing,
        attachments: Attachments,
        admission: Admission,
        usage: Usage,
        alarms: Alarms,
    ) -> None:
        self._auditing = auditing
        self._tracing = tracing
        self._context = partial(
            CommandContext,
            *(hub, log, jobs, settings, metrics, directory, Activity(directory), Schemas(), attachments),
            *(admission, usage, alarms),
        )

    async def look(self, session: str, who: Identity) -> dict[str, Any] | None:
        """The session as it is now. Raises Refused, InvalidName, Unavailable."""
        who.check()
        return await look(self._reading(session, who), session, who)

    async def answer(self, session: str, run_id: str, who: Identity) -> Answer:
        """What a run has come to. Raises Refused, InvalidName, Unavailable."""
        who.check()
        return await answer(self._reading(session, who), session, run_id, who)

    async def make_due(self, place: AlarmPlace, delivery: int) -> scheduling.Due:
        """Sends a scheduled input whose time has come. Raises Unavailable."""
        tenant, _ = split_key(place.session)
        ctx = self._context(self._tracing.command(None, place.session, None), tenant)
        return await scheduling.make_due(ctx, place, delivery)

    def _reading(self, session: str, who: Identity) -> CommandContext:
        """For what writes nothing, and so leaves no span."""
        return self._context(self._tracing.command(None, who.key(session), None), who.tenant)

    async def carry_out(self, command: SessionCommand, who: Identity, executor: Executor) -> dict[str, Any]:
        """What the `ok` reply carries. Raises Refused, Unavailable."""
        who.check()
        who = who.doing(operation_of(command))
        given = command.trace if isinstance(command, Writing) else None
        session = "" if isinstance(command, plane.SessionList | plane.HandoffList) else who.key(command.session)
        with self._tracing.command(command, session, given) as trace:
            action = audited(command)
            if action is not None:
                async with self._auditing.action(*action, who):
                    return await self._carry_out(self._context(trace, who.tenant), command, who, executor)
            return await self._carry_out(self._context(trace, who.tenant), command, who, executor)

    async def _carry_out(
        self, ctx: CommandContext, command: SessionCommand, who: Identity, executor: Executor
    ) -> dict[str, Any]:
        match command:
            case protocol.InputSend():
                ctx.admission.send(who)
                return await inputs.send(ctx, command, who)
            case protocol.InputCancel():
                return await inputs.cancel(ctx, command, who)
            case protocol.RunCancel():
                return await runs.cancel(ctx, command, who)
            case protocol.History():
                return await history(ctx, command, who)
            case plane.ToolClaim():
                return await tools.claim(ctx, command, who, executor)
            case plane.ToolProgress():
                return await tools.progress(ctx, command, who)
            case plane.ToolResult():
                return await tools.result(ctx, command, who, executor)
            case plane.ToolRelease():
                return await tools.release(ctx, command, who)
            case _:
                return await self._decide(ctx, command, who)

    async def _decide(self, ctx: CommandContext, command: _Decision, who: Identity) -> dict[str, Any]:
        """What people decide: approvals, hand-overs, the session itself."""
        match command:
            case plane.ApprovalRespond():
                return await approvals.respond(ctx, command, who)
            case plane.ApprovalRevoke():
                return await approvals.revoke(ctx, command, who)
            case plane.HandoffClaim():
                return await handoffs.claim(ctx, command, who)
            case plane.HandoffReturn():
                return await handoffs.give_back(ctx, command, who)
            case plane.SessionCreate():
                return await sessions.create(ctx, command, who)
            case plane.SessionUpdate():
                return await sessions.update(ctx, command, who)
            case plane.SessionClose() | plane.SessionReopen():
                return await sessions.set_closed(ctx, command, who)
            case _:
                return await self._list_or_copy(ctx, command, who)

    async def _list_or_copy(self, ctx: CommandContext, command: _ListOrCopy, who: Identity) -> dict[str, Any]:
        match command:
            case plane.SessionDelete():
                return await copies.delete(ctx, command, who)
            case plane.SessionFork():
                return await copies.fork(ctx, command, who)
            case plane.SessionList():
                return await listing.sessions(ctx, command, who)
            case plane.HandoffList():
                return await listing.handoffs(ctx, command, who)
            case _:
                assert_never(command)
