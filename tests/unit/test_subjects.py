"""Names and subjects."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import InvalidName
from broker.subjects import (
    Kind,
    Place,
    SessionSubjects,
    check_input_id,
    check_lane,
    check_run_id,
    check_session,
    check_tenant,
    partition_of,
    place_of,
    run_id_of,
    session_key,
    split_key,
    stream_name,
)

names = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
CHECKS = {check_session: 128, check_lane: 64, check_input_id: 64}


@pytest.mark.parametrize(("check", "longest"), CHECKS.items())
def test_names_have_a_form(check: Callable[[str], str], longest: int) -> None:
    for good in ("a", "_", "-", "A-z_09", "x" * longest):
        assert check(good) == good
    for bad in ("", "a.b", "a*", ">", "a b", "a\n", "é", "a\x00", "x" * (longest + 1)):
        with pytest.raises(InvalidName):
            check(bad)


@pytest.mark.parametrize("bad", ["", "run_", "i1", "run_a.b", "run_" + "x" * 65, "RUN_a", "run_a\n"])
def test_run_ids_are_those_of_inputs(bad: str) -> None:
    assert check_run_id(run_id_of("i1")) == "run_i1"
    with pytest.raises(InvalidName):
        check_run_id(bad)


def test_a_refusal_says_what_is_wrong_and_does_not_repeat_it_at_length() -> None:
    with pytest.raises(InvalidName) as caught:
        check_session("x" * 5000)
    assert caught.value.kind == "session"
    assert len(caught.value.value) <= 40
    assert "session must be 1-128 of" in str(caught.value)


@given(st.text())
def test_no_name_that_passes_can_break_a_subject(name: str) -> None:
    try:
        check_session(name)
    except InvalidName:
        return
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,128}", name)


@given(names, names, st.integers(1, 100))
def test_every_subject_says_where_it_is(session: str, lane: str, partitions: int) -> None:
    subjects = SessionSubjects.of(session, partitions)
    assert place_of(subjects.inputs) == Place(Kind.INPUT)
    assert place_of(subjects.events(lane)) == Place(Kind.EVENT, lane)
    assert place_of(subjects.owner(lane)) == Place(Kind.OWNER, lane)
    assert place_of(subjects.deltas(lane)) == Place(Kind.DELTA, lane)
    written = [subjects.inputs, subjects.events(lane), subjects.owner(lane), subjects.deltas(lane)]
    assert all(subject.startswith(subjects.everything[:-1]) for subject in written)
    assert [subject.startswith(subjects.records[:-1]) for subject in written] == [True, True, True, False]
    assert not subjects.checkpoint.startswith("s.")
    assert 0 <= subjects.partition < partitions
    assert subjects.stream == stream_name(subjects.partition)


def test_subjects_are_what_is_stored() -> None:
    """Stored logs depend on these: a change needs a migration."""
    subjects = SessionSubjects.of("demo", 16)
    assert partition_of("demo", 16) == subjects.partition == 0
    assert partition_of("123456789", 2**32) == 0xCBF43926, "CRC-32 (IEEE)"
    assert subjects.events("main") == "s.00.demo.r.ev.main"
    assert subjects.owner("main") == "s.00.demo.r.own.main"
    assert subjects.inputs == "s.00.demo.r.in"
    assert subjects.deltas("main") == "s.00.demo.d.main"
    assert subjects.checkpoint == "c.00.demo"
    assert (subjects.live, subjects.live_records) == ("live.00.demo.>", "live.00.demo.r.>")
    assert subjects.job("default", "main") == "work.default.00.demo.main"
    assert subjects.stream == "S00"


@pytest.mark.parametrize(
    "subject", ["", "s", "s.00.demo", "s.00.demo.x", "s.00.demo.r.ev", "s.00.demo.r.in.x", "s.00.demo.d.a.b"]
)
def test_places_of_later_versions_are_not_known(subject: str) -> None:
    assert place_of(subject) is None


@pytest.mark.parametrize("session", ["", "a.b", "*", "x" * 129])
def test_there_are_no_subjects_of_a_bad_name(session: str) -> None:
    with pytest.raises(InvalidName):
        SessionSubjects.of(session, 16)


# --- tenants -----------------------------------------------------------------------------------------------------------


def test_a_tenants_session_is_another_one_on_subjects_of_its_own() -> None:
    plain, own = SessionSubjects.of("demo", 16), SessionSubjects.of("acme~demo", 16)
    assert (plain.session, plain.tenant, plain.key) == ("demo", "", "demo")
    assert (own.session, own.tenant, own.key) == ("demo", "acme", "acme~demo")
    assert own.partition == partition_of("acme~demo", 16)
    assert own.inputs == f"s.{own.partition:02d}.acme~demo.r.in"
    assert own.job("default", "main") == f"work.default.{own.partition:02d}.acme~demo.main"
    subjects = [s.root for s in (plain, own)] + [s.checkpoint for s in (plain, own)] + [s.live for s in (plain, own)]
    assert len(set(subjects)) == 6
    assert split_key(session_key("acme", "demo")) == ("acme", "demo")
    assert split_key(session_key("", "demo")) == ("", "demo")


@pytest.mark.parametrize("lane", ["", "a b", "é", '"', "a" * 65, "\ufeffmain", "a\n"])
@pytest.mark.parametrize("where", ["d", "r.ev", "r.own"])
def test_a_lane_outside_its_form_is_no_place(where: str, lane: str) -> None:
    assert place_of(f"s.03.demo.{where}.main") is not None
    assert place_of(f"s.03.demo.{where}.{lane}") is None


@pytest.mark.parametrize(
    "key", ["~demo", "acme~", "~", "a~b~c", "Acme~demo", "-a~demo", "a.b~demo", "*~demo", "a" * 33 + "~demo", "acme~*"]
)
def test_keys_that_are_none(key: str) -> None:
    with pytest.raises(InvalidName):
        SessionSubjects.of(key, 16)


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_name_is_a_session_of_another_tenant(tenant: str, name: str) -> None:
    with contextlib.suppress(InvalidName):
        check_tenant(tenant)
        check_session(name)
        assert split_key(session_key(tenant, name)) == (tenant, name)
        with pytest.raises(InvalidName):
            check_session(session_key(tenant, name))
