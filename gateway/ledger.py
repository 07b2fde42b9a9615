"""What is known of all tenants' sessions: how many, and how much each takes. Pure.

Holds about 200 bytes for each session of a tenant that has a limit.
"""

from __future__ import annotations

from collections.abc import Mapping

from broker.subjects import SessionKey, split_key
from broker.usage import SessionUse


class Ledger:
    """Notes may come twice and in any order: the one of the later entry counts."""

    def __init__(self) -> None:
        self._uses: dict[str, dict[SessionKey, SessionUse]] = {}
        self._bytes: dict[str, int] = {}
        self._heard: dict[SessionKey, SessionUse] = {}
        """Since all were read last."""

    def sessions(self, tenant: str) -> int:
        return len(self._uses.get(tenant, ()))

    def bytes(self, tenant: str) -> int:
        return self._bytes.get(tenant, 0)

    def of(self, session: SessionKey) -> SessionUse | None:
        """None if there is no such session, as far as is known."""
        return self._uses.get(split_key(session)[0], {}).get(session)

    def all(self) -> dict[SessionKey, SessionUse]:
        return {session: use for uses in self._uses.values() for session, use in uses.items()}

    def put(self, session: SessionKey, use: SessionUse) -> None:
        """Takes a note."""
        self._heard[session] = use
        self._put(session, use)

    def replace(self, notes: Mapping[SessionKey, SessionUse]) -> None:
        """Takes all that there are. Those that were put since the last time may be newer, or not among them yet."""
        heard, self._heard = self._heard, {}
        self._uses.clear()
        self._bytes.clear()
        for session, use in (*notes.items(), *heard.items()):
            self._put(session, use)

    def _put(self, session: SessionKey, use: SessionUse) -> None:
        tenant, _ = split_key(session)
        uses = self._uses.setdefault(tenant, {})
        known = uses.get(session)
        if known is not None and known.seq > use.seq:
            return
        before = 0 if known is None else known.total
        if use.gone:
            uses.pop(session, None)
        else:
            uses[session] = use
        self._bytes[tenant] = self._bytes.get(tenant, 0) - before + (0 if use.gone else use.total)
        if not uses:
            # Who is gone, or has never had anything, is not kept.
            del self._uses[tenant]
            self._bytes.pop(tenant, None)
