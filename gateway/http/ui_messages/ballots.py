"""Approvals as an answer shows them: who may still decide, and what was decided (PROTOCOL, rule 15). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_AT_ONCE = ("reject_once", "reject_always", "decline")
_ALWAYS = "_always"


@dataclass(slots=True)
class Ballot:
    """A pending approval, made of its `approval.requested`; `votes` are the options chosen so far, by user."""

    event: Mapping[str, Any]
    votes: dict[str, str] = field(default_factory=dict)

    def vote(self, entry: Mapping[str, Any], option: Any) -> str | None:
        """Takes an `approval.responded` of this approval; the option that is decided for, None while more are needed."""
        by = entry.get("by") or {}
        if option not in self.event["options"] or not self._may(entry, by):
            return None
        self.votes[by["id"]] = option
        if option in _AT_ONCE:
            return str(option)
        if len(self.votes) < (self.event.get("quorum") or 1):
            return None
        return next((vote for vote in self.votes.values() if not vote.endswith(_ALWAYS)), str(option))

    def _may(self, entry: Mapping[str, Any], by: Mapping[str, Any]) -> bool:
        expires_at, roles = self.event.get("expiresAt"), self.event.get("roles") or []
        in_time = expires_at is None or entry["ts"] <= expires_at
        has_role = not roles or bool({*roles} & {*by.get("roles", [])})
        return in_time and has_role and "id" in by and by["id"] not in self.votes
