"""Tokens to identities: JWTs, checked against the keys of the settings and those that issuers publish."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from broker.errors import ConfigError, ErrorCode, InvalidName, Refused
from broker.subjects import check_tenant
from gateway.claims import identity_of, unauthorized
from gateway.config import GatewaySettings
from gateway.jwks import PUBLISHED
from gateway.key_sets import CountsFetches, KeySets, read_sources
from gateway.keys import Key, pyjwt, read_keys
from gateway.revoked import RevokedTokens
from gateway.rights import Identity, Right

__all__ = ["Authenticator", "Identity", "Right"]

MAX_TOKEN_BYTES = 16_384


class Authenticator:
    """Checks tokens against the keys that were configured, and those that issuers publish."""

    def __init__(
        self,
        keys: tuple[Key, ...],
        key_sets: KeySets,
        revoked: RevokedTokens,
        *,
        issuers: tuple[str, ...] = (),
        audience: str = "",
        leeway_s: float = 10.0,
        tenants: frozenset[str] = frozenset(),
    ) -> None:
        if not keys and not key_sets:
            raise ConfigError(
                "no keys to check tokens with: set ANTIPHON_JWT_SECRET_FILE, ANTIPHON_JWT_PUBLIC_KEYS or ANTIPHON_JWKS "
                "(for a try-out, `antiphon dev` makes a key of its own)"
            )
        self._keys = keys
        self.key_sets = key_sets
        self._revoked = revoked
        self._jwt = pyjwt(secrets_alone=not key_sets and all(key.algorithm == "HS256" for key in keys))
        self._issuers = issuers
        self._audience = audience or None
        self._leeway_s = leeway_s
        self._tenants = tenants

    @classmethod
    def from_settings(cls, settings: GatewaySettings, metrics: CountsFetches, revoked: RevokedTokens) -> Authenticator:
        """Raises ConfigError when there are no keys, or one cannot be used."""
        return cls(
            read_keys(settings),
            KeySets(read_sources(settings.jwks), settings, metrics),
            revoked,
            issuers=tuple(issuer for part in settings.jwt_issuer.split(",") if (issuer := part.strip())),
            audience=settings.jwt_audience,
            leeway_s=settings.jwt_leeway_s,
            tenants=_tenants(settings.tenants),
        )

    async def identify(self, token: str, address: str | None = None) -> Identity:
        """The identity that a token from this address proves.

        Raises Refused (unauthorized, or unavailable if its key may be one that cannot be fetched just now) saying why,
        never echoing the token.
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise unauthorized("the token is too large")
        if not token.isascii():
            raise unauthorized("the token is not a JWT")
        try:
            header = self._jwt.get_unverified_header(token)
        except self._jwt.InvalidTokenError:
            raise unauthorized("the token is not a JWT") from None
        found = self._claims(token, header)
        if found is None and self._may_be_published(header, issuer := self._claimed_issuer(token)):
            wait_s = await self.key_sets.renew(issuer)
            found = self._claims(token, header)
            if found is None and wait_s:
                text = "the token's key is not known, and may be one that could not be fetched yet"
                raise Refused(ErrorCode.UNAVAILABLE, text, retry_after_ms=int(wait_s * 1000))
        if found is None:
            algorithms = [key.algorithm for key in self._all_keys()]
            raise unauthorized(
                "the token is not signed with a key known here"
                if header.get("alg") in algorithms
                else "no key here is for this token's algorithm"
            )
        claims, key = found
        who = identity_of(claims, self._revoked, key.tenant)
        if self._tenants and who.tenant not in self._tenants:
            raise unauthorized("the token is of a tenant that is served elsewhere")
        if who.is_revoked:
            who.check()
        return replace(who, address=address or "")

    def problems(self) -> list[str]:
        """Why no token can be checked, a line each; empty if some can: one issuer that is down is not everybody's loss."""
        return [] if self._all_keys() else self.key_sets.problems()

    def _may_be_published(self, header: Mapping[str, Any], issuer: str | None) -> bool:
        """Whether the token's key may be in a set as it is by now. One that is known and has not signed it is not."""
        key_id = header.get("kid")
        candidates = [key for key in self.key_sets.usable() if key.issuer in ("", issuer)]
        known = key_id is not None and any(key.id == key_id for key in candidates)
        return bool(self.key_sets) and header.get("alg") in PUBLISHED and not known

    def _all_keys(self) -> tuple[Key, ...]:
        return (*self._keys, *self.key_sets.usable())

    def _claims(self, token: str, header: Mapping[str, Any]) -> tuple[Mapping[str, Any], Key] | None:
        """What the token says, and the key that has signed it; None if no key that is known has signed it. Raises Refused."""
        key_id = header.get("kid")
        for key in self._all_keys():
            if not key.is_for(header.get("alg"), key_id):
                continue
            try:
                return self._decode(token, key), key
            except self._jwt.InvalidSignatureError:
                continue
            except self._jwt.ExpiredSignatureError:
                raise unauthorized("the token has expired") from None
            except self._jwt.InvalidTokenError as error:
                raise unauthorized(f"the token cannot be accepted: {type(error).__name__}") from None
        return None

    def _decode(self, token: str, key: Key) -> Mapping[str, Any]:
        issuers = (key.issuer,) if key.issuer else self._issuers
        claims: Mapping[str, Any] = self._jwt.decode(
            token,
            key.material,
            algorithms=[key.algorithm],
            issuer=issuers or None,
            audience=self._audience,
            leeway=self._leeway_s,
            options={"require": ["exp", "sub"], "verify_aud": self._audience is not None},
        )
        return claims

    def _claimed_issuer(self, token: str) -> str | None:
        """Whose a token says it is, for the choice of the key set to look into: nothing is believed of it."""
        try:
            claims = self._jwt.decode(token, options={"verify_signature": False})
        except self._jwt.InvalidTokenError:
            return None
        issuer = claims.get("iss")
        return issuer if isinstance(issuer, str) else None


def _tenants(text: str) -> frozenset[str]:
    """The tenants of the setting. Raises ConfigError."""
    try:
        names = [name for part in text.split(",") if (name := part.strip())]
        return frozenset("" if name == "-" else check_tenant(name) for name in names)
    except InvalidName as error:
        raise ConfigError(f"ANTIPHON_TENANTS: {error}") from None
