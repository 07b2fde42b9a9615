"""The frames that a client sends (PROTOCOL, sections 1, 3 and 7). Fields that are None are left out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from ._json import JsonObject
from .errors import ScheduleRefused
from .protocol import Cursor, Welcome

_AFTER_S_MAX: Final = 1e12


def hello(command_id: int, token: str, client: str, device: str) -> JsonObject:
    """The first frame of a connection."""
    return {"op": "hello", "id": command_id, "token": token, "client": client, "device": device}


def auth_refresh(command_id: int, token: str) -> JsonObject:
    """Put a new token of the same user in place."""
    return {"op": "auth.refresh", "id": command_id, "token": token}


def subscribe(command_id: int, session: str, after: Cursor | None, declared: JsonObject) -> JsonObject:
    """Read a session, after a cursor or (None) from its snapshot on. `declared`: how, and with which tools."""
    place = None if after is None else str(after)
    return command("subscribe", command_id, session, after=place, **declared)


def ack(command_id: int, session: str, seq: int) -> JsonObject:
    """Everything up to `seq` has been handled."""
    return command("ack", command_id, session, seq=seq)


def unsubscribe(command_id: int, session: str) -> JsonObject:
    """Stop reading a session."""
    return command("unsubscribe", command_id, session)


def input_send(
    command_id: int,
    session: str,
    input_id: str,
    content: str,
    mode: str | None = None,
    trace: Mapping[str, str] | None = None,
    attachments: object = None,
    *,
    when: JsonObject | None = None,
) -> JsonObject:
    """Send a message into a session; `trace` has the headers of the span that it is a part of, `when` those of `later`."""
    fields = {"inputId": input_id, "content": content, "mode": mode, "attachments": attachments, **(trace or {})}
    return command("input.send", command_id, session, **fields, **(when or {}))


def later(at: datetime | None, after_s: float | None) -> JsonObject:
    """When a message is to be sent; nothing for now. Raises ValueError."""
    if at is not None and after_s is not None:
        raise ValueError("give `at` or `after_s`, not both")
    if at is not None:
        if at.tzinfo is None:
            raise ValueError("`at` must say its time zone")
        return {"at": max(0, round(at.timestamp() * 1000))}
    if after_s is None:
        return {}
    if not 0 <= after_s < _AFTER_S_MAX:
        raise ValueError("`after_s` is a number of seconds from now on")
    return {"delayMs": round(after_s * 1000)}


def check_can_schedule(welcome: Welcome | None) -> None:
    """Refuse what a gateway of before there were schedules would send now. Raises `ScheduleRefused`."""
    if welcome is not None and not welcome.limits.scheduled_inputs:
        raise ScheduleRefused("not_supported", "the gateway cannot send a message later", retryable=False, data={})


def tool_claim(command_id: int, session: str, call_id: str, claim_id: str, lease_ms: int) -> JsonObject:
    """Claim a call, or say that it needs longer."""
    return command("tool.claim", command_id, session, toolCallId=call_id, claimId=claim_id, leaseMs=lease_ms)


def tool_release(command_id: int, session: str, call_id: str, claim_id: str) -> JsonObject:
    """The call has not been executed and will not be."""
    return command("tool.release", command_id, session, toolCallId=call_id, claimId=claim_id)


def tool_progress(command_id: int, session: str, call_id: str, claim_id: str, value: object) -> JsonObject:
    """What there is to show of the call; `value` may be null."""
    return {**command("tool.progress", command_id, session, toolCallId=call_id, claimId=claim_id), "value": value}


def tool_result(command_id: int, session: str, call_id: str, claim_id: str, outcome: JsonObject) -> JsonObject:
    """What came of the call: `outcome` has a `result` (which may be null) or an `error`."""
    return {**command("tool.result", command_id, session, toolCallId=call_id, claimId=claim_id), **outcome}


def check_text(text: str, attachments: object = None) -> None:
    """Refuse what no gateway would take, before it costs a trip."""
    if not text and not attachments:
        raise ValueError("the text of an input is not empty")
    text.encode()  # half a surrogate pair is no text: UnicodeEncodeError is a ValueError


def command(op: str, command_id: int, session: str | None, **fields: object) -> JsonObject:
    """Any command; `session` is None for those of no session."""
    every: Mapping[str, object] = {"session": session, **fields}
    return {"op": op, "id": command_id, **{name: value for name, value in every.items() if value is not None}}
