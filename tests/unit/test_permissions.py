"""The table of roles: nothing that the code says to NATS is missing from it, and patterns mean what they mean to NATS."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from broker import subjects
from broker.nats_config import Login, users_config
from broker.nkeys import BadKey, Kind, NKey
from broker.permissions import RULES, Access, Role, User, access, covers, expanded, inbox_of, overlap
from broker.subjects import SessionSubjects

ROOT = Path(__file__).resolve().parents[2]
NAMES = {"lane": "main", "queue": "default+high", "gateway": "gw-1"}
RULE_SUBJECTS = [subject for rule in RULES for subject in expanded(rule.subject, User(Role.GATEWAY), 2)]


def said_by_the_code() -> dict[str, str]:
    """Every subject that `broker.subjects` makes of a session, and of gateways, by the name that makes it."""
    session = SessionSubjects("demo", 1)
    found: dict[str, str] = {}
    for name, member in inspect.getmembers(SessionSubjects):
        if isinstance(member, property) and name not in ("stream", "root", "key"):
            found[name] = getattr(session, name)
        elif inspect.isfunction(member) and not name.startswith("_"):
            arguments = [each for each in inspect.signature(member).parameters if each != "self"]
            found[name] = member(session, *(NAMES[each] for each in arguments))
    found["heartbeat"] = subjects.heartbeat(NAMES["gateway"])
    found["HEARTBEATS"] = subjects.HEARTBEATS
    return found


@pytest.mark.parametrize(("name", "subject"), said_by_the_code().items())
def test_every_subject_of_the_code_is_in_the_table(name: str, subject: str) -> None:
    # These two name what is read by requests: nobody subscribes to them.
    if name in ("everything", "records"):
        return
    assert any(covers(rule, subject) for rule in RULE_SUBJECTS), subject


def test_every_operation_of_jetstream_in_the_code_is_in_the_table() -> None:
    known = {rule.subject.removeprefix("$JS.API.") for rule in RULES if rule.subject.startswith("$JS.API.")}
    placed = re.compile(r"\.(<S>|<queue>|[A-Z_]+)(\.<queue>)?$")
    operations = {placed.sub("", name) for name in known} | {"INFO"}
    used: set[str] = set()
    for path in (*(ROOT / "broker").rglob("*.py"), *(ROOT / "antiphon").rglob("*.py")):
        if path.name != "permissions.py":
            text = path.read_text(encoding="utf-8")
            found = re.findall(r"\"((?:STREAM|CONSUMER|DIRECT)(?:\.[A-Z]+)+)(?=[.\"])", text)
            used |= {*found, *re.findall(r"\$JS\.API\.((?:STREAM|CONSUMER|DIRECT)(?:\.[A-Z]+)+)(?=[.\"])", text)}
    assert {"STREAM.MSG.GET", "DIRECT.GET", "CONSUMER.MSG.NEXT", "STREAM.PURGE"} <= used
    missing = {name for name in used if not any(name.startswith(operation) for operation in operations)}
    assert not missing


def test_nobody_publishes_what_the_servers_repeat() -> None:
    for role in Role:
        given = access(User(role), 100)
        assert not any(overlap(pattern, "live.>") for pattern in given.publish)
        of_the_servers = {pattern for pattern in given.publish if overlap(pattern, "$SYS.>")}
        assert of_the_servers == {"$SYS.REQ.USER.INFO"} | ({"$SYS._INBOX.*.*"} if role is Role.CALLOUT else set())


def test_an_observer_publishes_nothing_but_questions_and_that_it_has_looked() -> None:
    changes = re.compile(r"CREATE|UPDATE|DELETE|PURGE|NEXT|ACK|RESTORE")
    for subject in access(User(Role.OBSERVER), 2).publish:
        assert subject.startswith(("$JS.API.", "$SYS.REQ.USER.INFO")) or subject in ("audit.*", "workers.*.ask")
        assert not changes.search(subject)


def test_answers_are_for_their_own_user_alone() -> None:
    for role in Role:
        for other in Role:
            inbox = f"{inbox_of(other)}.x"
            assert access(User(role), 2).may_subscribe(inbox) == (role is other)
            assert not access(User(role), 2).may_publish(inbox)


def test_a_worker_of_a_pool_has_no_other() -> None:
    given = access(User(Role.WORKER, ("a", "b")), 2)
    for pool, may in (("a", True), ("b", True), ("c", False)):
        assert given.may_publish(f"$JS.API.CONSUMER.MSG.NEXT.WORK.pool-{pool}") == may
        assert given.may_publish(f"$JS.ACK.WORK.pool-{pool}.1.1.1.1.0") == may


@pytest.mark.parametrize(
    ("pattern", "subject", "within", "shares"),
    [
        ("a.b", "a.b", True, True),
        ("a.*", "a.b", True, True),
        ("a.*", "a.*", True, True),
        ("a.>", "a.*", True, True),
        ("a.>", "a.b.>", True, True),
        (">", "a", True, True),
        ("a.b", "a.*", False, True),
        ("a.*", "a.>", False, True),
        ("a.b.>", "a.>", False, True),
        ("a.*.c", "a.b.*", False, True),
        ("a.>", "a", False, False),
        ("a.*", "a.b.c", False, False),
        ("a.b", "a.c", False, False),
        ("a.b.c", "a.b", False, False),
        ("a.b", "a.b.c", False, False),
    ],
)
def test_patterns(pattern: str, subject: str, within: bool, shares: bool) -> None:
    assert covers(pattern, subject) == within
    assert overlap(pattern, subject) == overlap(subject, pattern) == shares


def test_what_is_lacking_is_named() -> None:
    needed = Access(("a.x", "b"), ("c.>",))
    assert [*Access((">",), (">",)).lacks(needed)] == []
    assert [*Access(("a.*",), ()).lacks(needed)] == ["publish b", "subscribe c.>"]
    assert [*Access((">",), (">",), ("a.>",), ("c.d",)).lacks(needed)] == ["publish a.x", "subscribe c.>"]


def test_a_configuration_with_and_without_an_account() -> None:
    logins = [Login("w", User(Role.WORKER), "secret"), Login("g", User(Role.GATEWAY), nkey="UX")]
    plain = users_config(logins, 1, system=("system", "other"))
    assert [*plain] == ["authorization", "system_account", "accounts"]
    first, second = plain["authorization"]["users"]
    assert (first["user"], first["password"]) == ("w", "secret")
    assert second.keys() == {"nkey", "permissions"}
    own = users_config(logins, 1, account="ANTIPHON")
    assert own == {"accounts": {"ANTIPHON": {"jetstream": "enabled", "users": plain["authorization"]["users"]}}}
    assert "secret" not in repr(logins)


@pytest.mark.parametrize("kind", Kind)
def test_an_nkey_is_what_its_seed_says(kind: Kind) -> None:
    made = NKey.made(kind)
    again = NKey.of(made.seed)
    assert (again.kind, again.public, again.seed) == (kind, made.public, made.seed)
    assert made.seed.startswith(f"S{made.public[0]}")
    assert made.public[0] == {Kind.USER: "U", Kind.ACCOUNT: "A", Kind.OPERATOR: "O"}[kind]
    assert again.sign(b"x") == made.sign(b"x")


@pytest.mark.parametrize("text", ["", "x", "SUA", "!" * 58, "U" + "A" * 55])
def test_what_is_no_seed(text: str) -> None:
    with pytest.raises(BadKey) as refused:
        NKey.of(text)
    assert not text or text not in str(refused.value)
