"""The rules of PROTOCOL, section 6, as functions on a `Ledger`: one module for each of its groups.

A rule takes the ledger, the entry and one of its events, and never raises: what is malformed counts
as nothing. What an event did is appended to `Ledger.changes`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from antiphon_client._json import JsonObject
from antiphon_client.ledger import Ledger
from antiphon_client.protocol import Entry

from . import about, approvals, handoffs, inputs, lanes, runs, schedule, tools

Rule: TypeAlias = Callable[[Ledger, Entry, JsonObject], None]

OWNER: Final = "session.owner"
"""Counts under any fence, for it makes the fence, but only as the one event of its entry: `lanes.owner`."""

OF_ANYBODY: Final[Mapping[str, Rule]] = {
    "input.sent": inputs.sent,
    "input.scheduled": schedule.scheduled,
    "input.cancel.requested": inputs.cancel_requested,
    "run.cancel.requested": runs.cancel_requested,
    "tool.claimed": tools.claimed,
    "tool.released": tools.released,
    "tool.resolved": tools.resolved,
    "approval.responded": approvals.responded,
    "approval.revoked": approvals.revoked,
    "handoff.returned": handoffs.returned,
    "session.created": about.created,
    "session.updated": about.updated,
    "session.closed": about.closed,
    "session.reopened": about.reopened,
    "session.deleted": about.deleted,
    "messages.imported": about.imported,
}

OF_OWNERS: Final[Mapping[str, Rule]] = {
    "input.applied": inputs.applied,
    "input.failed": inputs.failed,
    "input.scheduled": schedule.scheduled,
    "input.unscheduled": schedule.unscheduled,
    "run.requested": inputs.requested,
    "run.dropped": runs.dropped,
    "run.taken_over": runs.taken_over,
    "session.state": runs.held,
    "RUN_STARTED": runs.started,
    "RUN_FINISHED": runs.finished,
    "RUN_ERROR": runs.failed,
    "tool.requested": tools.requested,
    "tool.failed": tools.ended,
    "tool.lapsed": tools.lapsed,
    "TOOL_CALL_RESULT": tools.ended,
    "approval.requested": approvals.requested,
    "approval.resolved": approvals.expired,
    "handoff.requested": handoffs.requested,
    "handoff.expired": handoffs.expired,
}

owner: Final[Rule] = lanes.owner
