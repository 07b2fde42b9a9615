"""What servers ask about clients whom they do not know, and who those are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from antiphon.callout_config import CalloutSettings
from antiphon.nats_users import Plan, Wanted, storage_of
from broker.callout import Admission, Asked, ServiceName, admit, turn_away
from broker.errors import CodecError, ConfigError, Refused
from broker.nats_config import Account, Callout, Login, accounts_config
from broker.nats_jwt import claims_of, signed
from broker.nkeys import Kind, NKey
from broker.permissions import ANY_POOL, Access, Role, User, access
from broker.subjects import SessionSubjects
from gateway.claims import MAX_POOLS, MAX_WORKER_LANES, identity_of
from gateway.revoked import RevokedTokens
from gateway.rights import WorkerGrant

ISSUER = NKey.made(Kind.ACCOUNT)
ASKED = {
    "user_nkey": "UX",
    "server_id": {"id": "NX"},
    "connect_opts": {"user": "worker", "pass": "a.b.c", "name": "w-1"},
    "client_info": {"host": "10.0.0.1"},
}


def asked(**changes: Any) -> bytes:
    return signed({"nats": ASKED | changes}, ISSUER).encode()


def test_what_a_server_asks() -> None:
    assert Asked.of(asked()) == Asked("UX", "NX", "a.b.c", "w-1", "10.0.0.1")
    assert Asked.of(asked(connect_opts={"auth_token": "t"})).token == "t"
    assert Asked.of(asked(connect_opts={})).token == ""
    assert "a.b.c" not in repr(Asked.of(asked()))


@pytest.mark.parametrize(
    "body",
    [b"", b"x", b"a.b.c", b"a.!!.c", "\u00e9.a.b".encode(), asked(server_id=None), asked(connect_opts=[])],
)
def test_what_is_no_question(body: bytes) -> None:
    with pytest.raises(CodecError):
        Asked.of(body)


def test_what_a_server_is_answered() -> None:
    question = Asked.of(asked())
    who = ServiceName("acme", "svc", 5, "id-1")
    answer = claims_of(admit(question, Admission(who, Access(("a",), ("b",)), "ACC", 99), ISSUER, 7).decode())
    assert (answer["aud"], answer["sub"], answer["iss"]) == ("NX", "UX", ISSUER.public)
    user = claims_of(answer["nats"]["jwt"])
    assert (user["aud"], user["sub"], user["exp"], user["name"]) == ("ACC", "UX", 99, str(who))
    assert (user["nats"]["pub"], user["nats"]["sub"]) == ({"allow": ["a"]}, {"allow": ["b"]})
    refusal = claims_of(turn_away(question, "no", ISSUER, 7).decode())
    assert refusal["nats"]["error"] == "no"
    assert "jwt" not in refusal["nats"]


@pytest.mark.parametrize("who", [ServiceName("acme", "svc", 5, "id-1"), ServiceName("", "svc", 0, "")])
def test_a_connection_says_by_which_token_it_came(who: ServiceName) -> None:
    assert ServiceName.of(str(who)) == who


@pytest.mark.parametrize("text", ["", "gateway", "UABC", "a b", "a b c", "a 1 b c"])
def test_who_has_come_in_otherwise(text: str) -> None:
    assert ServiceName.of(text) is None


def claims(worker: Any, **more: Any) -> dict[str, Any]:
    return {"sub": "svc", "exp": 9_999_999_999, "jti": "id", "worker": worker} | more


@pytest.mark.parametrize(
    ("wire", "grant"),
    [
        (claims({"pools": ["a", "b"]}), WorkerGrant(("a", "b"))),
        (claims({"pools": ["*"]}), WorkerGrant((ANY_POOL,))),
        (claims({"pools": ["a"]}, tenant="acme"), WorkerGrant(("acme~a",))),
        (
            claims({"pools": ["a"], "sessions": ["s"]}, tenant="acme"),
            WorkerGrant(("acme~a",), (SessionSubjects.of("acme~s", 1).key,)),
        ),
        (
            claims({"pools": ["a"], "sessions": ["s"], "lanes": ["x"]}),
            WorkerGrant(("a",), (SessionSubjects.of("s", 1).key,), ("x",)),
        ),
    ],
)
def test_what_a_service_token_gives(wire: dict[str, Any], grant: WorkerGrant) -> None:
    who = identity_of(wire, RevokedTokens(known=True))
    assert who.worker == grant
    assert who.grants == ()


@pytest.mark.parametrize(
    "wire",
    [
        claims(None),
        claims([]),
        claims({}),
        claims({"pools": []}),
        claims({"pools": "a"}),
        claims({"pools": [1]}),
        claims({"pools": ["p"] * (MAX_POOLS + 1)}),
        claims({"pools": ["a.b"]}),
        claims({"pools": ["acme~a"]}),
        claims({"pools": ["*"]}, tenant="acme"),
        claims({"pools": [">"]}),
        claims({"pools": ["a"], "sessions": None}),
        claims({"pools": ["a"], "sessions": ["*"]}),
        claims({"pools": ["a"], "sessions": ["other~s"]}),
        claims({"pools": ["a"], "sessions": ["s"], "lanes": None}),
        claims({"pools": ["a"], "sessions": ["s"], "lanes": ["*"]}),
        claims({"pools": ["a"], "sessions": ["s"], "lanes": ["a.b"]}),
        claims({"pools": ["a"], "sessions": ["s"], "lanes": ["x"] * (MAX_WORKER_LANES + 1)}),
        claims({"pools": ["a"], "lanes": ["x"]}),
        claims({"pools": ["a"]}, sub="a b"),
        claims({"pools": ["a"]}, sub="a.b"),
        claims({"pools": ["a"]}, jti=None),
        claims({"pools": ["a"]}, jti="a b"),
    ],
)
def test_a_service_token_that_is_none(wire: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="unauthorized"):
        identity_of(wire, RevokedTokens(known=True))


def test_a_user_token_is_no_workers() -> None:
    wire = claims(None)
    del wire["worker"]
    assert identity_of(wire, RevokedTokens(known=True)).worker is None


def test_nobody_may_do_everything() -> None:
    """NATS takes an empty list of what is allowed for everything."""
    for role in Role:
        assert all((access(User(role), 1).publish, access(User(role), 1).subscribe))
    for lanes in ((), ("l",)):
        narrowed = User(Role.WORKER, ("a",), "x", (SessionSubjects.of("s", 1).key,), lanes)
        assert all((access(narrowed, 1).publish, access(narrowed, 1).subscribe))


def test_accounts_of_workers() -> None:
    assert CalloutSettings().account_of("acme") == "$G"
    assert CalloutSettings(callout_accounts="ONE").account_of("acme") == "ONE"
    several = CalloutSettings(callout_accounts="acme=A, -=MAIN")
    assert [several.account_of(tenant) for tenant in ("acme", "", "globex")] == ["A", "MAIN", None]
    for wrong in ("A~=x", "acme=", "acme=A,b"):
        with pytest.raises(ConfigError, match="ANTIPHON_CALLOUT_ACCOUNTS"):
            CalloutSettings(callout_accounts=wrong)
    with pytest.raises(ConfigError, match="ANTIPHON_CALLOUT_ISSUER_FILE"):
        CalloutSettings().check()


def test_accounts_in_a_configuration() -> None:
    logins = (Login("g", User(Role.GATEWAY), nkey="UG"), Login("w", User(Role.WORKER), "secret"))
    config = accounts_config([Account("MAIN", logins), Account("acme", logins[:1], 5)], 1, Callout("AX", "US"))
    assert config["accounts"].keys() == {"MAIN", "acme", "SYS"}
    assert config["accounts"]["MAIN"]["jetstream"] == "enabled"
    assert config["accounts"]["acme"]["jetstream"] == {"max_file": 5}
    asked_ = config["authorization"]["auth_callout"]
    assert asked_ == {"issuer": "AX", "auth_users": ["UG", "w", "UG", "US"], "account": "MAIN"}
    assert (
        "account" not in accounts_config([Account("", logins)], 1, Callout("AX", "US"))["authorization"]["auth_callout"]
    )
    system = json.dumps(config["accounts"]["SYS"])
    assert "KICK" in system
    assert '">"' not in system


def test_users_of_accounts() -> None:
    assert Wanted.of("gw=gateway@acme") == Wanted("gw", Role.GATEWAY, account="acme")
    assert Wanted.of("w=worker:a,b@acme") == Wanted("w", Role.WORKER, ("a", "b"), "acme")
    for wrong in ("gw=gateway@", "gw=gateway@a.b", "gw@acme=gateway"):
        with pytest.raises(ConfigError, match="NAME=ROLE"):
            Wanted.of(wrong)
    plan = Plan([Wanted("g", Role.GATEWAY, account="acme"), Wanted("h", Role.GATEWAY)], 1, "MAIN", callout=True)
    assert [*plan.accounts] == ["MAIN", "acme"]
    assert storage_of(["acme=5"]) == {"acme": 5}
    for wrong in ("acme", "acme=", "acme=0", "=5", "acme=x"):
        with pytest.raises(ConfigError, match="ACCOUNT=BYTES"):
            storage_of([wrong])
