"""`run.cancel`."""

from __future__ import annotations

from typing import Any

from broker.errors import ErrorCode, Refused
from broker.events import RunCancelRequested
from broker.state import SessionState
from broker.subjects import input_id_of
from gateway.auth import Identity, Right
from gateway.commands import scheduling
from gateway.commands.context import CommandContext, not_allowed, short_id
from gateway.protocol import RunCancel


async def cancel(ctx: CommandContext, command: RunCancel, who: Identity) -> dict[str, Any]:
    """Raises Refused, Unavailable."""
    who.require(Right.CANCEL, command.session)
    async with ctx.session(command.session) as feed:
        state = feed.state
        verdict = _status(state, command.run_id, command.mode)
        if verdict in ("running", "queued"):
            if not state.config.allows_cancel(who.roles):
                raise _forbidden()
            event = RunCancelRequested(command.run_id, command.mode)
            message_id = f"cancel:{command.run_id}:{command.mode}:{short_id(who.id)}"
            entry = ctx.entry(event, who, message_id, state.trace_of(command.run_id))
            planned = state.planned(input_id_of(command.run_id))
            state = (await ctx.append(feed, entry)).state
            verdict = _status(state, command.run_id, command.mode)
            if planned is not None:
                await scheduling.forget(ctx, feed, planned.input_id)
        return _reply(command.run_id, verdict)


def _status(state: SessionState, run_id: str, mode: str) -> str:
    """running, queued, cancelling (in this mode, or at once), cancelled, ended or unknown."""
    input_id = input_id_of(run_id)
    run = state.runs.get(run_id)
    if run is not None:
        wished = run.cancel is not None and run.cancel.mode in ("immediate", mode)
        return "cancelling" if wished else "running"
    if state.queued(input_id) is not None or state.planned(input_id) is not None:
        return "queued"
    fate = state.fate(input_id)
    end = state.end_of(run_id)
    if (end is not None and end.status == "cancelled") or (fate is not None and fate.status == "cancelled"):
        return "cancelled"
    return "ended" if input_id in state.seen else "unknown"


def _reply(run_id: str, verdict: str) -> dict[str, Any]:
    match verdict:
        case "cancelling" | "cancelled":
            return {"runId": run_id, "status": verdict}
        case "ended":
            raise Refused(ErrorCode.RUN_ENDED, "the run has ended already", runId=run_id)
        case "unknown":
            raise Refused(ErrorCode.RUN_NOT_FOUND, "the session has no such run", runId=run_id)
        case _:
            # Stored, and folded to nothing: the config had changed a moment before.
            raise _forbidden()


def _forbidden() -> Refused:
    return not_allowed(Right.CANCEL, "the session's config does not let your roles cancel runs")
