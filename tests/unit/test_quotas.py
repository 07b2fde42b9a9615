"""What tenants may have, and what is known of what they have."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import CodecError, ConfigError
from broker.subjects import SessionKey, session_key, usage_of_session, used_by
from broker.usage import SessionUse
from gateway.ledger import Ledger
from gateway.quotas import Quota, Quotas


def test_a_tenant_has_its_own_limits_or_those_of_all() -> None:
    quotas = Quotas(Quota(10, 1000), "acme sessions=5, beta bytes=0 sessions=0,- bytes=7 , ")
    assert quotas.of("acme") == Quota(5, 1000)
    assert quotas.of("beta") == Quota(0, 0)
    assert not quotas.of("beta").is_any
    assert quotas.of("") == Quota(10, 7)
    assert quotas.of("gamma") == Quota(10, 1000)
    assert quotas.is_any


def test_where_nobody_has_a_limit_there_is_nothing_to_count() -> None:
    assert not Quotas(Quota(), "").is_any
    assert not Quotas(Quota(), "acme sessions=0").is_any
    assert Quotas(Quota(), "acme sessions=1").is_any


@pytest.mark.parametrize(
    "text", ["Acme", "acme sessions", "acme sessions=x", "acme sessions=-1", "acme size=1", "a bytes=1e9"]
)
def test_a_setting_that_is_none_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(ConfigError, match="ANTIPHON_TENANT_LIMITS"):
        Quotas(Quota(), text)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"seq":1}', b'{"seq":-1,"records":0,"attachments":0}'])
def test_a_note_that_is_none(body: bytes) -> None:
    with pytest.raises(CodecError):
        SessionUse.decode(body)


def test_notes_as_they_are_written() -> None:
    for use in (SessionUse(), SessionUse(4, 5, 6), SessionUse(9, gone=True)):
        assert SessionUse.decode(use.encode()) == use
    key = session_key("acme", "s1")
    assert used_by(usage_of_session(key)) == key


KEYS = [session_key(tenant, name) for tenant in ("", "acme", "beta") for name in ("s1", "s2")]
USES = st.builds(SessionUse, st.integers(0, 9), st.integers(0, 99), st.integers(0, 99), st.booleans())


def recounted(ledger: Ledger) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for key, use in ledger.all().items():
        tenant = key.rpartition("~")[0]
        sessions, size = found.get(tenant, (0, 0))
        found[tenant] = sessions + 1, size + use.total
    return found


@given(st.lists(st.tuples(st.sampled_from(KEYS), USES), max_size=30), st.integers(0, 30))
def test_sums_are_those_of_the_notes(notes: list[tuple[SessionKey, SessionUse]], again: int) -> None:
    ledger = Ledger()
    for n, (key, use) in enumerate(notes):
        ledger.put(key, use)
        if n == again:
            ledger.replace(ledger.all())
    for tenant in ("", "acme", "beta"):
        assert (ledger.sessions(tenant), ledger.bytes(tenant)) == recounted(ledger).get(tenant, (0, 0))


@given(st.integers(0, 2**32), st.lists(st.tuples(st.sampled_from(KEYS), st.integers(0, 99)), max_size=20))
def test_notes_may_come_twice_and_in_any_order(seed: int, sizes: list[tuple[SessionKey, int]]) -> None:
    notes = [(key, SessionUse(seq, size)) for seq, (key, size) in enumerate(sizes, 1)]
    one, other, chance = Ledger(), Ledger(), random.Random(seed)
    for key, use in notes:
        one.put(key, use)
    shuffled = notes + notes[::2]
    chance.shuffle(shuffled)
    for key, use in shuffled:
        other.put(key, use)
    assert one.all() == other.all()


def test_what_is_heard_while_all_are_read_counts() -> None:
    """The reading has begun before, and may not have it."""
    ledger, begun, old = Ledger(), KEYS[0], KEYS[1]
    ledger.put(begun, SessionUse())
    ledger.replace({old: SessionUse(5, 50)})
    assert ledger.all() == {begun: SessionUse(), old: SessionUse(5, 50)}
    # Nor may it be older than what was heard.
    ledger.put(old, SessionUse(9, gone=True))
    ledger.replace({old: SessionUse(5, 50), begun: SessionUse(3, 30)})
    assert ledger.all() == {begun: SessionUse(3, 30)}
    # What has not been heard of since, and is not read any more, is gone.
    ledger.replace({})
    assert ledger.all() == {}
    assert ledger.bytes("") == 0
