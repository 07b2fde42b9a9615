"""Tokens: which are taken, which are refused and why, and what they allow. A token is never repeated in a refusal."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import time
from pathlib import Path
from typing import Any, get_args

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import ConfigError, ErrorCode, Refused
from gateway import plane, protocol
from gateway.auth import MAX_TOKEN_BYTES, Authenticator, Identity, Right
from gateway.claims import MAX_PATTERNS
from gateway.config import GatewaySettings
from gateway.keys import MIN_SECRET_BYTES
from gateway.metrics import GatewayMetrics
from gateway.operations import OPERATIONS, operation_of
from gateway.revoked import RevokedTokens

SECRET = "s" * MIN_SECRET_BYTES
SESSIONS = {"team-*": ["read", "send"], "demo": ["read"]}


@pytest.fixture(scope="module")
def rsa() -> RSAPrivateKey:
    return generate_private_key(65_537, 2048)


@pytest.fixture(scope="module")
def ed25519() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def pem(key: Any) -> bytes:
    public: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return public


def claims(**changes: Any) -> dict[str, Any]:
    all_claims = {"sub": "user-1", "name": "A user", "exp": int(time.time()) + 600, "sessions": SESSIONS} | changes
    return {name: value for name, value in all_claims.items() if value is not ...}


def token(key: Any = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, algorithm)


def handmade(header: dict[str, Any], key: bytes | None, **changes: Any) -> str:
    """A token that no library would sign."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims(**changes))]
    signed = b".".join(parts)
    mac = b"" if key is None else hmac.new(key, signed, hashlib.sha256).digest()
    return (signed + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()


@pytest.fixture
def everything(tmp_path: Path, rsa: RSAPrivateKey, ed25519: Ed25519PrivateKey) -> Authenticator:
    """Takes all three algorithms."""
    (tmp_path / "rsa.pem").write_bytes(pem(rsa))
    (tmp_path / "ed.pem").write_bytes(pem(ed25519))
    keys = f"{tmp_path / 'rsa.pem'}, {tmp_path / 'ed.pem'}"
    return built(GatewaySettings(jwt_secret=SECRET, jwt_public_keys=keys))


def built(settings: GatewaySettings) -> Authenticator:
    return Authenticator.from_settings(settings, GatewayMetrics(), RevokedTokens(known=True))


def identify(authenticator: Authenticator, value: str) -> Identity:
    return asyncio.run(authenticator.identify(value))


def only_secret(**settings: Any) -> Authenticator:
    return built(GatewaySettings(jwt_secret=SECRET, **settings))


def refusal(authenticator: Authenticator, value: str) -> str:
    """Why the token is refused; never with the token, or any telling part of it, in the answer."""
    with pytest.raises(Refused) as caught:
        identify(authenticator, value)
    refused = caught.value
    assert (refused.code, refused.retryable, refused.data) == (ErrorCode.UNAUTHORIZED, False, {})
    assert len(refused.message) < 120
    # The code is in every refusal, whatever the token is.
    said = f"{refused!r} {refused}".replace(refused.code.value, "")
    assert not any(part in said for part in value.split(".") if len(part) > 8)
    assert refused.__cause__ is None
    assert refused.__suppress_context__ or refused.__context__ is None
    return refused.message


# --- what is taken ---------------------------------------------------------------------------------------------------


def test_three_algorithms_are_taken(everything: Authenticator, rsa: RSAPrivateKey, ed25519: Ed25519PrivateKey) -> None:
    for value in (token(), token(rsa, "RS256"), token(ed25519, "EdDSA")):
        who = identify(everything, value)
        assert (who.id, who.name) == ("user-1", "A user")
        assert who.may(Right.SEND, "team-7")
        assert who.expires_at == jwt.decode(value, options={"verify_signature": False})["exp"]


def test_any_of_several_keys_of_an_algorithm_will_do(tmp_path: Path, rsa: RSAPrivateKey) -> None:
    """So that keys can be rotated."""
    other = generate_private_key(65_537, 2048)
    for name, key in (("old", other), ("new", rsa)):
        (tmp_path / name).write_bytes(pem(key))
    settings = GatewaySettings(jwt_public_keys=f"{tmp_path / 'old'},{tmp_path / 'new'}")
    assert identify(built(settings), token(rsa, "RS256")).id == "user-1"


def test_a_secret_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n", encoding="utf-8")
    settings = GatewaySettings(jwt_secret_file=str(tmp_path / "secret"), jwt_secret="x" * 40)
    assert identify(built(settings), token()).id == "user-1"


def test_clocks_may_differ_a_little() -> None:
    assert identify(only_secret(jwt_leeway_s=30.0), token(exp=int(time.time()) - 10)).id == "user-1"


def test_claims_that_may_be_absent() -> None:
    who = identify(only_secret(), token(name=..., sessions=...))
    assert (who.name, who.grants) == (None, ())
    assert not who.may(Right.READ, "demo")
    assert identify(only_secret(), token(name=7)).name is None
    assert identify(only_secret(), token(name="n" * 500)).name == "n" * 128


# --- what is refused -------------------------------------------------------------------------------------------------


def test_a_public_key_is_no_secret(everything: Authenticator, rsa: RSAPrivateKey, ed25519: Ed25519PrivateKey) -> None:
    """The confusion of algorithms: a public key, known to all, used as the key of an HMAC."""
    for key in (rsa, ed25519):
        forged = handmade({"alg": "HS256", "typ": "JWT"}, pem(key))
        assert refusal(everything, forged) == "the token is not signed with a key known here"


def test_a_key_serves_its_own_algorithm_only(tmp_path: Path, rsa: RSAPrivateKey) -> None:
    (tmp_path / "rsa.pem").write_bytes(pem(rsa))
    only_rsa = built(GatewaySettings(jwt_public_keys=str(tmp_path / "rsa.pem")))
    for algorithm in ("RS384", "RS512", "PS256"):
        assert refusal(only_rsa, token(rsa, algorithm)) == "no key here is for this token's algorithm"
    assert refusal(only_rsa, handmade({"alg": "HS256"}, pem(rsa))) == "no key here is for this token's algorithm"
    assert refusal(only_secret(), token("s" * 64, "HS512")) == "no key here is for this token's algorithm"


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "", None, "hs256", ["HS256"], 256])
def test_an_unsigned_token_is_refused(everything: Authenticator, alg: Any) -> None:
    for key in (None, SECRET.encode()):
        refusal(everything, handmade({"alg": alg}, key))


def test_a_foreign_key_is_refused(everything: Authenticator) -> None:
    strangers = [
        ("t" * 32, "HS256"),
        (generate_private_key(65_537, 2048), "RS256"),
        (Ed25519PrivateKey.generate(), "EdDSA"),
    ]
    for key, algorithm in strangers:
        assert refusal(everything, token(key, algorithm)) == "the token is not signed with a key known here"


def test_a_token_that_was_changed_is_refused(everything: Authenticator) -> None:
    header, _, signature = token().split(".")
    payload = base64.urlsafe_b64encode(json.dumps(claims(sub="root")).encode()).rstrip(b"=").decode()
    assert refusal(everything, f"{header}.{payload}.{signature}") == "the token is not signed with a key known here"


def test_an_expired_token_is_refused() -> None:
    assert refusal(only_secret(), token(exp=int(time.time()) - 60)) == "the token has expired"


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": ...},
        {"exp": "soon"},
        {"exp": None},
        {"exp": [1]},
        {"exp": 1_763_817_600_123},
        {"exp": 10**30},
        {"nbf": 4_102_444_800},
        {"sub": ...},
        {"sub": 7},
        {"sub": ""},
        {"sub": "x" * 129},
        {"sessions": ["demo"]},
        {"sessions": {"demo": "read"}},
        {"sessions": {"demo": None}},
        {"sessions": {"x" * 129: ["read"]}},
        {"sessions": {f"s{n}": ["read"] for n in range(MAX_PATTERNS + 1)}},
    ],
    ids=repr,
)
def test_claims_that_are_not_as_they_must_be(changes: dict[str, Any]) -> None:
    refusal(only_secret(), handmade({"alg": "HS256"}, SECRET.encode(), **changes))


def test_issuer_and_audience_are_checked_when_they_are_asked_for() -> None:
    picky = only_secret(jwt_issuer="us", jwt_audience="antiphon")
    assert identify(picky, token(iss="us", aud="antiphon")).id == "user-1"
    assert identify(picky, token(iss="us", aud=["other", "antiphon"])).id == "user-1"
    for wrong in (
        {"iss": "them", "aud": "antiphon"},
        {"iss": "us", "aud": "other"},
        {"iss": "us"},
        {"aud": "antiphon"},
        {},
    ):
        assert refusal(picky, token(**wrong)).startswith("the token cannot be accepted: ")
    assert identify(only_secret(), token(iss="them", aud="other")).id == "user-1"


@pytest.mark.parametrize("value", ["", ".", "..", "a.b.c", "x" * 100, "é.é.é", "e30.e30.", "\x00", "e30.e30.~"])
def test_what_is_no_token_is_refused(value: str) -> None:
    refusal(only_secret(), value)


def test_a_token_has_a_largest_size() -> None:
    assert refusal(only_secret(), token(extra="x" * MAX_TOKEN_BYTES)) == "the token is too large"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80) | st.from_regex(r"[\w-]{0,20}(\.[\w-]{0,20}){2}"))
def test_no_token_breaks_the_check(value: str) -> None:
    refusal(only_secret(), value)


# --- what a token allows ---------------------------------------------------------------------------------------------


def identity(sessions: dict[str, Any]) -> Identity:
    return identify(only_secret(), token(sessions=sessions))


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("demo", ["demo"], ["demo1", "ademo", "Demo", ""]),
        ("*", ["", "a", "anything-at_all"], []),
        ("team-*", ["team-", "team-7", "team-a-b"], ["team", "a-team-7"]),
        ("*-x", ["-x", "a-x", "a-x-x"], ["x", "a-xy"]),
        ("a*b*c", ["abc", "a1b2c", "abbcc"], ["ac", "acb", "abcd"]),
        ("a**c", ["ac", "abc"], ["ab"]),
        ("a.c", ["a.c"], ["abc"]),
        ("a+", ["a+"], ["aa"]),
        ("[ab]", ["[ab]"], ["a"]),
        ("(?i)demo", [], ["demo", "DEMO"]),
        ("", [""], ["a"]),
    ],
)
def test_a_star_stands_for_any_run_of_characters(pattern: str, matching: list[str], others: list[str]) -> None:
    who = identity({pattern: ["read"]})
    assert [name for name in [*matching, *others] if who.may(Right.READ, name)] == matching


@given(st.text("ab-*", max_size=8), st.text("ab-", max_size=8))
def test_patterns_match_as_plain_ones_would(pattern: str, name: str) -> None:
    plain = re.compile("".join(".*" if c == "*" else re.escape(c) for c in pattern))
    assert identity({pattern: ["read"]}).may(Right.READ, name) == bool(plain.fullmatch(name))


def test_a_pattern_of_many_stars_costs_no_more_than_it_says() -> None:
    """With an expression that goes back and forth this takes longer than anybody waits."""
    who = identity({"*a" * 60 + "*b": ["read"]})
    assert not who.may(Right.READ, "a" * 128)


def test_rights_of_all_patterns_that_match_add_up() -> None:
    who = identity({"team-*": ["read"], "*-7": ["send"], "other": ["cancel"]})
    assert [right for right in Right if who.may(right, "team-7")] == [Right.READ, Right.SEND]
    assert [right for right in Right if who.may(right, "team-8")] == [Right.READ]


def test_an_admin_may_do_everything_where_it_is_one() -> None:
    who = identity({"team-*": ["admin"], "demo": ["read"]})
    assert all(who.may(right, "team-7") for right in Right)
    assert not who.may(Right.SEND, "demo")


def test_single_operations_may_be_allowed() -> None:
    who = identify(only_secret(), token(sessions={"demo": ["read", "input.send", "session.close"]}))
    assert not any(who.may(right, "demo") for right in Right if right is not Right.READ)
    sending, closing = who.doing(("input.send", Right.SEND)), who.doing(("session.close", Right.ADMIN))
    assert [right for right in Right if sending.may(right, "demo")] == [Right.READ, Right.SEND]
    assert closing.may(Right.ADMIN, "demo")
    assert not sending.may(Right.SEND, "other")
    assert not who.doing(("session.create", Right.SEND)).may(Right.SEND, "demo")
    assert not who.doing(("session.delete", Right.ADMIN)).may(Right.ADMIN, "demo")


def test_every_writing_command_is_an_operation_of_its_own_name() -> None:
    commands = {*get_args(protocol.Command)} - {*get_args(protocol.ConnectionCommand)}
    commands = {command for union in commands for command in (get_args(union) or (union,))}
    reading = {protocol.History, plane.SessionList, plane.HandoffList}
    assert {c for c in commands if operation_of(object.__new__(c)) is None} == reading
    assert {"input.send", "input.cancel", "run.cancel"} == OPERATIONS - plane.OPS


def test_rights_may_be_for_some_roles() -> None:
    sessions = [
        {"pattern": "*", "rights": ["read"]},
        {"pattern": "team-*", "rights": ["send"], "roles": ["member", "lead"]},
        {"pattern": "team-*", "rights": ["admin"], "roles": ["lead"]},
        {"pattern": "*", "rights": ["admin"], "roles": []},
        {"pattern": "*", "rights": ["admin"], "roles": "lead"},
        {"pattern": "*", "rights": ["admin"], "roles": [["lead"], {}]},
    ]
    rights = {}
    for role in ("none", "member", "lead"):
        who = identify(only_secret(), token(sessions=sessions, roles=[role]))
        rights[role] = [right.value for right in Right if who.may(right, "team-1")]
        assert [right for right in Right if who.may(right, "other")] == [Right.READ]
    assert rights["none"] == ["read"]
    assert rights["member"] == ["read", "send"]
    assert rights["lead"] == [right.value for right in Right]


@pytest.mark.parametrize(
    "item", [None, "x", {}, {"pattern": 1, "rights": []}, {"pattern": "*"}, {"pattern": "*", "rights": "x"}]
)
def test_lists_of_rights_that_are_none(item: Any) -> None:
    refusal(only_secret(), token(sessions=[item]))


def test_rights_that_are_not_known_allow_nothing() -> None:
    who = identity({"demo": ["write", "READ", 7, None, {"read": True}]})
    assert not any(who.may(right, "demo") for right in Right)


def test_a_missing_right_is_named() -> None:
    who = identity({"demo": ["read"]})
    who.require(Right.READ, "demo")
    with pytest.raises(Refused) as caught:
        who.require(Right.CANCEL, "demo")
    assert (caught.value.code, caught.value.data) == (ErrorCode.NOT_ALLOWED, {"right": "cancel"})


# --- how it is set up ------------------------------------------------------------------------------------------------


def test_without_keys_there_is_no_gateway() -> None:
    with pytest.raises(ConfigError, match="ANTIPHON_JWT_PUBLIC_KEYS or ANTIPHON_JWKS"):
        built(GatewaySettings())


@pytest.mark.parametrize("secret", ["short", "é" * (MIN_SECRET_BYTES // 2 - 1), " " * 5 + "x" * (MIN_SECRET_BYTES - 6)])
def test_a_short_secret_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(ConfigError, match=f"at least {MIN_SECRET_BYTES} bytes") as caught:
        built(GatewaySettings(jwt_secret=secret))
    assert secret not in str(caught.value)


@pytest.mark.parametrize("setting", ["jwt_secret_file", "jwt_public_keys"])
def test_a_key_file_that_is_absent_is_named(setting: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"ANTIPHON_{setting.upper()}: cannot read .*absent"):
        built(GatewaySettings(**{setting: str(tmp_path / "absent")}))


def test_an_empty_secret_file_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\n")
    with pytest.raises(ConfigError):
        built(GatewaySettings(jwt_secret_file=str(tmp_path / "secret")))


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ec.pem").write_bytes(pem(ec.generate_private_key(ec.SECP521R1())))
    (tmp_path / "none.pem").write_bytes(b"-----BEGIN PUBLIC KEY-----\nnot a key\n")
    with pytest.raises(ConfigError, match="none of: RSA of 2048 bits"):
        built(GatewaySettings(jwt_public_keys=str(tmp_path / "ec.pem")))
    with pytest.raises(ConfigError, match="is not a PEM public key"):
        built(GatewaySettings(jwt_public_keys=str(tmp_path / "none.pem")))


# --- what an issuer with a fault may sign ------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"jti": "\ud800"}, {"iat": True}, {"iat": -1}, {"iat": "soon"}, {"iat": 10**12}])
def test_a_claim_that_could_not_be_compared_or_sent_is_refused(changes: dict[str, Any]) -> None:
    refusal(only_secret(), handmade({"alg": "HS256"}, SECRET.encode(), **changes))


def test_a_name_that_could_not_be_sent_is_none() -> None:
    """JSON may hold the half of a surrogate pair; the gateway says the name to the user, and to everybody else."""
    broken = handmade({"alg": "HS256"}, SECRET.encode(), name="a\ud800b")
    assert identify(only_secret(), broken).name is None
    assert identify(only_secret(), token(name="日本 \U0001f600")).name == "日本 \U0001f600"
