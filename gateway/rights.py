"""Who somebody is and what they may do (PROTOCOL, section 1). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from enum import StrEnum

from broker.errors import ErrorCode, Refused
from broker.events import Participant
from broker.subjects import SessionKey, session_key
from gateway.revoked import RevokedTokens

_RETRY_AFTER_MS = 1000


class Right(StrEnum):
    """What a token may allow in a session."""

    READ = "read"
    SEND = "send"
    STEER = "steer"
    CANCEL = "cancel"
    TOOLS = "tools"
    APPROVE = "approve"
    PRIORITY = "priority"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Grant:
    """Rights in the sessions whose names match: those of `Right`, and single operations of `gateway.operations`."""

    pattern: re.Pattern[str]
    rights: frozenset[str]
    everywhere: bool = False
    """Whether all names match."""

    def gives(self, right: Right, operation: tuple[str, Right] | None) -> bool:
        """Whether the right is given, be it for the operation alone that is carried out."""
        if right in self.rights or Right.ADMIN in self.rights:
            return True
        return operation is not None and operation[1] is right and operation[0] in self.rights


@dataclass(frozen=True, slots=True)
class WorkerGrant:
    """What a service token makes of who comes with it: a worker of these pools (`*`: of all), and of these sessions alone
    (empty: of all of its pools), in these lanes of theirs alone (empty: in all). They are named as NATS's subjects have them.
    """

    pools: tuple[str, ...]
    sessions: tuple[SessionKey, ...] = ()
    lanes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Identity:
    """A user, until `expires_at` (seconds since 1970). `roles` is what the user is, for approvals and hand-overs.

    What is revoked is revoked at once: each question looks at what is in force by then.
    """

    id: str
    name: str | None
    expires_at: int
    grants: tuple[Grant, ...]
    roles: tuple[str, ...] = ()
    tenant: str = ""
    """Whose sessions the names mean; "": the default one's."""
    token_id: str | None = None
    issued_at: float = 0.0
    """0 if the token does not say."""
    address: str = ""
    """From where the token came."""
    worker: WorkerGrant | None = None
    """What it may be in NATS: a worker. None: nothing."""
    operation: tuple[str, Right] | None = None
    """What is being carried out, and the right that it is a part of."""
    revoked: RevokedTokens = field(default_factory=lambda: RevokedTokens(known=True), compare=False, repr=False)

    @property
    def caller(self) -> str:
        """Names the user among those of all tenants."""
        return f"{self.tenant}\0{self.id}"

    def key(self, session: str) -> SessionKey:
        """The session that the user knows by this name."""
        return session_key(self.tenant, session)

    def participant(self) -> Participant:
        """Who the user is in the log."""
        return Participant("user", self.id, self.name, self.roles)

    def doing(self, operation: tuple[str, Right] | None) -> Identity:
        """The user at one operation, which the token may allow alone."""
        return self if operation is None else replace(self, operation=operation)

    @property
    def is_revoked(self) -> bool:
        """Whether the token is good for nothing any more."""
        return self.revoked.has_token(self.tenant, self.id, self.token_id, self.issued_at)

    def left_s(self, now: float, leeway_s: float) -> float:
        """Seconds until the token is taken no longer; 0 if it has expired."""
        return max(0.0, self.expires_at + leeway_s - now)

    def check(self) -> None:
        """Raises Refused: unauthorized if the token has been revoked, unavailable if that is not known yet."""
        if not self.revoked.known:
            text = "it is not known yet which tokens are revoked"
            raise Refused(ErrorCode.UNAVAILABLE, text, retry_after_ms=_RETRY_AFTER_MS)
        if self.is_revoked:
            raise Refused(ErrorCode.UNAUTHORIZED, "the token has been revoked", reason="revoked")

    def may(self, right: Right, session: str) -> bool:
        """Whether some pattern that matches the session gives the right; `admin` gives every one."""
        given = any(grant.gives(right, self.operation) and grant.pattern.fullmatch(session) for grant in self.grants)
        return given and not self.revoked.has_grant(self.tenant, self.id, session, self.issued_at)

    def require(self, right: Right, session: str) -> None:
        """Raises Refused (not_allowed)."""
        if not self.may(right, session):
            raise Refused(
                ErrorCode.NOT_ALLOWED,
                f"the token does not give the right {right.value!r} in this session",
                right=right.value,
            )

    def require_everywhere(self) -> None:
        """For what is about no session: `admin` in all of them, by the pattern `*`. Raises Refused (not_allowed)."""
        if not any(grant.everywhere and Right.ADMIN in grant.rights for grant in self.grants):
            text = "the token does not give the right 'admin' in all sessions, by the pattern `*`"
            raise Refused(ErrorCode.NOT_ALLOWED, text, right=Right.ADMIN.value)
