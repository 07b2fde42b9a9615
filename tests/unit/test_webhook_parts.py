"""Webhooks, part by part: signatures, addresses, the file of endpoints, when to try again, whom to tell."""

from __future__ import annotations

import base64
import ipaddress
import socket
from typing import Any

import pytest
import standardwebhooks

from broker.errors import CodecError, ConfigError
from broker.presence import Present
from broker.tracing import TraceContext
from webhooks.addresses import is_among, is_public, parsed
from webhooks.config import WebhookSettings
from webhooks.due import Due, away, decode, excerpt
from webhooks.endpoints import ENDPOINTS_MAX, Endpoint, endpoints_of
from webhooks.errors import EndpointsInvalid
from webhooks.payload import body_of
from webhooks.retrying import backoff_s, retry_after_s
from webhooks.signing import headers, key_of

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(1, 33))).decode()

# --- signatures ----------------------------------------------------------------------------------------------------------


def test_a_reference_implementation_takes_our_signatures() -> None:
    import time

    body = '{"type":"run.finished","data":{"text":"ß"}}'.encode()
    for keys in ((key_of(SECRET),), (key_of(OTHER), key_of(SECRET))):
        made = headers(keys, "msg_1", int(time.time()), body)
        assert standardwebhooks.Webhook(SECRET).verify(body, made)["type"] == "run.finished"
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(SECRET).verify(body, headers((key_of(OTHER),), "msg_1", int(time.time()), body))


@pytest.mark.parametrize(
    "secret", ["", "secret", "whsec_", "whsec_%%", "whsec_" + base64.b64encode(b"short").decode(), "whsec_" + "A" * 200]
)
def test_a_secret_that_is_none_is_refused_without_being_told(secret: str) -> None:
    with pytest.raises(ValueError, match="must") as caught:
        key_of(secret)
    assert not secret or secret == "whsec_" or secret not in str(caught.value)


# --- addresses -----------------------------------------------------------------------------------------------------------

PUBLIC = ["93.184.215.14", "8.8.8.8", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "64:ff9b::8.8.8.8"]
NOT_PUBLIC = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1"),
    *("169.254.169.254", "169.254.170.2", "192.0.2.1", "198.18.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1"),
    *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1"),
    # IPv6 that leads to IPv4: mapped, compatible, 6to4, Teredo, NAT64.
    *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "2002:7f00:1::", "2002:a9fe:a9fe::"),
    *("2001:0:c000:201:0:0:80ff:fffe", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1"),
]


@pytest.mark.parametrize("text", PUBLIC)
def test_addresses_that_anybody_reaches(text: str) -> None:
    address = parsed(text)
    assert address is not None
    assert is_public(address)


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_addresses_that_webhooks_must_not_reach(text: str) -> None:
    address = parsed(text)
    assert address is not None
    assert not is_public(address)


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0"])
def test_other_ways_to_write_an_address_come_to_it(host: str) -> None:
    """The guard is asked for what a name resolves to, and these the system resolves."""
    for *_, where in socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM):
        address = parsed(str(where[0]))
        assert address is not None
        assert not is_public(address)


def test_networks_that_an_operator_names() -> None:
    networks = WebhookSettings(webhook_networks="10.0.0.0/8, ::1/128").networks
    for text, among in (("10.9.8.7", True), ("::ffff:10.9.8.7", True), ("::1", True), ("11.0.0.1", False)):
        assert is_among(ipaddress.ip_address(text), networks) is among
    for wrong in ("10.0.0.1/8", "nonsense", "10.0.0.0/40"):
        with pytest.raises(ConfigError, match="ANTIPHON_WEBHOOK_NETWORKS"):
            WebhookSettings(webhook_networks=wrong)
    with pytest.raises(ConfigError, match="RETRY_MAX"):
        WebhookSettings(webhook_retry_min_s=9, webhook_retry_max_s=1)
    with pytest.raises(ConfigError, match="KEEP"):
        WebhookSettings(webhook_keep_s=60)


# --- the file ------------------------------------------------------------------------------------------------------------


def table(**more: Any) -> dict[str, Any]:
    return {"id": "one", "url": "https://hooks.example/x", "secrets": [SECRET], **more}


def read(*tables: Any) -> tuple[Endpoint, ...]:
    return endpoints_of({"endpoint": list(tables)}, lambda path: {"new": OTHER + "\n"}[path])


def test_an_endpoint_and_what_it_wants() -> None:
    (endpoint,) = read(
        table(events=["approval.*", "run.failed"], sessions=["team-*"], when="away", include=["text"], timeout_s=3)
    )
    assert endpoint.wants("approval.waiting", "team-1")
    assert not endpoint.wants("approval.waiting", "other")
    assert not endpoint.wants("run.finished", "team-1")
    assert (endpoint.when, endpoint.include, endpoint.timeout_s, endpoint.tries) == ("away", ("text",), 3, None)
    assert not read(table(enabled=False))[0].wants("run.failed", "s")
    assert endpoints_of({}, str) == ()
    assert SECRET not in repr(endpoint)
    assert repr(key_of(SECRET)) not in repr(endpoint)


def test_an_endpoint_is_one_tenants() -> None:
    default, acme = read(table(), table(id="acme", tenant="acme", sessions=["team-*"]))
    assert default.wants_session("team-1")
    assert not default.wants_session("acme~team-1")
    assert acme.wants("run.failed", "acme~team-1")
    assert not any(acme.wants_session(key) for key in ("team-1", "acme~other", "other~team-1", "acme2~team-1"))


def test_two_secrets_one_of_them_in_a_file() -> None:
    (endpoint,) = read(table(secret_files=["new"]))
    assert endpoint.keys == (key_of(SECRET), key_of(OTHER))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "a b"),
        ("id", None),
        ("url", "ftp://hooks.example"),
        ("url", "https://"),
        ("url", "https://a:b@hooks.example/"),
        ("url", "https://hooks.example/#x"),
        ("url", "https://hooks.example:99999/"),
        ("url", "https://hooks.example/\nx"),
        ("secrets", []),
        ("secrets", [SECRET] * 5),
        ("secrets", ["whsec_short"]),
        ("secrets", SECRET),
        ("events", ["run.ended"]),
        ("events", []),
        ("sessions", ["a b"]),
        ("sessions", ["acme~*"]),
        ("tenant", "A~B"),
        ("tenant", 7),
        ("sessions", "team"),
        ("when", "later"),
        ("include", ["everything"]),
        ("enabled", "yes"),
        ("in_flight", 0),
        ("in_flight", 1.5),
        ("timeout_s", True),
        ("age_s", "1h"),
        ("colour", "red"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(field: str, value: Any) -> None:
    with pytest.raises(EndpointsInvalid) as caught:
        read(table(**{field: value}))
    assert caught.value.field == field
    assert caught.value.endpoint == ("1" if field == "id" else "one")
    assert SECRET not in str(caught.value)


def test_a_file_that_is_none() -> None:
    for wrong in ([], {"endpoints": []}, {"endpoint": [], "more": 1}, {"endpoint": "x"}, None):
        with pytest.raises(EndpointsInvalid, match="list `endpoint`"):
            endpoints_of(wrong, str)
    with pytest.raises(EndpointsInvalid, match="a table"):
        read("one")
    with pytest.raises(EndpointsInvalid, match="two with this id"):
        read(table(), table())
    with pytest.raises(EndpointsInvalid, match="at most"):
        read(*(table(id=f"e{n}") for n in range(ENDPOINTS_MAX + 1)))

    def absent(path: str) -> str:
        raise FileNotFoundError(2, "No such file or directory", path)

    with pytest.raises(EndpointsInvalid, match="secret_files: cannot read gone: No such file"):
        endpoints_of({"endpoint": [table(secret_files=["gone"])]}, absent)


# --- when to try again -----------------------------------------------------------------------------------------------------


def test_waits_double_up_to_a_bound_and_are_spread_out() -> None:
    assert [backoff_s(n, 1, 60, 1.0) for n in (1, 2, 3, 7, 8, 1000)] == [1, 2, 4, 60, 60, 60]
    assert backoff_s(5, 1, 60, 0.25) == 4
    assert backoff_s(5, 1, 60, 0.0) == 0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("120", 120),
        (" 3 ", 3),
        ("9" * 50, 999_999_999),
        ("Fri, 02 Jan 1970 00:00:00 GMT", 86_400 - 60),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("soon", None),
        ("-1", None),
        ("٣", None),
    ],
)
def test_what_a_retry_after_asks_for(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, 60) == seconds


# --- whom to tell ----------------------------------------------------------------------------------------------------------


def due(users: tuple[str, ...] = (), roles: tuple[str, ...] = ()) -> Due:
    return Due("msg_1", "run.finished", 1_763_817_600_123, "one", "s", 3, 42, {"session": "s"}, users, roles)


def user(id_: str, *roles: str, watching: bool = True, state: str = "active") -> Present:
    return Present("user", id_, None, roles, state, watching, ())


def test_away_is_when_nobody_who_is_meant_watches() -> None:
    assert away(due(("user-1",)), [])
    assert away(due(("user-1",)), [user("user-2")])
    assert not away(due(("user-1",)), [user("user-2"), user("user-1")])
    assert away(due(("user-1",)), [user("user-1", watching=False)])
    assert away(due(("user-1",)), [user("user-1", state="away")])
    assert not away(due((), ("boss",)), [user("user-9", "boss", "staff")])
    assert away(due((), ("boss",)), [user("user-9", "staff")])
    # Where nobody in particular is meant, anybody who looks will do.
    assert away(due(), [])
    assert not away(due(), [user("user-9")])


def test_an_event_that_waits_is_read_as_it_was_written() -> None:
    trace = TraceContext("a" * 32, "b" * 16, 1, "x=y")
    full = Due(*("msg_1", "run.finished", 5, "one", "s", 3, 42, {"a": [1]}, ("u",), ("r",), trace, True))
    assert decode(full.encode()) == full
    for wrong in (b"", b"[]", b"{}", b'{"id":"x"}', full.encode().replace(b"42", b'"x"')):
        with pytest.raises(CodecError):
            decode(wrong)


def test_the_body_of_a_request() -> None:
    assert body_of(due(("user-1",)), [user("user-2"), user("user-3", watching=False)]) == (
        b'{"type":"run.finished","timestamp":"2025-11-22T13:20:00.123Z","data":{"session":"s",'
        b'"for":{"users":["user-1"],"roles":[]},"watching":["user-2"],"away":true}}'
    )


def test_an_excerpt_says_that_there_is_more() -> None:
    assert [excerpt(text, 5) for text in (None, "", "12345", "123456")] == [None, "", "12345", "1234…"]
