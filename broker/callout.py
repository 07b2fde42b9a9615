"""What a NATS server asks who has a client that it does not know (auth callout), and what it is answered. Pure.

https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_callout; the forms are those of
https://github.com/nats-io/jwt (`authorization_claims.go`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from broker.errors import CodecError
from broker.nats_jwt import authorization, claims_of, user_jwt
from broker.nkeys import NKey
from broker.permissions import Access
from broker.subjects import session_key, split_key

_NO_ID: Final = "-"


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody wants to come in. `user_key` is what the server calls the connection, `server` the key of the server."""

    user_key: str
    server: str
    token: str = field(repr=False)
    """The password or the token that the client has sent; "": none."""
    name: str
    """As the client calls itself: nothing to rely on."""
    host: str

    @classmethod
    def of(cls, body: bytes) -> Asked:
        """Raises CodecError. That it comes from a server is not checked here: nobody else may publish on that subject."""
        try:
            asked: dict[str, Any] = claims_of(body.decode("ascii"))["nats"]
            options, client = asked["connect_opts"], asked["client_info"]
            token = options.get("pass") or options.get("auth_token") or ""
            return cls(
                str(asked["user_nkey"]),
                str(asked["server_id"]["id"]),
                str(token),
                str(options.get("name", "")),
                str(client.get("host", "")),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CodecError(f"this is no question of a NATS server: {type(error).__name__}") from None


@dataclass(frozen=True, slots=True)
class Admission:
    """As whom somebody comes in: what it may do, in which account, and until when, in seconds since 1970."""

    who: ServiceName
    given: Access
    account: str
    expires_s: int


@dataclass(frozen=True, slots=True)
class ServiceName:
    """The name that a connection has at the servers: it says by which token it has come in."""

    tenant: str
    user: str
    issued_at: int
    token_id: str

    def __str__(self) -> str:
        return f"{session_key(self.tenant, self.user)} {self.issued_at} {self.token_id or _NO_ID}"

    @classmethod
    def of(cls, text: str) -> ServiceName | None:
        """None: it has come in otherwise."""
        match text.split(" "):
            case [key, issued_at, token_id] if issued_at.isdigit():
                tenant, user = split_key(key)
                return cls(tenant, user, int(issued_at), "" if token_id == _NO_ID else token_id)
            case _:
                return None


def admit(asked: Asked, admission: Admission, issuer: NKey, now_s: int) -> bytes:
    """The answer that lets somebody in."""
    jwt = user_jwt(
        asked.user_key,
        str(admission.who),
        admission.given,
        issuer,
        now_s=now_s,
        expires_s=admission.expires_s,
        account=admission.account,
    )
    return authorization(asked.user_key, asked.server, issuer, now_s=now_s, jwt=jwt).encode()


def turn_away(asked: Asked, why: str, issuer: NKey, now_s: int) -> bytes:
    """The answer that does not. The server logs why; the client hears that it is not let in."""
    return authorization(asked.user_key, asked.server, issuer, now_s=now_s, error=why).encode()
