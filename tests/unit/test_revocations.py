"""Revocations: what they are about, as a gateway keeps them in memory, and how long."""

from __future__ import annotations

import pytest

from broker.errors import CodecError, ErrorCode, Refused
from broker.revocations import Revocation, Revoked, revocation
from gateway.claims import identity_of
from gateway.revoked import RevokedTokens
from gateway.rights import Identity, Right

NOW = 1_000_000.0


def in_force(*made: Revocation, now: float = NOW) -> RevokedTokens:
    revoked = RevokedTokens()
    revoked.take(made, now)
    return revoked


def who(
    revoked: RevokedTokens, *, iat: float | None = NOW - 60, jti: str | None = "t-1", sub: str = "user-1"
) -> Identity:
    claims = {"sub": sub, "exp": 2_000_000, "sessions": {"*": ["read", "send"]}, "iat": iat, "jti": jti}
    return identity_of({name: value for name, value in claims.items() if value is not None}, revoked)


def revoke(kind: Revoked, whose: str, *, at: float = NOW, ttl_s: float = 100.0, **more: str) -> Revocation:
    return revocation(kind, whose, at, ttl_s, **more)


def test_one_token_of_many() -> None:
    revoked = in_force(revoke(Revoked.TOKEN, "t-1"))
    assert who(revoked).is_revoked
    assert not who(revoked, jti="t-2").is_revoked
    assert not who(revoked, jti=None).is_revoked


@pytest.mark.parametrize(
    ("iat", "revoked"),
    [(NOW - 60, True), (NOW, True), (NOW + 0.9, True), (NOW + 1, False), (NOW + 60, False), (None, True)],
)
def test_the_tokens_that_a_user_had_then(iat: float | None, revoked: bool) -> None:
    known = in_force(revoke(Revoked.USER, "user-1"))
    assert who(known, iat=iat).is_revoked is revoked
    assert not who(known, iat=iat, sub="user-2").is_revoked


def test_what_is_revoked_in_a_session_alone() -> None:
    known = in_force(revoke(Revoked.SESSION, "demo"), revoke(Revoked.SESSION, "other", user="user-2"))
    one, two, later = who(known), who(known, sub="user-2"), who(known, iat=NOW + 5)
    assert [w.may(Right.READ, "demo") for w in (one, two, later)] == [False, False, True]
    assert [w.may(Right.READ, "other") for w in (one, two, later)] == [True, False, True]
    assert one.may(Right.SEND, "demos")
    assert not one.is_revoked
    with pytest.raises(Refused) as caught:
        one.require(Right.READ, "demo")
    assert caught.value.code is ErrorCode.NOT_ALLOWED


def test_an_identity_that_is_there_sees_what_comes() -> None:
    revoked = RevokedTokens(known=True)
    one = who(revoked)
    one.check()
    assert revoked.take([revoke(Revoked.USER, "user-1")], NOW)
    with pytest.raises(Refused) as caught:
        one.check()
    assert (caught.value.code, caught.value.data) == (ErrorCode.UNAUTHORIZED, {"reason": "revoked"})


def test_while_nothing_is_known_nobody_is_let_in() -> None:
    one = who(RevokedTokens())
    with pytest.raises(Refused) as caught:
        one.check()
    assert (caught.value.code, caught.value.retryable) == (ErrorCode.UNAVAILABLE, True)


def test_of_two_the_later_counts_and_what_is_known_is_no_news() -> None:
    first, second = revoke(Revoked.USER, "user-1"), revoke(Revoked.USER, "user-1", at=NOW + 10)
    revoked = RevokedTokens()
    assert revoked.take([first], NOW)
    assert not revoked.take([first], NOW)
    assert revoked.take([second], NOW)
    assert not revoked.take([first], NOW)
    assert len(revoked) == 1
    assert who(revoked, iat=NOW + 5).is_revoked


def test_they_are_forgotten_when_the_tokens_have_expired() -> None:
    revoked = in_force(
        revoke(Revoked.TOKEN, "t-1", ttl_s=10),
        revoke(Revoked.SESSION, "demo", ttl_s=20),
        revoke(Revoked.SESSION, "demo", user="user-1", ttl_s=10),
    )
    assert not revoked.take([], NOW + 11)
    assert len(revoked) == 1
    assert not who(revoked).is_revoked
    assert not who(revoked).may(Right.READ, "demo")
    revoked.take([revoke(Revoked.TOKEN, "late", ttl_s=5)], NOW + 21)
    assert len(revoked) == 0
    assert who(revoked).may(Right.READ, "demo")


def test_one_that_is_renewed_stays() -> None:
    revoked = in_force(revoke(Revoked.TOKEN, "t-1", ttl_s=10))
    revoked.take([revoke(Revoked.TOKEN, "t-1", at=NOW + 5, ttl_s=10)], NOW + 5)
    revoked.take([], NOW + 12)
    assert who(revoked).is_revoked
    revoked.take([], NOW + 16)
    assert not who(revoked).is_revoked


def test_tenants_have_their_own() -> None:
    revoked = in_force(
        *(
            revoke(kind, whose, tenant="acme")
            for kind, whose in ((Revoked.TOKEN, "t-1"), (Revoked.USER, "user-1"), (Revoked.SESSION, "demo"))
        )
    )
    assert not who(revoked).is_revoked
    assert who(revoked).may(Right.READ, "demo")


def test_keys_are_apart_and_fit_into_subjects() -> None:
    made = [
        revoke(Revoked.TOKEN, "a"),
        revoke(Revoked.USER, "a"),
        revoke(Revoked.SESSION, "a"),
        revoke(Revoked.SESSION, "a", user="b"),
        revoke(Revoked.SESSION, "ab"),
        revoke(Revoked.USER, "a", tenant="t"),
        revoke(Revoked.USER, "any .*> text"),
    ]
    keys = {r.key for r in made}
    assert len(keys) == len(made)
    assert all(key.replace(".", "").isalnum() and key.count(".") == 1 for key in keys)
    assert revoke(Revoked.USER, "a").key == revoke(Revoked.USER, "a", at=NOW + 5, ttl_s=7).key


def test_they_come_back_as_they_were_written() -> None:
    made = revoke(Revoked.SESSION, "demo", user="user-1", tenant="acme")
    assert Revocation.decode(made.encode()) == made
    assert Revocation.decode(made.encode()[:-1] + b',"more":1}') == made


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"kind":"?","whose":"a","before":1,"until":2,"tenant":"","user":""}',
        b'{"kind":"user","whose":1,"before":1,"until":2,"tenant":"","user":""}',
        b'{"kind":"user","whose":"a","before":"1","until":2,"tenant":"","user":""}',
    ],
)
def test_what_is_none(body: bytes) -> None:
    with pytest.raises(CodecError):
        Revocation.decode(body)
