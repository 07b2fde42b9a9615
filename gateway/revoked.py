"""What is revoked, as a gateway knows it. Pure: times are arguments."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from broker.revocations import Revocation, Revoked


class RevokedTokens:
    """All revocations that are in force. It knows of none until the first are taken, and says so: `known`."""

    def __init__(self, *, known: bool = False) -> None:
        self.known = known
        self._in_force: dict[str, Revocation] = {}
        self._by_whose: dict[tuple[Revoked, str, str], dict[str, Revocation]] = {}
        """By kind, tenant and whose it is: by user, which only those of sessions have."""
        self._expiries: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._in_force)

    def take(self, revocations: Iterable[Revocation], now: float) -> bool:
        """Puts them in force; whether any of them is new."""
        self.known = True
        self._forget(now)
        new = [revocation for revocation in revocations if revocation.until > now and self._put(revocation)]
        return bool(new)

    def has_token(self, tenant: str, user: str, token_id: str | None, issued_at: float) -> bool:
        """Whether a token is revoked."""
        if token_id is not None and (Revoked.TOKEN, tenant, token_id) in self._by_whose:
            return True
        found = self._by_whose.get((Revoked.USER, tenant, user))
        return found is not None and any(issued_at < r.before + 1 for r in found.values())

    def has_grant(self, tenant: str, user: str, session: str, issued_at: float) -> bool:
        """Whether what a token allows in a session is revoked."""
        found = self._by_whose.get((Revoked.SESSION, tenant, session))
        if found is None:
            return False
        return any(r is not None and issued_at < r.before + 1 for r in (found.get(""), found.get(user)))

    def _put(self, revocation: Revocation) -> bool:
        known = self._in_force.get(revocation.key)
        if known is not None and known.before >= revocation.before and known.until >= revocation.until:
            return False
        self._in_force[revocation.key] = revocation
        whose = (revocation.kind, revocation.tenant, revocation.whose)
        self._by_whose.setdefault(whose, {})[revocation.user] = revocation
        heapq.heappush(self._expiries, (revocation.until, revocation.key))
        return True

    def _forget(self, now: float) -> None:
        while self._expiries and self._expiries[0][0] <= now:
            _, key = heapq.heappop(self._expiries)
            revocation = self._in_force.get(key)
            if revocation is None or revocation.until > now:
                continue
            del self._in_force[key]
            whose = (revocation.kind, revocation.tenant, revocation.whose)
            del self._by_whose[whose][revocation.user]
            if not self._by_whose[whose]:
                del self._by_whose[whose]
