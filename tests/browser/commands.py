"""What the scripted peer answers to the commands of the session plane: tools, approvals, hand-over, presence.

It takes everything that is not refused on purpose (`Peer.refusals`): what counts, the page's own fold decides.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.browser.peer import Log, Peer

Json = dict[str, Any]


class SessionCommands:
    """Handlers of a client's commands, each of which becomes an entry."""

    peer: Peer

    def __init__(self) -> None:
        self.user: Json = {}

    @property
    def by(self) -> Json:
        return {"kind": "user"} | self.user

    def store(self, command: Json, kind: str, *fields: str, **more: Any) -> Json:
        """Puts the command's fields into the log, as an event; they are also the reply."""
        given = {name: command[name] for name in fields if name in command} | more
        self._log(command).append([{"type": kind} | given], by=self.by, id=kind + str(command["id"]))
        return given

    def on_presence_set(self, command: Json) -> Json:
        return {}

    def on_tool_claim(self, command: Json) -> Json:
        expires_at = int(time.time() * 1000) + int(command["leaseMs"])
        return self.store(command, "tool.claimed", "toolCallId", "claimId", expiresAt=expires_at)

    def on_tool_result(self, command: Json) -> Json:
        self.store(command, "tool.resolved", "toolCallId", "claimId", "result", "error")
        return {"toolCallId": command["toolCallId"], "status": "resolved"}

    def on_approval_respond(self, command: Json) -> Json:
        self.store(command, "approval.responded", "approvalId", "option", "payload")
        return {"approvalId": command["approvalId"], "status": "resolved", "decision": command["option"], "votes": 1}

    def on_handoff_claim(self, command: Json) -> Json:
        """The human has the lane; the agent's run ends with that."""
        log = self._log(command)
        run, log.human = log.running, self.user["id"]
        owner = {"type": "session.owner", "lane": "main", "kind": "user", "id": self.user["id"]}
        log.fence = log.append([owner], lane="main", by=self.by, id="handoff:1")
        if run is not None:
            log.running = None
            outcome = {"type": "cancelled", "reason": "handed_over"}
            log.agent([{"type": "RUN_FINISHED", "threadId": log.name, "runId": run, "outcome": outcome}], run=run)
        return {"lane": "main", "fence": log.fence}

    def on_handoff_return(self, command: Json) -> Json:
        log = self._log(command)
        log.human = None
        self.store(command, "handoff.returned", "lane", "inputId", "note")
        return {"lane": command["lane"]}

    def _log(self, command: Json) -> Log:
        return self.peer.log(command["session"])
