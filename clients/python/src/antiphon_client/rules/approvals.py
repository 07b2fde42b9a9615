"""Rules 14 and 15: approvals and questions."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from antiphon_client._json import JsonObject, as_str, as_strings
from antiphon_client.ledger import Ledger
from antiphon_client.model import Approval, Vote
from antiphon_client.protocol import Entry

from .names import same_id

MAX_PENDING: Final = 64
"""Approvals that may be pending in a session."""
MAX_HAD: Final = 1000
"""Approvals that the running runs may have had."""

_AT_ONCE: Final = ("reject_once", "reject_always", "decline")
_FOR_ALWAYS: Final = ("allow_always", "reject_always")


def requested(ledger: Ledger, entry: Entry, event: JsonObject) -> None:
    """Rule 14."""
    run = ledger.running_in(entry.lane)
    approval = None if run is None else Approval.requested(event, run.lane, run.run_id)
    if approval is None or len(ledger.approvals) >= MAX_PENDING:
        return
    had = [past.approvals for past in ledger.past.values()]
    if sum(len(ids) for ids in had) >= MAX_HAD or any(approval.approval_id in ids for ids in had):
        return
    ledger.approvals[approval.approval_id] = approval
    ledger.past[approval.run_id].approvals.add(approval.approval_id)


def responded(ledger: Ledger, entry: Entry, event: JsonObject) -> None:
    """Rule 15: a vote, which may decide."""
    approval, option = _pending(ledger, event), as_str(event.get("option"))
    if approval is None or option not in approval.options or not _may_vote(approval, entry):
        return
    vote = Vote(entry.by, option)
    approval = replace(approval, votes=(*approval.votes, vote))
    decision = _decision(approval)
    if decision is None:
        ledger.approvals[approval.approval_id] = approval
        return
    del ledger.approvals[approval.approval_id]
    if decision.option in _FOR_ALWAYS and approval.key is not None:
        ledger.remember(approval.key, {"option": decision.option, "by": decision.by})


def _may_vote(approval: Approval, entry: Entry) -> bool:
    if entry.by is None or (approval.expires_at is not None and entry.ts > approval.expires_at):
        return False
    has = as_strings(entry.by.get("roles"))
    if approval.roles and not any(role in has for role in approval.roles):
        return False
    return not any(same_id(vote.by, entry.by) for vote in approval.votes)


def _decision(approval: Approval) -> Vote | None:
    """The vote that decides; None while more are needed."""
    last = approval.votes[-1]
    if last.option in _AT_ONCE:
        return last
    if len(approval.votes) < approval.quorum:
        return None
    return next((vote for vote in approval.votes if not vote.option.endswith("_always")), last)


def revoked(ledger: Ledger, _entry: Entry, event: JsonObject) -> None:
    """Rule 15: what was decided for always is asked again."""
    ledger.remembered.pop(as_str(event.get("key")) or "", None)


def expired(ledger: Ledger, entry: Entry, event: JsonObject) -> None:
    """Rule 15: nobody decided."""
    approval = _pending(ledger, event)
    if approval is not None and approval.lane == entry.lane:
        del ledger.approvals[approval.approval_id]


def _pending(ledger: Ledger, event: JsonObject) -> Approval | None:
    return ledger.approvals.get(as_str(event.get("approvalId")) or "")
