"""Where a page finds the scripted peer, and what that has."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from tests.browser.peer import Peer
from tests.browser.proxy import Proxy


@dataclass(slots=True)
class Site:
    """The peer, through a proxy, and a session that nobody has been in."""

    url: str
    token: str
    proxy: Proxy
    peer: Peer
    session: str = field(default_factory=lambda: f"page-{uuid.uuid4().hex}")

    def link(self, token: str | None = None, more: str = "") -> str:
        return f"{self.url}/#session={self.session}&token={token or self.token}{more}"

    def answers(self) -> list[str]:
        """What the agent has said, as the peer's log has it."""
        messages = self.peer.log(self.session).messages
        return [str(message["text"]) for message in messages if message["role"] == "assistant"]
