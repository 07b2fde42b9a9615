"""Where somebody comes from, and whose pages are a gateway's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import ConfigError
from gateway.addresses import Addresses, counted_as
from gateway.origins import Origins

TRUSTED = Addresses("10.0.0.0/8, 127.0.0.1, fd00::/8")


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        # Nobody that is trusted: whatever it says.
        ("203.0.113.1", ["198.51.100.1"], "203.0.113.1"),
        # One proxy, two, and what the client itself has put before their entries.
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1, 10.9.9.9"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6, 198.51.100.1, 10.9.9.9"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6", "198.51.100.1", "10.9.9.9"], "198.51.100.1"),
        # A proxy of ours asks by itself.
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.2"], "10.0.0.2"),
        # What is no address ends what is believed.
        ("10.0.0.1", ["198.51.100.1, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [""], "10.0.0.1"),
        # With ports, in brackets, and IPv4 as IPv6.
        ("10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("10.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("::ffff:10.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("fd00::1", ["198.51.100.1"], "198.51.100.1"),
        ("fe80::1%eth0", [], "fe80::1"),
        (None, ["198.51.100.1"], ""),
    ],
)
def test_the_client(peer: str | None, forwarded: list[str], client: str) -> None:
    assert TRUSTED.client(peer, forwarded) == client
    assert Addresses("").client(peer, forwarded) != "198.51.100.1"


def test_of_a_long_list_only_the_end_is_looked_at() -> None:
    assert TRUSTED.client("10.0.0.1", ["6.6.6.6" + ", 10.0.0.2" * 40]) == "10.0.0.2"


@given(st.text(max_size=40), st.lists(st.text(max_size=60), max_size=4))
def test_whatever_is_said_has_an_answer(peer: str, forwarded: list[str]) -> None:
    TRUSTED.client(peer, forwarded)
    TRUSTED.client("10.0.0.1", forwarded)
    counted_as(peer)


def test_a_network_of_ipv6_is_one() -> None:
    assert counted_as("2001:db8:0:1::1") == counted_as("2001:db8:0:1:ffff::2") != counted_as("2001:db8:0:2::1")
    assert counted_as("203.0.113.1") != counted_as("203.0.113.2")


@pytest.mark.parametrize("text", ["proxy.example", "10.0.0.0/40", "10.0.0.0/8;127.0.0.1"])
def test_what_is_no_network_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(ConfigError, match="ANTIPHON_TRUSTED_PROXIES"):
        Addresses(text)


# --- pages -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "host", "own"),
    [
        (None, "chat.example", True),
        ("https://chat.example", "chat.example", True),
        ("http://chat.example:8080", "chat.example:8080", True),
        ("https://chat.example", "CHAT.example:443", True),
        ("http://chat.example", "chat.example:80", True),
        ("http://[::1]:8080", "[::1]:8080", True),
        ("http://chat.example:8080", "chat.example", False),
        ("http://chat.example", "chat.example:443", False),
        ("https://chat.example.evil.example", "chat.example", False),
        ("https://evil.example/chat.example", "chat.example", False),
        ("https://user@chat.example", "chat.example", False),
        ("null", "null", False),
        ("file://", "", False),
        ("http://", "", False),
        ("chat.example", "chat.example", False),
        ("", "chat.example", False),
    ],
)
def test_a_page_of_the_own_origin(origin: str | None, host: str, own: bool) -> None:
    assert Origins("").allows(origin, (host,)) is own
    assert Origins("").allows(origin, ("other.example", host)) is own


def test_pages_that_are_named() -> None:
    named = Origins("https://app.example/, null")
    assert named.allows("https://app.example", ("chat.example",))
    assert named.allows("null", ("chat.example",))
    assert not named.allows("http://app.example", ("chat.example",))
    assert Origins("*").allows("https://anybody.example", ())
    with pytest.raises(ConfigError, match="ANTIPHON_CORS_ORIGINS"):
        Origins("app.example")
