"""The claims of a token, checked: who it says somebody is, and what it allows (PROTOCOL, section 1). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from broker.errors import ErrorCode, InvalidName, Refused
from broker.permissions import ANY_POOL
from broker.subjects import check_device, check_lane, check_session, check_tenant, pool_key, session_key
from gateway.revoked import RevokedTokens
from gateway.rights import Grant, Identity, WorkerGrant

MAX_PATTERNS = 100
MAX_ROLES = 32
MAX_POOLS = 32
MAX_WORKER_SESSIONS = 32
MAX_WORKER_LANES = 32
_MAX_EXPIRY = 253_402_300_799
"""The end of the year 9999. A later one is in another unit, and beyond what timers and JSON numbers hold."""


def unauthorized(message: str) -> Refused:
    """The refusal of a token."""
    return Refused(ErrorCode.UNAUTHORIZED, message)


def identity_of(claims: Mapping[str, Any], revoked: RevokedTokens, tenant: str | None = None) -> Identity:
    """Who it is, by claims that a key has signed, which may be for one `tenant` alone. Raises Refused (unauthorized)."""
    subject, name, sessions = claims["sub"], claims.get("name"), claims.get("sessions", {})
    if not isinstance(subject, str) or not 1 <= len(subject) <= 128 or not subject.isprintable():
        raise unauthorized("the claim `sub` must be text of 1-128 printable characters")
    expires_at = int(claims["exp"])
    if expires_at > _MAX_EXPIRY:
        raise unauthorized("the claim `exp` is too far in the future: it counts seconds")
    roles = _roles(claims.get("roles", []))
    name = name[:128] if isinstance(name, str) and _is_unicode(name) else None
    token_id, issued_at = claims.get("jti"), claims.get("iat", 0)
    if not (token_id is None or (isinstance(token_id, str) and _is_unicode(token_id))) or not _is_time(issued_at):
        raise unauthorized("the claim `jti` must be text, and `iat` a number")
    whose = _tenant(claims.get("tenant"), tenant)
    worker = _worker(claims["worker"], subject, token_id, whose) if "worker" in claims else None
    return Identity(
        subject,
        name,
        expires_at,
        _grants(sessions, roles),
        roles,
        whose,
        token_id=token_id,
        issued_at=issued_at,
        worker=worker,
        revoked=revoked,
    )


def _worker(claim: Any, subject: str, token_id: str | None, tenant: str) -> WorkerGrant:
    """What a service token says of the worker that has it. A tenant's is for pools of that tenant alone."""
    wanted = claim if isinstance(claim, dict) else {}
    pools, sessions = _texts(wanted.get("pools"), MAX_POOLS), _texts(wanted.get("sessions", []), MAX_WORKER_SESSIONS)
    lanes = _texts(wanted.get("lanes", []), MAX_WORKER_LANES)
    if not pools or sessions is None or lanes is None:
        text = f"the claim `worker` must have 1-{MAX_POOLS} `pools`, and {MAX_WORKER_SESSIONS} `sessions` at most"
        raise unauthorized(f"{text}, and {MAX_WORKER_LANES} `lanes`")
    if lanes and not sessions:
        # Lanes of the same name are in every session: it must not give more than was meant.
        raise unauthorized("the claim `worker` has `lanes` and no `sessions`: say whose lanes they are")
    try:
        # They become parts of subjects, and of the name that its connections have.
        check_device(subject)
        check_session(token_id or "")
        named = tuple(pool if pool == ANY_POOL and not tenant else pool_key(tenant, pool) for pool in pools)
        keys = tuple(session_key(tenant, check_session(name)) for name in sessions)
        return WorkerGrant(named, keys, tuple(map(check_lane, lanes)))
    except InvalidName as error:
        text = "the token cannot be a worker's (`sub`, `jti`, `pools`, `sessions`, `lanes`)"
        raise unauthorized(f"{text}: {error}") from None


def _texts(claim: Any, limit: int) -> list[str] | None:
    if isinstance(claim, list) and len(claim) <= limit and all(isinstance(text, str) for text in claim):
        return claim
    return None


def _is_unicode(text: str) -> bool:
    """Whether it can be sent: JSON may hold the half of a surrogate pair, which no UTF-8 can."""
    return text.isascii() or text.encode("utf-8", "replace").decode() == text


def _is_time(value: Any) -> bool:
    """A number of seconds. NaN is none: it is neither before nor after a revocation."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MAX_EXPIRY


def _tenant(claim: Any, of_key: str | None) -> str:
    """The tenant that the token is for; "": the default one. A key's own tenant counts, whatever the token says."""
    if claim is not None:
        try:
            check_tenant(claim if isinstance(claim, str) else "")
        except InvalidName:
            raise unauthorized("the claim `tenant` must be 1-32 of a-z 0-9 -") from None
    if of_key is not None and claim not in (None, of_key):
        raise unauthorized("the token's issuer is not one of the tenant that it names")
    return of_key or claim or ""


def _roles(claim: Any) -> tuple[str, ...]:
    if not isinstance(claim, list) or len(claim) > MAX_ROLES or not all(map(_is_role, claim)):
        raise unauthorized(f"the claim `roles` must be a list of at most {MAX_ROLES} names of 1-128 characters")
    return tuple(dict.fromkeys(claim))


def _is_role(name: Any) -> bool:
    return isinstance(name, str) and 1 <= len(name) <= 128 and name.isprintable()


def _grants(claim: Any, roles: tuple[str, ...]) -> tuple[Grant, ...]:
    """What the claim `sessions` gives to who has these roles."""
    if not isinstance(claim, dict | list) or len(claim) > MAX_PATTERNS:
        raise unauthorized(f"the claim `sessions` must be an object or a list with at most {MAX_PATTERNS} patterns")
    if isinstance(claim, dict):
        return tuple(_grant(pattern, rights) for pattern, rights in claim.items())
    return tuple(grant for item in claim if (grant := _narrowed(item, roles)) is not None)


def _narrowed(item: Any, roles: tuple[str, ...]) -> Grant | None:
    """The grant that an item of a list is; None if it is for other roles."""
    if not isinstance(item, dict) or not isinstance(item.get("pattern"), str):
        raise unauthorized("each of the list `sessions` must be an object with a `pattern` and `rights`")
    grant = _grant(item["pattern"], item.get("rights"))
    wanted = item.get("roles")
    # What cannot be understood narrows to nothing: a mistake must not give more than was meant.
    if wanted is not None and not (isinstance(wanted, list) and any(role in roles for role in wanted)):
        return None
    return grant


def _grant(pattern: str, rights: Any) -> Grant:
    if len(pattern) > 128 or not isinstance(rights, list):
        raise unauthorized("each of the claim `sessions` must be a pattern with a list of rights")
    known = frozenset(right for right in rights if isinstance(right, str))
    return Grant(_expression(pattern), known, everywhere=pattern == "*")


def _expression(pattern: str) -> re.Pattern[str]:
    """A pattern of names, in which `*` stands for any run of characters.

    What lies between two stars is looked for once, at its first place, and never again (an atomic group): else a user
    could choose a session's name so that four stars take seconds.
    """
    first, *rest = (re.escape(part) for part in pattern.split("*"))
    if not rest:
        return re.compile(first)
    return re.compile(first + "".join(f"(?>.*?{part})" for part in rest[:-1]) + ".*" + rest[-1])
