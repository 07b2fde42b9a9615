"""Calls that clients execute, and approvals: one accepted answer each, the one that its sender was told of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tests.chaos.findings import Indexed, Kind, Violation

_NOT_KNOWN = '{"error":"outcome_unknown"}'
_ENDS = ("RUN_FINISHED", "RUN_ERROR")


def check_decisions(indexed: Indexed) -> Iterator[Violation]:
    """Results of calls, decisions of approvals."""
    yield from _results(indexed)
    yield from _given(indexed)
    yield from _decisions(indexed)


def _results(indexed: Indexed) -> Iterator[Violation]:
    stored = {(event["toolCallId"], event["claimId"]) for _, event in indexed.events("tool.resolved")}
    told: dict[str, set[str]] = {}
    for answer, fields in indexed.acknowledged("tool.result"):
        call, claim = fields["toolCallId"], fields["claimId"]
        told.setdefault(call, set()).add(claim)
        if (call, claim) not in stored:
            yield Violation(Kind.LOST_RESULT, call, f"of {claim}, acknowledged to {answer.who}")
    for call, claims in told.items():
        if len(claims) > 1:
            yield Violation(Kind.RESULT_TWICE, call, f"acknowledged to {sorted(claims)}")


def _given(indexed: Indexed) -> Iterator[Violation]:
    """What the run was given: one result, and the accepted one if there was one.

    A run that is stopped in the moment in which the result comes writes that the outcome is not known (PROTOCOL, "A tool
    call of a client"): its worker has not read the result yet.
    """
    accepted = {fields["toolCallId"]: fields["result"] for _, fields in indexed.acknowledged("tool.result")}
    succeeded = {event["runId"] for _, event in indexed.events("RUN_FINISHED") if event["outcome"]["type"] == "success"}
    given: set[str] = set()
    for logged, event in indexed.events("TOOL_CALL_RESULT"):
        call = event["toolCallId"]
        if call in given:
            yield Violation(Kind.RESULT_TWICE, call, "given twice to the run")
        given.add(call)
        stopped = logged.entry["run"] not in succeeded and event["content"] == _NOT_KNOWN
        if call in accepted and event["content"] != _content(accepted[call]) and not stopped:
            yield Violation(Kind.WRONG_RESULT, call)


def _content(result: Any) -> str:
    return result if isinstance(result, str) else json.dumps(result, separators=(",", ":"))


def _decisions(indexed: Indexed) -> Iterator[Violation]:
    decided = _decisive(indexed)
    stored = {
        (event["approvalId"], logged.entry["by"]["id"], event["option"])
        for logged, event in indexed.events("approval.responded")
    }
    for answer, fields in indexed.acknowledged("approval.respond"):
        approval, option = fields["approvalId"], fields["option"]
        if (approval, answer.who, option) not in stored:
            yield Violation(Kind.LOST_DECISION, approval, f"of {answer.who}")
        elif answer.reply["status"] == "resolved" and decided.get(approval) != (answer.who, option):
            yield Violation(Kind.DECIDED_TWICE, approval, f"{decided.get(approval)}, and of {answer.who}")


def _decisive(indexed: Indexed) -> dict[str, tuple[str, str]]:
    """Who decided each approval and how: the first answer in time, unless it expired or its run ended before."""
    expires: dict[str, int] = {}
    run_of: dict[str, str] = {}
    decided: dict[str, tuple[str, str]] = {}
    over: set[str] = set()
    wanted = ("approval.requested", "approval.responded", "approval.resolved", *_ENDS)
    for logged, event in indexed.events(*wanted):
        entry = logged.entry
        match event["type"]:
            case "approval.requested":
                expires[event["approvalId"]] = event.get("expiresAt") or 1 << 62
                run_of[event["approvalId"]] = entry["run"]
            case "approval.responded":
                _answered(entry, event, expires, over, decided)
            case "approval.resolved":
                over.add(event["approvalId"])
            case _:
                ended = event.get("runId") or entry["run"]
                over |= {approval for approval, run in run_of.items() if run == ended}
    return decided


def _answered(
    entry: Mapping[str, Any],
    event: Mapping[str, Any],
    expires: Mapping[str, int],
    over: set[str],
    decided: dict[str, tuple[str, str]],
) -> None:
    approval = event["approvalId"]
    if approval in expires and approval not in over and entry["ts"] <= expires[approval]:
        over.add(approval)
        decided[approval] = entry["by"]["id"], event["option"]
