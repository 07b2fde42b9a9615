"""The commands that a token may allow one by one, and the right that each of them is a part of. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from gateway import plane, protocol
from gateway.rights import Right

_OF_TYPE: Mapping[type, tuple[str, Right]] = {
    protocol.InputSend: ("input.send", Right.SEND),
    protocol.InputCancel: ("input.cancel", Right.SEND),
    protocol.RunCancel: ("run.cancel", Right.CANCEL),
    plane.ToolClaim: ("tool.claim", Right.TOOLS),
    plane.ToolProgress: ("tool.progress", Right.TOOLS),
    plane.ToolResult: ("tool.result", Right.TOOLS),
    plane.ToolRelease: ("tool.release", Right.TOOLS),
    plane.ApprovalRespond: ("approval.respond", Right.APPROVE),
    plane.ApprovalRevoke: ("approval.revoke", Right.APPROVE),
    plane.HandoffClaim: ("handoff.claim", Right.STEER),
    plane.HandoffReturn: ("handoff.return", Right.STEER),
    plane.SessionCreate: ("session.create", Right.SEND),
    plane.SessionUpdate: ("session.update", Right.ADMIN),
    plane.SessionClose: ("session.close", Right.ADMIN),
    plane.SessionReopen: ("session.reopen", Right.ADMIN),
    plane.SessionDelete: ("session.delete", Right.ADMIN),
    plane.SessionFork: ("session.fork", Right.SEND),
}
OPERATIONS = frozenset(name for name, _ in _OF_TYPE.values())
"""Names that a token may list among the rights in a session."""


def operation_of(command: object) -> tuple[str, Right] | None:
    """The operation that a command is, and its right; None for those that only read."""
    return _OF_TYPE.get(type(command))
